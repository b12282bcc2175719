/** The allowance of challenge ACKs: bounded for each connection, and different for each (RFC 5961 7, CVE-2016-5696). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { chargeChallenge } from "../../../../src/layer2-transport/tcp/security/challenge.ts";
import { seededWords } from "../support.ts";

/** How many challenges one connection gets when it asks every millisecond for `ms`. */
function granted(seed: number, ms: number, startMs = 0): number {
  const random = seededWords(seed);
  let state = 0;
  let count = 0;
  for (let now = 0; now < ms; now += 1) {
    const next = chargeChallenge(state, startMs + now, random.word());
    if (next < 0) continue;
    count += 1;
    state = next;
  }
  return count;
}

describe("challenge ACKs", () => {
  test("a fresh connection may send one, and 3 to 10 in a row", () => {
    fc.assert(
      fc.property(fc.integer(), fc.nat(), (word, nowMs) => {
        let state = 0;
        let count = 0;
        for (;;) {
          const next = chargeChallenge(state, nowMs, word);
          if (next < 0) break;
          expect(next).toBe(next | 0);
          state = next;
          count += 1;
        }
        expect(count).toBeGreaterThanOrEqual(3);
        expect(count).toBeLessThanOrEqual(10);
        // A while later there are new ones, whatever the clock.
        expect(chargeChallenge(state, nowMs + 1600, word)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  test("under a flood there are a few a second, never more", () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const count = granted(seed, 60_000);
      expect(count).toBeGreaterThan(60);
      expect(count).toBeLessThan(1200);
    }
  });

  test("how many differs from connection to connection and from time to time", () => {
    const counts = Array.from({ length: 40 }, (_, seed) => granted(seed, 400));
    expect(new Set(counts).size).toBeGreaterThan(4);
  });

  test("a state from long ago grants again, even where the ticks have wrapped", () => {
    const wrapMs = 64 * 2 ** 27;
    for (const startMs of [0, wrapMs - 700, wrapMs - 1, 7 * wrapMs - 300]) {
      expect(granted(1, 1, startMs)).toBe(1);
      let state = 0;
      for (let next = 0; next >= 0; ) {
        state = next;
        next = chargeChallenge(state, startMs, 5);
      }
      for (const laterMs of [1600, 60_000, wrapMs / 2, wrapMs - 2000]) {
        expect(chargeChallenge(state, startMs + laterMs, 5)).toBeGreaterThanOrEqual(0);
      }
      expect(chargeChallenge(state, startMs + 100, 5)).toBe(-1);
    }
  });
});
