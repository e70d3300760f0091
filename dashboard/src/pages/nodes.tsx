import type { JSX } from "preact";
import { cordonNode, drainNode, forgetNode, rebalance, uncordonNode } from "../changes";
import type { Node, Problem, Shard } from "../api/types";
import { href } from "../router";
import { useResource } from "../state/resource";
import { isOperator } from "../state/session";
import { AppLink, NodeLink } from "../ui/appname";
import { bytes, count, plural, rate } from "../ui/format";
import { Page } from "../ui/page";
import { Ago, Empty, Figure, Loaded, Meter, Section, StateWord, Table } from "../ui/parts";
import { Problems } from "../ui/problems";
import { ShardGrid } from "../ui/shardgrid";

function NodeState({ node }: { node: Node }): JSX.Element {
  if (!node.answers) return <StateWord state="silent">does not answer</StateWord>;
  return (
    <StateWord state={node.state}>
      {node.state}
      {node.state === "draining" && (node.shards ? `, ${plural(node.shards, "shard")} left` : ", empty")}
    </StateWord>
  );
}

function cpu(node: Node): string {
  return node.answers ? `${Math.round(node.cpu_percent)} %` : "–";
}

export function NodeTable({ nodes }: { nodes: readonly Node[] }): JSX.Element {
  return (
    <Table<Node>
      label="Nodes"
      rows={nodes}
      keyOf={(row) => row.node}
      empty="No node is registered: nothing runs."
      columns={[
        {
          head: "Node",
          cell: (row) => (
            <>
              <NodeLink node={row.node} />
              {row.leader && <span class="muted small"> leader</span>}
            </>
          ),
        },
        { head: "State", cell: (row) => <NodeState node={row} /> },
        { head: "Shards", cell: (row) => count(row.shards), number: true },
        { head: "Guilds", cell: (row) => (row.answers ? count(row.guilds) : "–"), number: true },
        { head: "Events/s", cell: (row) => (row.answers ? rate(row.events_per_s) : "–"), number: true },
        { head: "CPU of one core", cell: cpu, number: true },
        { head: "Memory", cell: (row) => (row.answers ? bytes(row.rss_bytes) : "–"), number: true },
        { head: "Address", cell: (row) => row.address, wide: true },
        { head: "Version", cell: (row) => row.version, wide: true },
        { head: "Started", cell: (row) => <Ago at={row.started_at} />, wide: true },
      ]}
    />
  );
}

export function NodesPage(): JSX.Element {
  const nodes = useResource<Node[]>("/nodes", { all: true, every: 5000, on: ["node/", "leader", "figures"] });
  return (
    <Page
      title="Nodes"
      name="Nodes"
      sub={nodes.data && plural(nodes.data.length, "node")}
      actions={
        isOperator.value && (
          <button type="button" onClick={rebalance}>
            Rebalance…
          </button>
        )
      }
    >
      <Loaded from={nodes}>{(found) => <NodeTable nodes={found} />}</Loaded>
    </Page>
  );
}

