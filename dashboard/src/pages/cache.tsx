import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get } from "../api/client";
import type { AppSummary, Guild, GuildLocations, Items, Members, MutualGuild, MutualGuilds, Permissions } from "../api/types";
import { permissionNames } from "../permissions";
import { href, place, setQuery } from "../router";
import { useResource } from "../state/resource";
import { AppLink, NodeLink } from "../ui/appname";
import { appColumn, guildsColumn } from "../ui/apptable";
import { plural } from "../ui/format";
import { Page } from "../ui/page";
import { Empty, ErrorNote, Field, Loaded, Section, StateWord, Table } from "../ui/parts";

type View = "guild" | "member" | "user";
const ID = /^\d{1,20}$/;
const COLLECTIONS = ["channels", "roles", "threads", "voice_states", "emojis", "stickers", "scheduled_events", "stages", "sounds"];

/** What the cache has: a guild, its members, the servers that a user shares with the bots. */
export function CachePage(): JSX.Element {
  const { query } = place.value;
  const view = (query.get("view") ?? "guild") as View;
  const id = query.get("id") ?? "";
  const [typed, setTyped] = useState(id);
  useEffect(() => setTyped(id), [id, view]);
  const labels: Record<View, string> = { guild: "Guild id", member: "Guild id", user: "User id" };
  return (
    <Page title="Cache" name="Cache" sub="what the cluster knows of guilds and users">
      <nav class="tabs" aria-label="Look-ups">
        {(
          [
            ["guild", "Guild"],
            ["member", "Members"],
            ["user", "Servers of a user"],
          ] as const
        ).map(([name, text]) => (
          <a key={name} href={`/cache?view=${name}${name !== "user" && view !== "user" && id ? `&id=${id}` : ""}`} aria-current={view === name ? "page" : undefined}>
            {text}
          </a>
        ))}
      </nav>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          setQuery({ id: typed.trim() });
        }}
      >
        <Field label={labels[view]} long>
          {(attributes) => (
            <input
              {...attributes}
              value={typed}
              inputMode="numeric"
              autocomplete="off"
              placeholder="such as 197038439483310086"
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
          )}
        </Field>
        <button type="submit" class="primary" disabled={!ID.test(typed.trim())}>
          Look up
        </button>
      </form>
      {!ID.test(id) ? (
        <>
          <Empty>
            {view === "user"
              ? "An id of a Discord user gives the servers that they share with your bots."
              : "An id of a guild, as Discord shows it with developer mode on (Copy Server ID)."}
          </Empty>
          <Completeness />
        </>
      ) : view === "user" ? (
        <MutualView key={id} id={id} />
      ) : (
        <GuildView key={`${view} ${id}`} id={id} view={view} />
      )}
    </Page>
  );
}

/** How much of what the applications are to have is there. */
function Completeness(): JSX.Element {
  const apps = useResource<AppSummary[]>("/apps", { all: true, every: 10_000, on: ["figures"] });
  return (
    <Section title="How complete it is">
      <Loaded from={apps}>
        {(found) => (
          <Table<AppSummary>
            label="How complete the cache is"
            rows={found}
            keyOf={(row) => row.app}
            empty="No application yet."
            columns={[
              appColumn,
              guildsColumn,
              {
                head: "Cache",
                cell: (row) => (row.cache === "-" ? <span class="muted">no node says so yet</span> : row.cache),
                grow: true,
              },
            ]}
          />
        )}
      </Loaded>
    </Section>
  );
}

type Answer<T> = { data?: T; error?: unknown };

/** One question, asked again when its path changes. */
function useAnswer<T>(path: string | null): Answer<T> {
  const [answer, setAnswer] = useState<Answer<T>>({});
  useEffect(() => {
    const stop = new AbortController();
    setAnswer({});
    if (path !== null) {
      get<T>(path, { signal: stop.signal })
        .then((data) => setAnswer({ data }))
        .catch((error: unknown) => !stop.signal.aborted && setAnswer({ error }));
    }
    return () => stop.abort();
  }, [path]);
  return answer;
}

function Answered<T>({ of, children }: { of: Answer<T>; children: (data: T) => ComponentChildren }): JSX.Element {
  if (of.error) return <ErrorNote error={of.error} />;
  if (of.data === undefined) return <Empty>Asking…</Empty>;
  return <>{children(of.data)}</>;
}

