/** The guard of TCP in virtual time: each rule with what it lets through and what it stops, and what is told of it. */
import { describe, expect, test } from "vitest";
import { Counters, workerCounterNames } from "../../../src/layer2-transport/counters.ts";
import { createCeilingMemory } from "../../../src/layer2-transport/guard/memory-ceiling.ts";
import type { AttackNote, GuardReport } from "../../../src/layer2-transport/guard/report.ts";
import { checkTcpGuardOptions, type TcpGuardOptions } from "../../../src/layer2-transport/guard/settings.ts";
import { TcpGuard } from "../../../src/layer2-transport/guard/tcp-guard.ts";
import { strangeKind, synVerdict } from "../../../src/layer2-transport/tcp/admission.ts";
import { parseAddress } from "../../../src/layer3-ip/address.ts";
import { FakeHolders } from "./holders.ts";

function address(text: string): Int32Array {
  const words = new Int32Array(4);
  return parseAddress(text, words, 0) ? words : words.slice(0, 1);
}

const lone = address("192.0.2.7");
const sixOf = (n: number): Int32Array => Int32Array.of(0x20010db8, n, n * 7, n * 11);

function setUp(options: TcpGuardOptions = {}, memoryBytes = 2 ** 40, workers = 1) {
  const reports: GuardReport[] = [];
  const counters = new Counters(workerCounterNames);
  let word = 0x2545_f491;
  const guard = new TcpGuard({
    settings: checkTcpGuardOptions(options, memoryBytes),
    ceiling: createCeilingMemory(workers),
    worker: 0,
    workers,
    counters,
    random: () => {
      word = Math.imul(word, 1_664_525) + 1_013_904_223;
      return word;
    },
    report: (report) => reports.push(report),
  });
  const holders = new FakeHolders(guard.account, (held) => guard.closed(Int32Array.of(held.address), 0, 1));
  guard.attach(holders);
  const attacks = (): AttackNote[] => reports.flatMap((report) => report.attacks);
  return { guard, counters, reports, attacks, holders };
}

/** Lets virtual time pass, ten milliseconds a turn. */
function pass(guard: TcpGuard, fromMs: number, forMs: number, each: (nowMs: number) => void = () => {}) {
  for (let ms = fromMs; ms < fromMs + forMs; ms += 10) {
    each(ms);
    guard.turn(ms);
  }
  return fromMs + forMs;
}

describe("a flood of SYNs", () => {
  test("is answered with cookies, told with its sender, and over some seconds after its end", () => {
    const { guard, attacks, counters } = setUp();
    let now = pass(guard, 1000, 3000, (ms) => {
      for (let n = 0; n < 50; n += 1) guard.syn(lone, 0, 1, 0, ms, 80, 60);
    });
    expect(guard.syn(sixOf(1), 0, 4, 0, now, 80)).toBe(synVerdict.cookie);
    expect(counters.get("layer2.guard.cookies")).toBeGreaterThan(10_000);
    const [begun] = attacks();
    expect(begun).toMatchObject({ kind: "syn-flood", isOver: false, from: "192.0.2.7", distance: 4 });
    expect(begun?.perSecond).toBeGreaterThan(1000);
    now = pass(guard, now, 20_000);
    expect(attacks().at(-1)).toMatchObject({ kind: "syn-flood", isOver: true });
    expect(attacks().at(-1)?.count).toBeGreaterThan(10_000);
    expect(guard.syn(lone, 0, 1, 0, now, 80)).toBe(synVerdict.take);
  });

  test("at one port leaves the others as they are", () => {
    const { guard } = setUp();
    const now = pass(guard, 0, 2000, (ms) => {
      for (let n = 0; n < 50; n += 1) guard.syn(lone, 0, 1, 0, ms, 80);
    });
    expect(guard.syn(lone, 0, 1, 0, now, 80)).toBe(synVerdict.cookie);
    expect(guard.syn(lone, 0, 1, 0, now, 443)).toBe(synVerdict.take);
  });

  test("from many forged sources blames none and blocks none", () => {
    const { guard, attacks, reports } = setUp();
    pass(guard, 0, 3000, (ms) => {
      for (let n = 0; n < 50; n += 1) guard.syn(sixOf(ms * 50 + n), 0, 4, 0, ms, 80, 50);
    });
    expect(attacks()[0]).toMatchObject({ kind: "syn-flood", from: "", distance: -1 });
    expect(reports.flatMap((report) => report.blocks)).toEqual([]);
  });

  test("a rush of clients that complete their handshakes gets no cookies", () => {
    const { guard, counters } = setUp();
    pass(guard, 0, 5000, (ms) => {
      for (let n = 0; n < 100; n += 1) {
        expect(guard.syn(sixOf(n), 0, 4, 0, ms, 80)).toBe(synVerdict.take);
        expect(guard.opened(sixOf(n), 0, 4, ms, 80)).toBe(true);
      }
    });
    expect(counters.get("layer2.guard.cookies")).toBe(0);
  });

  test("too many half-open handshakes: cookies without a flood", () => {
    const { guard } = setUp({ halfOpen: 10 });
    expect(guard.syn(lone, 0, 1, 9, 0, 80)).toBe(synVerdict.take);
    expect(guard.syn(lone, 0, 1, 10, 0, 80)).toBe(synVerdict.cookie);
  });
});

