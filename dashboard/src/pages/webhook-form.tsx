import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { ApiError, ask, Attempts, ifUnknown } from "../api/client";
import type { NewWebhook, Webhook, WebhookChange } from "../api/types";
import { Dialog, report } from "../ui/confirm";
import { AppsField, NameField } from "../ui/fields";
import { Check, ErrorNote, Field } from "../ui/parts";

type Kind = NewWebhook["events"][number];
type Severity = NewWebhook["min_severity"];

const KINDS: Record<Kind, string> = {
  problems: "a problem began, got worse, or is over",
  budget: "few session starts are left, or none",
  nodes: "a node joined, left, was lost, or does not answer",
  apps: "an application was added, paused, resumed or removed; its shard group has another state",
  losses: "a session could not be resumed: events are lost",
  failovers: "shards came back after a loss",
  shards: "which shards of a running application are not live",
  leader: "another node leads",
};
const DEFAULT_KINDS: readonly string[] = ["problems", "budget", "nodes", "apps", "losses"];
const SEVERITIES: Record<Severity, string> = {
  critical: "critical: only what does not work",
  warning: "warning: also what needs attention",
  notice: "notice: all",
};

/** What the fields hold. `url` and `secret` are not known: empty ones stay as they are. */
interface Values {
  url: string;
  secret: string;
  isUnsigned: boolean;
  severity: string;
  events: readonly string[];
  apps: string;
  template: string;
  allowsPrivate: boolean;
}

function valuesOf(hook: Webhook | null): Values {
  return {
    url: "",
    secret: "",
    isUnsigned: false,
    severity: hook?.min_severity ?? "warning",
    events: hook?.events ?? DEFAULT_KINDS,
    apps: hook?.apps.join(", ") ?? "",
    template: hook?.template ?? "",
    allowsPrivate: hook?.allow_private ?? false,
  };
}

function appsOf(text: string): string[] {
  return text.split(/[\s,]+/).filter(Boolean);
}

/** What of the webhook is to be different. What it has already is not checked again. */
function changeOf(hook: Webhook, values: Values): Partial<WebhookChange> {
  const before = valuesOf(hook);
  const found: Partial<WebhookChange> = {};
  if (values.severity !== before.severity) found.min_severity = values.severity as Severity;
  if ([...values.events].sort().join() !== [...before.events].sort().join()) found.events = values.events as Kind[];
  if (values.apps !== before.apps) found.apps = appsOf(values.apps);
  if (values.template !== before.template) found.template = values.template;
  if (values.allowsPrivate !== before.allowsPrivate) found.allow_private = values.allowsPrivate;
  if (values.isUnsigned) found.secret = "";
  else if (values.secret) found.secret = values.secret;
  if (values.url.trim()) {
    found.url = values.url.trim();
    // With all of what is sealed, nothing has to be opened: it works also after the cluster key was replaced.
    found.allow_private = values.allowsPrivate;
    if (!hook.signed) found.secret ??= "";
  }
  return found;
}