export function NodePage({ node: name }: { node: string }): JSX.Element {
  const inPath = encodeURIComponent(name);
  const node = useResource<Node>(`/nodes/${inPath}`, { every: 4000, on: [`node/${name}`, "leader", "shard/", "figures"] });
  const nodes = useResource<Node[]>("/nodes", { all: true, every: 10_000, on: ["node/"] });
  const shards = useResource<Shard[]>(`/shards?node=${inPath}`, { all: true, every: 5000, on: ["shard/"] });
  const problems = useResource<Problem[]>(`/problems?node=${inPath}`, { all: true, every: 5000, on: ["problem/"] });
  const found = node.data;
  const others = (nodes.data ?? []).filter((one) => one.node !== name && one.state === "ready" && one.answers).length;
  const apps = new Map<string, Shard[]>();
  for (const shard of shards.data ?? []) apps.set(shard.app, [...(apps.get(shard.app) ?? []), shard]);
  return (
    <Page
      title={name}
      name={name}
      sub={
        found && (
          <>
            <NodeState node={found} />
            {found.leader && " · leader"}
          </>
        )
      }
      actions={
        found &&
        isOperator.value && (
          <>
            {found.state === "ready" && (
              <button type="button" onClick={() => cordonNode(name)}>
                Cordon…
              </button>
            )}
            {found.state !== "ready" && (
              <button type="button" onClick={() => uncordonNode(name)}>
                Uncordon…
              </button>
            )}
            {found.state !== "draining" && (
              <button type="button" disabled={!nodes.data} onClick={() => drainNode(name, found.shards, others)}>
                Drain…
              </button>
            )}
          </>
        )
      }
    >
      <Loaded
        from={node}
        missing={
          <>
            There is no node {name} now.{" "}
            {isOperator.value && (
              <button type="button" class="quiet" onClick={() => forgetNode(name)}>
                Forget it
              </button>
            )}
          </>
        }
      >
        {(one) => (
          <>
            {one.state === "draining" && (
              <p class="note note-warning">
                <span>
                  {one.shards
                    ? `It drains: ${plural(one.shards, "shard")} left to move. It gets no new ones.`
                    : "It is drained: it has no shards and can be stopped."}
                </span>
              </p>
            )}
            {problems.data && problems.data.length > 0 && <Problems problems={problems.data} on={href.node(name)} />}
            <dl class="figures">
              <Figure label="Shards" note={one.max_shards ? `at most ${count(one.max_shards)}` : "no limit"}>
                {count(one.shards)}
              </Figure>
              <Figure label="Guilds">{one.answers ? count(one.guilds) : "–"}</Figure>
              <Figure label="Events a second">{one.answers ? rate(one.events_per_s) : "–"}</Figure>
              <Figure label="CPU of its workers" note="of one core">
                {cpu(one)}
              </Figure>
              <Figure label="Memory of its workers">{one.answers ? bytes(one.rss_bytes) : "–"}</Figure>
              <Figure label="Workers">{count(one.workers)}</Figure>
            </dl>
            <Section title="About">
              <dl class="facts">
                <dt>Address</dt>
                <dd>{one.address}</dd>
                <dt>Version</dt>
                <dd>{one.version}</dd>
                <dt>Started</dt>
                <dd>
                  <Ago at={one.started_at} />
                </dd>
                <dt>Capacity</dt>
                <dd>{count(one.capacity)}, a weight: its share of all shards follows from it</dd>
                <dt>Labels</dt>
                <dd>
                  {Object.entries(one.labels)
                    .map(([label, value]) => `${label}=${value}`)
                    .join(", ") || "none"}
                </dd>
              </dl>
            </Section>
          </>
        )}
      </Loaded>
      <Section title="Shards" aside={shards.data && plural(shards.data.length, "shard")}>
        <Loaded from={shards}>
          {(all) =>
            all.length ? (
              <>
                <ShardGrid shards={all} label={`Shards on ${name}`} withApp />
                <AppsHere apps={[...apps]} />
                {found?.max_shards ? (
                  <Meter wide value={all.length} max={found.max_shards} label="Shards of the node's limit" />
                ) : null}
              </>
            ) : (
              <Empty>It runs no shards.</Empty>
            )
          }
        </Loaded>
      </Section>
    </Page>
  );
}

/** What the node does for each application. */
function AppsHere({ apps }: { apps: readonly [string, readonly Shard[]][] }): JSX.Element {
  /** null: the node says nothing of it. */
  const sum = (of: readonly Shard[], figure: (shard: Shard) => number | null): number | null =>
    of.map(figure).reduce((total, value) => (value === null ? total : (total ?? 0) + value), null);
  return (
    <Table<[string, readonly Shard[]]>
      label="Applications on this node"
      rows={apps}
      keyOf={([app]) => app}
      empty=""
      columns={[
        { head: "Application", cell: ([app]) => <AppLink app={app} /> },
        {
          head: "Live shards",
          cell: ([app, of]) => (
            <Meter value={of.filter((one) => one.state === "live").length} max={of.length} label={`Live shards of ${app} here`} />
          ),
        },
        { head: "Guilds", cell: ([, of]) => count(sum(of, (one) => one.guilds)), number: true },
        { head: "Events/s", cell: ([, of]) => rate(sum(of, (one) => one.events_per_s)), number: true },
        { head: "Shards", cell: ([, of]) => of.map((one) => one.shard).join(", "), grow: true, wide: true },
      ]}
    />
  );
}
