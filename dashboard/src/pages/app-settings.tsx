import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { ApiError, ask, get } from "../api/client";
import type { App, AppChanged, Footprint, Json, Outcome } from "../api/types";
import { Cost, withoutRoom } from "../changes";
import { OPTIONS, textOf, valueAt, valueOf, type Option } from "../options";
import { go } from "../router";
import { confirm, Dialog, report, WithoutRoom } from "../ui/confirm";
import { bytes, count, plural } from "../ui/format";
import { IntentChecks } from "../ui/intents";
import { Check, Empty, ErrorNote, Field, Mark, Section, Table } from "../ui/parts";

interface Props {
  app: App;
  isAdmin: boolean;
  refresh: () => Promise<void>;
}

/** The configuration as a form. Saving shows first what would change and what it costs. */
export function AppSettings({ app, isAdmin, refresh }: Props): JSX.Element {
  // What the form began with: a change by someone else must not slip in between.
  const [base, setBase] = useState(app);
  const [edited, setEdited] = useState<Record<string, string>>({});
  const [errors, setErrors] = useState<Record<string, string>>({});
  const [error, setError] = useState<unknown>(null);
  const [isWorking, setWorking] = useState(false);
  const [review, setReview] = useState<{ set: Record<string, Json>; plan: AppChanged } | null>(null);
  const original = useMemo(() => new Map(all().map((option) => [option.path, textAt(base, option)])), [base]);
  const changed = Object.keys(edited).filter((path) => edited[path] !== original.get(path));
  const isOld = app.revision !== base.revision;

  const begin = (from: App): void => {
    setBase(from);
    setEdited({});
    setErrors({});
    setError(null);
  };

  const look = async (): Promise<void> => {
    const set: Record<string, Json> = {};
    const wrong: Record<string, string> = {};
    for (const option of all()) {
      if (!changed.includes(option.path)) continue;
      const text = edited[option.path] ?? "";
      try {
        set[option.path] = option.kind === "intents" ? text.split(" ").filter(Boolean) : valueOf(option, text);
      } catch (found) {
        wrong[option.path] = (found as Error).message;
      }
    }
    setErrors(wrong);
    setError(null);
    if (Object.keys(wrong).length || !Object.keys(set).length) return;
    setWorking(true);
    try {
      setReview({ set, plan: await patch(base, set, null) });
    } catch (found) {
      show(found, changed);
    } finally {
      setWorking(false);
    }
  };

  const show = (found: unknown, paths: readonly string[]): void => {
    setError(found);
    if (!(found instanceof ApiError)) return;
    const at: Record<string, string> = {};
    for (const path of paths) {
      const field = found.fields.find((one) => one.path.endsWith(path));
      if (field) at[path] = field.message;
      else if (found.message.includes(`${path}:`)) at[path] = found.message;
    }
    setErrors(at);
  };

  const save = async (): Promise<void> => {
    if (!review) return;
    setWorking(true);
    try {
      const data = await patch(base, review.set, review.plan);
      setReview(null);
      setEdited({});
      setErrors({});
      await refresh();
      report(`Saved: ${plural(data.changes.length, "change")} of ${app.app}.`);
    } catch (found) {
      setReview(null);
      show(found, changed);
    } finally {
      setWorking(false);
    }
  };

  // After saving, and when someone else changed it while nothing is edited here, the form follows.
  useEffect(() => {
    if (isOld && changed.length === 0) begin(app);
  }, [isOld, changed.length]);

  return (
    <>
      {isOld && changed.length > 0 && (
        <div class="note note-warning" role="alert">
          <Mark look={{ shape: "triangle", tone: "warning" }} />
          <div>
            Someone else changed this application meanwhile. Your changes are not saved.{" "}
            <button type="button" onClick={() => begin(app)}>
              Show the new values
            </button>
          </div>
        </div>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void look();
        }}
      >
        {OPTIONS.map(({ title, options }) => (
          <Section title={title} key={title}>
            {options.map((option) => (
              <Setting
                key={option.path}
                option={option}
                text={edited[option.path] ?? original.get(option.path) ?? ""}
                isChanged={changed.includes(option.path)}
                isDefault={base.defaults.includes(option.path)}
                error={errors[option.path]}
                disabled={!isAdmin}
                onChange={(text) => setEdited({ ...edited, [option.path]: text })}
              />
            ))}
          </Section>
        ))}
        {error !== null && <ErrorNote error={error} />}
        {isAdmin ? (
          <div class="buttons save">
            <span class="muted">{changed.length ? `${plural(changed.length, "change")}, not saved` : "No changes"}</span>
            <button type="button" disabled={!changed.length} onClick={() => begin(app)}>
              Discard
            </button>
            <button type="submit" class="primary" disabled={!changed.length || isWorking}>
              {isWorking ? "Checking…" : "Review changes…"}
            </button>
          </div>
        ) : (
          <Empty>Changing settings needs the role admin.</Empty>
        )}
      </form>
      {isAdmin && <TokenForm app={app.app} refresh={refresh} />}
      {isAdmin && <Remove app={app.app} />}
      {review && (
        <Review
          plan={review.plan}
          isWorking={isWorking}
          onCancel={() => setReview(null)}
          onSave={() => void save()}
        />
      )}
    </>
  );
}

