/**
 * LossRecovery on whole paths in virtual time: loss, reordering, queues, policers, marks, two flows at once.
 */
import { describe, expect, test } from "vitest";
import { Flow, type FlowRules, mss, Path, type PathRules, seeded, World } from "./path-model.ts";

const rate = 12.5e6;
const delayUs = 20_000;
const wide: PathRules = { bytesPerSecond: 1e9, queueBytes: 1e9, delayUs };
/** 100 Mbit/s, a round trip of 40 ms, a queue of one bandwidth-delay product. */
const narrow: PathRules = { bytesPerSecond: rate, queueBytes: 500_000, delayUs };

function transfer(pathRules: PathRules, flowRules: FlowRules): { flow: Flow; path: Path; seconds: number } {
  const path = new Path(new World(), pathRules);
  const flow = new Flow(path, flowRules);
  path.world.run(50_000e6, () => flow.isDone);
  expect(flow.isDone).toBe(true);
  expect((flow.receiver.next - flow.isn) | 0).toBe(flowRules.bytes | 0);
  expect(flow.recovery.isEmpty).toBe(true);
  expect(flow.minCwnd).toBeGreaterThanOrEqual(mss);
  return { flow, path, seconds: (flow.finishedUs - 1000) / 1e6 };
}

/** Each `n`th segment is lost. */
const eachLost = (n: number) => (count: number) => count % n === n - 1;

/** The mean window in segments that a transfer amounts to. */
const meanWindow = (bytes: number, seconds: number, rttUs: number): number =>
  ((bytes / seconds) * rttUs) / 1e6 / mss;

describe("a clean path", () => {
  test.each(["cubic", "newreno"] as const)("%s: nothing is sent twice", (control) => {
    const { flow } = transfer({ ...narrow, queueBytes: 1e8 }, { bytes: 20e6, terms: { control } });
    expect(flow.recovery.retransmits).toBe(0);
    expect(flow.recovery.timeouts).toBe(0);
  });

  test.each(["cubic", "newreno"] as const)(
    "%s: a queue of one bandwidth-delay product is kept busy",
    (control) => {
      const { flow, path, seconds } = transfer(narrow, { bytes: 100e6, terms: { control } });
      expect(100e6 / seconds).toBeGreaterThan(0.9 * rate);
      expect(flow.recovery.timeouts).toBe(0);
      // What was dropped is what was sent again, no more.
      expect(flow.recovery.retransmits).toBe(path.dropped);
      expect(flow.recovery.undos).toBe(0);
    },
  );

  test("HyStart++ leaves slow start before the queue overflows", () => {
    const { path } = transfer({ ...narrow, queueBytes: 2e6 }, { bytes: 6e6, terms: { control: "cubic" } });
    expect(path.dropped).toBe(0);
    const reno = transfer({ ...narrow, queueBytes: 2e6 }, { bytes: 20e6, terms: { control: "newreno" } });
    expect(reno.path.dropped).toBeGreaterThan(100);
  });

  test("delayed ACKs do not look like loss", () => {
    const { flow } = transfer(
      { ...narrow, queueBytes: 1e8 },
      { bytes: 3e6 + 1, delayedAckUs: 40_000, terms: { control: "cubic" } },
    );
    expect(flow.recovery.retransmits).toBe(0);
  });
});

