// Changes that several pages offer: each asks first, and says what it costs.
import type { JSX } from "preact";
import { ask, get, type Ask } from "./api/client";
import type { Groups, NewSessions, Outcome, ScaleOutcome } from "./api/types";
import { confirm, type Costs } from "./ui/confirm";
import { bytes, clock, count, duration, plural } from "./ui/format";
import { Mark } from "./ui/parts";

const inPath = encodeURIComponent;

export function Cost({ found }: { found: NewSessions | null }): JSX.Element {
  if (!found) return <span>It needs no new sessions: no session start is spent.</span>;
  const left = found.session_starts_left;
  return (
    <>
      <dl class="facts">
        <dt>Why</dt>
        <dd>{found.reasons.join(", ") || "–"}</dd>
        <dt>Shards</dt>
        <dd>
          {count(found.shards_before)} → {count(found.shards_after)}
        </dd>
        <dt>Session starts</dt>
        <dd>
          {count(found.session_starts)}
          {left !== null && ` of ${count(left)} left; ${count(found.session_starts_kept)} are kept for failover`}
        </dd>
        <dt>Time</dt>
        <dd>{duration(found.seconds)} at least</dd>
        <dt>Memory meanwhile</dt>
        <dd>{bytes(found.memory_bytes)} more</dd>
        <dt>Present shards</dt>
        <dd>{found.at_once ? "end first: events are lost until the new ones are there" : "serve until the new ones are ready"}</dd>
      </dl>
      {!found.begins_now && (
        <p class="note note-warning">
          <Mark look={{ shape: "triangle", tone: "warning" }} />
          <span>
            Too few session starts are left. It begins after the reset
            {found.session_starts_reset_at ? `, at ${clock(found.session_starts_reset_at, false)}` : ""}.
          </span>
        </p>
      )}
    </>
  );
}

/** Why new sessions would wait; "" when they would not. */
export function withoutRoom(found: NewSessions | null): string {
  if (!found?.shards_without_room) return "";
  const of = `${count(found.shards_without_room)} of the ${plural(found.shards_after, "new shard")}`;
  return `No node has room for ${of}: the change would wait${found.at_once ? "" : " beside the present shards"} until there is.`;
}

function outcomeText(done: string, outcome: Outcome): string {
  return outcome.reached ? `${done}: done.` : `${done}: under way. The page shows how far it is.`;
}

async function change(key: string, path: string, body?: unknown, more: Ask = {}): Promise<Outcome> {
  const headers = { ...more.headers, Prefer: "wait=0", "Idempotency-Key": key };
  return (await ask<Outcome>("POST", path, { ...more, body, headers })).data;
}

async function dryRun(path: string, body?: unknown, query: Ask["query"] = {}): Promise<ScaleOutcome> {
  return (await ask<ScaleOutcome>("POST", path, { body, query: { ...query, dry_run: true } })).data;
}

/** Without room it is begun only when that was accepted. */
function isForced(plan: ScaleOutcome | null): boolean {
  return withoutRoom(plan?.new_sessions ?? null) !== "";
}

function costsOf(plan: ScaleOutcome): Costs {
  return {
    shown: (
      <>
        <Cost found={plan.new_sessions} />
        {(plan.warnings ?? []).map((text) => (
          <p class="note note-warning" key={text}>
            <Mark look={{ shape: "triangle", tone: "warning" }} />
            <span>{text}</span>
          </p>
        ))}
      </>
    ),
    withoutRoom: withoutRoom(plan.new_sessions),
  };
}

export function pauseApp(app: string): void {
  confirm({
    title: `Pause ${app}?`,
    body: (
      <p>
        Its shards close and nothing is received until it is resumed. Sessions are kept: while Discord still has them, it
        sends what was missed; after that new sessions start, and what happened meanwhile is lost.
      </p>
    ),
    verb: "Pause",
    dangerous: true,
    run: async (key) => outcomeText(`Pausing ${app}`, await change(key, `/apps/${inPath(app)}/pause`)),
  });
}

export function resumeApp(app: string): void {
  confirm({
    title: `Resume ${app}?`,
    body: <p>Its shards start again. Where Discord no longer has the session, a new one costs a session start.</p>,
    verb: "Resume",
    run: async (key) => outcomeText(`Resuming ${app}`, await change(key, `/apps/${inPath(app)}/resume`)),
  });
}

export function restartApp(app: string, hard: boolean): void {
  const path = `/apps/${inPath(app)}/restart`;
  let plan: ScaleOutcome | null = null;
  confirm({
    title: hard ? `End all sessions of ${app} and start new ones?` : `Restart ${app} with new sessions?`,
    body: hard ? (
      <p>The present shards end first. Events are lost until the new sessions are there.</p>
    ) : (
      <p>New sessions start beside the present ones, which serve until all are ready. No event is lost.</p>
    ),
    verb: "Restart",
    dangerous: hard,
    typed: hard ? app : undefined,
    cost: async () => costsOf((plan = await dryRun(path, { hard }))),
    run: async (key) => outcomeText(`Restarting ${app}`, await change(key, path, { hard, force: isForced(plan) })),
  });
}

export function scaleApp(app: string, shards: number | "auto", ids: string | null): void {
  const path = `/apps/${inPath(app)}/scale`;
  const body = ids ? { shards, ids } : { shards };
  let plan: ScaleOutcome | null = null;
  confirm({
    title: `Run ${app} with ${shards === "auto" ? "the shard count that Discord recommends" : plural(shards, "shard")}?`,
    body: ids ? (
      <p>
        Only the shards <code>{ids}</code> run in this cluster.
      </p>
    ) : null,
    verb: "Scale",
    cost: async () => costsOf((plan = await dryRun(path, body))),
    run: async (key) => {
      // What was confirmed is the change of this configuration, and of no later one.
      const headers: Record<string, string> = plan?.revision ? { "If-Match": `"${plan.revision}"` } : {};
      return outcomeText(`Scaling ${app}`, await change(key, path, { ...body, force: isForced(plan) }, { headers }));
    },
  });
}