function all(): Option[] {
  return OPTIONS.flatMap(({ options }) => options);
}

function textAt(app: App, option: Option): string {
  const value = valueAt(app.effective, option.path);
  if (option.kind === "intents") return Array.isArray(value) ? value.join(" ") : String(value ?? "");
  return textOf(option, value);
}

/** `plan`: what was confirmed; null: a dry run. */
async function patch(app: App, set: Record<string, Json>, plan: AppChanged | null): Promise<AppChanged> {
  const sessions = plan?.new_sessions ?? null;
  const { data } = await ask<AppChanged>("PATCH", `/apps/${encodeURIComponent(app.app)}`, {
    body: { set, new_sessions: sessions !== null, force: withoutRoom(sessions) !== "" },
    query: { dry_run: plan === null || undefined },
    headers: { "If-Match": `"${app.revision}"` },
  });
  return data;
}

function Setting(props: {
  option: Option;
  text: string;
  isChanged: boolean;
  isDefault: boolean;
  error: string | undefined;
  disabled: boolean;
  onChange: (text: string) => void;
}): JSX.Element {
  const { option, text, onChange, disabled } = props;
  const id = `set-${option.path}`;
  const attributes = { id, disabled, "aria-describedby": `${id}-help`, "aria-invalid": Boolean(props.error) };
  let control: JSX.Element;
  if (option.kind === "intents") {
    control = (
      <div role="group" aria-labelledby={`${id}-label`}>
        <IntentChecks
          chosen={text.split(" ").filter(Boolean)}
          disabled={disabled}
          onChange={(chosen) => onChange(chosen.join(" "))}
        />
      </div>
    );
  } else if (option.kind === "bool") {
    control = (
      <input
        {...attributes}
        type="checkbox"
        checked={text === "true"}
        onChange={(event) => onChange(String(event.currentTarget.checked))}
      />
    );
  } else if (option.kind === "choice") {
    control = (
      <select {...attributes} value={text} onChange={(event) => onChange(event.currentTarget.value)}>
        {option.choices?.map((choice) => <option key={choice}>{choice}</option>)}
      </select>
    );
  } else {
    control = (
      <input
        {...attributes}
        class={option.kind === "json" ? "mono" : ""}
        value={text}
        placeholder={option.empty ?? ""}
        inputMode={option.kind === "int" ? "numeric" : "text"}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
    );
  }
  return (
    <div class={props.isChanged ? "setting changed" : "setting"}>
      {option.kind === "intents" ? (
        <span class="mono" id={`${id}-label`}>
          {option.path}
        </span>
      ) : (
        <label for={id}>{option.path}</label>
      )}
      <div class={option.kind === "bool" ? "control check" : "control"}>
        {control}
        <span class="help" id={`${id}-help`}>
          {props.error && (
            <span class="field-error">
              <Mark look={{ shape: "square", tone: "critical" }} /> {props.error}
            </span>
          )}
          <span>
            {option.help}
            {props.isDefault && !props.isChanged && " Default."}
          </span>
        </span>
      </div>
    </div>
  );
}

