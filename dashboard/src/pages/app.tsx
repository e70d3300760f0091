import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { App, Budget, Group, Groups, Problem, Proposal, Shard } from "../api/types";
import { acceptProposal, cancelScale, pauseApp, restartApp, resumeApp, scaleApp } from "../changes";
import { href } from "../router";
import { remember, spanOf, useHistory } from "../state/history";
import { useResource, type Resource } from "../state/resource";
import { isAdmin, isOperator } from "../state/session";
import { Chart } from "../ui/chart";
import { cacheText, count, duration, milliseconds, plural, rate } from "../ui/format";
import { Page } from "../ui/page";
import { Ago, Empty, Field, Figure, Loaded, Mark, Meter, now, Section, StateWord, Table } from "../ui/parts";
import { Problems } from "../ui/problems";
import { RecentTables } from "../ui/recent";
import { ShardGrid } from "../ui/shardgrid";
import { AppSettings } from "./app-settings";
import { Consumers } from "./consumers";

export function AppPage({ app, tab }: { app: string; tab: "status" | "settings" }): JSX.Element {
  const found = useResource<App>(`/apps/${encodeURIComponent(app)}`, {
    every: 5000,
    on: [`app/${app}`, `group/${app}/`, `shard/${app}/`, "figures"],
  });
  const summary = found.data?.status;
  useEffect(() => {
    if (summary) remember(app, Date.now() / 1000, summary.events_per_s);
  }, [summary]);
  return (
    <Page
      title={app}
      name={app}
      sub={
        found.data && (
          <>
            <StateWord state={found.data.status.state} />
            {found.data.bot_name && ` · ${found.data.bot_name}`}
          </>
        )
      }
      actions={found.data && isOperator.value && <Actions app={found.data} />}
    >
      <nav class="tabs" aria-label={`Parts of ${app}`}>
        <a href={href.app(app)} aria-current={tab === "status" ? "page" : undefined}>
          Status
        </a>
        <a href={`${href.app(app)}/settings`} aria-current={tab === "settings" ? "page" : undefined}>
          Settings
        </a>
      </nav>
      <Loaded from={found} missing={`There is no application ${app}.`}>
        {(one) => (tab === "status" ? <Status app={one} /> : <AppSettings app={one} isAdmin={isAdmin.value} refresh={found.refresh} />)}
      </Loaded>
    </Page>
  );
}

function Actions({ app }: { app: App }): JSX.Element {
  const isPaused = app.status.state === "paused" || app.status.paused_at !== null;
  return (
    <>
      {isPaused ? (
        <button type="button" class="primary" onClick={() => resumeApp(app.app)}>
          Resume…
        </button>
      ) : (
        <button type="button" onClick={() => pauseApp(app.app)}>
          Pause…
        </button>
      )}
      <button type="button" onClick={() => restartApp(app.app, false)} disabled={isPaused}>
        Restart…
      </button>
    </>
  );
}