describe("losses", () => {
  // RFC 9438 5.1 (equation 6) and, for short round trips, the Reno-friendly region; RFC 5681: 1.22 / sqrt(p).
  test.each([
    [2000, 20_000],
    [2000, 100_000],
    [20_000, 50_000],
    [200, 20_000],
  ])("CUBIC's window with one segment of %i lost and %i us of delay", (n, oneWayUs) => {
    const bytes = n * 40 * mss;
    const { seconds } = transfer(
      { bytesPerSecond: 1e10, queueBytes: 1e9, delayUs: oneWayUs, isLost: eachLost(n) },
      { bytes, terms: { control: "cubic" } },
    );
    const rtt = (2 * oneWayUs) / 1e6;
    const theory = Math.max(1.054 * rtt ** 0.75 * n ** 0.75, 1.22 * Math.sqrt(n));
    const window = meanWindow(bytes, seconds, 2 * oneWayUs);
    expect(window).toBeGreaterThan(0.8 * theory);
    expect(window).toBeLessThan(1.5 * theory);
  });

  test.each([100, 1000, 10_000])("NewReno's window with one segment of %i lost", (n) => {
    const bytes = n * 40 * mss;
    const { seconds } = transfer({ ...wide, isLost: eachLost(n) }, { bytes, terms: { control: "newreno" } });
    const window = meanWindow(bytes, seconds, 2 * delayUs);
    expect(window).toBeGreaterThan(0.8 * 1.22 * Math.sqrt(n));
    expect(window).toBeLessThan(1.3 * 1.22 * Math.sqrt(n));
  });

  test.each([1, 2, 3, 5])("the last %i segments are repaired by a probe, without a timeout", (n) => {
    const isLost = (count: number): boolean => count >= 100 - n && count < 100;
    const { flow } = transfer({ ...narrow, isLost }, { bytes: 100 * mss });
    expect(flow.recovery.timeouts).toBe(0);
    expect(flow.recovery.probes).toBeGreaterThan(0);
    expect(flow.recovery.retransmits).toBe(n);
    expect(flow.receiver.duplicates).toBe(0);
  });

  test("a retransmission that is lost too is repaired without a timeout", () => {
    const first = (-5000 + 20 * mss) | 0;
    let times = 0;
    const isLost = (_count: number, { seq }: { seq: number }): boolean => seq === first && times++ < 2;
    const { flow } = transfer({ ...narrow, isLost }, { bytes: 400 * mss });
    expect(times).toBe(3);
    expect(flow.recovery.timeouts).toBe(0);
    expect(flow.recovery.retransmits).toBe(2);
  });

  test("without SACK, holes are repaired one a round trip", () => {
    const isLost = (count: number): boolean => count === 50 || count === 55 || count === 58;
    const { flow } = transfer(
      { ...narrow, isLost },
      { bytes: 300 * mss, terms: { sack: false, control: "newreno" } },
    );
    expect(flow.recovery.timeouts).toBe(0);
    expect(flow.recovery.retransmits).toBe(3);
  });

  test.each([
    ["cubic", true],
    ["newreno", false],
    ["bbr", true],
    ["bbr", false],
  ] as const)("nearly a third of all lost both ways, %s, SACK %s: every byte arrives", (control, sack) => {
    for (let seed = 1; seed <= 30; seed += 1) {
      const random = seeded(seed);
      const lossy = { ...narrow, isLost: () => random() < 0.3, isAckLost: () => random() < 0.3 };
      const { flow } = transfer(lossy, {
        bytes: 40 * mss + seed,
        terms: { control, sack, maxRtoUs: 10e6 },
      });
      expect(flow.recovery.backoffs).toBe(0);
    }
  });

  test("a policer does not bring timeouts, and its rate is used", () => {
    for (const control of ["cubic", "newreno"] as const) {
      const policer = { bytesPerSecond: 1.25e6, burstBytes: 60_000 };
      const { flow, seconds } = transfer({ ...wide, policer }, { bytes: 10e6, terms: { control } });
      expect(10e6 / seconds).toBeGreaterThan(0.7 * 1.25e6);
      expect(flow.recovery.timeouts).toBe(0);
      expect(flow.receiver.duplicates).toBe(0);
      expect(flow.recovery.undos).toBe(0);
    }
  });
});

