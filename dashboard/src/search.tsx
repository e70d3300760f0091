// Search over applications, nodes and shards; an id of Discord leads to the cache. The key / goes there.
import type { JSX } from "preact";
import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import type { AppSummary, Node } from "./api/types";
import { go, href } from "./router";
import { useResource } from "./state/resource";
import { addsApps, seesCluster } from "./state/session";

interface Hit {
  text: string;
  kind: string;
  to: string;
}

const HITS_MAX = 12;
const NEW_APP = "/apps/+new";
const PAGES: Hit[] = [
  ["Overview", "/"],
  ["Applications", "/apps"],
  ["Add an application", NEW_APP],
  ["Nodes", "/nodes"],
  ["Shards", "/shards"],
  ["Cache", "/cache"],
  ["Events", "/events"],
  ["Dead letters", "/events?view=dead"],
  ["Logs", "/logs"],
  ["Audit", "/audit"],
  ["Settings", "/settings"],
].map(([text = "", to = ""]) => ({ text, to, kind: "page" }));

export function findHits(text: string, apps: readonly AppSummary[], nodes: readonly Node[]): Hit[] {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const hits: Hit[] = [];
  if (/^\d{15,20}$/.test(wanted)) {
    hits.push({ text: `Guild ${wanted}`, kind: "cache", to: `/cache?view=guild&id=${wanted}` });
    hits.push({ text: `Servers of user ${wanted}`, kind: "cache", to: `/cache?view=user&id=${wanted}` });
  }
  const shard = /^(.+?)[\s/]+(?:(?:shard|#)\s*)?(\d+)$/.exec(wanted);
  if (shard) {
    const [, name = "", number = ""] = shard;
    for (const app of apps) {
      if (app.app.includes(name)) {
        hits.push({ text: `${app.app} shard ${number}`, kind: "shard", to: `/shards?app=${app.app}&shard=${number}` });
      }
    }
  }
  const within = (name: string): boolean => name.toLowerCase().includes(wanted);
  hits.push(...apps.filter((app) => within(app.app)).map((app) => ({ text: app.app, kind: "application", to: href.app(app.app) })));
  hits.push(...nodes.filter((node) => within(node.node)).map((node) => ({ text: node.node, kind: "node", to: href.node(node.node) })));
  hits.push(...PAGES.filter((page) => within(page.text) && (page.to !== NEW_APP || addsApps.value)));
  return hits.slice(0, HITS_MAX);
}

export function Search(): JSX.Element {
  const [text, setText] = useState("");
  const [isOpen, setOpen] = useState(false);
  const [at, setAt] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const id = useId();
  const apps = useResource<AppSummary[]>(isOpen ? "/apps" : null, { all: true, every: 10_000, on: ["app/"] });
  const nodes = useResource<Node[]>(isOpen && seesCluster.value ? "/nodes" : null, { all: true, every: 10_000 });
  const hits = useMemo(() => findHits(text, apps.data ?? [], nodes.data ?? []), [text, apps.data, nodes.data]);
  const selected = Math.min(at, hits.length - 1);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (target.matches("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      input.current?.focus();
      input.current?.select();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  const choose = (hit: Hit | undefined): void => {
    if (!hit) return;
    setText("");
    setOpen(false);
    input.current?.blur();
    go(hit.to);
  };
  const showsList = isOpen && text.trim() !== "";
  return (
    <div class="search" role="search">
      <input
        ref={input}
        type="search"
        list={undefined}
        role="combobox"
        aria-label="Search applications, nodes, shards, guild and user ids"
        aria-expanded={showsList}
        aria-controls={`${id}-list`}
        aria-activedescendant={showsList && hits.length ? `${id}-${selected}` : undefined}
        aria-autocomplete="list"
        autocomplete="off"
        spellcheck={false}
        placeholder="Search applications, nodes, ids (press /)"
        value={text}
        onFocus={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") setAt((selected + 1) % Math.max(1, hits.length));
          else if (event.key === "ArrowUp") setAt((selected - 1 + hits.length) % Math.max(1, hits.length));
          else if (event.key === "Enter") choose(hits[selected]);
          else if (event.key === "Escape") {
            setText("");
            input.current?.blur();
          } else return;
          event.preventDefault();
        }}
      />
      <ul class="found" id={`${id}-list`} role="listbox" aria-label="Found" hidden={!showsList}>
        {hits.map((hit, index) => (
          <li
            key={hit.to}
            id={`${id}-${index}`}
            role="option"
            aria-selected={index === selected}
            onMouseDown={(event) => {
              event.preventDefault();
              choose(hit);
            }}
          >
            <span>{hit.text}</span>
            <span class="muted small">{hit.kind}</span>
          </li>
        ))}
        {hits.length === 0 && (
          <li role="option" aria-selected={false} aria-disabled="true" class="muted">
            Nothing found
          </li>
        )}
      </ul>
    </div>
  );
}