function Review(props: {
  plan: AppChanged;
  isWorking: boolean;
  onCancel: () => void;
  onSave: () => void;
}): JSX.Element {
  const { plan } = props;
  const [isAccepted, setAccepted] = useState(false);
  const waits = withoutRoom(plan.new_sessions);
  const isAllowed = !props.isWorking && plan.changes.length > 0 && (!waits || isAccepted);
  const shown = (value: Json, isSecret: boolean): string =>
    isSecret ? "a secret" : isWords(value) ? value.join(", ") || "none" : typeof value === "string" ? value || '""' : JSON.stringify(value);
  return (
    <Dialog title={`Save ${plural(plan.changes.length, "change")} of ${plan.app}?`} onClose={props.onCancel} wide>
      <div class="diff">
        <Table
          label="What changes"
          rows={plan.changes}
          keyOf={(row) => row.path}
          empty="Nothing would change: these are the present values."
          columns={[
            { head: "Key", cell: (row) => row.path },
            { head: "Now", cell: (row) => shown(row.before, row.is_secret) },
            { head: "Then", cell: (row) => shown(row.after, row.is_secret), grow: true },
          ]}
        />
      </div>
      <Warnings plan={plan} />
      <div class="cost">
        <Cost found={plan.new_sessions} />
      </div>
      {waits && <WithoutRoom why={waits} isAccepted={isAccepted} onChange={setAccepted} />}
      <div class="buttons">
        <button type="button" onClick={props.onCancel}>
          Cancel
        </button>
        <button type="button" class="primary" disabled={!isAllowed} onClick={props.onSave}>
          {props.isWorking ? "Saving…" : plan.new_sessions ? "Save and start new sessions" : "Save"}
        </button>
      </div>
    </Dialog>
  );
}

function isWords(value: Json): value is string[] {
  return Array.isArray(value) && value.every((word) => typeof word === "string");
}

export function Warnings({ plan }: { plan: AppChanged }): JSX.Element {
  const missing = plan.bot?.intents_not_enabled ?? [];
  return (
    <>
      {plan.warnings.map((warning) => (
        <p class="note note-warning" key={warning.path + warning.text}>
          <Mark look={{ shape: "triangle", tone: "warning" }} />
          <span>
            <code>{warning.path}</code> {warning.text}
          </span>
        </p>
      ))}
      {missing.length > 0 && (
        <p class="note note-warning">
          <Mark look={{ shape: "triangle", tone: "warning" }} />
          <span>
            Not enabled in Discord's developer portal: {missing.join(", ")}. Discord would close the shards with 4014.
          </span>
        </p>
      )}
    </>
  );
}

function TokenForm({ app, refresh }: { app: string; refresh: () => Promise<void> }): JSX.Element {
  const [token, setToken] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [isWorking, setWorking] = useState(false);
  const path = `/apps/${encodeURIComponent(app)}/token`;
  const look = async (event: Event): Promise<void> => {
    event.preventDefault();
    setWorking(true);
    setError(null);
    try {
      const { data: plan } = await ask<AppChanged>("PUT", path, { body: { token }, query: { dry_run: true }, timeoutMs: 30_000 });
      confirm({
        title: `Replace the token of ${app}?`,
        body: (
          <>
            <p>
              Discord knows it{plan.bot ? <> as <strong>{plan.bot.name}</strong> ({plan.bot.id})</> : null}. The shards start
              new sessions with it.
            </p>
            <Warnings plan={plan} />
            {plan.changes.length === 0 && <p>It is the token that is stored already.</p>}
          </>
        ),
        cost: () => Promise.resolve({ shown: <Cost found={plan.new_sessions} />, withoutRoom: withoutRoom(plan.new_sessions) }),
        verb: "Replace",
        dangerous: true,
        run: async (key) => {
          await ask<AppChanged>("PUT", path, {
            body: { token, force: withoutRoom(plan.new_sessions) !== "" },
            headers: { "If-Match": `"${plan.revision}"`, "Idempotency-Key": key },
            timeoutMs: 30_000,
          });
          setToken("");
          await refresh();
          return `The token of ${app} was replaced.`;
        },
      });
    } catch (found) {
      setError(found);
    } finally {
      setWorking(false);
    }
  };
  return (
    <Section title="Token">
      <form onSubmit={(event) => void look(event)}>
        <Field label="New token" help="Of the same bot. It is tested against Discord before anything is stored, and is never shown again.">
          {(attributes) => (
            <input
              {...attributes}
              type="password"
              autocomplete="off"
              spellcheck={false}
              value={token}
              onInput={(event) => setToken(event.currentTarget.value)}
            />
          )}
        </Field>
        {error !== null && <ErrorNote error={error} />}
        <button type="submit" disabled={!token.trim() || isWorking}>
          {isWorking ? "Asking Discord…" : "Test it…"}
        </button>
      </form>
    </Section>
  );
}

