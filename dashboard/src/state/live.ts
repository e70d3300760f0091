// The stream of the cluster's changes: says what to read again, and whether the node is there.
import { signal } from "@preact/signals";
import { ApiError, events } from "../api/client";

const STUCK_MS = 3000;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export interface Connection {
  /** `none`: the node has no such stream, or it is not allowed; pages ask by themselves. */
  state: "connecting" | "live" | "lost" | "none";
  /** Milliseconds (Date.now()): when something last arrived. */
  lastAt: number;
}

export const connection = signal<Connection>({ state: "connecting", lastAt: Date.now() });

type Listener = (objects: readonly string[] | null) => void;
const listeners = new Set<Listener>();

/** Called with the names of changed objects; null: everything may have changed. */
export function onChanges(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function publish(objects: readonly string[] | null): void {
  for (const listener of listeners) listener(objects);
}

let running: AbortController | null = null;
let attempt: { stop: AbortController; at: number } | null = null;
let wake: () => void = () => undefined;

/** Something was answered: the node is there. */
export function noteAnswer(): void {
  const now = Date.now();
  const { state } = connection.peek();
  if (state !== "lost") {
    connection.value = { state, lastAt: now };
    return;
  }
  // The stream may hang in a connection that is gone, or rest before its next attempt.
  if (attempt && now - attempt.at > STUCK_MS) attempt.stop.abort();
  wake();
}

export function noteUnreachable(): void {
  const { state, lastAt } = connection.peek();
  if (state !== "lost") connection.value = { state: "lost", lastAt };
}

export function startLive(): void {
  stopLive();
  const stop = new AbortController();
  running = stop;
  connection.value = { state: "connecting", lastAt: Date.now() };
  void follow(stop.signal);
}

export function stopLive(): void {
  running?.abort();
  running = null;
}

async function follow(stop: AbortSignal): Promise<void> {
  let lastId = "";
  let failures = 0;
  while (!stop.aborted) {
    const current = new AbortController();
    attempt = { stop: current, at: Date.now() };
    const onStop = (): void => current.abort();
    stop.addEventListener("abort", onStop, { once: true });
    const onAlive = (): void => {
      failures = 0;
      connection.value = { state: "live", lastAt: Date.now() };
    };
    try {
      for await (const { event, data, id } of events("/changes", { signal: current.signal, lastId, onAlive })) {
        if (id) lastId = id;
        if (event === "snapshot" || event === "resumed") publish(null);
        else if (event === "changes") publish(namesIn(data));
        else if (event === "figures") publish(["figures"]);
      }
      // An orderly end: the node ends streams now and then. Go on at once.
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof ApiError) {
        if (error.status === 401) return;
        // Other pages still work by asking; this one is tried again rarely.
        connection.value = { state: "none", lastAt: Date.now() };
        failures = RETRY_MS.length;
      } else {
        failures += 1;
        noteUnreachable();
      }
    } finally {
      stop.removeEventListener("abort", onStop);
    }
    await rest(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)] ?? 1000, stop);
  }
}

function namesIn(data: string): string[] | null {
  try {
    const found = JSON.parse(data) as { changes: { object: string }[] };
    return found.changes.map((change) => change.object);
  } catch {
    return null;
  }
}

function rest(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = window.setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      resolve();
    }
    wake = done;
    stop.addEventListener("abort", done, { once: true });
  });
}

/** Try again now. */
export function retryNow(): void {
  wake();
}
