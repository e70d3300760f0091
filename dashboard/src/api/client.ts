// Requests to the API of the node that served this page.
import { signal } from "@preact/signals";
import type { FieldError, Page, ProblemDetails } from "./types";

const PREFIX = "/api/v1";
const TIMEOUT_MS = 15_000;
const TOKEN_KEY = "sandwich.token";

/** The API token of this tab; "" when a session cookie, or nothing, says who asks. Gone when the tab is closed. */
export const token = signal(sessionStorage.getItem(TOKEN_KEY) ?? "");

export function useToken(text: string): void {
  if (text) sessionStorage.setItem(TOKEN_KEY, text);
  else sessionStorage.removeItem(TOKEN_KEY);
  token.value = text;
}

/** When something was last changed from here (Date.now()), and what is called once that is answered. */
export const acted = { at: 0, over: (): void => undefined };

/** What the API refused, in its own words. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly fields: FieldError[] = [],
    readonly retryAfterS: number | null = null,
  ) {
    super(detail);
  }
}

/** No answer came: the node is gone, or the network. */
export class Unreachable extends Error {}

/** Called when the API does not know who asks. */
export const onUnauthenticated: { call: () => void } = { call: () => undefined };

export interface Ask {
  body?: unknown;
  query?: Record<string, string | number | boolean | null | undefined>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  timeoutMs?: number;
}

export interface Answer<T> {
  data: T;
  etag: string | null;
}

/** The answer is still the one with the ETag in `If-None-Match`. */
export class Unchanged extends Error {}

const UNKNOWN = new Set(["outcome-unknown", "no-answer", "internal"]);

