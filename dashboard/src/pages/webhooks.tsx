import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { ask, Attempts } from "../api/client";
import type { Webhook } from "../api/types";
import { useResource } from "../state/resource";
import { confirm, report } from "../ui/confirm";
import { AppsField, NameField } from "../ui/fields";
import { plural } from "../ui/format";
import { Ago, ErrorNote, Field, Loaded, Section, StateWord, Table } from "../ui/parts";

/** Who is notified. A URL is a secret: it is written, and never shown again. */
export function Webhooks(): JSX.Element {
  const hooks = useResource<Webhook[]>("/webhooks", { all: true, every: 15_000 });
  const [name, setName] = useState("");
  const [url, setUrl] = useState("");
  const [severity, setSeverity] = useState("warning");
  const [apps, setApps] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [attempts] = useState(() => new Attempts());
  const add = async (event: Event): Promise<void> => {
    event.preventDefault();
    setError(null);
    try {
      const body = { name: name.trim(), url: url.trim(), min_severity: severity, apps: apps.split(/[\s,]+/).filter(Boolean) };
      await attempts.send(JSON.stringify(body), (key) =>
        ask("POST", "/webhooks", { body, headers: { "Idempotency-Key": key } }),
      );
      report(`The webhook ${name.trim()} was added. Send it a test.`);
      setName("");
      setUrl("");
      setApps("");
      await hooks.refresh();
    } catch (found) {
      setError(found);
    }
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
                { head: "From", cell: (row) => row.min_severity },
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
            <form class="filters" onSubmit={(event) => void add(event)}>
              <NameField label="Name" value={name} onChange={setName} />
              <Field label="URL (a secret)">
                {(attributes) => (
                  <input
                    {...attributes}
                    type="password"
                    value={url}
                    required
                    autocomplete="off"
                    placeholder="https://"
                    onInput={(event) => setUrl(event.currentTarget.value)}
                  />
                )}
              </Field>
              <Field label="At least">
                {(attributes) => (
                  <select {...attributes} value={severity} onChange={(event) => setSeverity(event.currentTarget.value)}>
                    <option>critical</option>
                    <option>warning</option>
                    <option>notice</option>
                  </select>
                )}
              </Field>
              <AppsField apps={apps} onChange={setApps} />
              <button type="submit" disabled={!name.trim() || !url.trim()}>
                Add
              </button>
            </form>
          </>
        )}
      </Loaded>
      {error !== null && <ErrorNote error={error} />}
    </Section>
  );
}
