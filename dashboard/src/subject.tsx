// What a problem is about, as a link; and what the dashboard can do about it.
import type { JSX } from "preact";
import type { Problem } from "./api/types";
import { acceptProposal, forgetNode, restartShards, resumeApp, unpinShards } from "./changes";
import { href } from "./router";
import { isAdmin, isOperator } from "./state/session";
import { plural } from "./ui/format";

interface Subject {
  app?: string;
  node?: string;
  shards?: string;
}

export function subjectOf(problem: Problem): Subject {
  const [kind = "", name, part, rest] = problem.subject.split("/");
  if (kind === "node" && name) return { node: name };
  if (kind === "app" && name) return part === "shards" && rest ? { app: name, shards: rest } : { app: name };
  return {};
}

export function SubjectLink({ problem }: { problem: Problem }): JSX.Element {
  const { app, node, shards } = subjectOf(problem);
  if (node) return <a href={href.node(node)}>node {node}</a>;
  if (app) return <a href={href.app(app)}>{shards ? `${app}, ${shardsText(shards)}` : app}</a>;
  return <span>{problem.subject}</span>;
}

const SHARDS_SHOWN = 12;

/** As ranges when they are short, or how many there are. */
function shardsText(shards: string): string {
  const many = countOf(shards);
  if (shards.length > SHARDS_SHOWN) return plural(many, "shard");
  return many === 1 ? `shard ${shards}` : `shards ${shards}`;
}

function countOf(shards: string): number {
  return shards.split(",").reduce((sum, range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return sum + last - first + 1;
  }, 0);
}

type Action = JSX.Element | null;

function Do({ text, run }: { text: string; run: () => void }): JSX.Element {
  return (
    <button type="button" onClick={run}>
      {text}
    </button>
  );
}

function To({ text, to }: { text: string; to: string }): JSX.Element {
  return (
    <a class="button" href={to}>
      {text}
    </a>
  );
}

/** The action beside a problem, where the dashboard has one and the role allows it. */
export function actionFor(problem: Problem, on = ""): Action {
  const { app, node, shards } = subjectOf(problem);
  const { code } = problem;
  if (app) {
    const settings = `${href.app(app)}/settings`;
    if (code === "shards-failed" || code === "shards-not-live") {
      if (shards && isOperator.value) return <Do text={`Reconnect ${shardsText(shards)}`} run={() => restartShards(app, shards)} />;
      return <To text="Shards" to={`/shards?app=${encodeURIComponent(app)}`} />;
    }
    if (code === "app-paused" && isOperator.value) return <Do text="Resume" run={() => resumeApp(app)} />;
    if (code === "shard-count-pending" && isOperator.value) {
      return <Do text="See the cost" run={() => acceptProposal(app)} />;
    }
    if (code === "pin-unmet" && shards && isOperator.value) {
      return <Do text="Remove the pin" run={() => unpinShards(app, shards)} />;
    }
    if (code === "dead-letters") return <To text="Dead letters" to={`/events?view=dead&app=${encodeURIComponent(app)}`} />;
    if (code === "consumer-behind") return <To text="Consumer groups" to={`${href.app(app)}#consumers`} />;
    if (["token-refused", "token-unusable", "app-invalid", "placement-unmet"].includes(code) && isAdmin.value) {
      return <To text={code.startsWith("token") ? "Replace the token" : "Settings"} to={settings} />;
    }
    if (code.startsWith("session-starts")) return <To text="Session starts" to={`${href.app(app)}#sessions`} />;
    if (code.startsWith("shards")) return <To text="Shards" to={`/shards?app=${encodeURIComponent(app)}`} />;
    return null;
  }
  if (node) {
    if (code === "node-gone" && isOperator.value) return <Do text="Forget" run={() => forgetNode(node)} />;
    if (code !== "node-gone" && on !== href.node(node)) return <To text="Node" to={href.node(node)} />;
  }
  return null;
}
