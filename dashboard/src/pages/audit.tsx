import type { JSX } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";
import { get } from "../api/client";
import type { AuditEntry, Json, Page as ListPage } from "../api/types";
import { place } from "../router";
import { isAdmin } from "../state/session";
import { QueryField } from "../ui/fields";
import { Page } from "../ui/page";
import { Empty, ErrorNote, StateWord, Table, Time } from "../ui/parts";

/** Who changed what, newest first. */
export function AuditPage(): JSX.Element {
  return (
    <Page title="Audit" name="Audit" sub="changes and sign-ins, newest first">
      {isAdmin.value ? <Audit /> : <Empty>The audit log needs the role admin.</Empty>}
    </Page>
  );
}

function Audit(): JSX.Element {
  const { query } = place.value;
  const who = query.get("who") ?? "";
  const app = query.get("app") ?? "";
  const [entries, setEntries] = useState<AuditEntry[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [error, setError] = useState<unknown>(null);
  const read = useCallback(
    async (after: string): Promise<void> => {
      try {
        const page = await get<ListPage<AuditEntry>>("/audit", { query: { who, app, after, limit: 100 } });
        setEntries((before) => [...(after ? (before ?? []) : []), ...page.items]);
        setNext(page.next);
        setError(null);
      } catch (found) {
        setError(found);
      }
    },
    [who, app],
  );
  useEffect(() => {
    setEntries(null);
    void read("");
  }, [read]);
  return (
    <>
      <div class="filters">
        <QueryField label="Who" name="who" />
        <QueryField label="Application" name="app" />
        <button type="button" onClick={() => void read("")}>
          Read again
        </button>
      </div>
      {error !== null && <ErrorNote error={error} />}
      {entries === null && error === null && <Empty>Loading…</Empty>}
      {entries && (
        <Table<AuditEntry>
          label="Audit log"
          rows={entries}
          keyOf={(row) => String(row.number)}
          empty={who || app ? "Nothing matches." : "No change yet."}
          columns={[
            { head: "When", cell: (row) => <Time at={row.at} /> },
            { head: "Who", cell: (row) => <span class="name" title={row.who}>{row.who}</span> },
            {
              head: "What",
              cell: (row) => (
                <>
                  <code>{row.what}</code>
                  {Object.keys(row.path).length > 0 && (
                    <div class="small muted">
                      {Object.entries(row.path)
                        .map(([name, value]) => `${name} ${value}`)
                        .join(", ")}
                    </div>
                  )}
                  <Values before={row.before} after={row.after} />
                </>
              ),
              grow: true,
            },
            {
              head: "Result",
              cell: (row) => (
                <>
                  <StateWord state={row.result === "done" ? "live" : "degraded"}>{row.result}</StateWord>
                  {row.detail && <div class="small muted wrap">{row.detail}</div>}
                </>
              ),
            },
            { head: "From", cell: (row) => row.client || "–", wide: true },
          ]}
        />
      )}
      {next !== null && (
        <button type="button" onClick={() => void read(next)}>
          Older ones
        </button>
      )}
    </>
  );
}

function Values({ before, after }: { before: Json; after: Json }): JSX.Element | null {
  const isEmpty = (value: Json): boolean => value === null || value === undefined;
  if (isEmpty(before) && isEmpty(after)) return null;
  return (
    <details class="small">
      <summary>before and after</summary>
      <pre>
        {isEmpty(before) ? "" : `before ${JSON.stringify(before, null, 2)}\n`}
        {isEmpty(after) ? "" : `after ${JSON.stringify(after, null, 2)}`}
      </pre>
    </details>
  );
}