function Status({ app }: { app: App }): JSX.Element {
  const name = encodeURIComponent(app.app);
  const shards = useResource<Shard[]>(`/apps/${name}/shards`, { all: true, every: 5000, on: [`shard/${app.app}/`] });
  const groups = useResource<Groups>(`/apps/${name}/groups`, {
    every: 4000,
    on: [`group/${app.app}/`, `shard/${app.app}/`, `app/${app.app}`],
  });
  const problems = useResource<Problem[]>(`/problems?app=${name}`, { all: true, every: 5000, on: ["problem/"] });
  const budgets = useResource<Budget[]>("/budgets", { all: true, every: 10_000, on: ["figures"] });
  const { status } = app;
  const { events: points, latency: latencies } = useHistory(app.app);
  const latency = useMemo(() => medianLatency(shards.data ?? []), [shards.data]);
  const budget = budgets.data?.find((one) => one.apps.includes(app.app));
  return (
    <>
      {problems.data && problems.data.length > 0 && <Problems problems={problems.data} />}
      {status.reason && <p class="note">{status.reason}</p>}
      <ChangeNote app={app.app} groups={groups.data} />
      <dl class="figures">
        <Figure label="Live shards" note={`of ${count(status.shards_wanted)}`}>
          {count(status.shards["live"] ?? 0)}
        </Figure>
        <Figure label="Guilds">{count(status.guilds)}</Figure>
        <Figure label="Events a second">{rate(status.events_per_s)}</Figure>
        <Figure label="Latency, median">{milliseconds(latency)}</Figure>
        <Figure label="Session starts left" note={`of ${count(status.session_starts_total)}`}>
          {count(status.session_starts_left)}
        </Figure>
        <Figure label="Cache">
          <span class="words">{cacheText(status.cache)}</span>
        </Figure>
      </dl>
      <ShardSection shards={shards} groups={groups.data} />
      {points.length > 1 && (
        <Section title="Events a second" aside={spanOf(points)}>
          <Chart points={points} label={`Events a second: ${rate(points[points.length - 1]?.value)} now`} />
        </Section>
      )}
      {latencies.length > 1 && (
        <Section title="Latency, median of its shards, in milliseconds" aside={spanOf(latencies)}>
          <Chart
            points={latencies}
            label={`Latency: ${milliseconds(latencies[latencies.length - 1]?.value)} at the last full minute`}
          />
        </Section>
      )}
      <div class="columns">
        <Section title="Session starts" id="sessions">
          <Loaded from={budgets}>
            {() => (budget ? <Sessions budget={budget} app={app.app} /> : <Empty>Discord has not been asked yet.</Empty>)}
          </Loaded>
        </Section>
        <Section title="Scale">
          {isOperator.value ? <Scale app={app} proposal={app.proposal} /> : <Empty>Scaling needs the role operator.</Empty>}
        </Section>
      </div>
      <Section title="Shard groups" aside="generations of the application's shards">
        <Loaded from={groups}>{(found) => <GroupTable groups={found.groups} />}</Loaded>
      </Section>
      <Section title="Consumer groups" id="consumers">
        <Consumers app={app.app} />
      </Section>
      <Section title="Recent failovers and losses">
        <RecentTables app={app.app} />
      </Section>
    </>
  );
}

function ShardSection({ shards, groups }: { shards: Resource<Shard[]>; groups: Groups | undefined }): JSX.Element {
  const byGroup = new Map<number, Shard[]>();
  for (const shard of shards.data ?? []) byGroup.set(shard.group, [...(byGroup.get(shard.group) ?? []), shard]);
  return (
    <Section title="Shards" aside={<a href={`/shards?app=${encodeURIComponent(shards.data?.[0]?.app ?? "")}`}>As a table</a>}>
      <Loaded from={shards}>
        {(found) =>
          found.length ? (
            <>
              {[...byGroup].map(([group, of]) => {
                const known = groups?.groups.find((one) => one.group === group);
                return (
                  <div key={group}>
                    {byGroup.size > 1 && (
                      <h3>
                        Group {group}
                        {known && <span class="muted small"> {known.serves ? "serves" : known.phase}</span>}
                      </h3>
                    )}
                    <ShardGrid shards={of} label={`Shards of group ${group}`} />
                  </div>
                );
              })}
            </>
          ) : (
            <Empty>No shards yet: the leader makes a shard group once Discord has confirmed the token.</Empty>
          )
        }
      </Loaded>
    </Section>
  );
}

function ChangeNote({ app, groups }: { app: string; groups: Groups | undefined }): JSX.Element | null {
  const change = groups?.change;
  if (!change) return null;
  return (
    <div class="note">
      <Mark look={{ shape: "half", tone: "busy" }} />
      <div class="change">
        <div>
          <strong>From group {change.from_group} to group {change.to_group}</strong>: {change.phase}
          {change.seconds_left !== null && `, about ${duration(change.seconds_left)} left`}
        </div>
        <Meter wide value={change.shards_done} max={change.shards} label="Shards that are done" />
        {change.shards_failed.length > 0 && (
          <div class="tone-critical">Failed: shards {change.shards_failed.join(", ")}</div>
        )}
        {isOperator.value && (
          <button type="button" onClick={() => cancelScale(app)}>
            Take it back…
          </button>
        )}
      </div>
    </div>
  );
}

