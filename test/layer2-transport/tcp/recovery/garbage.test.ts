/**
 * LossRecovery and its scoreboard against a hostile peer: any order of ACKs, SACK blocks and timers keeps the books
 * straight, and what an ACK costs is bounded (CVE-2019-11477 to 11479, optimistic and divided ACKs).
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AckFacts, LossRecovery } from "../../../../src/layer2-transport/tcp/recovery/recovery.ts";
import { maxSackSteps, SentRuns, sacked } from "../../../../src/layer2-transport/tcp/recovery/sent-runs.ts";
import { mss, terms } from "./path-model.ts";

type Step =
  | { kind: "send"; segments: number; extra: number }
  | { kind: "ack"; at: number; sacks: [number, number][]; echo: number; ece: boolean; laterUs: number }
  | { kind: "timer"; laterUs: number }
  | { kind: "mss"; mss: number };

/** Places are fractions of what is out, a little before and behind it included. */
const place = fc.double({ min: -0.2, max: 1.2, noNaN: true });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("send"), segments: fc.nat(45), extra: fc.nat(1500) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("ack"),
      at: fc.oneof(fc.constant(0), place),
      sacks: fc.array(fc.tuple(place, place), { maxLength: 4 }),
      echo: fc.integer({ min: -1, max: 255 }),
      ece: fc.boolean(),
      laterUs: fc.nat(60_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("timer"), laterUs: fc.nat(400_000) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("mss"), mss: fc.integer({ min: 500, max: 9000 }) }) },
) as fc.Arbitrary<Step>;

/** A stack that does as it is told, in front of whatever the peer says. */
class Driver {
  readonly recovery = new LossRecovery();
  private readonly facts = new AckFacts();
  nowUs = 5.5;
  clock = 0;
  next: number;

  constructor(isn: number, changes: object) {
    this.next = isn;
    this.recovery.begin({ ...terms, ...changes }, isn, this.nowUs);
    this.recovery.handshakeRtt(10_000);
  }

  take(one: Step): void {
    if (one.kind === "send") this.send(one.segments * mss + one.extra);
    else if (one.kind === "ack") this.ack(one);
    else if (one.kind === "timer") this.timer(one.laterUs);
    else this.recovery.setMss(one.mss);
    this.resend();
    this.check();
  }

  private send(wanted: number): void {
    const bytes = Math.min(wanted, 65_535, this.recovery.allowance(this.nowUs));
    if (bytes <= 0) return;
    this.recovery.sent(this.next, bytes, this.clock, this.nowUs, bytes === wanted);
    this.next = (this.next + bytes) | 0;
  }

  private resend(): void {
    for (let i = 0; i < 100; i += 1) {
      const run = this.recovery.nextLost();
      if (!run) return;
      this.clock = (this.clock + 1) & 0xff;
      this.recovery.resent(run, run.length, this.clock, this.nowUs);
    }
  }

  private ack(one: Step & { kind: "ack" }): void {
    const { facts, recovery } = this;
    this.nowUs += one.laterUs;
    const { una } = recovery;
    const out = (this.next - una) | 0;
    const seq = (fraction: number): number => (una + Math.round(fraction * (out + 10))) | 0;
    const at = seq(one.at);
    facts.ack = ((at - this.next) | 0) > 0 ? this.next : at;
    facts.sackCount = one.sacks.length;
    for (const [i, [left, right]] of one.sacks.entries()) facts.sacks.set([seq(left), seq(right)], 2 * i);
    facts.echoClock = one.echo;
    facts.ece = one.ece;
    facts.window = 1e6;
    facts.receivedUs = this.nowUs;
    facts.nowUs = this.nowUs + 3;
    const bytes = recovery.acked(facts);
    expect(bytes).toBe(Math.max(0, (facts.ack - una) | 0));
    expect(recovery.una).toBe((una + bytes) | 0);
  }

  private timer(laterUs: number): void {
    this.nowUs += laterUs;
    if (this.recovery.timerAtUs > this.nowUs) return;
    if (this.recovery.onTimer(this.nowUs) !== "probe") return;
    const run = this.recovery.probeRun();
    if (run) this.recovery.resent(run, run.length, this.clock, this.nowUs);
  }

  private check(): void {
    const { recovery } = this;
    expect(recovery.faults()).toEqual([]);
    expect(recovery.nxt).toBe(this.next);
    expect(recovery.isEmpty).toBe(recovery.una === this.next);
    expect(Number.isFinite(recovery.cwnd) && recovery.cwnd <= 2 ** 30).toBe(true);
    expect(Number.isFinite(recovery.rtoUs) && recovery.rtoUs > 0).toBe(true);
    expect(recovery.sackSteps).toBeLessThanOrEqual(maxSackSteps + 8);
  }
}

