import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError, ask, events, get, isFinal, keepReading } from "../api/client";
import type { AppSummary, DeadLetter, Discarded, Json, LetterContent, Page as ListPage, Replayed } from "../api/types";
import { differences } from "../difference";
import { place, setQuery } from "../router";
import { useResource } from "../state/resource";
import { isOperator } from "../state/session";
import { confirm, Dialog } from "../ui/confirm";
import { QueryField } from "../ui/fields";
import { count, plural } from "../ui/format";
import { Lines } from "../ui/lines";
import { Page } from "../ui/page";
import { Empty, ErrorNote, Field, Table, Time } from "../ui/parts";

const KEPT = 500;

export function EventsPage(): JSX.Element {
  const { query } = place.value;
  const view = query.get("view") === "dead" ? "dead" : "live";
  const apps = useResource<AppSummary[]>("/apps", { all: true, every: 15_000, on: ["app/"] });
  const names = apps.data?.map((one) => one.app) ?? [];
  const app = query.get("app") ?? names[0] ?? "";
  const to = (name: string): string => `/events?${new URLSearchParams({ view: name, ...(query.get("app") ? { app } : {}) })}`;
  return (
    <Page title="Events" name={view === "dead" ? "Dead letters" : "Events"}>
      <nav class="tabs" aria-label="Events">
        <a href={to("live")} aria-current={view === "live" ? "page" : undefined}>
          As they come
        </a>
        <a href={to("dead")} aria-current={view === "dead" ? "page" : undefined}>
          Dead letters
        </a>
      </nav>
      <div class="filters">
        <Field label="Application" long>
          {(attributes) => (
            <select {...attributes} value={app} onChange={(event) => setQuery({ app: event.currentTarget.value })}>
              {[...new Set([...names, ...(app ? [app] : [])])].map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          )}
        </Field>
      </div>
      {!app ? (
        <Empty>{apps.data ? "No application yet, so there are no events." : "Loading…"}</Empty>
      ) : view === "dead" ? (
        <DeadLetters key={app} app={app} />
      ) : (
        <Tail key={app} app={app} />
      )}
    </Page>
  );
}

/** An event that changes or removes an object of the cache: the object before it, and in it. */
interface ObjectChange {
  before: Json;
  after: Json;
  isRemoval: boolean;
  isBehind: boolean;
}

interface Shown {
  key: number;
  change?: ObjectChange;
  type: string;
  summary: string;
  raw: string;
  at: string;
}

const FILTERS = [
  ["type", "Type"],
  ["guild", "Guild id"],
  ["channel", "Channel id"],
  ["user", "User id"],
  ["text", "Text"],
] as const;

/** Events from now on. Reading them affects no consumer. */
function Tail({ app }: { app: string }): JSX.Element {
  const [fields, setFields] = useState<Record<string, string>>({});
  const [running, setRunning] = useState<Record<string, string> | null>(null);
  const [lines, setLines] = useState<Shown[]>([]);
  const [total, setTotal] = useState(0);
  const [dropped, setDropped] = useState(0);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    if (!running) return undefined;
    const stop = new AbortController();
    let batch: Shown[] = [];
    let timer = 0;
    let key = 0;
    let arrived = 0;
    let wasOpen = false;
    const flush = (): void => {
      timer = 0;
      const fresh = batch;
      batch = [];
      setLines((before) => [...before, ...fresh].slice(-KEPT));
      setTotal(arrived);
    };
    const add = (line: Omit<Shown, "key">): void => {
      batch.push({ key: key++, ...line });
      if (batch.length > KEPT) batch = batch.slice(-KEPT);
      if (!timer) timer = window.setTimeout(flush, 150);
    };
    const follow = async (): Promise<void> => {
      let isOpen = false;
      const onAlive = (): void => {
        if (isOpen) return;
        isOpen = true;
        setError(null);
        if (wasOpen) add(note("watching again: events in between may be missing"));
        wasOpen = true;
      };
      for await (const { event, data } of events("/events", { query: { app, ...running }, signal: stop.signal, onAlive })) {
        if (event === "event") {
          arrived += 1;
          add(shown(data));
        } else if (event === "skipped") {
          const { events: left } = JSON.parse(data) as { events: number };
          setDropped((before) => before + left);
        } else if (event === "gap") {
          add(note("events were lost here", data));
        }
      }
    };
    setError(null);
    void keepReading(follow, stop.signal, (found) => {
      setError(found);
      if (isFinal(found)) setRunning(null);
      return !isFinal(found);
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [app, running]);
  if (!isOperator.value) return <Empty>Events hold what people wrote: watching them needs the role operator.</Empty>;
  const missing = error instanceof ApiError && error.status === 404 && error.code === "not-found";
  return (
    <>
      <form
        class="filters many"
        onSubmit={(event) => {
          event.preventDefault();
          setLines([]);
          setTotal(0);
          setDropped(0);
          setRunning(Object.fromEntries(Object.entries(fields).filter(([, value]) => value.trim())));
        }}
      >
        {FILTERS.map(([name, label]) => (
          <Field label={label} key={name}>
            {(attributes) => (
              <input
                {...attributes}
                value={fields[name] ?? ""}
                autocomplete="off"
                spellcheck={false}
                placeholder={name === "type" ? "MESSAGE_*" : ""}
                onInput={(event) => setFields({ ...fields, [name]: event.currentTarget.value })}
              />
            )}
          </Field>
        ))}
        <button type="submit" class="primary">
          {running ? "Begin again" : "Watch"}
        </button>
        {running && (
          <button
            type="button"
            onClick={() => {
              setRunning(null);
              setError(null);
            }}
          >
            Stop
          </button>
        )}
      </form>
      {error !== null && <ErrorNote error={missing ? new Error("This node does not serve live events.") : error} />}
      <p class="small muted">
        {running ? "Watching" : total ? "Stopped" : "Not watching"}
        {total > 0 && `, ${plural(total, "event")} so far, the last ${count(Math.min(KEPT, lines.length))} are shown`}
        {dropped > 0 && `; ${plural(dropped, "event")} left out because too many came`}
      </p>
      <Lines
        label="Events"
        items={lines}
        keyOf={(line) => String(line.key)}
        empty={running ? "Nothing yet: events from now on appear here." : "Watch shows events from that moment on. It affects no consumer."}
        render={(line) => (
          <details>
            <summary>
              <span class="when">{line.at}</span> <strong>{line.type}</strong> {line.summary}
            </summary>
            {line.change && <Change change={line.change} />}
            {line.raw && <pre>{line.raw}</pre>}
          </details>
        )}
      />
    </>
  );
}

function Change({ change }: { change: ObjectChange }): JSX.Element {
  const { before, after, isRemoval, isBehind } = change;
  if (before === null) {
    const why = isBehind ? "The cache was behind" : "It was not in the cache before";
    return <p class="small muted">{why}, so what changed is not known.</p>;
  }
  if (isRemoval || Array.isArray(before)) {
    return (
      <>
        <p class="small">Before:</p>
        <pre>{JSON.stringify(before, null, 2)}</pre>
        <p class="small">The event:</p>
      </>
    );
  }
  return (
    <div class="diff">
      <Table
        label="What changed"
        rows={differences(before, after)}
        keyOf={(row) => row.path}
        empty="No field is different from the object in the cache."
        columns={[
          { head: "Field", cell: (row) => row.path },
          { head: "Before", cell: (row) => row.before },
          { head: "After", cell: (row) => row.after, grow: true },
        ]}
      />
    </div>
  );
}

function timeNow(): string {
  return new Date().toLocaleTimeString("en-GB");
}

/** A line that is no event. */
function note(summary: string, raw = ""): Omit<Shown, "key"> {
  return { at: timeNow(), type: "GAP", summary, raw };
}

interface PublishedEvent {
  t?: string;
  type?: string;
  d?: Record<string, Json>;
  __sandwich?: { shard?: unknown[] };
  __extra?: { before?: Json; cache?: string };
}

function changeOf(type: string, event: PublishedEvent): ObjectChange | undefined {
  const before = event.__extra?.before;
  if (before === undefined) return undefined;
  const isRemoval = /_(DELETE|DELETE_BULK|REMOVE)$/.test(type);
  return { before, after: event.d ?? {}, isRemoval, isBehind: event.__extra?.cache === "behind" };
}

function shown(data: string): Omit<Shown, "key"> {
  const at = timeNow();
  try {
    const event = JSON.parse(data) as PublishedEvent;
    const d = event.d ?? {};
    const author = d["author"] as { username?: string } | null | undefined;
    const parts = [
      event.__sandwich?.shard ? `shard ${event.__sandwich.shard[1]}` : "",
      d["guild_id"] ? `guild ${d["guild_id"]}` : "",
      d["channel_id"] ? `channel ${d["channel_id"]}` : "",
      author?.username ?? "",
      typeof d["content"] === "string" ? JSON.stringify(d["content"]) : "",
    ];
    const type = event.t ?? event.type ?? "";
    const raw = JSON.stringify(event, null, 2);
    return { at, type, summary: parts.filter(Boolean).join(" "), raw, change: changeOf(type, event) };
  } catch {
    return { at, type: "", summary: data, raw: data };
  }
}

/** What consumer groups gave up, newest first. */
function DeadLetters({ app }: { app: string }): JSX.Element {
  const { query } = place.value;
  const group = query.get("group") ?? "";
  const type = query.get("type") ?? "";
  const base = `/apps/${encodeURIComponent(app)}/dead_letters`;
  const [letters, setLetters] = useState<DeadLetter[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [chosen, setChosen] = useState<ReadonlySet<number>>(new Set());
  const [opened, setOpened] = useState<number | null>(null);
  const [error, setError] = useState<unknown>(null);
  const read = async (after: string): Promise<void> => {
    try {
      const page = await get<ListPage<DeadLetter>>(base, { query: { group, type, after, limit: 100 } });
      setLetters((before) => [...(after ? (before ?? []) : []), ...page.items]);
      setNext(page.next);
      setError(null);
    } catch (found) {
      setError(found);
    }
  };
  useEffect(() => {
    setLetters(null);
    setChosen(new Set());
    void read("");
  }, [base, group, type]);
  const all = letters ?? [];
  const isWhole = chosen.size === 0;
  const body = isWhole
    ? { all: true, ...(group ? { group } : {}), ...(type ? { type } : {}) }
    : { letters: [...chosen].map(String) };
  const which = isWhole ? `all dead letters of ${app}${group || type ? " that match" : ""}` : plural(chosen.size, "dead letter");
  const act = (verb: "replay" | "discard"): void =>
    confirm({
      title: verb === "replay" ? `Replay ${which}?` : `Discard ${which}?`,
      body:
        verb === "replay" ? (
          <p>Each goes back to its consumer group, which handles it again. What it did before it failed may happen twice.</p>
        ) : (
          <p>They are removed for good. This cannot be taken back.</p>
        ),
      verb: verb === "replay" ? "Replay" : "Discard",
      dangerous: verb === "discard",
      typed: verb === "discard" && isWhole ? app : undefined,
      run: async (key) => {
        const { data } = await ask<Replayed & Discarded>("POST", `${base}/${verb}`, {
          body,
          headers: { "Idempotency-Key": key },
          timeoutMs: 60_000,
        });
        setChosen(new Set());
        await read("");
        const left = data.left ? ` ${plural(data.left, "more")} left: do it again.` : "";
        if (verb === "discard") return `${plural(data.discarded, "letter")} removed.${left}`;
        const waiting = data.not_read.length ? ` No worker reads ${data.not_read.join(", ")}: they wait there.` : "";
        return `${plural(data.replayed, "letter")} went back.${waiting}${left}`;
      },
    });
  return (
    <>
      <div class="filters">
        <QueryField label="Consumer group" name="group" />
        <QueryField label="Type" name="type" />
        <button type="button" onClick={() => void read("")}>
          Read again
        </button>
        {isOperator.value && all.length > 0 && (
          <>
            <button type="button" onClick={() => act("replay")}>
              Replay {isWhole ? "all" : count(chosen.size)}…
            </button>
            <button type="button" class="danger" onClick={() => act("discard")}>
              Discard {isWhole ? "all" : count(chosen.size)}…
            </button>
          </>
        )}
      </div>
      {error !== null && <ErrorNote error={error} />}
      {letters === null && error === null && <Empty>Asking NATS…</Empty>}
      {letters && (
        <Table<DeadLetter>
          label="Dead letters"
          rows={all}
          keyOf={(row) => String(row.number)}
          empty="No dead letter: consumer groups could handle everything, or nothing matches."
          columns={[
            {
              head: "",
              cell: (row) => (
                <input
                  type="checkbox"
                  aria-label={`Choose dead letter ${row.number}`}
                  checked={chosen.has(row.number)}
                  onChange={(event) => {
                    const after = new Set(chosen);
                    if (event.currentTarget.checked) after.add(row.number);
                    else after.delete(row.number);
                    setChosen(after);
                  }}
                />
              ),
            },
            { head: "Given up", cell: (row) => <Time at={row.at} /> },
            { head: "Group", cell: (row) => <span class="name" title={row.group}>{row.group}</span> },
            { head: "Type", cell: (row) => row.type || row.kind },
            { head: "Shard", cell: (row) => row.shard ?? "–", number: true, wide: true },
            { head: "Tries", cell: (row) => row.tries, number: true },
            { head: "Error", cell: (row) => row.error, grow: true },
            {
              head: " ",
              cell: (row) =>
                isOperator.value && (
                  <button type="button" class="quiet" aria-label={`Show dead letter ${row.number}`} onClick={() => setOpened(row.number)}>
                    Show
                  </button>
                ),
            },
          ]}
        />
      )}
      {next !== null && (
        <button type="button" onClick={() => void read(next)}>
          Older ones
        </button>
      )}
      {opened !== null && <Letter path={`${base}/${opened}`} number={opened} onClose={() => setOpened(null)} />}
    </>
  );
}

function Letter({ path, number, onClose }: { path: string; number: number; onClose: () => void }): JSX.Element {
  const [content, setContent] = useState<LetterContent | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    get<LetterContent>(path).then(setContent).catch(setError);
  }, [path]);
  return (
    <Dialog title={`Dead letter ${number}`} onClose={onClose} wide>
      {error !== null && <ErrorNote error={error} />}
      {!content && error === null && <Empty>Asking NATS…</Empty>}
      {content && (
        <>
          <p class="wrap">{content.letter.error}</p>
          {content.unreadable && <p class="tone-warning">The event cannot be shown: {content.unreadable}</p>}
          <pre tabIndex={0}>{JSON.stringify(content.event ?? { headers: content.headers, payload: content.payload }, null, 2)}</pre>
        </>
      )}
      <div class="buttons">
        <button type="button" onClick={onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}
