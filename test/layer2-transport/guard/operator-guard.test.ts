/** What an operator sees: blocks that end by themselves, attacks of several workers as one, one table of offenders. */
import { describe, expect, test } from "vitest";
import { type Attack, OperatorGuard } from "../../../src/layer2-transport/guard/operator-guard.ts";
import type { AttackNote } from "../../../src/layer2-transport/guard/report.ts";
import type { BlockClock } from "../../../src/layer2-transport/guard/timed-blocks.ts";

class Clock implements BlockClock {
  nowMs = 1_000_000;
  private readonly timers = new Set<{ atMs: number; run: () => void }>();

  now(): number {
    return this.nowMs;
  }

  later(ms: number, run: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, run };
    this.timers.add(timer);
    return () => this.timers.delete(timer);
  }

  get armed(): number {
    return this.timers.size;
  }

  /** Lets time pass; what timers start is waited for. */
  async pass(ms: number): Promise<void> {
    this.nowMs += ms;
    for (const timer of [...this.timers]) {
      if (timer.atMs > this.nowMs) continue;
      this.timers.delete(timer);
      timer.run();
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));
const nothing = { attacks: [], blocks: [], traces: [] };
const block = (prefix: string, forMs = 1000) => ({
  ...nothing,
  blocks: [{ prefix, reason: "slow-read", forMs }],
});
const note = (over: Partial<AttackNote> = {}): AttackNote => ({
  kind: "syn-flood",
  isOver: false,
  from: "192.0.2.7",
  distance: 4,
  perSecond: 1000,
  count: 5000,
  sinceMs: 2000,
  ...over,
});

describe("blocks for a time", () => {
  test("end by themselves, and leave what the operator has blocked", async () => {
    const clock = new Clock();
    const guard = new OperatorGuard(undefined, clock);
    await guard.block("198.51.100.1");
    guard.hear(0, block("192.0.2.7"));
    guard.hear(0, block("2001:db8:1::/64", 5000));
    guard.hear(0, block("198.51.100.1"));
    await settle();
    expect(guard.blocks().map((one) => one.prefix)).toEqual(["2001:db8:1::/64", "192.0.2.7"]);
    expect([guard.verdict("192.0.2.7"), guard.verdict("2001:db8:1::99")]).toEqual(["blocked", "blocked"]);
    await clock.pass(1000);
    expect(guard.verdict("192.0.2.7")).toBe("unlisted");
    expect(guard.verdict("2001:db8:1::99")).toBe("blocked");
    await clock.pass(4000);
    expect(guard.blocks()).toEqual([]);
    expect(guard.verdict("2001:db8:1::99")).toBe("unlisted");
    expect(guard.verdict("198.51.100.1")).toBe("blocked");
    expect(clock.armed).toBe(0);
  });

  test("who is allowed is not blocked", async () => {
    const guard = new OperatorGuard(undefined, new Clock());
    await guard.allow("192.0.2.0/24");
    guard.hear(0, block("192.0.2.7"));
    await settle();
    expect(guard.blocks()).toEqual([]);
    expect(guard.verdict("192.0.2.7")).toBe("allowed");
  });

  test("one that is blocked already stays for longer", async () => {
    const clock = new Clock();
    const guard = new OperatorGuard(undefined, clock);
    expect(await guard.blockFor("192.0.2.7", 1000)).toBe(true);
    expect(await guard.blockFor("192.0.2.7", 3000)).toBe(true);
    await clock.pass(2000);
    expect(guard.verdict("192.0.2.7")).toBe("blocked");
    await clock.pass(1000);
    expect(guard.verdict("192.0.2.7")).toBe("unlisted");
  });

  test("are bounded: who would come off first gives way", async () => {
    const guard = new OperatorGuard(undefined, new Clock());
    for (let n = 0; n < 4100; n += 1) await guard.blockFor(`10.0.${n >> 8}.${n & 255}`, 10_000 + n);
    expect(guard.blocks()).toHaveLength(4096);
    expect(guard.entries().blocked).toBe(4096);
    expect(guard.verdict("10.0.0.0")).toBe("unlisted");
    expect(guard.verdict("10.0.16.3")).toBe("blocked");
  });
});

