// Events a second since this page was opened, at most a quarter of an hour.
import { signal } from "@preact/signals";
import type { Point } from "../ui/chart";

const KEPT = 180;
const EVERY_MS = 5000;

export const histories = signal<ReadonlyMap<string, readonly Point[]>>(new Map());

/** `name`: "" for the cluster, or an application. */
export function remember(name: string, at: number, value: number): void {
  const before = histories.peek().get(name) ?? [];
  const last = before[before.length - 1];
  if (last && at - last.at < EVERY_MS / 1000 - 0.5) return;
  histories.value = new Map(histories.peek()).set(name, [...before.slice(1 - KEPT), { at, value }]);
}
