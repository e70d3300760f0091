// How a state looks: its shape and tone. The word is always beside it or in its label.
export type Shape = "disc" | "ring" | "half" | "bars" | "triangle" | "square" | "cross" | "dash" | "target" | "leaving";
export type Tone = "ok" | "busy" | "calm" | "warning" | "critical";

export interface Look {
  shape: Shape;
  tone: Tone;
}

const LOOKS: Record<string, Look> = {
  live: { shape: "disc", tone: "ok" },
  ready: { shape: "target", tone: "ok" },
  holding: { shape: "target", tone: "busy" },
  claiming: { shape: "ring", tone: "busy" },
  connecting: { shape: "ring", tone: "busy" },
  identifying: { shape: "half", tone: "busy" },
  resuming: { shape: "half", tone: "busy" },
  starting: { shape: "half", tone: "busy" },
  waiting: { shape: "ring", tone: "warning" },
  draining: { shape: "leaving", tone: "warning" },
  closing: { shape: "leaving", tone: "calm" },
  removing: { shape: "leaving", tone: "warning" },
  ended: { shape: "dash", tone: "calm" },
  paused: { shape: "bars", tone: "calm" },
  cordoned: { shape: "bars", tone: "warning" },
  degraded: { shape: "triangle", tone: "warning" },
  failed: { shape: "square", tone: "critical" },
  down: { shape: "square", tone: "critical" },
  unclaimed: { shape: "cross", tone: "critical" },
  silent: { shape: "cross", tone: "critical" },
  critical: { shape: "square", tone: "critical" },
  warning: { shape: "triangle", tone: "warning" },
  notice: { shape: "ring", tone: "calm" },
  healthy: { shape: "disc", tone: "ok" },
};

export function lookOf(state: string): Look {
  return LOOKS[state] ?? { shape: "ring", tone: "calm" };
}

/** What a state of a shard means, for people who see it at night. */
export const MEANING: Record<string, string> = {
  live: "connected, its events are published",
  ready: "of a new group: connected, its events are withheld until the switch",
  holding: "of a new group: keeps its events for the switch",
  claiming: "a node takes it",
  connecting: "opens its connection to Discord",
  identifying: "starts a new session",
  resuming: "continues its session",
  draining: "hands over to another node, session kept",
  ended: "of an old group: done",
  failed: "Discord refused it; it is not tried again by itself",
  unclaimed: "no node runs it",
};