describe("any order of ACKs, blocks and timers", () => {
  test.each([
    { control: "cubic" },
    { control: "newreno" },
    { control: "bbr" },
    { control: "bbr", ecn: true },
    { control: "cubic", ecn: true },
    { control: "cubic", sack: false },
  ] as const)("keeps the books straight: %o", (changes) => {
    fc.assert(
      fc.property(fc.integer(), fc.array(step, { maxLength: 80 }), (isn, steps) => {
        const driver = new Driver(isn | 0, changes);
        for (const one of steps) driver.take(one);
        driver.recovery.drop();
        expect(driver.recovery.isEmpty).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});

describe("the scoreboard", () => {
  test("sacks exactly the bytes of the blocks", () => {
    const block = fc.tuple(fc.nat(400), fc.integer({ min: 1, max: 80 }));
    const acks = fc.array(fc.record({ ack: fc.nat(20), blocks: fc.array(block, { maxLength: 4 }) }));
    fc.assert(
      fc.property(fc.integer(), acks, (isn, list) => {
        const runs = new SentRuns();
        runs.begin(isn | 0, 4);
        for (let i = 0; i < 50; i += 1) {
          runs.nowUs = i;
          runs.append(8, 0);
        }
        const model = new Array<boolean>(400).fill(false);
        let una = 0;
        for (const { ack, blocks } of list) {
          runs.startAck(-1);
          una = Math.min(400, una + ack);
          runs.advance((isn + una) | 0);
          for (const [at, length] of blocks) {
            const left = Math.max(at, una);
            const right = Math.min(at + length, 400);
            if (left >= right) continue;
            runs.sack((isn + left) | 0, (isn + right) | 0);
            model.fill(true, left, right);
          }
          expect(runs.faults()).toEqual([]);
          const found = new Array<boolean>(400 - una).fill(false);
          for (let run = runs.first; run !== undefined; run = run.next) {
            const from = (run.seq - isn - una) | 0;
            if (run.state === sacked) found.fill(true, from, from + run.length);
          }
          expect(found).toEqual(model.slice(una));
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("a peer that wants to cost us", () => {
  test("blocks of one byte do not make more than about two runs a segment", () => {
    const recovery = new LossRecovery();
    recovery.begin({ ...terms, initialWindow: 1000 }, 0, 1);
    const bytes = 1000 * mss;
    for (let at = 0; at < bytes; at += 40 * mss) recovery.sent(at, 40 * mss, 0, 1 + at, false);
    const facts = new AckFacts();
    facts.window = 1e6;
    let most = 0;
    for (let at = 2; at < bytes - 2; at += 8) {
      for (let i = 0; i < 4; i += 1) facts.sacks.set([at + 2 * i, at + 2 * i + 1], 2 * i);
      facts.sackCount = 4;
      facts.receivedUs = 2e6 + at;
      facts.nowUs = facts.receivedUs;
      recovery.acked(facts);
      if (recovery.sackSteps > most) most = recovery.sackSteps;
    }
    expect(recovery.runCount).toBeLessThanOrEqual(64 + 2 * 1000 + 8);
    expect(most).toBeLessThanOrEqual(maxSackSteps + 8);
    expect(recovery.faults()).toEqual([]);
  });

  test("blocks outside of what is out, empty and reversed ones change nothing", () => {
    const recovery = new LossRecovery();
    recovery.begin(terms, 1000, 1);
    recovery.sent(1000, 5 * mss, 0, 1, true);
    const facts = new AckFacts();
    facts.ack = 1000;
    facts.sackCount = 4;
    facts.sacks.set([0, 500, 2000, 2000, 3000, 2500, 1000, 1001 + 5 * mss]);
    facts.receivedUs = 50_000;
    facts.nowUs = 50_000;
    expect(recovery.acked(facts)).toBe(0);
    expect(recovery.sackedBytes).toBe(0);
    expect(recovery.duplicates).toBe(0);
  });

  test("an ACK cut into many gives no more window than one (ACK division)", () => {
    const whole = new LossRecovery();
    const parts = new LossRecovery();
    for (const [recovery, pieces] of [
      [whole, 1],
      [parts, mss],
    ] as const) {
      recovery.begin({ ...terms, control: "newreno" }, 0, 1);
      recovery.sent(0, 10 * mss, 0, 1, false);
      const facts = new AckFacts();
      facts.receivedUs = 10_000;
      facts.nowUs = 10_000;
      const each = (10 * mss) / (10 * pieces);
      for (let at = each; at <= 10 * mss; at += each) {
        facts.ack = at;
        recovery.acked(facts);
      }
    }
    expect(parts.cwnd).toBe(whole.cwnd);
  });

  test("D-SACKs for what was never sent twice are not believed", () => {
    const recovery = new LossRecovery();
    recovery.begin(terms, 0, 1);
    recovery.sent(0, 10 * mss, 0, 1, true);
    const facts = new AckFacts();
    facts.ack = 5 * mss;
    facts.sackCount = 1;
    facts.sacks.set([0, mss]);
    facts.receivedUs = 50_000;
    facts.nowUs = 50_000;
    recovery.acked(facts);
    expect(recovery.duplicates).toBe(0);
    expect(recovery.reorderSeen).toBe(false);
  });

  test("a peer that takes back what it had selectively acknowledged gets it again after the timeout", () => {
    const recovery = new LossRecovery();
    recovery.begin(terms, 0, 1);
    recovery.sent(0, 10 * mss, 0, 1, true);
    const facts = new AckFacts();
    facts.sackCount = 1;
    facts.sacks.set([mss, 10 * mss]);
    facts.receivedUs = 50_000;
    facts.nowUs = 50_000;
    recovery.acked(facts);
    // The hole is filled, but the cumulative ACK stops there.
    facts.ack = mss;
    facts.sackCount = 0;
    facts.receivedUs = 100_000;
    facts.nowUs = 100_000;
    recovery.acked(facts);
    expect(recovery.onTimer(recovery.timerAtUs)).toBe("retransmit");
    expect(recovery.sackedBytes).toBe(0);
    expect(recovery.nextLost()?.seq).toBe(mss);
    expect(recovery.faults()).toEqual([]);
  });
});