describe("limits", () => {
  test("connections of a source: no more than its limit, and one more when one has ended", () => {
    const { guard, counters } = setUp({ sourceConnections: 3 });
    for (let n = 0; n < 3; n += 1) expect(guard.opened(lone, 0, 1, 0)).toBe(true);
    expect(guard.opened(lone, 0, 1, 0)).toBe(false);
    expect(guard.syn(lone, 0, 1, 0, 0)).toBe(synVerdict.drop);
    expect(guard.opened(address("192.0.2.8"), 0, 1, 0)).toBe(true);
    guard.closed(lone, 0, 1);
    expect(guard.syn(lone, 0, 1, 0, 0)).toBe(synVerdict.take);
    expect(guard.opened(lone, 0, 1, 0)).toBe(true);
    expect(counters.get("layer2.guard.refused-source")).toBe(1);
    expect(counters.get("layer2.guard.syn-source")).toBe(1);
  });

  test("connections of a network, whose sources are many", () => {
    const { guard } = setUp({ networkConnections: 5 });
    let granted = 0;
    for (let n = 0; n < 20; n += 1) granted += guard.opened(address(`198.51.100.${n}`), 0, 1, 0) ? 1 : 0;
    expect(granted).toBe(5);
    let six = 0;
    for (let n = 0; n < 20; n += 1) six += guard.opened(Int32Array.of(0x20010db8, n, 0, 1), 0, 4, 0) ? 1 : 0;
    expect(six).toBe(5);
  });

  test("new connections a second", () => {
    const { guard, counters } = setUp({ sourceRate: 10 });
    let taken = 0;
    pass(guard, 0, 10_000, (ms) => {
      if (guard.syn(lone, 0, 1, 0, ms) === synVerdict.take) taken += 1;
      guard.opened(lone, 0, 1, ms);
      expect(guard.syn(sixOf(ms), 0, 4, 0, ms)).toBe(synVerdict.take);
    });
    expect(taken).toBeGreaterThanOrEqual(100);
    expect(taken).toBeLessThanOrEqual(111);
    expect(counters.get("layer2.guard.syn-rate")).toBe(1000 - taken);
  });

  test("a worker of several has its part, and a little more", () => {
    const { guard } = setUp({ sourceConnections: 400 }, 2 ** 40, 4);
    let granted = 0;
    for (let n = 0; n < 400; n += 1) granted += guard.opened(lone, 0, 1, 0) ? 1 : 0;
    expect(granted).toBe(120);
  });

  test("whoever goes on beyond his limit after full handshakes is blocked, twice as long the next time", () => {
    const { guard, reports } = setUp({ sourceConnections: 1, blockMs: 1000 });
    const tries = (ms: number): void => {
      for (let n = 0; n < 20; n += 1) guard.opened(lone, 0, 1, ms);
    };
    pass(guard, 0, 4000, tries);
    const blocks = reports.flatMap((report) => report.blocks);
    expect(blocks[0]).toEqual({ prefix: "192.0.2.7", reason: "connection-flood", forMs: 1000 });
    expect(blocks[1]?.forMs).toBe(2000);
    const never = setUp({ sourceConnections: 1, blockMs: 0 });
    pass(never.guard, 0, 2000, (ms) => {
      for (let n = 0; n < 20; n += 1) never.guard.opened(lone, 0, 1, ms);
    });
    expect(never.reports.flatMap((report) => report.blocks)).toEqual([]);
  });
});

