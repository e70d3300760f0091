// Addresses of pages, without a reload.
import { signal } from "@preact/signals";

export interface Place {
  path: string;
  query: URLSearchParams;
}

function here(): Place {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

export const place = signal<Place>(here());

/** A page grows while it loads. */
const GROWS_MS = 10_000;
let stopShowing: () => void = () => undefined;

/** Scroll to the element that the address names, and keep it in view while the page grows, until its reader acts. */
function showNamed(): void {
  stopShowing();
  const name = location.hash.slice(1);
  if (!name) return;
  const show = (): void => document.getElementById(name)?.scrollIntoView();
  const observer = new MutationObserver(show);
  const stop = new AbortController();
  const timer = window.setTimeout(() => stopShowing(), GROWS_MS);
  stopShowing = () => {
    observer.disconnect();
    stop.abort();
    clearTimeout(timer);
  };
  observer.observe(document.body, { childList: true, subtree: true });
  for (const kind of ["wheel", "touchstart", "pointerdown", "keydown"]) {
    window.addEventListener(kind, stopShowing, { passive: true, signal: stop.signal });
  }
}

/** Go to an address of this site. */
export function go(href: string, options: { replace?: boolean } = {}): void {
  if (options.replace) history.replaceState(null, "", href);
  else {
    history.pushState(null, "", href);
    window.scrollTo(0, 0);
  }
  place.value = here();
  if (!options.replace) showNamed();
}

/** Change parts of the query; "" removes one. */
export function setQuery(values: Record<string, string>): void {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  go(location.pathname + (text ? `?${text}` : ""), { replace: true });
}

export function startRouter(): void {
  showNamed();
  window.addEventListener("popstate", () => {
    stopShowing();
    place.value = here();
  });
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = (event.target as Element).closest?.("a");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname.startsWith("/api/") || link.pathname.startsWith("/auth/")) return;
    if (link.hash && link.pathname === location.pathname) return;
    event.preventDefault();
    go(link.pathname + link.search + link.hash);
  });
}

export const href = {
  app: (app: string) => `/apps/${encodeURIComponent(app)}`,
  node: (node: string) => `/nodes/${encodeURIComponent(node)}`,
  shard: (app: string, group: number, shard: number) => `/shards/${encodeURIComponent(app)}/${group}/${shard}`,
};