function Remove({ app }: { app: string }): JSX.Element {
  const [keepsCache, setKeepsCache] = useState(false);
  const [deletesStream, setDeletesStream] = useState(false);
  const [force, setForce] = useState(false);
  const path = `/apps/${encodeURIComponent(app)}`;
  const begin = (): void =>
    confirm({
      title: `Remove ${app}?`,
      body: (
        <p>
          Its shards close, and its configuration and token go{keepsCache ? "" : ", with its guilds in the cache"}
          {deletesStream ? ", its events and its dead letters" : ""}. This cannot be taken back.
        </p>
      ),
      cost: async () => ({ shown: <FootprintFacts found={await get<Footprint>(`${path}/removal`)} /> }),
      verb: "Remove",
      dangerous: true,
      typed: app,
      run: async (key) => {
        const { data } = await ask<Outcome>("DELETE", path, {
          query: { confirm: app, keep_cache: keepsCache, delete_stream: deletesStream, force },
          headers: { Prefer: "wait=5", "Idempotency-Key": key },
          timeoutMs: 60_000,
        });
        go("/apps");
        return data.reached ? `${app} was removed.` : `Removing ${app}: under way.`;
      },
    });
  return (
    <Section title="Remove">
      <p>Its shards close, and what is stored of it goes.</p>
      <Check text="Leave its guilds in the cache" isOn={keepsCache} onChange={setKeepsCache} />
      <Check text="Delete its events and dead letters now, and not when they are too old" isOn={deletesStream} onChange={setDeletesStream} />
      <Check text="Also while consumers read it, or when NATS does not answer" isOn={force} onChange={setForce} />
      <button type="button" class="danger gap-above" onClick={begin}>
        <Mark look={{ shape: "triangle", tone: "critical" }} />
        Remove…
      </button>
    </Section>
  );
}

function FootprintFacts({ found }: { found: Footprint }): JSX.Element {
  const readers = found.consumers.filter((one) => one.reads);
  return (
    <>
      <dl class="facts">
        <dt>Live shards</dt>
        <dd>
          {count(found.shards_live)} of {count(found.shards)}
        </dd>
        <dt>Guilds in the cache</dt>
        <dd>
          {found.guilds === null ? "none" : count(found.guilds)}
          {found.sharers.length > 0 && `; ${found.sharers.join(", ")} share them and keep theirs`}
        </dd>
        <dt>Stream</dt>
        <dd>
          {count(found.stream_messages)} frames, {bytes(found.stream_bytes)}, {plural(found.dead_letters, "dead letter")}
        </dd>
        <dt>Consumer groups</dt>
        <dd>{found.consumers.map((one) => one.group).join(", ") || "none"}</dd>
      </dl>
      {readers.length > 0 && (
        <p class="note note-warning">
          <Mark look={{ shape: "triangle", tone: "warning" }} />
          <span>Programs read it now: {readers.map((one) => one.group).join(", ")}.</span>
        </p>
      )}
    </>
  );
}
