// When an answer is asked for again after a change. Times are milliseconds. Pure.

/**
 * While things change all the time, an answer is asked for at multiples of this time only. So all pages that are open ask
 * at the same moments, and the node answers them from one picture of the cluster.
 */
export const BEAT_MS = 2000;
const REST_MS = 1000;
/** After a change that was made here, what follows from it is shown sooner, for a while. */
const OWN_REST_MS = 400;
/** What follows may be in no change that is reported: the first answer may come from a picture of just before. */
const OWN_EVERY_MS = 1000;
const OWN_MS = 15_000;
const RARE_MS = 10_000;

export interface Asked {
  at: number;
  tookMs: number;
  /** When it was last asked because of a change. */
  forChangeAt: number;
}

/** When to ask after a change that is known `now`. `actedAt`: when something was last changed from here. */
export function dueAt(asked: Asked, now: number, actedAt: number, beat = BEAT_MS): number {
  const rest = Math.max(now - actedAt < OWN_MS ? OWN_REST_MS : REST_MS, asked.tookMs * 4);
  const earliest = asked.at + rest;
  const isRare = now - asked.forChangeAt >= 2 * beat;
  return Math.max(now, isRare || now - actedAt < OWN_MS ? earliest : onBeat(earliest, beat));
}

/** When to ask again without a change, what is asked for `every` so often. */
export function nextAt(asked: Asked, now: number, actedAt: number, every: number): number {
  // What is asked for rarely shows nothing that a change here has at once.
  if (now - actedAt < OWN_MS && every <= RARE_MS) return now + Math.max(Math.min(OWN_EVERY_MS, every), asked.tookMs * 4);
  return onBeat(now + Math.max(every, asked.tookMs * 4));
}

/** The first beat that is not before this time. */
export function onBeat(at: number, beat = BEAT_MS): number {
  return Math.ceil(at / beat) * beat;
}
