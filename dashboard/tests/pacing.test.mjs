// When answers are asked for again. The module is pure: time is a number.
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const entry = join(dirname(fileURLToPath(import.meta.url)), "..", "src", "state", "pacing.ts");
const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
const { BEAT_MS, dueAt, nextAt, onBeat } = await import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);

const NEVER = -1e12;

/** When a page asks that is open from `openedAt` on, while something changes every `everyMs`. */
function asks({ openedAt, until, everyMs, tookMs = 20, actedAt = NEVER }) {
  const asked = { at: openedAt, tookMs, forChangeAt: NEVER };
  const found = [];
  let due = Infinity;
  for (let now = openedAt; now < until; now += 1) {
    if (now % everyMs === 0) due = dueAt(asked, now, actedAt);
    if (now >= due) {
      // A timer is late by some milliseconds.
      asked.at = asked.forChangeAt = now + 3;
      due = Infinity;
      found.push(now);
    }
  }
  return found;
}

test("while things change all the time, it is asked once on a beat", () => {
  const found = asks({ openedAt: 123_456, until: 183_456, everyMs: 50 });
  assert.ok(found.length <= 60_000 / BEAT_MS + 1, `${found.length} times`);
  assert.ok(found.length >= 60_000 / BEAT_MS - 3, `${found.length} times`);
  assert.ok(found.slice(2).every((at) => at % BEAT_MS <= 3));
});

test("pages that were opened at different times ask at the same moments", () => {
  const late = { until: 180_000, everyMs: 50 };
  const [first, other] = [123_456, 124_789].map((openedAt) => asks({ openedAt, ...late }).slice(3));
  assert.deepEqual(first.slice(-20), other.slice(-20));
});

test("a change after a rest is asked for at once, and soon after another answer", () => {
  const now = 1_000_123;
  assert.equal(dueAt({ at: now - 5000, tookMs: 20, forChangeAt: NEVER }, now, NEVER), now);
  assert.equal(dueAt({ at: now - 300, tookMs: 20, forChangeAt: NEVER }, now, NEVER), now + 700);
});

test("what follows from a change that was made here is asked for sooner", () => {
  const now = 1_000_123;
  const asked = { at: now, tookMs: 20, forChangeAt: now };
  assert.equal(dueAt(asked, now, now - 1000), now + 400);
  assert.ok(dueAt(asked, now, now - 60_000) >= now + 1000);
});

test("an answer that takes long is asked for less often, its reader's own changes or not", () => {
  const now = 1_000_123;
  const asked = { at: now, tookMs: 3000, forChangeAt: now };
  assert.ok(dueAt(asked, now, NEVER) >= now + 12_000);
  assert.equal(dueAt(asked, now, now), now + 12_000);
});

test("a change just before the beat does not put it off", () => {
  const asked = { at: 2003, tookMs: 20, forChangeAt: 2003 };
  assert.deepEqual([3500, 3999, 4000, 4001].map((now) => dueAt(asked, now, NEVER)), [4000, 4000, 4000, 4001]);
});

test("after a change that was made here it is asked each second for a while, also when no change is reported", () => {
  const now = 1_000_123;
  const asked = { at: now, tookMs: 20, forChangeAt: NEVER };
  assert.equal(nextAt(asked, now, now - 1000, 5000), now + 1000);
  assert.equal(nextAt({ ...asked, tookMs: 600 }, now, now, 5000), now + 2400);
  assert.equal(nextAt(asked, now, now - 60_000, 5000), 1_006_000);
  assert.equal(nextAt(asked, now, now, 60_000), 1_062_000);
});

test("a beat is never before the time", () => {
  assert.deepEqual([0, 1, 1999, 2000, 2001].map((at) => onBeat(at)), [0, 2000, 2000, 2000, 4000]);
});
