import type { JSX } from "preact";
import { href } from "../router";

export function AppLink({ app }: { app: string }): JSX.Element {
  return (
    <a class="name" href={href.app(app)} title={app}>
      {app}
    </a>
  );
}

export function NodeLink({ node }: { node: string }): JSX.Element {
  return (
    <a class="name" href={href.node(node)} title={node}>
      {node}
    </a>
  );
}
