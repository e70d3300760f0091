// The keys of an application, as under `apps.NAME` in cluster.yml, with what each means.
import type { Json } from "./api/types";

export type Kind = "bool" | "int" | "number" | "text" | "words" | "json" | "choice" | "intents";

export interface Option {
  path: string;
  kind: Kind;
  help: string;
  choices?: string[];
  /** An empty field means null: the default, or none. */
  empty?: string;
}

export interface Intent {
  name: string;
  brings: string;
  isPrivileged?: boolean;
}

/** https://discord.com/developers/docs/events/gateway#list-of-intents */
export const INTENTS: Intent[] = [
  { name: "GUILDS", brings: "guilds, channels, roles, threads" },
  { name: "GUILD_MEMBERS", brings: "members who join, leave or change", isPrivileged: true },
  { name: "GUILD_MODERATION", brings: "bans, audit log entries" },
  { name: "GUILD_EXPRESSIONS", brings: "emojis, stickers, soundboard" },
  { name: "GUILD_INTEGRATIONS", brings: "integrations" },
  { name: "GUILD_WEBHOOKS", brings: "webhooks" },
  { name: "GUILD_INVITES", brings: "invites" },
  { name: "GUILD_VOICE_STATES", brings: "who is in which voice channel" },
  { name: "GUILD_PRESENCES", brings: "status and activities; a great many", isPrivileged: true },
  { name: "GUILD_MESSAGES", brings: "messages in guilds" },
  { name: "GUILD_MESSAGE_REACTIONS", brings: "reactions in guilds" },
  { name: "GUILD_MESSAGE_TYPING", brings: "typing in guilds" },
  { name: "DIRECT_MESSAGES", brings: "direct messages" },
  { name: "DIRECT_MESSAGE_REACTIONS", brings: "reactions in direct messages" },
  { name: "DIRECT_MESSAGE_TYPING", brings: "typing in direct messages" },
  { name: "MESSAGE_CONTENT", brings: "the text of messages, not only that there is one", isPrivileged: true },
  { name: "GUILD_SCHEDULED_EVENTS", brings: "scheduled events" },
  { name: "AUTO_MODERATION_CONFIGURATION", brings: "rules of automatic moderation" },
  { name: "AUTO_MODERATION_EXECUTION", brings: "what automatic moderation did" },
  { name: "GUILD_MESSAGE_POLLS", brings: "votes in polls in guilds" },
  { name: "DIRECT_MESSAGE_POLLS", brings: "votes in polls in direct messages" },
];

const cached = (name: string, help: string): Option => ({ path: `cache.${name}`, kind: "bool", help });

