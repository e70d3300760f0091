import type { JSX } from "preact";
import { ask } from "../api/client";
import type { Consumer, ConsumerGroup, Consumers as Found } from "../api/types";
import { useResource } from "../state/resource";
import { isOperator } from "../state/session";
import { confirm } from "../ui/confirm";
import { count, plural } from "../ui/format";
import { Loaded, Mark, Table } from "../ui/parts";

/** The consumer groups of an application, with how far behind each is. */
export function Consumers({ app }: { app: string }): JSX.Element {
  const groups = useResource<Found>(`/apps/${encodeURIComponent(app)}/consumers?limit=1000`, { every: 10_000 });
  const remove = (group: string): void =>
    confirm({
      title: `Remove the consumer group ${group} of ${app}?`,
      body: (
        <p>
          Its position and its dead letters are removed for good; events and other groups stay. It is refused while workers
          read with the group.
        </p>
      ),
      verb: "Remove",
      dangerous: true,
      typed: group,
      run: async (key) => {
        const path = `/apps/${encodeURIComponent(app)}/consumers/${encodeURIComponent(group)}`;
        const { data } = await ask<ConsumerGroup>("DELETE", path, { headers: { "Idempotency-Key": key } });
        return `The group ${group} was removed, with ${plural(data.dead_letters, "dead letter")}. The list follows within ten seconds.`;
      },
    });
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
              {
                head: "",
                cell: (row) =>
                  isOperator.value && (
                    <button
                      type="button"
                      class="quiet"
                      aria-label={`Remove consumer group ${row.group}`}
                      onClick={() => remove(row.group)}
                    >
                      Remove…
                    </button>
                  ),
                number: true,
              },
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