function Unanswered({ apps }: { apps: readonly string[] }): JSX.Element | null {
  return apps.length ? <p class="small tone-warning">Did not answer: {apps.join(", ")}. What they have is missing here.</p> : null;
}

function GuildView({ id, view }: { id: string; view: View }): JSX.Element {
  const where = useAnswer<GuildLocations>(`/guilds/${id}`);
  const [chosen, setChosen] = useState("");
  const app = chosen || (where.data?.locations[0]?.app ?? "");
  return (
    <Answered of={where}>
      {(found) => (
        <>
          <Unanswered apps={found.unanswered} />
          <Section title="Where it is">
            <Table
              label="Where the guild is"
              rows={found.locations}
              keyOf={(row) => row.app}
              empty="No application is in it."
              columns={[
                { head: "Application", cell: (row) => <AppLink app={row.app} /> },
                { head: "Shard", cell: (row) => <a href={href.shard(row.app, row.group, row.shard)}>{row.shard}</a>, number: true },
                { head: "State", cell: (row) => <StateWord state={row.state} /> },
                { head: "Node", cell: (row) => (row.node ? <NodeLink node={row.node} /> : "none"), grow: true },
              ]}
            />
          </Section>
          {found.locations.length > 1 && (
            <div class="filters">
              <Field label="From the cache of">
                {(attributes) => (
                  <select {...attributes} value={app} onChange={(event) => setChosen(event.currentTarget.value)}>
                    {found.locations.map((one) => (
                      <option key={one.app}>{one.app}</option>
                    ))}
                  </select>
                )}
              </Field>
            </div>
          )}
          {app && (view === "member" ? <MembersView app={app} id={id} /> : <GuildContent app={app} id={id} />)}
        </>
      )}
    </Answered>
  );
}

function text(value: unknown): string {
  return value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function Raw({ value, label }: { value: unknown; label: string }): JSX.Element {
  return (
    <details>
      <summary>{label}</summary>
      <pre tabIndex={0}>{JSON.stringify(value, null, 2)}</pre>
    </details>
  );
}

function GuildContent({ app, id }: { app: string; id: string }): JSX.Element {
  const base = `/apps/${encodeURIComponent(app)}/guilds/${id}`;
  const guild = useAnswer<Guild>(base);
  const [collection, setCollection] = useState("channels");
  const items = useAnswer<Items>(`${base}/${collection}`);
  return (
    <>
      <Section title="Guild">
        <Answered of={guild}>
          {({ guild: found }) => (
            <>
              <dl class="facts">
                <dt>Name</dt>
                <dd>{text(found["name"])}</dd>
                <dt>Owner</dt>
                <dd>
                  <code>{text(found["owner_id"])}</code>
                </dd>
                <dt>Members</dt>
                <dd>{text(found["member_count"]) || "not known"}</dd>
                {found["description"] ? (
                  <>
                    <dt>Description</dt>
                    <dd>{text(found["description"])}</dd>
                  </>
                ) : null}
              </dl>
              <Raw value={found} label="Everything, as Discord has it" />
            </>
          )}
        </Answered>
      </Section>
      <Section title="Its collections">
        <div class="filters">
          <Field label="Collection">
            {(attributes) => (
              <select {...attributes} value={collection} onChange={(event) => setCollection(event.currentTarget.value)}>
                {COLLECTIONS.map((name) => (
                  <option key={name} value={name}>
                    {name.replace("_", " ")}
                  </option>
                ))}
              </select>
            )}
          </Field>
        </div>
        <Answered of={items}>
          {(found) => (
            <Things items={found.items} label={collection.replace("_", " ")} />
          )}
        </Answered>
      </Section>
    </>
  );
}

const THINGS_SHOWN = 200;

function Things({ items, label }: { items: readonly Record<string, unknown>[]; label: string }): JSX.Element {
  return (
    <>
      <p class="small muted">
        {plural(items.length, "item")}
        {items.length > THINGS_SHOWN && `, the first ${THINGS_SHOWN} are shown`}
      </p>
      <Table<Record<string, unknown>>
        label={label}
        rows={items.slice(0, THINGS_SHOWN)}
        keyOf={(row) => text(row["id"] ?? row["user_id"] ?? JSON.stringify(row))}
        empty={`It has no ${label}, or they are not kept in the cache.`}
        columns={[
          { head: "Id", cell: (row) => <code>{text(row["id"] ?? row["user_id"])}</code> },
          { head: "Name", cell: (row) => text(row["name"] ?? row["topic"] ?? row["channel_id"]) },
          { head: "Everything", cell: (row) => <Raw value={row} label="show" />, grow: true },
        ]}
      />
    </>
  );
}

function MembersView({ app, id }: { app: string; id: string }): JSX.Element {
  const [typed, setTyped] = useState("");
  const [wanted, setWanted] = useState("");
  const base = `/apps/${encodeURIComponent(app)}/guilds/${id}/members`;
  const query = ID.test(wanted) ? `user_ids=${wanted}` : `query=${encodeURIComponent(wanted)}&limit=100`;
  const members = useAnswer<Members>(`${base}?${query}`);
  return (
    <Section title="Members" aside="from the cache">
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          setWanted(typed.trim());
        }}
      >
        <Field label="Name begins with, or a user id">
          {(attributes) => (
            <input {...attributes} value={typed} autocomplete="off" onInput={(event) => setTyped(event.currentTarget.value)} />
          )}
        </Field>
        <button type="submit">Find</button>
      </form>
      <Answered of={members}>
        {(found) => (
          <>
            {!found.complete && <p class="small muted">Not all: the cache has more, or not every member.</p>}
            <Table<Record<string, unknown>>
              label="Members"
              rows={found.members}
              keyOf={(row) => text(userOf(row)["id"])}
              empty="No member matches in the cache."
              columns={[
                {
                  head: "User id",
                  cell: (row) => (
                    <a href={`/cache?view=user&id=${text(userOf(row)["id"])}`}>
                      <code>{text(userOf(row)["id"])}</code>
                    </a>
                  ),
                },
                { head: "Name", cell: (row) => text(row["nick"] ?? userOf(row)["global_name"] ?? userOf(row)["username"]) },
                { head: "Roles", cell: (row) => (Array.isArray(row["roles"]) ? row["roles"].length : 0), number: true },
                {
                  head: "May do",
                  cell: (row) => <MayDo key={text(userOf(row)["id"])} path={`${base}/${text(userOf(row)["id"])}/permissions`} />,
                  wide: true,
                },
                { head: "Everything", cell: (row) => <Raw value={row} label="show" />, grow: true },
              ]}
            />
          </>
        )}
      </Answered>
    </Section>
  );
}