export const OPTIONS: { title: string; options: Option[] }[] = [
  {
    title: "Connection",
    options: [
      { path: "intents", kind: "intents", help: "Which events Discord sends. Other intents need new sessions." },
      {
        path: "shards.count",
        kind: "text",
        help: "auto: the number that Discord recommends; or a number. It is changed under Scale, which shows the cost.",
      },
      { path: "shards.ids", kind: "text", help: "Run only these here, such as 0-7,12.", empty: "all" },
      { path: "shards.guilds_per_shard", kind: "int", help: "With auto: more shards are proposed above this, 1 to 2500." },
      { path: "shards.check_every", kind: "text", help: "With auto: how often that is looked at, such as 8h." },
      { path: "shards.max", kind: "int", help: "With auto: never more than this.", empty: "no limit" },
      { path: "shards.window", kind: "text", help: "With auto and without confirm: only at this time, such as 02:00-06:00 UTC.", empty: "any time" },
      { path: "shards.confirm", kind: "bool", help: "With auto: wait for someone to accept the proposal." },
      { path: "compression", kind: "choice", choices: ["zstd-stream", "zlib-stream", "none"], help: "How Discord compresses what it sends." },
      { path: "large_threshold", kind: "int", help: "In guilds with more members Discord leaves offline ones out, 50 to 250." },
      { path: "presence", kind: "json", help: "What the bot shows: {\"status\": \"online\", \"activities\": [{\"name\": \"hello\", \"type\": 0}]}.", empty: "none" },
      { path: "placement", kind: "json", help: "Labels that a node must have to run these shards: {\"region\": \"eu\"}." },
      { path: "weight", kind: "number", help: "How heavy one of its shards is, compared with those of other applications, 0.01 to 100." },
      { path: "route", kind: "text", help: "Free text in every event's __sandwich.route." },
    ],
  },
  {
    title: "Stream",
    options: [
      { path: "stream.max_age", kind: "text", help: "How long events are kept, such as 24h.", empty: "as the cluster has it" },
      { path: "stream.max_bytes", kind: "text", help: "At most so much, such as 10GiB; the oldest events go first. 0: no limit.", empty: "as the cluster has it" },
      { path: "stream.replicas", kind: "int", help: "Copies of the stream, 1 to 5.", empty: "as the cluster has it" },
    ],
  },
  {
    title: "Events",
    options: [
      { path: "events.ignore", kind: "words", help: "Types, or MESSAGE_REACTION_*. They are not parsed." },
      { path: "events.cache_only", kind: "words", help: "Types that only change the cache." },
      { path: "events.ignore_bots", kind: "bool", help: "Messages of bots only change the cache." },
      { path: "events.prefixes", kind: "json", help: "Publish only messages that begin with a prefix: {\"fallback\": \"!\", \"mention\": true}.", empty: "off" },
      { path: "events.lanes", kind: "json", help: "Separate subjects: {\"chat\": {\"types\": [\"MESSAGE_*\"]}}." },
    ],
  },
  {
    title: "Cache",
    options: [
      cached("enabled", "Keep objects in Redis."),
      { path: "cache.namespace", kind: "text", help: "Applications with the same namespace share their guilds.", empty: "the application's name" },
      cached("guilds", "Guilds."),
      cached("channels", "Channels."),
      cached("threads", "Threads."),
      cached("roles", "Roles."),
      cached("emojis", "Emojis."),
      cached("stickers", "Stickers."),
      cached("members", "With GUILD_MEMBERS all that Discord sends; without, those in other events."),
      cached("users", "Users, by reference from members."),
      cached("voice_states", "Who is in which voice channel."),
      cached("presences", "Needs GUILD_PRESENCES; many and short-lived."),
      cached("scheduled_events", "Scheduled events."),
      cached("stages", "Stages."),
      cached("sounds", "Soundboard sounds."),
      { path: "cache.messages", kind: "json", help: "The last ones of each channel: {\"per_channel\": 50, \"ttl\": \"1h\"}.", empty: "none" },
      cached("chunk_members", "Request all members of every guild, one guild after the other; needs GUILD_MEMBERS."),
    ],
  },
  {
    title: "Invites",
    options: [
      { path: "invites.track", kind: "bool", help: "Report by which invite a member joined; needs GUILDS, GUILD_INVITES and GUILD_MEMBERS." },
      { path: "invites.hold", kind: "text", help: "How long a join may delay its shard's events for the answer, such as 300ms." },
    ],
  },
];

export function valueAt(values: Record<string, Json>, path: string): Json | undefined {
  let found: Json | undefined = values;
  for (const part of path.split(".")) {
    if (found === null || typeof found !== "object" || Array.isArray(found)) return undefined;
    found = found[part];
  }
  return found;
}

/** A value as the text of its field. */
export function textOf(option: Option, value: Json | undefined): string {
  if (value === null || value === undefined) return "";
  if (option.kind === "words" && Array.isArray(value)) return value.join(" ");
  if (option.kind === "json") return JSON.stringify(value);
  return typeof value === "object" ? JSON.stringify(value) : withUnit(String(value));
}

/** A length of time that the API gives in seconds, in the largest unit that it is a whole number of. */
function withUnit(text: string): string {
  const seconds = Number(/^(\d+)s$/.exec(text)?.[1] ?? 0);
  if (seconds && seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds && seconds % 60 === 0 ? `${seconds / 60}m` : text;
}

/** The value of a field's text. Raises Error with what is wrong. */
export function valueOf(option: Option, text: string): Json {
  const trimmed = text.trim();
  if (trimmed === "" && option.empty) return null;
  switch (option.kind) {
    case "bool":
      return trimmed === "true";
    case "int":
      if (!/^\d+$/.test(trimmed)) throw new Error("must be a whole number");
      return Number(trimmed);
    case "number": {
      const number = Number(trimmed);
      if (trimmed === "" || !Number.isFinite(number)) throw new Error("must be a number");
      return number;
    }
    case "words":
      return trimmed ? trimmed.split(/[\s,]+/) : [];
    case "json":
      try {
        return JSON.parse(trimmed || "null") as Json;
      } catch {
        throw new Error("must be JSON");
      }
    default:
      return option.path === "shards.count" && /^\d+$/.test(trimmed) ? Number(trimmed) : trimmed;
  }
}