function newKey(): string {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return [...random].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What to do when the change may have been made, or may be under way, although it has failed here; "": it was not. */
export function ifUnknown(error: unknown): string {
  const safe = "Whether it was done is not known. Trying again is safe: it is done once.";
  if (!(error instanceof ApiError)) return error instanceof Unreachable ? safe : "";
  // After these a node carries the request out again, once a minute has passed.
  if (UNKNOWN.has(error.code ?? "")) return "Whether it was done is not known: look before you try again.";
  // Without a code it is the answer of something between: the node may be at work.
  return error.code === "in-progress" || (error.status >= 500 && !error.code) ? safe : "";
}

/** Whether this was the answer: the next attempt is another request. */
export function isFinal(error: unknown): boolean {
  return error instanceof ApiError && error.status < 500 && error.status !== 429 && error.code !== "in-progress";
}

/**
 * A change that may have to be sent several times. The key, for the header Idempotency-Key, stays the same until there is
 * a final answer, so that it is made once.
 */
export class Attempts {
  private key = "";
  private request = "";

  /** `request`: all that may be different the next time. */
  async send<T>(request: string, run: (key: string) => Promise<T>): Promise<T> {
    if (!this.key || request !== this.request) this.key = newKey();
    this.request = request;
    try {
      const found = await run(this.key);
      this.key = "";
      return found;
    } catch (error) {
      if (isFinal(error)) this.key = "";
      throw error;
    }
  }
}

export function withQuery(path: string, query: Ask["query"]): string {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}${path.includes("?") ? "&" : "?"}${text}` : path;
}

function headersOf(more: Record<string, string> = {}): Record<string, string> {
  return {
    "X-Sandwich-Request": "1",
    ...(token.value ? { Authorization: `Bearer ${token.value}` } : {}),
    ...more,
  };
}

async function problemOf(response: Response): Promise<ApiError> {
  const wait = Number(response.headers.get("Retry-After"));
  const found = (await response.json().catch(() => null)) as ProblemDetails | null;
  const error = new ApiError(
    response.status,
    found?.code ?? "",
    found?.detail || found?.title || `the node answered ${response.status}`,
    found?.errors ?? [],
    wait > 0 ? wait : null,
  );
  if (response.status === 401) onUnauthenticated.call();
  return error;
}

export async function ask<T>(method: string, path: string, options: Ask = {}): Promise<Answer<T>> {
  const { body, query, headers, signal: outer, timeoutMs = TIMEOUT_MS } = options;
  const deadline = AbortSignal.timeout(timeoutMs);
  let response: Response;
  const isChange = method !== "GET" && !query?.["dry_run"];
  if (isChange) acted.at = Date.now();
  try {
    response = await fetch(PREFIX + withQuery(path, query), {
      method,
      cache: "no-store",
      headers: headersOf({ ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers }),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: outer ? AbortSignal.any([outer, deadline]) : deadline,
    });
  } catch (error) {
    if (outer?.aborted) throw error;
    throw new Unreachable(
      deadline.aborted ? `no answer within ${timeoutMs / 1000} s` : "the node does not answer",
    );
  } finally {
    if (isChange) acted.over();
  }
  if (response.status === 304) throw new Unchanged();
  if (!response.ok) throw await problemOf(response);
  try {
    const text = await response.text();
    return { data: (text ? JSON.parse(text) : null) as T, etag: response.headers.get("ETag") };
  } catch {
    if (outer?.aborted) throw new DOMException("aborted", "AbortError");
    throw new Unreachable("the answer broke off");
  }
}

export async function get<T>(path: string, options: Ask = {}): Promise<T> {
  return (await ask<T>("GET", path, options)).data;
}

const ITEMS_MAX = 20_000;
const PAGE_ITEMS = 1000;

/** All pages of a list, ITEMS_MAX items at most; with an ETag when it is one page. `headers` go with the first one. */
export async function askAll<T>(path: string, headers: Record<string, string> = {}): Promise<Answer<T[]>> {
  const first = await ask<Page<T>>("GET", path, { headers, query: { limit: PAGE_ITEMS } });
  const found = first.data.items;
  let after = first.data.next;
  const { etag } = after === null ? first : { etag: null };
  while (after !== null && found.length < ITEMS_MAX) {
    const page: Page<T> = await get<Page<T>>(path, { query: { limit: PAGE_ITEMS, after } });
    found.push(...page.items);
    after = page.next;
  }
  return { data: found, etag };
}

export interface ServerEvent {
  event: string;
  data: string;
  id: string;
}

const RETRY_MS = 2000;
/** A stream has a heartbeat each 15 s: one that is silent for so long hangs in a connection that is gone. */
const SILENCE_MS = 40_000;
const LINE_END = /\r\n|\n|\r/;

/**
 * Server-sent events of one connection, until it ends. `fetch` and not `EventSource`, which cannot send a token and does
 * not say why it failed. `onAlive` is called whenever something arrives, a heartbeat as well.
 */
export async function* events(
  path: string,
  options: { query?: Ask["query"]; signal: AbortSignal; lastId?: string; onAlive?: () => void },
): AsyncGenerator<ServerEvent> {
  const stop = new AbortController();
  const onStop = (): void => stop.abort();
  options.signal.addEventListener("abort", onStop);
  if (options.signal.aborted) stop.abort();
  let silence = window.setTimeout(onStop, SILENCE_MS);
  const alive = (): void => {
    clearTimeout(silence);
    silence = window.setTimeout(onStop, SILENCE_MS);
    options.onAlive?.();
  };
  try {
    yield* eventsOf(path, options, stop.signal, alive);
  } finally {
    clearTimeout(silence);
    options.signal.removeEventListener("abort", onStop);
  }
}

async function* eventsOf(
  path: string,
  options: { query?: Ask["query"]; signal: AbortSignal; lastId?: string },
  signal: AbortSignal,
  alive: () => void,
): AsyncGenerator<ServerEvent> {
  let response: Response;
  try {
    response = await fetch(PREFIX + withQuery(path, options.query), {
      headers: headersOf({ Accept: "text/event-stream", ...(options.lastId ? { "Last-Event-ID": options.lastId } : {}) }),
      signal,
    });
  } catch (error) {
    if (options.signal.aborted) throw error;
    throw new Unreachable("the node does not answer");
  }
  if (!response.ok) throw await problemOf(response);
  if (!response.body) return;
  alive();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = "message";
  let data: string[] = [];
  let id = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const lines = (rest + value).split(LINE_END);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event, data: data.join("\n"), id };
          event = "message";
          data = [];
        } else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("id:")) id = line.slice(3).trim();
      }
    }
  } catch (error) {
    if (options.signal.aborted) throw error;
    throw new Unreachable("the connection broke off");
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** Read a stream for as long as it is wanted: nodes end streams now and then. `onError`: whether to try again. */
export async function keepReading(
  read: () => Promise<void>,
  signal: AbortSignal,
  onError: (error: unknown) => boolean,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await read();
    } catch (error) {
      if (signal.aborted || !onError(error)) return;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
