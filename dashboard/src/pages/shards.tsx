import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { AppSummary, Loss, Node, Shard, ShardDetails, ShardFailover } from "../api/types";
import { withQuery } from "../api/client";
import { moveShards, restartShards, unpinShards } from "../changes";
import { go, href, place, setQuery } from "../router";
import { useResource } from "../state/resource";
import { isOperator, seesCluster } from "../state/session";
import { AppLink, NodeLink } from "../ui/appname";
import { count, duration, milliseconds, plural, rate } from "../ui/format";
import { Page } from "../ui/page";
import { Empty, Field, Figure, Loaded, Section, Since, StateWord, Table, Time } from "../ui/parts";
import { MEANING } from "../ui/states";

const STATES = Object.keys(MEANING);
const ROWS = 200;

export function ShardsPage(): JSX.Element {
  const { query } = place.value;
  const app = query.get("app") ?? "";
  const node = query.get("node") ?? "";
  const state = query.get("state") ?? "";
  const wanted = query.get("shard");
  const apps = useResource<AppSummary[]>("/apps", { all: true, every: 10_000 });
  const nodes = useResource<Node[]>(seesCluster.value ? "/nodes" : null, { all: true, every: 10_000 });
  const shards = useResource<Shard[]>(withQuery("/shards", { app, node, state }), {
    all: true,
    every: 5000,
    on: ["shard/"],
  });
  const [most, setMost] = useState(ROWS);
  useEffect(() => {
    const found = wanted === null ? undefined : shards.data?.find((one) => String(one.shard) === wanted && one.serves);
    if (found) go(href.shard(found.app, found.group, found.shard), { replace: true });
  }, [wanted, shards.data]);
  const choice = (
    label: string,
    name: string,
    value: string,
    options: readonly string[],
  ): JSX.Element => (
    <Field label={label}>
      {(attributes) => (
        <select {...attributes} value={value} onChange={(event) => setQuery({ [name]: event.currentTarget.value })}>
          <option value="">all</option>
          {[...new Set([...options, ...(value ? [value] : [])])].map((option) => (
            <option key={option}>{option}</option>
          ))}
        </select>
      )}
    </Field>
  );
  return (
    <Page title="Shards" name="Shards" sub={shards.data && plural(shards.data.length, "shard")}>
      <div class="filters">
        {choice("Application", "app", app, apps.data?.map((one) => one.app) ?? [])}
        {seesCluster.value && choice("Node", "node", node, nodes.data?.map((one) => one.node) ?? [])}
        {choice("State", "state", state, STATES)}
      </div>
      <Loaded from={shards}>
        {(found) => (
          <>
            <Table<Shard>
              label="Shards"
              rows={found.slice(0, most)}
              keyOf={(row) => `${row.app}/${row.group}/${row.shard}`}
              empty={app || node || state ? "No shard matches." : "No application has shards yet."}
              columns={[
                { head: "Shard", cell: (row) => <a href={href.shard(row.app, row.group, row.shard)}>{row.shard}</a>, number: true },
                { head: "Application", cell: (row) => <AppLink app={row.app} /> },
                { head: "State", cell: (row) => <StateWord state={row.state} /> },
                { head: "For", cell: (row) => <Since at={row.since} />, wide: true },
                { head: "Node", cell: (row) => (row.node ? <NodeLink node={row.node} /> : "–") },
                { head: "Guilds", cell: (row) => count(row.guilds), number: true },
                { head: "Latency", cell: (row) => milliseconds(row.latency_ms), number: true },
                { head: "Events/s", cell: (row) => rate(row.events_per_s), number: true },
                { head: "Why", cell: (row) => row.reason, grow: true, wide: true },
              ]}
            />
            {found.length > most && (
              <button type="button" onClick={() => setMost(most + ROWS)}>
                Show {count(Math.min(ROWS, found.length - most))} more of {count(found.length - most)}
              </button>
            )}
          </>
        )}
      </Loaded>
    </Page>
  );
}

