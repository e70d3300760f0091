import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { LogLine, LogPage, Node } from "../api/types";
import { events, get, isFinal, keepReading } from "../api/client";
import { place, setQuery } from "../router";
import { useResource } from "../state/resource";
import { isOperator, seesCluster } from "../state/session";
import { QueryField } from "../ui/fields";
import { clock, plural } from "../ui/format";
import { Lines } from "../ui/lines";
import { Page } from "../ui/page";
import { Empty, ErrorNote, Field } from "../ui/parts";

const LEVELS = ["debug", "info", "warning", "error", "critical"];
const KEPT = 2000;

/** Lines of a node that were not sent: there were too many at once. */
interface Skipped {
  at: number;
  node: string;
  skipped: number;
}

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
  const [lines, setLines] = useState<(LogLine | Skipped)[]>([]);
  const [silent, setSilent] = useState<Record<string, string>>({});
  const [error, setError] = useState<unknown>(null);
  // With other filters it goes on.
  const [pausedWith, setPausedWith] = useState<string | null>(null);
  const isPaused = pausedWith === wanted;

  useEffect(() => {
    if (isPaused) return undefined;
    setPausedWith(null);
    const stop = new AbortController();
    let timer = 0;
    const asked = JSON.parse(wanted) as Record<string, string>;
    setLines([]);
    setError(null);
    const follow = async (): Promise<void> => {
      const page = await get<LogPage>("/logs", { query: { ...asked, limit: 500 }, signal: stop.signal });
      setLines(page.lines);
      setSilent(page.silent);
      let batch: (LogLine | Skipped)[] = [];
      const onAlive = (): void => setError(null);
      for await (const { event, data } of events("/logs/live", { query: asked, signal: stop.signal, onAlive })) {
        if (event === "line") {
          batch.push({ worker: null, app: "", shard: "", ...(JSON.parse(data) as Partial<LogLine>) } as LogLine);
        } else if (event === "skipped") {
          const { node, lines: skipped } = JSON.parse(data) as { node: string; lines: number };
          batch.push({ at: Date.now() / 1000, node, skipped });
        }
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
    void keepReading(follow, stop.signal, (found) => {
      setError(found);
      return !isFinal(found);
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [wanted, isPaused]);

  const shown = useMemo(() => lines.map((line) => ({ key: keyOf(line), line })), [lines]);
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
        <button type="button" aria-pressed={isPaused} onClick={() => setPausedWith(isPaused ? null : wanted)}>
          {isPaused ? "Go on" : "Stop here"}
        </button>
      }
    >
      <div class="filters">
        {seesCluster.value && select("Node", "node", nodes.data?.map((node) => node.node) ?? [], true)}
        <QueryField label="Application" name="app" />
        <QueryField label="Shard" name="shard" />
        {select("Level, at least", "level", LEVELS, false)}
        <QueryField label="Text" name="text" />
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
        render={({ line }) => ("skipped" in line ? <SkippedLine line={line} /> : <Line line={line} />)}
      />
    </Page>
  );
}

function keyOf(line: LogLine | Skipped): string {
  return "skipped" in line ? `${line.at} ${line.node} skipped` : `${line.at} ${line.node} ${line.worker} ${line.message}`;
}

function Line({ line }: { line: LogLine }): JSX.Element {
  return (
    <div class={`level-${line.level.toUpperCase()}`}>
      <span class="when">{clock(line.at)}</span> {line.level.toUpperCase().padEnd(8)} {line.node}
      {line.worker === null ? "" : `/${line.worker}`} {line.app && `${line.app} `}
      {line.shard && `${line.shard} `}
      {line.message}
    </div>
  );
}

function SkippedLine({ line }: { line: Skipped }): JSX.Element {
  const what = `${plural(line.skipped, "line")} ${line.skipped === 1 ? "was" : "were"} skipped on node ${line.node}`;
  return (
    <div class="level-WARNING">
      <span class="when">{clock(line.at)}</span> {what}: there were too many at once
    </div>
  );
}
