/** When SYNs are a flood and when they are a rush of clients; and who of many sends most. In virtual time. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SynMeter } from "../../../src/layer2-transport/guard/syn-meter.ts";
import { TopSources } from "../../../src/layer2-transport/guard/top-sources.ts";

/** `perMs` SYNs a millisecond; a part of them is completed some milliseconds later. When it was first a flood. */
function run(meter: SynMeter, fromMs: number, forMs: number, perMs: number, completed: number, rttMs = 50) {
  let first = -1;
  let owed = 0;
  for (let ms = 0; ms < forMs; ms += 1) {
    for (let n = 0; n < perMs; n += 1) if (meter.syn(fromMs + ms) && first < 0) first = ms;
    if (ms < rttMs) continue;
    for (owed += perMs * completed; owed >= 1; owed -= 1) meter.complete(fromMs + ms);
  }
  return first;
}

describe("the meter of a listener", () => {
  test("SYNs that nobody completes are a flood within a second", () => {
    const first = run(new SynMeter(1000), 5000, 2000, 10, 0);
    expect(first).toBeGreaterThanOrEqual(0);
    expect(first).toBeLessThan(1000);
  });

  test("as many that are completed are none", () => {
    expect(run(new SynMeter(1000), 5000, 5000, 10, 1)).toBe(-1);
  });

  test("fewer than the mark are none, and with a mark of 0 nothing is", () => {
    expect(run(new SynMeter(20_000), 0, 3000, 10, 0)).toBe(-1);
    expect(run(new SynMeter(0), 0, 3000, 10, 0)).toBe(-1);
  });

  test("a flood lasts until three calm seconds have passed, and is counted", () => {
    const meter = new SynMeter(1000);
    run(meter, 0, 2000, 10, 0);
    expect(meter.floodSinceMs).toBeGreaterThanOrEqual(0);
    expect(meter.floodSyns).toBeGreaterThan(15_000);
    for (let ms = 2000; ms < 4000; ms += 100) meter.advance(ms);
    expect(meter.floodSinceMs).toBeGreaterThanOrEqual(0);
    for (let ms = 4000; ms < 8000; ms += 100) meter.advance(ms);
    expect(meter.floodSinceMs).toBe(-1);
  });

  test("legitimate clients among a flood do not hide it", () => {
    const meter = new SynMeter(1000);
    run(meter, 0, 2000, 10, 0.1);
    expect(meter.floodSinceMs).toBeGreaterThanOrEqual(0);
  });
});

describe("who sends most", () => {
  const word = (n: number): Int32Array => Int32Array.of(n);

  test("whoever sent over a quarter and a sixteenth more is named, whatever the order", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 1000 }), { maxLength: 300 }),
        fc.nat(),
        (others, seed) => {
          const top = new TopSources();
          const heavy = Math.ceil(others.length / 2) + 4;
          const events = [...others, ...new Array<number>(heavy).fill(-7)];
          for (let i = events.length - 1, state = seed; i > 0; i -= 1) {
            state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
            const j = state % (i + 1);
            [events[i], events[j]] = [events[j] as number, events[i] as number];
          }
          for (const event of events) top.add(word(event), 0, 1, 60);
          const place = top.top();
          expect(top.words[4 * place]).toBe(-7);
          expect(top.counts[place]).toBeGreaterThanOrEqual(heavy);
          expect((top.counts[place] as number) - (top.errors[place] as number)).toBeLessThanOrEqual(heavy);
        },
      ),
    );
  });

  test("of many equal senders none is named", () => {
    const top = new TopSources();
    for (let i = 0; i < 10_000; i += 1) top.add(word(i % 1000), 0, 1, 0);
    expect(top.top()).toBe(-1);
    expect(top.total).toBe(10_000);
  });

  test("IPv6 senders are told apart by all their words", () => {
    const top = new TopSources();
    for (let i = 0; i < 9; i += 1) top.add(Int32Array.of(1, 2, 3, i % 3 === 0 ? 4 : 5), 0, 4, 0);
    expect([...top.counts].filter((count) => count > 0).sort()).toEqual([3, 6]);
  });
});
