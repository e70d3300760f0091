// What an event changed, for readers: the object before it beside the object in it. Pure.
import type { Json } from "./api/types";

export interface Difference {
  path: string;
  before: string;
  after: string;
}

const ROWS_MAX = 200;
const ABSENT = "—";
/** The cache keeps these apart from the object that an event has them in. */
const KEPT_APART = new Set([
  "guild_id",
  "member",
  "roles",
  "emojis",
  "stickers",
  "channels",
  "threads",
  "members",
  "presences",
  "voice_states",
  "stage_instances",
  "guild_scheduled_events",
  "soundboard_sounds",
]);

/**
 * The fields of an event's `d` that are not as they were in the cached object `before`. What `d` lacks is not a change:
 * Discord sends a part.
 */
export function differences(before: Json, d: Json): Difference[] {
  const found: Difference[] = [];
  // Discord sends a role beside its guild's id.
  const after = isObject(d) && isObject(d["role"]) ? d["role"] : d;
  if (isObject(before) && isObject(after)) {
    for (const name of Object.keys(after)) {
      const was = before[name];
      if (was === undefined && KEPT_APART.has(name)) continue;
      // Of a user there is the id alone.
      if (name === "user" && isObject(was) && Object.keys(was).length === 1) compare(name, was, idOf(after[name]), found);
      else compare(name, was, after[name], found);
    }
  }
  return found.slice(0, ROWS_MAX);
}

function idOf(user: Json | undefined): Json | undefined {
  return isObject(user) && user["id"] !== undefined ? { id: user["id"] } : user;
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
