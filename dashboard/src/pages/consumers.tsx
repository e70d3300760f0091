import type { JSX } from "preact";
import type { Consumer, Consumers as Found } from "../api/types";
import { useResource } from "../state/resource";
import { count, plural } from "../ui/format";
import { Loaded, Mark, Table } from "../ui/parts";

/** The consumer groups of an application, with how far behind each is. */
export function Consumers({ app }: { app: string }): JSX.Element {
  const groups = useResource<Found>(`/apps/${encodeURIComponent(app)}/consumers?limit=1000`, { every: 10_000 });
  return (
    <Loaded from={groups} missing="This node does not list consumer groups.">
      {(found) => (
        <>
          <Table<Consumer>
            label="Consumer groups"
            rows={found.consumers}
            keyOf={(row) => row.group}
            empty="No consumer group: no program reads this application's events with a group."
            columns={[
              { head: "Group", cell: (row) => <span class="name" title={row.group}>{row.group}</span>, grow: true },
              { head: "Frames behind", cell: (row) => count(row.lag), number: true },
            ]}
          />
          {(found.dead_letters[app] ?? 0) > 0 && (
            <p class="note note-warning">
              <Mark look={{ shape: "triangle", tone: "warning" }} />
              <span>
                <a href={`/events?view=dead&app=${encodeURIComponent(app)}`}>
                  {plural(found.dead_letters[app] ?? 0, "dead letter")}
                </a>{" "}
                of its groups: events that they could not handle.
              </span>
            </p>
          )}
        </>
      )}
    </Loaded>
  );
}