function Sessions({ budget, app }: { budget: Budget; app: string }): JSX.Element {
  const others = budget.apps.filter((one) => one !== app);
  return (
    <>
      <Meter
        wide
        value={budget.remaining}
        max={budget.total}
        kept={budget.reserve}
        label="Session starts left"
        text={`${count(budget.remaining)} of ${count(budget.total)} left`}
      />
      <dl class="facts">
        <dt>All back</dt>
        <dd>{budget.reset_at > now.value ? <Ago at={budget.reset_at} /> : "not known yet: Discord is asked again"}</dd>
        <dt>Kept for failover</dt>
        <dd>{count(budget.reserve)} (the mark in the bar)</dd>
        <dt>At once</dt>
        <dd>{plural(budget.max_concurrency, "session")} every 5 s</dd>
        <dt>Discord recommends</dt>
        <dd>{plural(budget.recommended_shards, "shard")}</dd>
        {others.length > 0 && (
          <>
            <dt>Shared with</dt>
            <dd>{others.join(", ")}, which have the same token</dd>
          </>
        )}
      </dl>
      {budget.error && (
        <p class="note note-critical">
          <Mark look={{ shape: "square", tone: "critical" }} />
          <span>Discord refused the token: {budget.error}</span>
        </p>
      )}
      {budget.starts
        .filter((start) => start.app === app)
        .map((start) => (
          <p class="note" key={start.group}>
            <span>
              {start.started} of {start.wanted} shards of group {start.group} have their session.
              {start.waiting > 0 && ` ${start.waiting} ${start.waiting === 1 ? "waits" : "wait"}`}
              {start.eta_s !== null && start.waiting > 0 && `, about ${duration(start.eta_s)} left`}.
              {start.blocked_until !== null && (
                <>
                  {" "}
                  Too few session starts are left; more come <Ago at={start.blocked_until} />.
                </>
              )}
            </span>
          </p>
        ))}
    </>
  );
}

function Scale({ app, proposal }: { app: App; proposal: Proposal | null }): JSX.Element {
  const [isAuto, setAuto] = useState(false);
  const [shards, setShards] = useState(String(app.status.shards_wanted || 1));
  const [ids, setIds] = useState("");
  const number = Number(shards);
  const isValid = isAuto || (Number.isInteger(number) && number >= 1);
  return (
    <>
      {proposal && (
        <div class="note">
          <div>
            <p>
              The leader proposes {plural(proposal.count, "shard")}: {proposal.reason}.
            </p>
            <button type="button" onClick={() => acceptProposal(app.app)}>
              See the cost…
            </button>
          </div>
        </div>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (isValid) scaleApp(app.app, isAuto ? "auto" : number, isAuto ? null : ids.trim() || null);
        }}
      >
        <label class="check">
          <input type="checkbox" checked={isAuto} onChange={(event) => setAuto(event.currentTarget.checked)} />
          <span>The count that Discord recommends</span>
        </label>
        {!isAuto && (
          <div class="filters">
            <Field label="Shard count">
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
            <Field label="Only these ids">
              {(attributes) => (
                <input
                  {...attributes}
                  placeholder="all, or 0-31,40"
                  value={ids}
                  onInput={(event) => setIds(event.currentTarget.value)}
                />
              )}
            </Field>
          </div>
        )}
        <button type="submit" disabled={!isValid}>
          See the cost…
        </button>
      </form>
      <p class="small muted gap-above">The present shards serve until the new ones are ready. Nothing begins before you confirm.</p>
      <button type="button" class="danger" onClick={() => restartApp(app.app, true)}>
        <Mark look={{ shape: "triangle", tone: "critical" }} />
        End all sessions and start new ones…
      </button>
    </>
  );
}

function GroupTable({ groups }: { groups: readonly Group[] }): JSX.Element {
  return (
    <Table<Group>
      label="Shard groups"
      rows={groups}
      keyOf={(row) => String(row.group)}
      empty="No shard group yet."
      columns={[
        { head: "Group", cell: (row) => row.group, number: true },
        { head: "State", cell: (row) => <StateWord state={row.state} /> },
        { head: "Phase", cell: (row) => (row.serves ? `${row.phase}, serves` : row.phase) },
        { head: "Shards", cell: (row) => count(row.count), number: true },
        { head: "Ids", cell: (row) => row.ids || "all", wide: true },
        { head: "Made", cell: (row) => <Ago at={row.created_at} />, wide: true },
        { head: "Why", cell: (row) => row.reason, grow: true },
      ]}
    />
  );
}

function medianLatency(shards: readonly Shard[]): number | null {
  const measured = shards.flatMap((shard) => (shard.latency_ms === null ? [] : [shard.latency_ms])).sort((a, b) => a - b);
  return measured[Math.floor(measured.length / 2)] ?? null;
}
