// What an event changed, for readers: the object before it beside the object in it. Pure.
import type { Json } from "./api/types";

export interface Difference {
  path: string;
  before: string;
  after: string;
}

const ROWS_MAX = 200;
const ABSENT = "—";

/** The fields of `after` that are not as they were. What `after` lacks is not a change: Discord sends a part. */
export function differences(before: Json, after: Json): Difference[] {
  const found: Difference[] = [];
  if (isObject(before) && isObject(after)) {
    for (const name of Object.keys(after)) compare(name, before[name], after[name], found);
  }
  return found.slice(0, ROWS_MAX);
}

function compare(path: string, before: Json | undefined, after: Json | undefined, found: Difference[]): void {
  if (isObject(before) && isObject(after)) {
    for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
      compare(`${path}.${name}`, before[name], after[name], found);
    }
  } else if (JSON.stringify(before) !== JSON.stringify(after)) {
    found.push({ path, before: shown(before), after: shown(after) });
  }
}

function isObject(value: Json | undefined): value is Record<string, Json> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: Json | undefined): string {
  if (value === undefined) return ABSENT;
  return typeof value === "string" ? value || '""' : JSON.stringify(value);
}
