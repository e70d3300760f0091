import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { ask } from "../api/client";
import type { ApiToken, NewApiToken, RoleName, User } from "../api/types";
import { useResource } from "../state/resource";
import { isAdmin, me } from "../state/session";
import { confirm, report } from "../ui/confirm";
import { AppsField, NameField } from "../ui/fields";
import { Page } from "../ui/page";
import { Ago, Copy, Empty, ErrorNote, Field, Loaded, Mark, Section, Table } from "../ui/parts";
import { Webhooks } from "./webhooks";

const ROLES: { name: RoleName; means: string }[] = [
  { name: "viewer", means: "reads" },
  { name: "operator", means: "also moves, restarts, scales and drains" },
  { name: "admin", means: "also changes configuration and access" },
];

export function SettingsPage(): JSX.Element {
  return (
    <Page title="Settings" name="Settings" sub="who has access, and who is notified">
      {isAdmin.value ? (
        <>
          <Users />
          <Tokens />
          <Webhooks />
        </>
      ) : (
        <Empty>Settings need the role admin.</Empty>
      )}
    </Page>
  );
}

function RoleField({ role, onChange }: { role: RoleName; onChange: (role: RoleName) => void }): JSX.Element {
  return (
    <Field label="Role">
      {(attributes) => (
        <select {...attributes} value={role} onChange={(event) => onChange(event.currentTarget.value as RoleName)}>
          {ROLES.map(({ name, means }) => (
            <option key={name} value={name}>
              {name}: {means}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

function appsOf(text: string): string[] | null {
  const found = text.split(/[\s,]+/).filter(Boolean);
  return found.length ? found : null;
}

function scope(apps: string[] | null): string {
  return apps === null ? "all" : apps.join(", ") || "none";
}

function Users(): JSX.Element {
  const users = useResource<User[]>("/users", { all: true, every: 15_000 });
  const [user, setUser] = useState("");
  const [role, setRole] = useState<RoleName>("viewer");
  const [apps, setApps] = useState("");
  const [error, setError] = useState<unknown>(null);
  const add = async (event: Event): Promise<void> => {
    event.preventDefault();
    setError(null);
    try {
      await ask("PUT", `/users/${encodeURIComponent(user.trim())}`, { body: { role, apps: appsOf(apps) } });
      report(`${user.trim()} may sign in as ${role}.`);
      setUser("");
      setApps("");
      await users.refresh();
    } catch (found) {
      setError(found);
    }
  };
  return (
    <Section title="Users" aside="Discord accounts that may sign in">
      <Loaded from={users}>
        {(found) => (
          <Table<User>
            label="Users"
            rows={found}
            keyOf={(row) => row.user}
            empty="No user yet. Until there is one, API tokens are the way in."
            columns={[
              { head: "Discord id", cell: (row) => <code>{row.user}</code> },
              { head: "Role", cell: (row) => (row.usable ? row.role : <Unusable role={row.role} />) },
              { head: "Applications", cell: (row) => scope(row.apps), grow: true },
              { head: "Since", cell: (row) => <Ago at={row.created_at} />, wide: true },
              { head: "By", cell: (row) => row.created_by, wide: true },
              {
                head: "",
                cell: (row) => (
                  <button
                    type="button"
                    class="quiet"
                    aria-label={`Remove user ${row.user}`}
                    onClick={() =>
                      confirm({
                        title: `Take the access of ${row.user} away?`,
                        body: <p>Their sessions end at once, on every node.</p>,
                        verb: "Take it away",
                        dangerous: true,
                        run: async (key) => {
                          await ask("DELETE", `/users/${encodeURIComponent(row.user)}`, { headers: { "Idempotency-Key": key } });
                          await users.refresh();
                          return `${row.user} has no access any more.`;
                        },
                      })
                    }
                  >
                    Remove
                  </button>
                ),
                number: true,
              },
            ]}
          />
        )}
      </Loaded>
      <form class="filters" onSubmit={(event) => void add(event)}>
        <Field label="Discord user id">
          {(attributes) => (
            <input
              {...attributes}
              value={user}
              inputMode="numeric"
              pattern="[0-9]{15,20}"
              required
              autocomplete="off"
              onInput={(event) => setUser(event.currentTarget.value)}
            />
          )}
        </Field>
        <RoleField role={role} onChange={setRole} />
        <AppsField apps={apps} onChange={setApps} />
        <button type="submit" disabled={!user.trim()}>
          Let them in
        </button>
      </form>
      {error !== null && <ErrorNote error={error} />}
    </Section>
  );
}

function Unusable({ role }: { role: string }): JSX.Element {
  return (
    <span class="state" title="It was not made with the cluster key">
      <Mark look={{ shape: "square", tone: "critical" }} />
      <span>{role}, not genuine: has no effect</span>
    </span>
  );
}

function Tokens(): JSX.Element {
  const tokens = useResource<ApiToken[]>("/tokens", { all: true, every: 15_000 });
  const [name, setName] = useState("");
  const [role, setRole] = useState<RoleName>("viewer");
  const [apps, setApps] = useState("");
  const [days, setDays] = useState("90");
  const [made, setMade] = useState<NewApiToken | null>(null);
  const [error, setError] = useState<unknown>(null);
  const create = async (event: Event): Promise<void> => {
    event.preventDefault();
    setError(null);
    try {
      const expires_in_s = days ? Number(days) * 86_400 : null;
      const { data } = await ask<NewApiToken>("POST", "/tokens", {
        body: { name: name.trim(), role, apps: appsOf(apps), expires_in_s },
      });
      setMade(data);
      setName("");
      setApps("");
      await tokens.refresh();
    } catch (found) {
      setError(found);
    }
  };
  const who = me.value;
  return (
    <Section title="API tokens" aside="for programs, and for people without Discord sign-in">
      {made && (
        <div class="note" role="status">
          <div>
            <p>
              The token <strong>{made.name}</strong>. It is shown this once:
            </p>
            <p>
              <code>{made.token}</code>
            </p>
            {window.isSecureContext && <Copy text={made.token} label="Copy" />}
            <button type="button" class="quiet" onClick={() => setMade(null)}>
              I have it
            </button>
          </div>
        </div>
      )}
      <Loaded from={tokens}>
        {(found) => (
          <Table<ApiToken>
            label="API tokens"
            rows={found}
            keyOf={(row) => row.id}
            empty="No API token."
            columns={[
              {
                head: "Name",
                cell: (row) => (
                  <>
                    <span class="name" title={row.name}>{row.name}</span>
                    {who && who !== "asking" && who.kind === "token" && who.name === row.name && (
                      <span class="muted small"> this session</span>
                    )}
                  </>
                ),
              },
              { head: "Role", cell: (row) => (row.usable ? row.role : <Unusable role={row.role} />) },
              { head: "Applications", cell: (row) => scope(row.apps), grow: true },
              { head: "Ends", cell: (row) => (row.expires_at ? <Ago at={row.expires_at} /> : "never") },
              { head: "Made", cell: (row) => <Ago at={row.created_at} />, wide: true },
              { head: "By", cell: (row) => row.created_by, wide: true },
              {
                head: "",
                cell: (row) => (
                  <button
                    type="button"
                    class="quiet"
                    aria-label={`Revoke token ${row.name}`}
                    onClick={() =>
                      confirm({
                        title: `Revoke the token ${row.name}?`,
                        body: <p>What uses it is refused at once, on every node.</p>,
                        verb: "Revoke",
                        dangerous: true,
                        run: async (key) => {
                          await ask("DELETE", `/tokens/${encodeURIComponent(row.id)}`, { headers: { "Idempotency-Key": key } });
                          await tokens.refresh();
                          return `The token ${row.name} was revoked.`;
                        },
                      })
                    }
                  >
                    Revoke
                  </button>
                ),
                number: true,
              },
            ]}
          />
        )}
      </Loaded>
      <form class="filters" onSubmit={(event) => void create(event)}>
        <NameField label="Name" value={name} onChange={setName} />
        <RoleField role={role} onChange={setRole} />
        <AppsField apps={apps} onChange={setApps} />
        <Field label="Ends after">
          {(attributes) => (
            <select {...attributes} value={days} onChange={(event) => setDays(event.currentTarget.value)}>
              <option value="1">a day</option>
              <option value="30">30 days</option>
              <option value="90">90 days</option>
              <option value="365">a year</option>
              <option value="">never</option>
            </select>
          )}
        </Field>
        <button type="submit" disabled={!name.trim()}>
          Make a token
        </button>
      </form>
      {error !== null && <ErrorNote error={error} />}
    </Section>
  );
}