/** A member's permissions in the guild, asked for when someone wants to see them. */
function MayDo({ path }: { path: string }): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  const found = useAnswer<Permissions>(isOpen ? path : null);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>show</summary>
      {isOpen && (
        <Answered of={found}>
          {({ permissions }) => (
            <ul class="small">
              {permissionNames(permissions).map((name) => (
                <li key={name}>{name}</li>
              ))}
            </ul>
          )}
        </Answered>
      )}
    </details>
  );
}

function userOf(member: Record<string, unknown>): Record<string, unknown> {
  const user = member["user"];
  return user !== null && typeof user === "object" ? (user as Record<string, unknown>) : {};
}

function MutualView({ id }: { id: string }): JSX.Element {
  const { query } = place.value;
  const app = query.get("app") ?? "";
  const apps = useResource<AppSummary[]>("/apps", { all: true, every: 15_000 });
  const found = useAnswer<MutualGuilds>(`/users/${id}/mutual_guilds?names=true${app ? `&app=${encodeURIComponent(app)}` : ""}`);
  return (
    <Section title="Servers that they share with your bots">
      <div class="filters">
        <Field label="Application">
          {(attributes) => (
            <select {...attributes} value={app} onChange={(event) => setQuery({ app: event.currentTarget.value })}>
              <option value="">all</option>
              {apps.data?.map((one) => <option key={one.app}>{one.app}</option>)}
            </select>
          )}
        </Field>
      </div>
      <Answered of={found}>
        {(answer) => (
          <>
            <Unanswered apps={answer.unanswered} />
            <Table<MutualGuild>
              label="Shared servers"
              rows={answer.guilds}
              keyOf={(row) => row.guild_id}
              empty="None that the cache knows of."
              columns={[
                { head: "Guild", cell: (row) => <a href={`/cache?view=guild&id=${row.guild_id}`}><code>{row.guild_id}</code></a> },
                { head: "Name", cell: (row) => row.name ?? "", grow: true },
                { head: "Applications", cell: (row) => row.apps.join(", ") },
              ]}
            />
          </>
        )}
      </Answered>
    </Section>
  );
}