export function ShardPage({ app, group, shard }: { app: string; group: number; shard: number }): JSX.Element {
  const details = useResource<ShardDetails>(`/apps/${encodeURIComponent(app)}/shards/${shard}?group=${group}`, {
    every: 3000,
    on: [`shard/${app}/${group}/${shard}`],
  });
  const nodes = useResource<Node[]>(seesCluster.value && isOperator.value ? "/nodes" : null, { all: true, every: 10_000 });
  const [target, setTarget] = useState("");
  const one = details.data?.shard;
  const targets = (nodes.data ?? []).filter((node) => node.node !== one?.node).map((node) => node.node);
  return (
    <Page
      title={`Shard ${shard} of ${app}`}
      name={`Shard ${shard} of ${app}`}
      sub={one && <StateWord state={one.state} />}
      actions={
        one &&
        isOperator.value && (
          <>
            <button type="button" onClick={() => restartShards(app, String(shard))}>
              Reconnect…
            </button>
            {one.pinned_to !== null && (
              <button type="button" onClick={() => unpinShards(app, String(shard))}>
                Remove the pin…
              </button>
            )}
          </>
        )
      }
    >
      <Loaded from={details} missing={`${app} has no shard ${shard} in group ${group}.`}>
        {({ shard: found, failovers, losses }) => (
          <>
            <dl class="figures">
              <Figure label="State" note={MEANING[found.state]}>
                {found.state}
              </Figure>
              <Figure label="For">
              <Since at={found.since} />
            </Figure>
              <Figure label="Latency">{milliseconds(found.latency_ms)}</Figure>
              <Figure label="Guilds">{count(found.guilds)}</Figure>
              <Figure label="Events a second">{rate(found.events_per_s)}</Figure>
            </dl>
            <Section title="About">
              <dl class="facts">
                <dt>Application</dt>
                <dd>
                  <AppLink app={found.app} />
                </dd>
                <dt>Shard group</dt>
                <dd>
                  {found.group}
                  {found.serves ? ", the one that serves" : ", not the one that serves"}
                </dd>
                <dt>Runs on</dt>
                <dd>{found.node ? <><NodeLink node={found.node} />, worker {found.worker}</> : "no node"}</dd>
                {found.pinned_to !== null && (
                  <>
                    <dt>Pinned to</dt>
                    <dd>{found.pinned_to}</dd>
                  </>
                )}
                {found.reason && (
                  <>
                    <dt>Why</dt>
                    <dd>{found.reason}</dd>
                  </>
                )}
                {found.close_code !== null && (
                  <>
                    <dt>Discord's close code</dt>
                    <dd>{found.close_code}</dd>
                  </>
                )}
                <dt>Cache</dt>
                <dd>{found.cache || "nothing is missing"}</dd>
              </dl>
            </Section>
            {isOperator.value && targets.length > 0 && (
              <Section title="Move">
                <form
                  class="filters"
                  onSubmit={(event) => {
                    event.preventDefault();
                    if (target) moveShards(app, String(shard), target);
                  }}
                >
                  <Field label="To node">
                    {(attributes) => (
                      <select {...attributes} value={target} onChange={(event) => setTarget(event.currentTarget.value)}>
                        <option value="">choose…</option>
                        {targets.map((node) => (
                          <option key={node}>{node}</option>
                        ))}
                      </select>
                    )}
                  </Field>
                  <button type="submit" disabled={!target}>
                    Move…
                  </button>
                </form>
              </Section>
            )}
            <Section title="What happened lately">
              <Timeline failovers={failovers} losses={losses} />
            </Section>
          </>
        )}
      </Loaded>
    </Page>
  );
}

function Timeline({ failovers, losses }: { failovers: ShardFailover[]; losses: Loss[] }): JSX.Element {
  const rows = [
    ...failovers.map((one) => ({
      at: one.at,
      what: one.how === "resumed" ? "Resumed" : "New session",
      text: `${one.cause}: lost at ${one.source}, back on ${one.node} after ${duration(one.took_s)}, ${plural(one.replayed, "event")} replayed`,
    })),
    ...losses.map((one) => ({
      at: one.at,
      what: "Events lost",
      text: `${one.reason}: what Discord sent after number ${count(one.last_seq)} of session ${one.session} is lost`,
    })),
  ].sort((a, b) => b.at - a.at);
  if (!rows.length) return <Empty>Nothing that its nodes remember. A node forgets it when it restarts.</Empty>;
  return (
    <Table
      label="What happened lately"
      rows={rows}
      keyOf={(row) => `${row.at} ${row.what}`}
      empty=""
      columns={[
        { head: "When", cell: (row) => <Time at={row.at} /> },
        { head: "What", cell: (row) => row.what },
        { head: "Details", cell: (row) => row.text, grow: true },
      ]}
    />
  );
}
