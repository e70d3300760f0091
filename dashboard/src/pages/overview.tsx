import type { JSX } from "preact";
import type { AppSummary, Cluster, Latency, Node, Problem } from "../api/types";
import { href } from "../router";
import { spanOf, useHistory } from "../state/history";
import { connection } from "../state/live";
import { askAhead, useResource } from "../state/resource";
import { addsApps, seesCluster } from "../state/session";
import { AppTable } from "../ui/apptable";
import { Chart } from "../ui/chart";
import { count, milliseconds, plural, rate } from "../ui/format";
import { Page } from "../ui/page";
import { Empty, Figure, Loaded, Section } from "../ui/parts";
import { Problems } from "../ui/problems";
import { RecentTables, recentPath } from "../ui/recent";
import { NodeTable } from "./nodes";

function headline(cluster: Cluster): string {
  const { critical = 0, warning = 0 } = cluster.problems;
  if (critical) return `${plural(critical, "thing")} ${critical === 1 ? "does" : "do"} not work`;
  if (warning) return `${plural(warning, "thing")} ${warning === 1 ? "needs" : "need"} attention`;
  return "All is well";
}

/** Before it is known who is there: what everyone sees of it. */
export function askForOverview(): void {
  askAhead("/cluster");
  askAhead("/problems", { all: true });
  askAhead("/apps", { all: true });
  askAhead(recentPath("failovers"));
  askAhead(recentPath("losses"));
}

export function OverviewPage(): JSX.Element {
  const cluster = useResource<Cluster>("/cluster", { every: 5000, on: ["figures", "problem/", "node/", "leader"] });
  const problems = useResource<Problem[]>("/problems", { all: true, every: 5000, on: ["problem/"] });
  const apps = useResource<AppSummary[]>("/apps", { all: true, every: 5000, on: ["app/", "group/", "shard/", "figures"] });
  const nodes = useResource<Node[]>(seesCluster.value ? "/nodes" : null, {
    all: true,
    every: 5000,
    on: ["node/", "leader", "figures"],
  });
  const { events: points } = useHistory("");
  return (
    <Page
      title={cluster.data && connection.value.state !== "lost" ? headline(cluster.data) : "Overview"}
      name="Overview"
      actions={
        addsApps.value && (
          <a class={apps.data?.length === 0 ? "button primary" : "button"} href="/apps/+new">
            Add an application
          </a>
        )
      }
    >
      <Loaded from={problems}>
        {(found) =>
          found.length ? (
            <Problems problems={found} />
          ) : (
            <Empty>
              {apps.data?.length === 0
                ? "The cluster is ready for its first application."
                : "Nothing is wrong and nothing waits for you."}
            </Empty>
          )
        }
      </Loaded>
      <Loaded from={cluster}>
        {(found) => (
          <dl class="figures">
            <Figure label="Live shards" note={`of ${count(found.shards_wanted)}`}>
              {count(found.shards_live)}
            </Figure>
            <Figure label="Guilds" note={`in ${plural(found.apps, "application")}`}>
              {count(found.guilds)}
            </Figure>
            <Figure label="Events a second">{rate(found.events_per_s)}</Figure>
            <Figure label="Latency, median" note={found.latency && <Worst latency={found.latency} />}>
              {milliseconds(found.latency?.median_ms)}
            </Figure>
            {found.nodes !== null && (
              <Figure
                label="Nodes"
                note={found.nodes_answering === found.nodes ? "all answer" : `${found.nodes_answering} answer`}
              >
                {count(found.nodes)}
              </Figure>
            )}
            {found.leader && (
              <Figure label="Leader" note={found.versions.length ? `version ${found.versions.join(", ")}` : ""}>
                <a class="leader-name" href={href.node(found.leader)} title={found.leader}>
                  {found.leader}
                </a>
              </Figure>
            )}
          </dl>
        )}
      </Loaded>
      {points.length > 1 && apps.data?.length !== 0 && (
        <Section title="Events a second" aside={spanOf(points)}>
          <Chart points={points} label={`Events a second: ${rate(points[points.length - 1]?.value)} now`} />
        </Section>
      )}
      <Section title="Applications" aside={<a href="/apps">{all(apps.data)}</a>}>
        <Loaded from={apps}>
          {(found) =>
            found.length ? (
              <AppTable apps={worstFirst(found).slice(0, SHOWN)} />
            ) : (
              <Empty>
                No application yet. {addsApps.value && <a href="/apps/+new">Add the first one</a>}
              </Empty>
            )
          }
        </Loaded>
      </Section>
      {seesCluster.value && (
        <Section title="Nodes" aside={<a href="/nodes">{all(nodes.data)}</a>}>
          <Loaded from={nodes}>{(found) => <NodeTable nodes={silentFirst(found).slice(0, SHOWN)} />}</Loaded>
        </Section>
      )}
      <Section title="Recent failovers and losses">
        <RecentTables />
      </Section>
    </Page>
  );
}

function Worst({ latency }: { latency: Latency }): JSX.Element {
  return (
    <a href={href.shard(latency.app, latency.group, latency.shard)} title={`shard ${latency.shard} of ${latency.app}`}>
      worst {milliseconds(latency.worst_ms)}
    </a>
  );
}

const SHOWN = 10;

/** Those with the worst problems first. */
function worstFirst(apps: readonly AppSummary[]): AppSummary[] {
  const weight = ({ problems: { critical = 0, warning = 0 } }: AppSummary): number => critical * 1e6 + warning;
  return [...apps].sort((a, b) => weight(b) - weight(a));
}

function silentFirst(nodes: readonly Node[]): Node[] {
  return [...nodes].sort((a, b) => Number(a.answers) - Number(b.answers));
}

function all(found: readonly unknown[] | undefined): string {
  return found && found.length > SHOWN ? `All ${count(found.length)}` : "All";
}