describe("BBR", () => {
  const bbr = { terms: { control: "bbr" } } as const;

  test("fills the pipe and not the queue", () => {
    const { flow, path, seconds } = transfer({ ...narrow, queueBytes: 5e6 }, { bytes: 100e6, ...bbr });
    expect(100e6 / seconds).toBeGreaterThan(0.85 * rate);
    expect(path.dropped).toBe(0);
    expect(flow.recovery.retransmits).toBe(0);
    // Twice the bandwidth-delay product of 500 kB, headers included, and the room for super-packets.
    expect(flow.recovery.cwnd).toBeLessThan(1.4e6);
  });

  test.each([0.001, 0.01, 0.05])("random loss of %f hardly slows it down", (p) => {
    const random = seeded(11);
    const { seconds } = transfer({ ...narrow, isLost: () => random() < p }, { bytes: 30e6, ...bbr });
    expect(30e6 / seconds).toBeGreaterThan(0.7 * (1 - p) * rate);
  });

  test("sees that the path has become slower, and faster again", () => {
    const world = new World();
    const rules = { ...narrow, queueBytes: 2e6, bytesPerSecond: rate };
    const path = new Path(world, rules);
    const flow = new Flow(path, { bytes: 1e9, ...bbr });
    world.run(10e6);
    rules.bytesPerSecond = rate / 4;
    world.run(20e6);
    const before = flow.ackedBytes;
    world.run(30e6);
    expect((flow.ackedBytes - before) / 10).toBeGreaterThan(0.8 * (rate / 4));
    rules.bytesPerSecond = rate;
    world.run(35e6);
    const after = flow.ackedBytes;
    world.run(45e6);
    expect((flow.ackedBytes - after) / 10).toBeGreaterThan(0.8 * rate);
  });

  test("an application that writes little does not make it think the path is slow", () => {
    const pieces = { bytes: 5 * mss, eachUs: 50_000 };
    const { flow } = transfer(narrow, { bytes: 2000 * mss, pieces, ...bbr });
    expect(flow.recovery.retransmits).toBe(0);
    expect(flow.recovery.cwnd).toBeGreaterThanOrEqual(4 * mss);
  });
});

describe("reordering", () => {
  // A quarter of the round trip is forgiven once it has been seen.
  test("of a tenth of the round trip: hardly anything is sent twice", () => {
    const random = seeded(4);
    const { flow } = transfer(
      { ...narrow, queueBytes: 1e8, extraDelayUs: () => (random() < 0.05 ? 4000 : 0) },
      { bytes: 20e6, terms: { control: "cubic" } },
    );
    expect(flow.receiver.late).toBeGreaterThan(100);
    expect(flow.recovery.retransmits).toBeLessThanOrEqual(3);
    expect(flow.recovery.reorderSeen).toBe(true);
  });

  test("of more than the window: D-SACKs widen it, and the reductions are taken back", () => {
    const random = seeded(4);
    const { flow, seconds } = transfer(
      { ...narrow, queueBytes: 1e8, extraDelayUs: () => (random() < 0.02 ? 25_000 : 0) },
      { bytes: 20e6, terms: { control: "cubic" } },
    );
    expect(flow.recovery.retransmits).toBeLessThan(60);
    expect(flow.recovery.undos).toBeGreaterThan(0);
    expect(20e6 / seconds).toBeGreaterThan(0.8 * rate);
  });
});

