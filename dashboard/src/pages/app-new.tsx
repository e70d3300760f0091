import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { ApiError, ask, Attempts } from "../api/client";
import type { AppChanged, Json, TestedBot } from "../api/types";
import { go, href } from "../router";
import { addsApps } from "../state/session";
import { report } from "../ui/confirm";
import { count, duration, plural } from "../ui/format";
import { IntentChecks } from "../ui/intents";
import { Page } from "../ui/page";
import { Empty, ErrorNote, Field, Section, StateWord } from "../ui/parts";
import { Warnings } from "./app-settings";

const NAME = /^[a-z0-9_-]{1,32}$/;

/** Adds a bot: its token is tested against Discord before anything is stored. */
export function AppNewPage(): JSX.Element {
  const [name, setName] = useState("");
  const [token, setToken] = useState("");
  const [intents, setIntents] = useState(["GUILDS", "GUILD_MESSAGES"]);
  const [isAuto, setAuto] = useState(true);
  const [shards, setShards] = useState("1");
  const [ids, setIds] = useState("");
  const [isCached, setCached] = useState(true);
  const [isPaused, setPaused] = useState(false);
  const [tested, setTested] = useState<{ plan: AppChanged; of: string } | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [isWorking, setWorking] = useState(false);
  const [attempts] = useState(() => new Attempts());

  if (!addsApps.value) {
    return (
      <Page title="Add an application" name="Add an application">
        <Empty>This needs the role admin, for all applications.</Empty>
      </Page>
    );
  }
  const config: Record<string, Json> = {
    intents,
    shards: { count: isAuto ? "auto" : Number(shards), ...(!isAuto && ids.trim() ? { ids: ids.trim() } : {}) },
    cache: { enabled: isCached },
    paused: isPaused,
  };
  const body = { name, token: token.trim(), config };
  const asText = JSON.stringify(body);
  const plan = tested?.of === asText ? tested.plan : null;
  const nameError = name && !NAME.test(name) ? "only a-z, 0-9, _ and -, at most 32 characters" : undefined;
  const countError = !isAuto && !/^[1-9]\d*$/.test(shards) ? "a whole number, at least 1" : undefined;
  const isFilled = NAME.test(name) && token.trim() !== "" && intents.length > 0 && !countError;
  const fieldError = (path: string): string | undefined =>
    error instanceof ApiError ? error.fields.find((one) => one.path.endsWith(path))?.message : undefined;

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setError(null);
    setWorking(true);
    try {
      if (plan) {
        await attempts.send(asText, (key) =>
          ask<AppChanged>("POST", "/apps", { body, timeoutMs: 30_000, headers: { "Idempotency-Key": key } }),
        );
        report(`${name} was added.`);
        go(href.app(name));
        return;
      }
      const { data } = await ask<AppChanged>("POST", "/apps", { body, query: { dry_run: true }, timeoutMs: 30_000 });
      setTested({ plan: data, of: asText });
    } catch (found) {
      setError(found);
    }
    setWorking(false);
  };

  return (
    <Page title="Add an application" name="Add an application" sub="one bot, with its own token">
      <form onSubmit={(event) => void submit(event)}>
        <Section title="The bot">
          <Field
            label="Name"
            error={nameError ?? fieldError("name")}
            help="Here, in subjects and in commands. It cannot be changed later."
          >
            {(attributes) => (
              <input
                {...attributes}
                value={name}
                autocomplete="off"
                spellcheck={false}
                maxLength={32}
                required
                onInput={(event) => setName(event.currentTarget.value)}
              />
            )}
          </Field>
          <Field
            label="Bot token"
            error={fieldError("token")}
            help="From Discord's developer portal, under Bot. It is sealed with the cluster key and never shown again."
          >
            {(attributes) => (
              <input
                {...attributes}
                type="password"
                value={token}
                autocomplete="off"
                spellcheck={false}
                required
                onInput={(event) => setToken(event.currentTarget.value)}
              />
            )}
          </Field>
        </Section>
        <Section title="Intents" aside="which events Discord sends">
          <p class="small muted">
            A privileged intent has to be enabled in Discord's developer portal too, or Discord closes the shards (4014).
          </p>
          <IntentChecks chosen={intents} onChange={setIntents} />
          {intents.length === 0 && <p class="field-error">Choose one at least.</p>}
        </Section>
        <Section title="Shards">
          <fieldset>
            <legend class="hidden-text">Shard count</legend>
            <label class="check">
              <input type="radio" name="count" checked={isAuto} onChange={() => setAuto(true)} />
              <span>As many as Discord recommends. When it recommends more later, that is proposed and waits for you.</span>
            </label>
            <label class="check">
              <input type="radio" name="count" checked={!isAuto} onChange={() => setAuto(false)} />
              <span>A number of my own</span>
            </label>
          </fieldset>
          {!isAuto && (
            <>
              <Field label="Shard count" error={countError} help="One shard holds 2,500 guilds at most; some 1,000 are usual.">
                {(attributes) => (
                  <input
                    {...attributes}
                    type="number"
                    min="1"
                    step="1"
                    value={shards}
                    onInput={(event) => setShards(event.currentTarget.value)}
                  />
                )}
              </Field>
              <Field
                label="Only these ids"
                error={fieldError("shards.ids")}
                help="When other programs run the rest of this bot's shards, such as 0-7,12. Empty: all."
              >
                {(attributes) => (
                  <input
                    {...attributes}
                    value={ids}
                    placeholder="all"
                    autocomplete="off"
                    onInput={(event) => setIds(event.currentTarget.value)}
                  />
                )}
              </Field>
            </>
          )}
        </Section>
        <Section title="To begin with" aside="all other settings have defaults and can be changed later">
          <label class="check">
            <input type="checkbox" checked={isCached} onChange={(event) => setCached(event.currentTarget.checked)} />
            <span>Keep guilds, channels, roles and members in Redis, for look-ups</span>
          </label>
          <label class="check">
            <input type="checkbox" checked={isPaused} onChange={(event) => setPaused(event.currentTarget.checked)} />
            <span>Paused: it is stored and does not connect yet</span>
          </label>
        </Section>
        {error !== null && <ErrorNote error={error} />}
        {plan && (
          <div class="note" role="status">
            <div>
              <StateWord state="live">
                Discord accepts the token{plan.bot ? <>: this is <strong>{plan.bot.name}</strong></> : null}
              </StateWord>
              {plan.bot?.avatar && <img class="avatar" src={plan.bot.avatar} alt={`Picture of ${plan.bot.name}`} />}
              {plan.bot && <BotFacts bot={plan.bot} />}
              <Warnings plan={plan} />
            </div>
          </div>
        )}
        <div class="buttons left">
          <button type="submit" class="primary" disabled={!isFilled || isWorking}>
            {isWorking ? (plan ? "Adding…" : "Asking Discord…") : plan ? `Add ${name}` : "Test the token"}
          </button>
        </div>
      </form>
    </Page>
  );
}

/** What Discord says of the bot, for whoever wonders whether this is the right one. */
function BotFacts({ bot }: { bot: TestedBot }): JSX.Element {
  return (
    <dl class="facts gap-above">
      <dt>User id</dt>
      <dd>
        <code>{bot.id}</code>
      </dd>
      {bot.guilds !== null && (
        <>
          <dt>Guilds</dt>
          <dd>about {count(bot.guilds)}</dd>
        </>
      )}
      <dt>Discord recommends</dt>
      <dd>{plural(bot.shards_recommended, "shard")}</dd>
      <dt>Session starts left</dt>
      <dd>
        {count(bot.session_starts_left)} of {count(bot.session_starts_total)}
        {bot.session_starts_left < bot.session_starts_total && `; all again in ${duration(bot.session_starts_reset_s)}`}
      </dd>
      <dt>Privileged intents enabled</dt>
      <dd>{bot.intents_enabled.join(", ") || "none"}</dd>
    </dl>
  );
}
