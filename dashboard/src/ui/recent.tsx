import type { JSX } from "preact";
import type { Failover, Loss, Recent } from "../api/types";
import { AppLink } from "./appname";
import { count, duration, plural } from "./format";
import { Table, Time } from "./parts";

/** Failovers and lost events, newest first. */
export function RecentTables({ recent, withApp }: { recent: Recent; withApp: boolean }): JSX.Element {
  const app = <T extends { app: string }>() =>
    withApp ? [{ head: "Application", cell: (row: T) => <AppLink app={row.app} /> }] : [];
  return (
    <>
      <Table<Failover>
        label="Failovers"
        rows={recent.failovers.slice(0, 20)}
        keyOf={(row) => `${row.at} ${row.app} ${row.group} ${row.shards}`}
        empty="No failover that the nodes remember. A node forgets them when it restarts."
        columns={[
          { head: "When", cell: (row) => <Time at={row.at} /> },
          ...app<Failover>(),
          { head: "Shards", cell: (row) => row.shards },
          { head: "Lost at", cell: (row) => row.source },
          { head: "Why", cell: (row) => row.cause, grow: true },
          { head: "Back on", cell: (row) => row.nodes.join(", "), wide: true },
          {
            head: "How",
            cell: (row) =>
              row.identified
                ? `${row.resumed} resumed, ${plural(row.identified, "new session")}`
                : `resumed, ${plural(row.replayed, "event")} replayed`,
          },
          { head: "Took", cell: (row) => duration(row.took_s), number: true },
        ]}
      />
      {recent.losses.length > 0 && (
        <>
          <h3>Lost events</h3>
          <Table<Loss>
            label="Lost events"
            rows={recent.losses.slice(0, 20)}
            keyOf={(row) => `${row.at} ${row.app} ${row.shard}`}
            empty=""
            columns={[
              { head: "When", cell: (row) => <Time at={row.at} /> },
              ...app<Loss>(),
              { head: "Shard", cell: (row) => row.shard, number: true },
              { head: "Lost", cell: (row) => `all after number ${count(row.last_seq)} of its session`, wide: true },
              { head: "Why", cell: (row) => row.reason, grow: true },
            ]}
          />
        </>
      )}
    </>
  );
}
