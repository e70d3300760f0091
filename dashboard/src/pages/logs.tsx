import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { LogLine, LogPage, Node } from "../api/types";
import { events, get } from "../api/client";
import { place, setQuery } from "../router";
import { useResource } from "../state/resource";
import { isOperator, seesCluster } from "../state/session";
import { clock } from "../ui/format";
import { Lines } from "../ui/lines";
import { Page } from "../ui/page";
import { Empty, ErrorNote, Field } from "../ui/parts";

const LEVELS = ["debug", "info", "warning", "error", "critical"];
const KEPT = 2000;

/** The last lines of all nodes, and new ones as they come. */
export function LogsPage(): JSX.Element {
  if (!isOperator.value) {
    return (
      <Page title="Logs" name="Logs">
        <Empty>Logs need the role operator.</Empty>
      </Page>
    );
  }
  return <Logs />;
}

function Logs(): JSX.Element {
  const { query } = place.value;
  const filters = {
    node: query.get("node") ?? "",
    app: query.get("app") ?? "",
    shard: query.get("shard") ?? "",
    level: query.get("level") ?? "info",
    text: query.get("text") ?? "",
  };
  const wanted = JSON.stringify(filters);
  const nodes = useResource<Node[]>(seesCluster.value ? "/nodes" : null, { all: true, every: 10_000 });
  const [lines, setLines] = useState<LogLine[]>([]);
  const [silent, setSilent] = useState<Record<string, string>>({});
  const [error, setError] = useState<unknown>(null);
  const [isPaused, setPaused] = useState(false);

  useEffect(() => {
    const stop = new AbortController();
    const asked = JSON.parse(wanted) as Record<string, string>;
    setLines([]);
    setError(null);
    const follow = async (): Promise<void> => {
      const page = await get<LogPage>("/logs", { query: { ...asked, limit: 500 }, signal: stop.signal });
      setLines(page.lines);
      setSilent(page.silent);
      let batch: LogLine[] = [];
      let timer = 0;
      for await (const { event, data } of events("/logs/live", { query: asked, signal: stop.signal })) {
        if (event !== "line") continue;
        batch.push({ worker: null, app: "", shard: "", ...(JSON.parse(data) as Partial<LogLine>) } as LogLine);
        if (!timer) {
          timer = window.setTimeout(() => {
            const fresh = batch;
            batch = [];
            timer = 0;
            setLines((before) => [...before, ...fresh].slice(-KEPT));
          }, 200);
        }
      }
    };
    const keepOn = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        try {
          await follow();
          setError(null);
        } catch (found) {
          if (stop.signal.aborted) return;
          setError(found);
        }
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    };
    if (!isPaused) void keepOn();
    return () => stop.abort();
  }, [wanted, isPaused]);

  const shown = useMemo(() => lines.map((line) => ({ key: `${line.at} ${line.node} ${line.worker} ${line.message}`, line })), [lines]);
  const input = (label: string, name: keyof typeof filters): JSX.Element => (
    <Field label={label}>
      {(attributes) => (
        <input {...attributes} value={filters[name]} onChange={(event) => setQuery({ [name]: event.currentTarget.value.trim() })} />
      )}
    </Field>
  );
  const select = (label: string, name: keyof typeof filters, options: string[], all: boolean): JSX.Element => (
    <Field label={label}>
      {(attributes) => (
        <select {...attributes} value={filters[name]} onChange={(event) => setQuery({ [name]: event.currentTarget.value })}>
          {all && <option value="">all</option>}
          {options.map((option) => (
            <option key={option}>{option}</option>
          ))}
        </select>
      )}
    </Field>
  );
  return (
    <Page
      title="Logs"
      name="Logs"
      sub="the last lines that each node keeps in memory, and new ones"
      actions={
        <button type="button" aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>
          {isPaused ? "Go on" : "Stop here"}
        </button>
      }
    >
      <div class="filters">
        {seesCluster.value && select("Node", "node", nodes.data?.map((node) => node.node) ?? [], true)}
        {input("Application", "app")}
        {input("Shard", "shard")}
        {select("At least", "level", LEVELS, false)}
        {input("Text", "text")}
      </div>
      {error !== null && <ErrorNote error={error} />}
      {Object.entries(silent).map(([node, why]) => (
        <p class="small tone-warning" key={node}>
          {node} did not answer: {why}
        </p>
      ))}
      <Lines
        label="Log lines"
        empty="No line matches yet."
        items={shown}
        keyOf={(one) => one.key}
        render={({ line }) => (
          <div class={`level-${line.level.toUpperCase()}`}>
            <span class="when">{clock(line.at)}</span> {line.level.toUpperCase().padEnd(8)} {line.node}
            {line.worker === null ? "" : `/${line.worker}`} {line.app && `${line.app} `}
            {line.shard && `${line.shard} `}
            {line.message}
          </div>
        )}
      />
    </Page>
  );
}