describe("alarms", () => {
  const cases = [
    ["reset-storm", strangeKind.rst],
    ["stray-segments", strangeKind.ack],
    ["gap-flood", strangeKind.gaps],
  ] as const;
  test.each(cases)("%s: above the mark one is raised, below none", (kind, strange) => {
    const { guard, attacks } = setUp({ alarmStrays: 1000 });
    let now = pass(guard, 0, 3000, (ms) => {
      for (let n = 0; n < 8; n += 1) guard.strange(strange, lone, 0, 1, ms, 118);
    });
    expect(attacks()).toEqual([]);
    now = pass(guard, now, 2000, (ms) => {
      for (let n = 0; n < 20; n += 1) guard.strange(strange, lone, 0, 1, ms, 118);
    });
    expect(attacks()[0]).toMatchObject({ kind, from: "192.0.2.7", distance: 10, isOver: false });
    pass(guard, now, 10_000);
    expect(attacks().map((note) => note.isOver)).toEqual([false, true]);
  });

  test("one that goes on is told every ten seconds, and who did it each second", () => {
    const { guard, attacks, reports } = setUp({ alarmStrays: 100 });
    pass(guard, 0, 35_000, (ms) => {
      for (let n = 0; n < 5; n += 1) guard.strange(strangeKind.rst, lone, 0, 1, ms);
    });
    expect(attacks()).toHaveLength(4);
    const traces = reports.flatMap((report) => report.traces);
    expect(traces.length).toBeGreaterThan(25);
    expect(traces[0]).toMatchObject({ source: "192.0.2.7", reason: "reset-storm" });
  });

  test("a flood of connections is told with its network", () => {
    const { guard, attacks } = setUp({ alarmConnections: 1000 });
    pass(guard, 0, 2000, (ms) => {
      for (let n = 0; n < 20; n += 1) guard.opened(address(`198.51.100.${(ms + n) % 256}`), 0, 1, ms);
    });
    expect(attacks()[0]).toMatchObject({ kind: "connection-flood", from: "198.51.100.0/24" });
  });

  test("slow readers are told as many as they are", () => {
    const { guard, attacks, holders } = setUp({ alarmSlow: 100 });
    for (let n = 0; n < 300; n += 1) {
      holders.add({ sockfd24: n, received: 0, queued: 10, stalledMs: 60_000, address: lone[0] as number });
    }
    pass(guard, 0, 3000);
    expect(attacks()[0]).toMatchObject({ kind: "slow-read", from: "192.0.2.7", perSecond: 300, count: 300 });
  });
});

