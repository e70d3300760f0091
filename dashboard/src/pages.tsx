// Which address shows which page.
import type { JSX } from "preact";
import { AppPage } from "./pages/app";
import { AppNewPage } from "./pages/app-new";
import { AppsPage } from "./pages/apps";
import { AuditPage } from "./pages/audit";
import { CachePage } from "./pages/cache";
import { EventsPage } from "./pages/events";
import { LogsPage } from "./pages/logs";
import { NodePage, NodesPage } from "./pages/nodes";
import { OverviewPage } from "./pages/overview";
import { SettingsPage } from "./pages/settings";
import { ShardPage, ShardsPage } from "./pages/shards";

interface Entry {
  pattern: RegExp;
  page: (parts: string[]) => JSX.Element;
}

/** The first part of each address is in `PAGES` of serving.py, too. */
const TABLE: Entry[] = [
  { pattern: /^\/$/, page: () => <OverviewPage /> },
  { pattern: /^\/apps\/?$/, page: () => <AppsPage /> },
  { pattern: /^\/apps\/\+new$/, page: () => <AppNewPage /> },
  { pattern: /^\/apps\/([^/]+)$/, page: ([app = ""]) => <AppPage key={app} app={app} tab="status" /> },
  { pattern: /^\/apps\/([^/]+)\/settings$/, page: ([app = ""]) => <AppPage key={app} app={app} tab="settings" /> },
  { pattern: /^\/nodes\/?$/, page: () => <NodesPage /> },
  { pattern: /^\/nodes\/([^/]+)$/, page: ([node = ""]) => <NodePage key={node} node={node} /> },
  { pattern: /^\/shards\/?$/, page: () => <ShardsPage /> },
  {
    pattern: /^\/shards\/([^/]+)\/(\d+)\/(\d+)$/,
    page: ([app = "", group = "", shard = ""]) => (
      <ShardPage key={`${app}/${group}/${shard}`} app={app} group={Number(group)} shard={Number(shard)} />
    ),
  },
  { pattern: /^\/cache\/?$/, page: () => <CachePage /> },
  { pattern: /^\/events\/?$/, page: () => <EventsPage /> },
  { pattern: /^\/logs\/?$/, page: () => <LogsPage /> },
  { pattern: /^\/audit\/?$/, page: () => <AuditPage /> },
  { pattern: /^\/settings\/?$/, page: () => <SettingsPage /> },
];

export function pageAt(path: string): JSX.Element | null {
  for (const { pattern, page } of TABLE) {
    const found = pattern.exec(path);
    if (found) {
      try {
        return page(found.slice(1).map(decodeURIComponent));
      } catch {
        return null;
      }
    }
  }
  return null;
}