describe("timeouts", () => {
  /** Nothing passes for a while: segments and ACKs come late, none is lost. */
  const spike = (fromUs: number, untilUs: number, world: () => World): PathRules => ({
    ...narrow,
    extraDelayUs: () => {
      const { nowUs } = world();
      return nowUs > fromUs && nowUs < untilUs ? untilUs - nowUs : 0;
    },
  });

  test.each([[true], [false]])(
    "a spike of delay: the timeout is taken back (timestamps %s)",
    (timestamps) => {
      const world = new World();
      const path = new Path(
        world,
        spike(1e6, 2e6, () => world),
      );
      const flow = new Flow(path, { bytes: 30e6, terms: { control: "cubic", timestamps } });
      let before = 0;
      let atUndo = 0;
      flow.watch = ({ recovery }) => {
        if (world.nowUs < 1.01e6) before = recovery.cwnd;
        else if (atUndo === 0 && recovery.undos > 0) atUndo = recovery.cwnd;
      };
      world.run(900e6, () => flow.isDone);
      expect(flow.isDone).toBe(true);
      expect(flow.recovery.timeouts).toBeGreaterThan(0);
      expect(flow.recovery.undos).toBeGreaterThan(0);
      expect(flow.recovery.backoffs).toBe(0);
      expect(atUndo).toBeGreaterThanOrEqual(before);
      expect(flow.recovery.retransmits).toBeLessThan(path.dropped + 20);
    },
  );

  test("an outage of five seconds: the RTO doubles each time, and goes back after it", () => {
    const world = new World();
    const path = new Path(world, {
      ...narrow,
      isLost: () => world.nowUs > 1e6 && world.nowUs < 6e6,
    });
    const flow = new Flow(path, { bytes: 30e6 });
    const timeouts: number[] = [];
    const { recovery } = flow;
    const onTimer = recovery.onTimer.bind(recovery);
    recovery.onTimer = (nowUs) => {
      const { timeouts: count } = recovery;
      const answer = onTimer(nowUs);
      if (recovery.timeouts > count) timeouts.push(nowUs);
      return answer;
    };
    world.run(900e6, () => flow.isDone);
    expect(flow.isDone).toBe(true);
    expect(timeouts.length).toBeGreaterThanOrEqual(4);
    for (let i = 2; i < timeouts.length; i += 1) {
      const ratio = (timeouts[i]! - timeouts[i - 1]!) / (timeouts[i - 1]! - timeouts[i - 2]!);
      expect(ratio).toBeCloseTo(2, 1);
    }
    expect(recovery.rtoUs).toBeLessThan(1e6);
  });
});

describe("the window", () => {
  test.each(["cubic", "newreno"] as const)(
    "%s: an application that writes little does not make it grow",
    (control) => {
      const pieces = { bytes: 5 * mss, eachUs: 50_000 };
      const { flow } = transfer(narrow, { bytes: 2000 * mss, pieces, terms: { control } });
      expect(flow.maxCwnd).toBeLessThanOrEqual(20 * mss);
    },
  );

  test("a small receive window does not make it grow", () => {
    const { flow } = transfer(narrow, { bytes: 5e6, window: 30 * mss });
    expect(flow.maxCwnd).toBeLessThanOrEqual(100 * mss);
  });

  test("marks bring it down, once a round trip, and nothing is lost", () => {
    for (const control of ["cubic", "newreno"] as const) {
      const rules = { ...narrow, queueBytes: 5e6, markBytes: 200_000 };
      const { flow, path, seconds } = transfer(rules, { bytes: 40e6, terms: { control, ecn: true } });
      expect(path.dropped).toBe(0);
      expect(flow.recovery.retransmits).toBe(0);
      // Without the marks it would fill the five megabytes.
      expect(flow.maxCwnd).toBeLessThan(2e6);
      expect(flow.minCwnd).toBeGreaterThan(5 * mss);
      expect(40e6 / seconds).toBeGreaterThan(0.5 * rate);
    }
  });

  test.each(["cubic", "newreno"] as const)("%s: two flows share the way", (control) => {
    const world = new World();
    const path = new Path(world, narrow);
    const first = new Flow(path, { bytes: 1e9, terms: { control }, superSegments: 4 });
    const second = new Flow(path, {
      bytes: 1e9,
      terms: { control },
      superSegments: 4,
      startUs: 2e6,
      isn: 77,
    });
    world.run(20e6);
    const [a, b] = [first.ackedBytes, second.ackedBytes];
    world.run(120e6);
    const [x, y] = [first.ackedBytes - a, second.ackedBytes - b];
    expect((x + y) / 100).toBeGreaterThan(0.9 * rate);
    // Jain's index: 1 is equal, 0.5 one has it all.
    expect((x + y) ** 2 / (2 * (x * x + y * y))).toBeGreaterThan(0.9);
  });
});