describe("memory", () => {
  const slowReaders = (holders: FakeHolders, count: number, bytes: number) => {
    for (let n = 0; n < count; n += 1) {
      holders.add({
        sockfd24: n,
        received: 0,
        queued: bytes,
        stalledMs: 5000,
        address: 0x0a000000 + (n >> 6),
      });
    }
  };

  test("is never more than its ceiling, and thousands of slow readers are ended before it is reached", () => {
    const ceiling = 100 * 2 ** 20;
    const { guard, holders, counters } = setUp({}, ceiling);
    let sockfd24 = 0;
    let most = 0;
    pass(guard, 0, 20_000, () => {
      for (let n = 0; n < 5; n += 1) {
        if (!guard.memory(65_536)) continue;
        sockfd24 += 1;
        holders.add({
          sockfd24,
          received: 0,
          queued: 65_536,
          stalledMs: 3000,
          address: 0x0a000000 + sockfd24,
        });
      }
      most = Math.max(most, guard.account.total);
    });
    expect(most).toBeLessThanOrEqual(ceiling);
    expect(sockfd24).toBeGreaterThan(5000);
    expect(counters.get("layer2.guard.evicted")).toBeGreaterThan(3000);
  });

  test("at the ceiling nothing more is kept and no SYN is taken; connections that ended make room", () => {
    const { guard, counters, holders, attacks } = setUp({ blockMs: 0 }, 2 ** 20);
    const { account } = guard;
    account.records = 950 * 1024;
    guard.turn(0);
    expect(guard.syn(lone, 0, 1, 0, 0)).toBe(synVerdict.cookie);
    expect(guard.memory(50_000)).toBe(true);
    account.records = 1024 * 1024;
    guard.turn(10);
    expect(guard.syn(lone, 0, 1, 0, 10)).toBe(synVerdict.drop);
    account.records = 950 * 1024;
    expect(guard.memory(200_000)).toBe(false);
    expect(counters.get("layer2.guard.syn-memory")).toBe(1);
    expect(counters.get("layer2.guard.memory-refused")).toBe(1);
    pass(guard, 20, 1500);
    expect(attacks()[0]).toMatchObject({ kind: "memory" });
    account.records = 0;
    guard.turn(5000);
    expect(guard.syn(lone, 0, 1, 0, 5000)).toBe(synVerdict.take);
    expect(holders.evicted).toEqual([]);
  });

  test("those who were ended again and again are blocked; their neighbours are not", () => {
    const { guard, holders, reports } = setUp({}, 2 ** 20);
    slowReaders(holders, 67, 60_000);
    pass(guard, 0, 3000);
    const blocks = reports.flatMap((report) => report.blocks);
    expect(blocks.map((block) => block.prefix)).toEqual(["10.0.0.0"]);
    expect(blocks[0]?.reason).toBe("slow-read");
  });

  test("under pressure no source may have more than its share, and newcomers have theirs", () => {
    const { guard, counters } = setUp({ blockMs: 0 }, 2 ** 20);
    for (let n = 0; n < 1000; n += 1) expect(guard.opened(lone, 0, 1, 0)).toBe(true);
    guard.account.records = 800 * 1024;
    guard.turn(0);
    expect(guard.opened(lone, 0, 1, 0)).toBe(false);
    expect(guard.syn(lone, 0, 1, 0, 0)).toBe(synVerdict.drop);
    expect(guard.opened(address("203.0.113.1"), 0, 1, 0)).toBe(true);
    expect(counters.get("layer2.guard.refused-source")).toBe(1);
  });
});

describe("settings", () => {
  test.each([
    [{ floodSyn: 1 }, /unknown option "floodSyn": there are floodSyns, /],
    [{ halfOpen: -1 }, /halfOpen must be a whole number from 0 to 2147483647, not -1/],
    [{ sourceBits6: 65 }, /sourceBits6 must be a whole number from 1 to 64, not 65/],
    [{ sourceBits4: 20 }, /networkBits4 \(24\) must not exceed sourceBits4 \(20\)/],
    [7, /an object with some of/],
  ])("%j is refused", (options, text) => {
    expect(() => checkTcpGuardOptions(options as TcpGuardOptions, 2 ** 30)).toThrow(
      expect.objectContaining({ code: "EINVAL", message: expect.stringMatching(text) }),
    );
  });
});
