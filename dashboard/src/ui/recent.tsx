import type { JSX } from "preact";
import type { Failover, Loss, Recent } from "../api/types";
import { useResource } from "../state/resource";
import { AppLink } from "./appname";
import { count, duration, plural } from "./format";
import { Loaded, Table, Time } from "./parts";

const SHOWN = 20;
const RARELY = { every: 10_000, beat: 4000 };

export function recentPath(kind: "failovers" | "losses", app?: string): string {
  return `/recent?kind=${kind}&limit=${SHOWN}${app === undefined ? "" : `&app=${encodeURIComponent(app)}`}`;
}

/** Failovers and lost events, newest first: of an application, or of all. */
export function RecentTables({ app: only }: { app?: string }): JSX.Element {
  const on = [only === undefined ? "shard/" : `shard/${only}/`];
  const failovers = useResource<Recent>(recentPath("failovers", only), { ...RARELY, on });
  const losses = useResource<Recent>(recentPath("losses", only), { ...RARELY, on });
  const lost = losses.data?.losses ?? [];
  const app = <T extends { app: string }>() =>
    only === undefined ? [{ head: "Application", cell: (row: T) => <AppLink app={row.app} /> }] : [];
  return (
    <>
      <Loaded from={failovers}>
        {(found) => (
          <Table<Failover>
            label="Failovers"
            rows={found.failovers}
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
        )}
      </Loaded>
      {lost.length > 0 && (
        <>
          <h3>Lost events</h3>
          <Table<Loss>
            label="Lost events"
            rows={lost}
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
