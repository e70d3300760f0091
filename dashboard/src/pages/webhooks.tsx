import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { ask, get } from "../api/client";
import type { Webhook } from "../api/types";
import { useResource } from "../state/resource";
import { confirm, report } from "../ui/confirm";
import { plural } from "../ui/format";
import { Ago, Loaded, Section, StateWord, Table } from "../ui/parts";
import { WebhookForm } from "./webhook-form";

/** Who is notified. A URL is a secret: it is written, and never shown again. */
export function Webhooks(): JSX.Element {
  const hooks = useResource<Webhook[]>("/webhooks", { all: true, every: 15_000 });
  /** null: a new one; undefined: none is open. */
  const [edited, setEdited] = useState<Webhook | null | undefined>(undefined);
  const reload = async (name: string): Promise<void> => {
    try {
      setEdited(await get<Webhook>(`/webhooks/${encodeURIComponent(name)}`));
    } catch (found) {
      setEdited(undefined);
      report(`The webhook ${name} was not read: ${(found as Error).message}`);
    }
    await hooks.refresh();
  };
  const test = async (hook: Webhook): Promise<void> => {
    try {
      const { data } = await ask<{ delivered: boolean; detail: string }>("POST", `/webhooks/${encodeURIComponent(hook.name)}/test`, {
        timeoutMs: 30_000,
      });
      report(data.delivered ? `${hook.name} took the test message.` : `${hook.name} did not take it: ${data.detail}`);
    } catch (found) {
      report(`${hook.name} was not tested: ${(found as Error).message}`);
    }
  };
  return (
    <Section title="Webhooks" aside="notices to Discord channels and to other programs">
      <Loaded from={hooks} missing="This node does not serve webhooks.">
        {(found) => (
          <>
            <Table<Webhook>
              label="Webhooks"
              rows={found}
              keyOf={(row) => row.name}
              empty="No webhook: no one is notified."
              columns={[
                { head: "Name", cell: (row) => <span class="name" title={row.name}>{row.name}</span> },
                { head: "To", cell: (row) => `${row.host} …${row.ends_in}` },
                { head: "Severity", cell: (row) => (row.min_severity === "critical" ? "critical" : `${row.min_severity} and worse`) },
                { head: "Applications", cell: (row) => (row.apps.length ? row.apps.join(", ") : "all"), wide: true },
                {
                  head: "State",
                  cell: (row) =>
                    row.failing_since ? (
                      <StateWord state="failed">
                        fails since <Ago at={row.failing_since} />
                      </StateWord>
                    ) : row.sent_at ? (
                      <StateWord state="live">
                        sent <Ago at={row.sent_at} />
                      </StateWord>
                    ) : (
                      <StateWord state="notice">nothing sent yet</StateWord>
                    ),
                },
                {
                  head: "Error",
                  cell: (row) => [row.error, row.missed ? `${plural(row.missed, "notice")} given up` : ""].filter(Boolean).join("; "),
                  grow: true,
                },
                {
                  head: "",
                  cell: (row) => (
                    <>
                      <button type="button" class="quiet" aria-label={`Test webhook ${row.name}`} onClick={() => void test(row)}>
                        Test
                      </button>{" "}
                      <button
                        type="button"
                        class="quiet"
                        aria-label={`Change webhook ${row.name}`}
                        onClick={() => setEdited(row)}
                      >
                        Change…
                      </button>{" "}
                      <button
                        type="button"
                        class="quiet"
                        aria-label={`Remove webhook ${row.name}`}
                        onClick={() =>
                          confirm({
                            title: `Remove the webhook ${row.name}?`,
                            body: <p>It gets no notices any more.</p>,
                            verb: "Remove",
                            dangerous: true,
                            run: async (key) => {
                              await ask("DELETE", `/webhooks/${encodeURIComponent(row.name)}`, { headers: { "Idempotency-Key": key } });
                              await hooks.refresh();
                              return `The webhook ${row.name} was removed.`;
                            },
                          })
                        }
                      >
                        Remove
                      </button>
                    </>
                  ),
                  number: true,
                },
              ]}
            />
            <button type="button" class="gap-above" onClick={() => setEdited(null)}>
              Add a webhook…
            </button>
          </>
        )}
      </Loaded>
      {edited !== undefined && (
        <WebhookForm
          key={edited?.revision ?? 0}
          hook={edited}
          onClose={() => setEdited(undefined)}
          onSaved={hooks.refresh}
          onReload={() => reload(edited?.name ?? "")}
        />
      )}
    </Section>
  );
}