export function acceptProposal(app: string): void {
  const path = `/apps/${inPath(app)}/scale/accept`;
  let proposed: number | undefined;
  let plan: ScaleOutcome | null = null;
  confirm({
    title: `Take the proposed shard count for ${app}?`,
    body: null,
    verb: "Accept",
    cost: async () => {
      proposed = (await get<Groups>(`/apps/${inPath(app)}/groups`)).proposal?.count;
      return costsOf((plan = await dryRun(path, undefined, { count: proposed })));
    },
    run: async (key) => {
      const query = { count: proposed, force: isForced(plan) };
      return outcomeText(`Scaling ${app}`, await change(key, path, undefined, { query }));
    },
  });
}

export function cancelScale(app: string): void {
  confirm({
    title: `Take the change of ${app} back?`,
    body: <p>The new shards end; the present ones go on. Session starts that are spent are spent.</p>,
    verb: "Take it back",
    run: async (key) => {
      const { data } = await ask<{ cancelled: boolean }>("POST", `/apps/${inPath(app)}/scale/cancel`, {
        headers: { "Idempotency-Key": key },
      });
      return data.cancelled ? `The change of ${app} was taken back.` : "Nothing was under way.";
    },
  });
}

export function restartShards(app: string, shards: string): void {
  confirm({
    title: `Reconnect ${shards.includes("-") || shards.includes(",") ? "shards" : "shard"} ${shards} of ${app}?`,
    body: <p>Sessions are kept: no session start is spent where Discord still has them, and nothing is lost.</p>,
    verb: "Reconnect",
    run: async (key) =>
      outcomeText(`Reconnecting ${shards} of ${app}`, await change(key, `/apps/${inPath(app)}/shards/restart`, { shards })),
  });
}

export function moveShards(app: string, shards: string, node: string): void {
  confirm({
    title: `Move shard ${shards} of ${app} to ${node}?`,
    body: (
      <p>
        Its session is kept and no event is lost. It stays pinned to <strong>{node}</strong> until the pin is removed.
      </p>
    ),
    verb: "Move",
    run: async (key) =>
      outcomeText(`Moving ${shards} of ${app}`, await change(key, `/apps/${inPath(app)}/shards/move`, { shards, node })),
  });
}

export function unpinShards(app: string, shards: string): void {
  confirm({
    title: `Remove the pin of shard ${shards} of ${app}?`,
    body: <p>The leader balances it again. It may move, session kept.</p>,
    verb: "Remove the pin",
    run: async (key) => {
      await ask("DELETE", `/apps/${inPath(app)}/pins`, { query: { shards }, headers: { "Idempotency-Key": key } });
      return `The pin of shard ${shards} of ${app} was removed.`;
    },
  });
}

export function cordonNode(node: string): void {
  confirm({
    title: `Cordon ${node}?`,
    body: <p>It keeps the shards that it has and gets no new ones.</p>,
    verb: "Cordon",
    run: async (key) => outcomeText(`Cordoning ${node}`, await change(key, `/nodes/${inPath(node)}/cordon`)),
  });
}

export function uncordonNode(node: string): void {
  confirm({
    title: `Let ${node} take shards again?`,
    body: <p>The leader may move shards to it, sessions kept.</p>,
    verb: "Uncordon",
    run: async (key) => outcomeText(`Uncordoning ${node}`, await change(key, `/nodes/${inPath(node)}/uncordon`)),
  });
}

export function drainNode(node: string, shards: number, others: number): void {
  const force = others === 0;
  confirm({
    title: `Drain ${node}?`,
    body: (
      <>
        <p>
          {shards ? `Its ${plural(shards, "shard")} move` : "Its shards move"} to the other nodes, sessions kept: no session
          start is spent, no event is lost. It gets no new shards until it is uncordoned.
        </p>
        {force && (
          <p class="note note-critical">
            <Mark look={{ shape: "square", tone: "critical" }} />
            <span>No other node takes shards. They stay here until one does.</span>
          </p>
        )}
      </>
    ),
    verb: "Drain",
    dangerous: true,
    typed: force ? node : undefined,
    run: async (key) => outcomeText(`Draining ${node}`, await change(key, `/nodes/${inPath(node)}/drain`, { force })),
  });
}

export function forgetNode(node: string): void {
  confirm({
    title: `Forget ${node}?`,
    body: <p>For a node that is gone for good: it is no longer shown as missing. A node that runs is not affected.</p>,
    verb: "Forget",
    run: async (key) => {
      await ask("DELETE", `/nodes/${inPath(node)}`, { headers: { "Idempotency-Key": key } });
      return `${node} is forgotten.`;
    },
  });
}

export function rebalance(): void {
  confirm({
    title: "Balance all shards again?",
    body: <p>All pins are removed. Shards move, sessions kept, until every node has its share.</p>,
    verb: "Rebalance",
    cost: async () => {
      const { data } = await ask<{ moves: { app: string; shard: number; source: string | null; target: string }[] }>(
        "POST",
        "/rebalance",
        { query: { dry_run: true } },
      );
      return { shown: data.moves.length ? `${plural(data.moves.length, "shard")} would move.` : "Nothing would move." };
    },
    run: async (key) => outcomeText("Rebalancing", await change(key, "/rebalance")),
  });
}
