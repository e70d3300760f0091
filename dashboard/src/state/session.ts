// Who is signed in.
import { computed, signal } from "@preact/signals";
import { ApiError, get, onUnauthenticated, token, useToken } from "../api/client";
import type { Me, RoleName } from "../api/types";
import { report } from "../ui/confirm";
import { startLive, stopLive } from "./live";
import { forgetAll } from "./resource";

/** `asking`: not known yet. null: no one is signed in. */
export const me = signal<Me | null | "asking">("asking");
/** Why the node did not say who is signed in; "" when it did. */
export const meError = signal("");
export const hasEnded = signal(false);

const ORDER: RoleName[] = ["viewer", "operator", "admin"];

function has(role: RoleName): boolean {
  const found = me.value;
  if (found === null || found === "asking" || found.role === null) return false;
  return ORDER.indexOf(found.role) >= ORDER.indexOf(role);
}

export const isOperator = computed(() => has("operator"));
export const isAdmin = computed(() => has("admin"));
/** Not limited to some applications. */
export const seesCluster = computed(() => {
  const found = me.value;
  return found !== null && found !== "asking" && found.apps === null;
});

/** A new application concerns the whole cluster. */
export const addsApps = computed(() => isAdmin.value && seesCluster.value);

const REFUSED_KEY = "sandwich.refused";

/** Whether the node last refused who is here. Each question that it refuses counts as a failed attempt to sign in. */
export function wasRefused(): boolean {
  return sessionStorage.getItem(REFUSED_KEY) !== null;
}

function isThere(found: Me): void {
  sessionStorage.removeItem(REFUSED_KEY);
  me.value = found;
  hasEnded.value = false;
}

onUnauthenticated.call = () => {
  sessionStorage.setItem(REFUSED_KEY, "1");
  if (me.peek() !== null && me.peek() !== "asking") hasEnded.value = true;
  stopLive();
  me.value = null;
};

export async function askWhoIsThere(): Promise<void> {
  meError.value = "";
  try {
    isThere(await get<Me>("/me"));
    startLive();
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) meError.value = (error as Error).message;
    me.value = null;
  }
}

/** Sign in with an API token. Raises what the API answers. */
export async function signInWithToken(text: string): Promise<void> {
  useToken(text);
  try {
    isThere(await get<Me>("/me"));
  } catch (error) {
    useToken("");
    throw error;
  }
  forgetAll();
  startLive();
}

export async function signOut(): Promise<void> {
  if (!token.peek()) {
    const response = await fetch("/auth/logout", { method: "POST", headers: { "X-Sandwich-Request": "1" } }).catch(() => null);
    // 401: the session had ended before.
    if (!response?.ok && response?.status !== 401) {
      report("You are still signed in: the node did not end your session. Try again.");
      return;
    }
  }
  stopLive();
  useToken("");
  forgetAll();
  me.value = null;
  hasEnded.value = false;
}

