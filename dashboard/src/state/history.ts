// Events a second and latency over the last hours: a point a minute that the cluster keeps, and then what this page saw.
import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { HistoryFigures } from "../api/types";
import type { Point } from "../ui/chart";
import { clock } from "../ui/format";
import { useResource } from "./resource";

const KEPT = 180;
const EVERY_MS = 5000;
/** The cluster keeps so much. */
const KEPT_S = 6 * 3600;

const seen = signal<ReadonlyMap<string, readonly Point[]>>(new Map());

/** `name`: "" for the cluster, or an application. */
export function remember(name: string, at: number, value: number): void {
  const before = seen.peek().get(name) ?? [];
  const last = before[before.length - 1];
  if (last && at - last.at < EVERY_MS / 1000 - 0.5) return;
  seen.value = new Map(seen.peek()).set(name, [...before.slice(1 - KEPT), { at, value }]);
}

export interface History {
  events: readonly Point[];
  latency: readonly Point[];
}

/** Of the cluster (""), or of one application. */
export function useHistory(name: string): History {
  const path = name ? `/history?app=${encodeURIComponent(name)}` : "/history";
  const { data } = useResource<HistoryFigures>(path, { every: 60_000 });
  const kept = useMemo(() => pointsOf(data), [data]);
  const recent = seen.value.get(name) ?? [];
  const from = kept.events[kept.events.length - 1]?.at ?? 0;
  return { events: [...kept.events, ...recent.filter((point) => point.at > from)], latency: kept.latency };
}

/** How much of the past a chart shows, in words. */
export function spanOf(points: readonly Point[]): string {
  const first = points[0]?.at ?? 0;
  const last = points[points.length - 1]?.at ?? first;
  return last - first > KEPT_S - 600 ? "the last six hours" : `since ${clock(first, false)}`;
}

function pointsOf(data: HistoryFigures | undefined): History {
  if (!data) return { events: [], latency: [] };
  const events = data.at.map((at, index) => ({ at, value: sum(data, index) }));
  const latencies = data.app_figures.length === 1 ? (data.app_figures[0]?.latency_ms ?? []) : [];
  const latency = data.at.flatMap((at, index) => {
    const value = latencies[index];
    return value === null || value === undefined ? [] : [{ at, value }];
  });
  return { events, latency };
}

function sum(data: HistoryFigures, index: number): number {
  return data.app_figures.reduce((total, app) => total + (app.events_per_s[index] ?? 0), 0);
}
