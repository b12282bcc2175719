/** Waits between tries: their ceilings, their spread, and that a seed gives them again. */

import { expect, test } from "vitest";
import { Backoff } from "../../../../src/layer1-app/relay/client/backoff.ts";

/** A small generator with a seed (mulberry32), so that a failure can be had again. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

test("ceilings double from 1 s to 60 s", () => {
  const backoff = new Backoff({ random: () => 0.999_999 });
  const waits = Array.from({ length: 9 }, () => backoff.next());
  expect(waits).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
});

test("full jitter: waits are spread evenly below the ceiling, with a small floor", () => {
  const random = seeded(7);
  for (const failures of [0, 3, 10]) {
    const waits = Array.from({ length: 4000 }, () => {
      const backoff = new Backoff({ random });
      for (let i = 0; i < failures; i++) backoff.next();
      return { ceiling: backoff.ceilingMs, wait: backoff.next() };
    });
    const ceiling = waits[0]?.ceiling as number;
    const quarters = [0, 0, 0, 0];
    for (const { wait } of waits) {
      expect(wait).toBeGreaterThanOrEqual(100);
      expect(wait).toBeLessThanOrEqual(ceiling);
      const quarter = Math.min(3, Math.floor(((wait - 100) / (ceiling - 100)) * 4));
      quarters[quarter] = (quarters[quarter] as number) + 1;
    }
    // 1,000 are expected in each; five standard deviations are 137.
    for (const count of quarters) expect(Math.abs(count - 1000)).toBeLessThan(137);
  }
});

test("the same seed gives the same waits", () => {
  const waits = (seed: number) => {
    const backoff = new Backoff({ random: seeded(seed) });
    return Array.from({ length: 8 }, () => backoff.next());
  };
  expect(waits(1)).toEqual(waits(1));
  expect(waits(1)).not.toEqual(waits(2));
});

test("reset starts over; a slow failure waits half a minute to a minute and stays slow", () => {
  const backoff = new Backoff({ random: () => 0 });
  expect(backoff.nextSlow()).toBe(30_000);
  expect(backoff.ceilingMs).toBe(60_000);
  backoff.reset();
  expect(backoff.ceilingMs).toBe(1000);
  expect(new Backoff({ random: () => 0.999_999 }).nextSlow()).toBe(60_000);
});

test("a million failures do not overflow anything", () => {
  const backoff = new Backoff({ random: () => 0.5 });
  for (let i = 0; i < 1_000_000; i++) backoff.next();
  expect(backoff.ceilingMs).toBe(60_000);
});
