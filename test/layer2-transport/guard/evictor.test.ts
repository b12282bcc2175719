/** Whom the guard ends when memory runs short: the worst, no more than it takes, nobody who makes progress. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Evictor } from "../../../src/layer2-transport/guard/evictor.ts";
import {
  createCeilingMemory,
  MemoryCeiling,
  pressure,
} from "../../../src/layer2-transport/guard/memory-ceiling.ts";
import { MemoryAccount } from "../../../src/layer2-transport/tcp/admission.ts";
import { FakeHolders } from "./holders.ts";

const events = { slow: () => {}, evicted: () => {} };

test("under high pressure the sixteen worst of those looked at go, the worst first, until enough is free", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          queued: fc.integer({ min: 0, max: 1e6 }),
          stalledMs: fc.integer({ min: 0, max: 60_000 }),
        }),
        { minLength: 1, maxLength: 200 },
      ),
      fc.integer({ min: 1, max: 5e6 }),
      (held, excess) => {
        const holders = new FakeHolders();
        for (const [sockfd24, one] of held.entries()) {
          holders.add({ sockfd24, received: 0, address: sockfd24, ...one });
        }
        const score = (n: number) => {
          const one = held[n] as (typeof held)[number];
          return one.queued * (1 + one.stalledMs / 1000);
        };
        new Evictor(holders, events, 20_000).turn(pressure.high, excess);
        const ranked = held
          .map((_, n) => score(n))
          .filter((s) => s > 0)
          .sort((a, b) => b - a);
        const gone = holders.evicted.map(score);
        expect(gone).toEqual(ranked.slice(0, gone.length));
        const freed = holders.evicted.map((n) => held[n]?.queued ?? 0);
        const enough = freed.reduce((sum, bytes) => sum + bytes, 0) >= excess;
        expect(enough || gone.length === Math.min(16, ranked.length)).toBe(true);
        // Not one more than it took.
        expect(freed.slice(0, -1).reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(excess);
      },
    ),
  );
});

test("under some pressure only those go that stand still", () => {
  const holders = new FakeHolders();
  holders.add({ sockfd24: 1, received: 0, queued: 1e9, stalledMs: 100, address: 1 });
  holders.add({ sockfd24: 2, received: 0, queued: 1000, stalledMs: 5000, address: 2 });
  const evictor = new Evictor(holders, events, 20_000);
  evictor.turn(pressure.some, 1e9);
  expect(holders.evicted).toEqual([2]);
  evictor.turn(pressure.high, 1e9);
  expect(holders.evicted).toEqual([2, 1]);
});

test("what the app has not read weighs less than what the peer has not taken", () => {
  const holders = new FakeHolders();
  holders.add({ sockfd24: 1, received: 3000, queued: 0, stalledMs: 0, address: 1 });
  holders.add({ sockfd24: 2, received: 0, queued: 1000, stalledMs: 0, address: 2 });
  new Evictor(holders, events, 20_000).turn(pressure.high, 1);
  expect(holders.evicted).toEqual([2]);
});

test("without pressure nobody goes, slow peers are counted, and a look is short", () => {
  const holders = new FakeHolders();
  const slow: number[] = [];
  for (let n = 0; n < 1000; n += 1) {
    holders.add({ sockfd24: n, received: 0, queued: 10, stalledMs: n < 700 ? 30_000 : 0, address: n });
  }
  const evictor = new Evictor(holders, { ...events, slow: (words) => slow.push(words[0] as number) }, 20_000);
  for (let look = 0; look < 4; look += 1) evictor.turn(pressure.none, 0);
  expect(evictor.slowPeers).toBe(700);
  expect(slow.length).toBe(700);
  expect(holders.evicted).toEqual([]);
  expect(holders.mostLooked).toBeLessThanOrEqual(256);
});

test("the ceiling counts all workers together, and each frees its own part", () => {
  const shared = createCeilingMemory(2);
  const accounts = [new MemoryAccount(), new MemoryAccount()] as const;
  const [one, other] = accounts.map(
    (account, worker) => new MemoryCeiling(1_000_000, account, worker, shared),
  ) as [MemoryCeiling, MemoryCeiling];
  const look = () => {
    for (const ceiling of [one, other, one]) ceiling.refresh();
  };
  accounts[0].received = 600 * 1024;
  look();
  expect([one.level(), other.level()]).toEqual([pressure.none, pressure.none]);
  accounts[1].queued = 200 * 1024;
  look();
  expect([one.level(), other.level()]).toEqual([pressure.some, pressure.some]);
  expect(one.excess() / other.excess()).toBeCloseTo(3, 1);
  expect(one.allows(150_000)).toBe(true);
  expect(one.allows(250_000)).toBe(false);
  accounts[0].records = 250 * 1024;
  expect(one.level()).toBe(pressure.full);
  expect(one.allows(0)).toBe(false);
});
