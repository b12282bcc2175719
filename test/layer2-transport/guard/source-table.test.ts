/** The table of sources against a plain map: counts by prefix, who gives way when places run out, and the pace. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Pace, SourceTable } from "../../../src/layer2-transport/guard/source-table.ts";

const bits = { bits4: 24, bits6: 48 };
const table = (slots = 1024) => new SourceTable(slots, bits, 0x1234567, 0x7654321);

const four = fc.record({ words: fc.array(fc.integer(), { minLength: 1, maxLength: 1 }) });
const six = fc.record({ words: fc.array(fc.integer(), { minLength: 4, maxLength: 4 }) });
const address = fc.oneof(four, six).map(({ words }) => Int32Array.from(words));
const countOf = (words: Int32Array): 1 | 4 => words.length as 1 | 4;
/** The prefix as text: what the table is to tell apart. */
const nameOf = (words: Int32Array): string =>
  words.length === 1
    ? `4 ${(words[0] as number) >>> 8}`
    : `6 ${words[0]} ${((words[1] as number) >>> 16) & 0xffff}`;

describe("a table with room", () => {
  test("keeps what a map would keep, prefix by prefix", () => {
    fc.assert(
      fc.property(fc.array(address, { maxLength: 60 }), (addresses) => {
        const sources = table(65_536);
        const model = new Map<string, number>();
        for (const words of addresses) {
          const place = sources.take(words, 0, countOf(words), 1);
          sources.connections[place] = (sources.connections[place] as number) + 1;
          model.set(nameOf(words), (model.get(nameOf(words)) ?? 0) + 1);
        }
        for (const words of addresses) {
          const place = sources.find(words, 0, countOf(words));
          expect(sources.connections[place]).toBe(model.get(nameOf(words)));
        }
      }),
    );
  });

  test("does not mistake IPv6 words for an IPv4 address", () => {
    const sources = table();
    sources.take(Int32Array.of(0x0a000000), 0, 1, 1);
    expect(sources.find(Int32Array.of(0x0a000000, 0, 0, 0), 0, 4)).toBe(-1);
  });

  test("reads the address where it is", () => {
    const sources = table();
    const words = Int32Array.of(9, 9, 0x0a000001);
    const place = sources.take(words, 2, 1, 1);
    expect(sources.find(Int32Array.of(0x0a0000ff), 0, 1)).toBe(place);
    const into = new Int32Array(4);
    expect(sources.prefixAt(place, into)).toBe(1);
    expect([...into]).toEqual([0x0a000000, 0, 0, 0]);
  });
});

describe("a full table", () => {
  test("a flood of strangers moves nobody out who has connections", () => {
    const sources = table(64);
    const kept = Int32Array.of(0x0a010200);
    const place = sources.take(kept, 0, 1, 0);
    sources.connections[place] = 1;
    for (let i = 0; i < 10_000; i += 1) sources.take(Int32Array.of(i << 8), 0, 1, 1 + i);
    expect(sources.find(kept, 0, 1)).toBe(place);
    expect(sources.connections[place]).toBe(1);
  });

  test("among idle sources the longest silent gives way, and a newcomer starts from nothing", () => {
    const sources = table(8);
    for (let i = 0; i < 8; i += 1) {
      const place = sources.take(Int32Array.of(i << 8), 0, 1, 100 - i);
      sources.paceMs[place] = 77;
      sources.blocks[place] = 3;
    }
    const place = sources.take(Int32Array.of(99 << 8), 0, 1, 200);
    expect(sources.find(Int32Array.of(7 << 8), 0, 1)).toBe(-1);
    expect(sources.find(Int32Array.of(0), 0, 1)).toBeGreaterThanOrEqual(0);
    expect([sources.paceMs[place], sources.blocks[place], sources.connections[place]]).toEqual([0, 0, 0]);
  });

  test("among busy ones, the one with the fewest connections", () => {
    const sources = table(8);
    for (let i = 0; i < 8; i += 1) {
      const place = sources.take(Int32Array.of(i << 8), 0, 1, i);
      sources.connections[place] = 10 + ((i + 5) % 8);
    }
    sources.take(Int32Array.of(99 << 8), 0, 1, 200);
    expect(sources.find(Int32Array.of(3 << 8), 0, 1)).toBe(-1);
  });
});

describe("the pace", () => {
  test("a burst, then the rate; never more in any time than burst and rate allow", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        fc.integer({ min: 1, max: 50 }),
        fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 300 }),
        (rate, burst, gaps) => {
          const pace = new Pace(rate, burst);
          let state = 0;
          let nowMs = 1000;
          const taken: number[] = [];
          for (const gap of gaps) {
            nowMs += gap;
            const next = pace.after(state, nowMs);
            if (next < 0) continue;
            state = next;
            taken.push(nowMs);
          }
          taken.forEach((from, i) => {
            taken.slice(i).forEach((to, n) => {
              expect(n + 1).toBeLessThanOrEqual(burst + ((to - from) * rate) / 1000 + 1e-6);
            });
          });
          // And no fewer at once.
          expect(taken.length).toBeGreaterThanOrEqual(Math.min(burst, gaps.length));
        },
      ),
    );
  });
});
