// Answers of the API that pages share. They are asked again every so often, and soon after the stream says that an
// object they show has changed. What was read stays on the page while the node does not answer.
import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { acted, ask, askAll, Unchanged, Unreachable } from "../api/client";
import { connection, noteAnswer, noteUnreachable, onChanges } from "./live";
import { BEAT_MS, dueAt, nextAt } from "./pacing";

const EVERY_MS = 5000;
const GAP_MS = 1000;
const KEPT_MS = 60_000;

export interface State<T> {
  data: T | undefined;
  error: Error | undefined;
  etag: string | null;
}

export interface Resource<T> extends State<T> {
  refresh: () => Promise<void>;
}

interface Options {
  /** Milliseconds between two questions. */
  every?: number;
  /** Beginnings of names of objects; "figures": the figures. */
  on?: readonly string[];
  /** Milliseconds: while they change all the time, it is asked for so often at most. */
  beat?: number;
  /** The path is a list, and all its pages are wanted. */
  all?: boolean;
}

class Entry {
  readonly state: Signal<State<unknown>> = signal({ data: undefined, error: undefined, etag: null });
  users = 0;
  private timer = 0;
  private asking: Promise<void> | null = null;
  private asksAgain = false;
  /** Something has changed since it was last asked for. */
  private isOld = false;
  private readonly asked = { at: 0, tookMs: 0, forChangeAt: 0 };
  private stopListening: () => void = () => undefined;

  private readonly on = new Set<string>();
  private every = Infinity;
  private beat = Infinity;

  constructor(
    private readonly path: string,
    private readonly options: Options,
  ) {}

  /** Another user of the answer may want it for more reasons, or more often. */
  widen(options: Options): void {
    for (const prefix of options.on ?? []) this.on.add(prefix);
    this.every = Math.min(this.every, options.every ?? EVERY_MS);
    this.beat = Math.min(this.beat, options.beat ?? BEAT_MS);
  }

  start(): void {
    this.users += 1;
    if (this.users > 1) return;
    this.stopListening = onChanges((objects) => {
      const wanted = [...this.on];
      if (objects === null || objects.some((name) => wanted.some((prefix) => name.startsWith(prefix)))) this.soon();
    });
    document.addEventListener("visibilitychange", this.onVisible);
    // What was asked ahead may be under way; its end plans the next.
    if (this.asking) return;
    if (Date.now() - this.asked.at > GAP_MS) void this.refresh();
    else this.plan();
  }

  stop(): void {
    this.users -= 1;
    if (this.users > 0) return;
    clearTimeout(this.timer);
    this.stopListening();
    document.removeEventListener("visibilitychange", this.onVisible);
    window.setTimeout(() => {
      if (this.users === 0) entries.delete(keyOf(this.path, this.options));
    }, KEPT_MS);
  }

  /** Something was changed from here: what follows from it is wanted soon, also without a stream that reports it. */
  changedHere(): void {
    if (this.users > 0) this.soon();
  }

  private readonly onVisible = (): void => {
    if (!document.hidden) this.soon();
  };

  /** Ask again after a change, but not at each of many. */
  private soon(): void {
    this.isOld = true;
    if (document.hidden) return;
    clearTimeout(this.timer);
    const due = dueAt(this.asked, Date.now(), acted.at, this.beat);
    this.timer = window.setTimeout(() => {
      // What changed since the question that is under way is asked for behind its answer.
      if (this.asking) return;
      this.asked.forChangeAt = Date.now();
      void this.refresh();
    }, due - Date.now());
  }

  private plan(): void {
    clearTimeout(this.timer);
    if (this.users === 0) return;
    if (this.isOld) {
      this.soon();
      return;
    }
    // The stream says when there are new figures, every five seconds.
    const every = connection.peek().state === "live" && this.on.has("figures") ? this.every * 2 : this.every;
    const due = nextAt(this.asked, Date.now(), acted.at, every);
    this.timer = window.setTimeout(() => {
      if (document.hidden) this.plan();
      else void this.refresh();
    }, due - Date.now());
  }

  refresh(): Promise<void> {
    if (this.asking) {
      this.asksAgain = true;
      return this.asking.then(() => this.refreshed());
    }
    this.asking = this.read().finally(() => {
      this.asking = null;
      this.plan();
    });
    return this.asking;
  }

  /** What was asked for during an answer may not be in it. */
  private async refreshed(): Promise<void> {
    if (!this.asksAgain) return;
    this.asksAgain = false;
    await this.refresh();
  }

  private async read(): Promise<void> {
    this.asked.at = Date.now();
    this.asksAgain = this.isOld = false;
    try {
      const headers = this.known();
      const found = await (this.options.all ? askAll(this.path, headers) : ask<unknown>("GET", this.path, { headers }));
      this.state.value = { data: found.data, etag: found.etag, error: undefined };
      noteAnswer();
    } catch (error) {
      if (error instanceof Unreachable) noteUnreachable();
      else noteAnswer();
      const before = this.state.peek();
      if (!(error instanceof Unchanged)) this.state.value = { ...before, error: error as Error };
      else if (before.error) this.state.value = { ...before, error: undefined };
    } finally {
      this.asked.tookMs = Date.now() - this.asked.at;
    }
  }

  private known(): Record<string, string> {
    const { etag, data } = this.state.peek();
    return etag && data !== undefined ? { "If-None-Match": etag } : {};
  }
}

const entries = new Map<string, Entry>();
acted.over = () => {
  for (const entry of entries.values()) entry.changedHere();
};

function keyOf(path: string, options: Options): string {
  return `${options.all ? "all " : ""}${path}`;
}

function entryOf(path: string, options: Options): Entry {
  const key = keyOf(path, options);
  const found = entries.get(key) ?? new Entry(path, options);
  entries.set(key, found);
  return found;
}

/** Ask now for what a page will show in a moment. */
export function askAhead(path: string, options: Options = {}): void {
  void entryOf(path, options).refresh();
}

/** Forget all answers: another identity asks from now on. */
export function forgetAll(): void {
  for (const [key, entry] of entries) if (entry.users === 0) entries.delete(key);
    else entry.state.value = { data: undefined, error: undefined, etag: null };
}

const NOTHING: State<never> = { data: undefined, error: undefined, etag: null };

/** An answer of the API while the component is shown. null: nothing is asked. */
export function useResource<T>(path: string | null, options: Options = {}): Resource<T> {
  const entry = useMemo(() => {
    if (path === null) return null;
    const found = entryOf(path, options);
    found.widen(options);
    return found;
  }, [path, options.all]);
  useEffect(() => {
    entry?.start();
    return () => entry?.stop();
  }, [entry]);
  const state = (entry?.state.value ?? NOTHING) as State<T>;
  return { ...state, refresh: () => entry?.refresh() ?? Promise.resolve() };
}