/** A webhook as a form. `hook` null: a new one. Its URL and its secret are written, and never shown. */
export function WebhookForm(props: {
  hook: Webhook | null;
  onClose: () => void;
  onSaved: () => Promise<void>;
  /** Begin again with the present values. */
  onReload: () => Promise<void>;
}): JSX.Element {
  const { hook } = props;
  const [name, setName] = useState("");
  const [values, setValues] = useState(() => valuesOf(hook));
  const [error, setError] = useState<unknown>(null);
  const [isWorking, setWorking] = useState(false);
  const [attempts] = useState(() => new Attempts());
  const set = (part: Partial<Values>): void => setValues({ ...values, ...part });
  const change = hook && changeOf(hook, values);
  const isFilled = hook ? Object.keys(change ?? {}).length > 0 : Boolean(name.trim() && values.url.trim());
  const at = (path: string): string | undefined =>
    error instanceof ApiError ? error.fields.find((one) => one.path.split("[")[0] === path)?.message : undefined;
  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    setWorking(true);
    setError(null);
    const wanted = hook?.name ?? name.trim();
    try {
      if (hook) await sendChange(attempts, hook, change ?? {});
      else await sendNew(attempts, wanted, values);
      report(hook ? `The webhook ${wanted} was changed.` : `The webhook ${wanted} was added. Send it a test.`);
      props.onClose();
      await props.onSaved();
    } catch (found) {
      setError(found);
      setWorking(false);
    }
  };
  return (
    <Dialog title={hook ? `Webhook ${hook.name}` : "A new webhook"} onClose={() => !isWorking && props.onClose()} wide>
      <form onSubmit={(event) => void save(event)}>
        {!hook && <NameField label="Name" value={name} error={at("name")} onChange={setName} />}
        <Secret
          label="URL"
          value={values.url}
          isKept={hook !== null}
          error={at("url")}
          help={
            hook
              ? `A secret. It leads to ${hook.host} and ends in ${hook.ends_in}. Leave it empty to keep it.`
              : "A secret: of a webhook of Discord (channel settings, Integrations), or of another server."
          }
          onChange={(url) => set({ url })}
        />
        <Field label="Severity, at least" error={at("min_severity")}>
          {(attributes) => (
            <select {...attributes} value={values.severity} onChange={(event) => set({ severity: event.currentTarget.value })}>
              {Object.entries(SEVERITIES).map(([severity, means]) => (
                <option key={severity} value={severity}>
                  {means}
                </option>
              ))}
            </select>
          )}
        </Field>
        <AppsField apps={values.apps} error={at("apps")} onChange={(apps) => set({ apps })} />
        <Kinds events={values.events} error={at("events")} onChange={(events) => set({ events })} />
        <Field
          label="Words of each notice"
          error={at("template")}
          help="Such as <@&123456789012345678> $summary ($severity). Empty: our own words."
        >
          {(attributes) => (
            <input
              {...attributes}
              value={values.template}
              autocomplete="off"
              onInput={(event) => set({ template: event.currentTarget.value })}
            />
          )}
        </Field>
        {hook?.type !== "discord" && (
          <>
            <Secret
              label="Secret of the signature"
              value={values.secret}
              isKept={hook?.signed ?? false}
              isDisabled={values.isUnsigned}
              error={at("secret")}
              help={`Not for Discord. 16 to 256 characters. ${hook?.signed ? "Leave it empty to keep it." : "Empty: no signature."}`}
              onChange={(secret) => set({ secret })}
            />
            {hook?.signed && (
              <Check text="No signature any more" isOn={values.isUnsigned} onChange={(isUnsigned) => set({ isUnsigned })} />
            )}
            <Check
              text="Also to private addresses and by http://"
              isOn={values.allowsPrivate}
              onChange={(allowsPrivate) => set({ allowsPrivate })}
            />
          </>
        )}
        {error !== null && <ErrorNote error={error} />}
        {ifUnknown(error) && <p class="small">{ifUnknown(error)}</p>}
        {error instanceof ApiError && error.code === "stale" && (
          <button type="button" onClick={() => void props.onReload()}>
            Show the new values
          </button>
        )}
        <div class="buttons">
          <button type="button" onClick={props.onClose} disabled={isWorking}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={!isFilled || isWorking}>
            {isWorking ? "Saving…" : hook ? "Save" : "Add"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

async function sendChange(attempts: Attempts, hook: Webhook, body: Partial<WebhookChange>): Promise<void> {
  await attempts.send(JSON.stringify([hook.revision, body]), (key) =>
    ask("PATCH", `/webhooks/${encodeURIComponent(hook.name)}`, {
      body,
      headers: { "If-Match": `"${hook.revision}"`, "Idempotency-Key": key },
    }),
  );
}

async function sendNew(attempts: Attempts, name: string, values: Values): Promise<void> {
  const body: Partial<NewWebhook> = {
    name,
    url: values.url.trim(),
    events: values.events as Kind[],
    min_severity: values.severity as Severity,
    apps: appsOf(values.apps),
    template: values.template,
    secret: values.secret,
    allow_private: values.allowsPrivate,
  };
  await attempts.send(JSON.stringify(body), (key) => ask("POST", "/webhooks", { body, headers: { "Idempotency-Key": key } }));
}

function Secret(props: {
  label: string;
  value: string;
  /** There is one, which an empty field keeps. */
  isKept: boolean;
  isDisabled?: boolean;
  error: string | undefined;
  help: string;
  onChange: (value: string) => void;
}): JSX.Element {
  return (
    <Field label={props.label} error={props.error} help={props.help}>
      {(attributes) => (
        <input
          {...attributes}
          type="password"
          value={props.value}
          disabled={props.isDisabled}
          autocomplete="off"
          spellcheck={false}
          placeholder={props.isKept ? "unchanged" : ""}
          onInput={(event) => props.onChange(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

function Kinds(props: {
  events: readonly string[];
  error: string | undefined;
  onChange: (events: string[]) => void;
}): JSX.Element {
  return (
    <fieldset>
      <legend>Reports</legend>
      <div class="checks">
        {Object.entries(KINDS).map(([kind, means]) => (
          <Check
            key={kind}
            text={`${kind}: ${means}`}
            isOn={props.events.includes(kind)}
            onChange={(isOn) =>
              props.onChange(Object.keys(KINDS).filter((one) => (one === kind ? isOn : props.events.includes(one))))
            }
          />
        ))}
      </div>
      {props.error && <span class="field-error">{props.error}</span>}
    </fieldset>
  );
}
