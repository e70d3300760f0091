// What is around every page: navigation, search, who is signed in, and whether the node answers.
import { useComputed } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Cluster } from "./api/types";
import { pageAt } from "./pages";
import { SignInPage } from "./pages/sign-in";
import { place } from "./router";
import { Search } from "./search";
import { remember } from "./state/history";
import { connection, retryNow } from "./state/live";
import { useResource } from "./state/resource";
import { isAdmin, isOperator, me, seesCluster, signOut } from "./state/session";
import { Confirmation, Reports } from "./ui/confirm";
import { clock, duration } from "./ui/format";
import { Page } from "./ui/page";
import { Mark, now } from "./ui/parts";
import { lookOf } from "./ui/states";
import { nextTheme, theme } from "./ui/theme";

export function Frame(): JSX.Element {
  const who = me.value;
  if (who === "asking") return <p class="sign-in muted">Loading…</p>;
  if (who === null) return <SignInPage />;
  return <SignedIn />;
}

function SignedIn(): JSX.Element {
  const cluster = useResource<Cluster>("/cluster", { every: 5000, on: ["figures", "problem/", "node/", "leader"] });
  const [isOpen, setOpen] = useState(false);
  const { path } = place.value;
  useEffect(() => setOpen(false), [path]);
  useEffect(() => {
    if (cluster.data) remember("", cluster.data.now, cluster.data.events_per_s);
  }, [cluster.data]);
  return (
    <>
      <a class="skip" href="#main">
        To the page's content
      </a>
      <div class="frame">
        <header class="top">
          <a class="brand" href="/">
            Sandwich
          </a>
          <div class="where">
            <span class="name" title={cluster.data?.cluster}>
              {cluster.data?.cluster}
            </span>
            {cluster.data && <Health cluster={cluster.data} />}
          </div>
          <Search />
          <div class="me">
            <Self />
          </div>
          <button
            type="button"
            class="menu-button"
            aria-expanded={isOpen}
            aria-controls="navigation"
            onClick={() => setOpen(!isOpen)}
          >
            Menu
          </button>
        </header>
        <Navigation isOpen={isOpen} />
        <main id="main" tabIndex={-1}>
          <Connection />
          {pageAt(path) ?? (
            <Page title="There is no such page" name="Not found">
              <p>
                Nothing is at <code>{path}</code>. <a href="/">To the overview</a>
              </p>
            </Page>
          )}
        </main>
      </div>
      <Confirmation />
      <Reports />
    </>
  );
}

/** Who is signed in, the colours, and the way out. */
function Self(): JSX.Element {
  const who = me.value;
  return (
    <>
      {who && who !== "asking" && (
        <span class="muted small">
          {who.name} · {who.role}
        </span>
      )}
      <button type="button" class="quiet" onClick={nextTheme}>
        Colours: {{ system: "auto", light: "light", dark: "dark" }[theme.value]}
      </button>
      <button type="button" class="quiet" onClick={() => void signOut()}>
        Sign out
      </button>
    </>
  );
}

function Health({ cluster }: { cluster: Cluster }): JSX.Element {
  const { critical = 0, warning = 0 } = cluster.problems;
  const isLost = connection.value.state === "lost";
  const worst = isLost ? "waiting" : critical ? "critical" : warning ? "warning" : "healthy";
  const known = critical ? `${critical} critical` : warning ? `${warning} warning${warning === 1 ? "" : "s"}` : "healthy";
  const text = isLost ? "not known" : known;
  return (
    <a class="state" href="/" aria-label={`The cluster: ${text}`}>
      <Mark look={lookOf(worst)} />
      <span>{text}</span>
    </a>
  );
}

function Navigation({ isOpen }: { isOpen: boolean }): JSX.Element {
  const { path } = place.value;
  const groups: [string, string, boolean][][] = [
    [
      ["/", "Overview", true],
      ["/apps", "Applications", true],
      ["/nodes", "Nodes", seesCluster.value],
      ["/shards", "Shards", true],
    ],
    [
      ["/cache", "Cache", true],
      ["/events", "Events", true],
      ["/logs", "Logs", isOperator.value],
    ],
    [
      ["/audit", "Audit", isAdmin.value && seesCluster.value],
      ["/settings", "Settings", isAdmin.value && seesCluster.value],
    ],
  ];
  return (
    <nav class={isOpen ? "main open" : "main"} id="navigation" aria-label="Pages">
      <ul>
        {groups.flatMap((group, index) =>
          group
            .filter(([, , isShown]) => isShown)
            .map(([to, text], position) => (
              <li key={to} class={index > 0 && position === 0 ? "gap" : ""}>
                <a href={to} aria-current={isAt(path, to) ? "page" : undefined}>
                  {text}
                </a>
              </li>
            )),
        )}
      </ul>
      <div class="me-small">
        <Self />
      </div>
    </nav>
  );
}

function isAt(path: string, to: string): boolean {
  return to === "/" ? path === "/" : path === to || path.startsWith(`${to}/`);
}

/** Says that the node does not answer, and since when the page is old. Goes by itself. */
function Connection(): JSX.Element {
  const lostAt = useComputed(() => (connection.value.state === "lost" ? connection.value.lastAt / 1000 : null));
  const at = lostAt.value;
  return (
    <div role="status" aria-live="polite">
      {at !== null && (
        <div class="banner">
          <Mark look={lookOf("warning")} />
          <span>
            <strong>No connection to this node.</strong> What you see is from {clock(at)}, {duration(now.value - at)} ago.
            Trying again…
          </span>
          <button type="button" onClick={retryNow}>
            Try now
          </button>
        </div>
      )}
    </div>
  );
}
