import type { JSX } from "preact";
import type { AppSummary } from "../api/types";
import { AppLink } from "./appname";
import { cacheText, count, duration, rate } from "./format";
import { Meter, StateWord, Table } from "./parts";

/** Columns that another table of applications has, too. */
export const appColumn = { head: "Application", cell: (row: AppSummary) => <AppLink app={row.app} /> };
export const guildsColumn = { head: "Guilds", cell: (row: AppSummary) => count(row.guilds), number: true };

export function AppTable({ apps }: { apps: readonly AppSummary[] }): JSX.Element {
  return (
    <Table<AppSummary>
      label="Applications"
      rows={apps}
      keyOf={(row) => row.app}
      empty="No application yet."
      columns={[
        appColumn,
        { head: "State", cell: (row) => <AppState app={row} /> },
        {
          head: "Live shards",
          cell: (row) => <Meter value={row.shards["live"] ?? 0} max={row.shards_wanted} label={`Live shards of ${row.app}`} />,
        },
        guildsColumn,
        { head: "Events/s", cell: (row) => rate(row.events_per_s), number: true },
        { head: "Cache", cell: (row) => cacheText(row.cache), wide: true },
        {
          head: "Session starts left",
          cell: (row) =>
            row.session_starts_left === null
              ? "–"
              : `${count(row.session_starts_left)} / ${count(row.session_starts_total)}`,
          number: true,
          wide: true,
        },
      ]}
    />
  );
}

/** The state of an application, with what is wrong and how far a change is. */
export function AppState({ app }: { app: AppSummary }): JSX.Element {
  const { critical = 0, warning = 0 } = app.problems;
  const worst = critical ? "critical" : warning ? "warning" : null;
  return (
    <>
      <StateWord state={app.state} />
      {app.change && (
        <div class="small muted">
          {app.change.phase} {app.change.shards_done}/{app.change.shards}
          {app.change.seconds_left !== null && `, ${duration(app.change.seconds_left)} left`}
        </div>
      )}
      {worst && (
        <div class="small">
          <StateWord state={worst}>{critical ? `${critical} critical` : `${warning} warning${warning === 1 ? "" : "s"}`}</StateWord>
        </div>
      )}
    </>
  );
}