describe("attacks", () => {
  test("of several workers are one, from its first sign to its last", () => {
    const guard = new OperatorGuard(undefined, new Clock());
    const told: [Attack, string][] = [];
    guard.onAttack = (attack, text) => told.push([attack, text]);
    guard.hear(0, { ...nothing, attacks: [note()] });
    guard.hear(1, { ...nothing, attacks: [note({ from: "192.0.2.9", perSecond: 3000, sinceMs: 4000 })] });
    expect(guard.attacks()).toMatchObject([
      { kind: "syn-flood", from: "192.0.2.9", perSecond: 4000, count: 10_000 },
    ]);
    expect(guard.attacks()[0]?.since.getTime()).toBe(996_000);
    guard.hear(0, { ...nothing, attacks: [note({ isOver: true, count: 6000 })] });
    expect(guard.attacks()).toHaveLength(1);
    guard.hear(1, { ...nothing, attacks: [note({ isOver: true, count: 7000 })] });
    expect(guard.attacks()).toEqual([]);
    expect(told.map(([attack]) => attack.isOver)).toEqual([false, false, true]);
    expect(told[0]?.[1]).toBe(
      "SYN flood: 1000 a second, from 192.0.2.7 (4 hops away), since 1970-01-01T00:16:38.000Z, 5000 in all",
    );
    expect(told[2]?.[1]).toBe("SYN flood: over; it began at 1970-01-01T00:16:36.000Z, 13000 in all");
  });

  test("a worker's death ends its part", () => {
    const guard = new OperatorGuard(undefined, new Clock());
    guard.hear(3, { ...nothing, attacks: [note()] });
    guard.forgetWorker(3);
    expect(guard.attacks()).toEqual([]);
  });
});

describe("the table of offenders", () => {
  const trace = (source: string, reason: string, count: number, distance = -1) => ({
    ...nothing,
    traces: [{ source, reason, count, distance }],
  });

  test("joins what both layers saw of one source", () => {
    const clock = new Clock();
    const guard = new OperatorGuard(undefined, clock);
    const seen = new Date(900_000);
    // What layer 3 saw of it, since no native thread runs here.
    guard.offenders = () => [
      {
        address: "192.0.2.7",
        distance: 9,
        reason: "tcpNull",
        count: 3,
        firstSeen: seen,
        lastSeen: seen,
        bytes: new Uint8Array(),
      },
    ];
    guard.hear(0, trace("192.0.2.7", "reset-storm", 10));
    clock.nowMs += 5000;
    guard.hear(1, trace("192.0.2.7", "reset-storm", 20));
    guard.hear(1, trace("203.0.113.0/24", "connection-flood", 7, 2));
    const [first, second] = guard.trace().sort((a, b) => a.source.localeCompare(b.source));
    expect(first).toMatchObject({
      source: "192.0.2.7",
      distance: 9,
      reasons: { tcpNull: 3, "reset-storm": 30 },
      firstSeen: seen,
      lastSeen: new Date(1_005_000),
    });
    expect(second).toMatchObject({ source: "203.0.113.0/24", distance: 2, blockedUntil: undefined });
  });

  test("says who is blocked, and until when", async () => {
    const guard = new OperatorGuard(undefined, new Clock());
    guard.hear(0, block("192.0.2.7", 2500));
    await settle();
    expect(guard.trace()[0]).toMatchObject({ source: "192.0.2.7", blockedUntil: new Date(1_002_500) });
  });

  test("is bounded", () => {
    const guard = new OperatorGuard(undefined, new Clock());
    for (let n = 0; n < 2000; n += 1) guard.hear(0, trace(`10.0.${n >> 8}.${n & 255}`, "syn-flood", 1));
    expect(guard.trace()).toHaveLength(1024);
  });
});
