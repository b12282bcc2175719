/**
 * LossRecovery by hand: what a sender sees in the textbook cases, ACK by ACK.
 */
import { describe, expect, test } from "vitest";
import {
  AckFacts,
  LossRecovery,
  type RecoveryTerms,
} from "../../../../src/layer2-transport/tcp/recovery/recovery.ts";

const mss = 1000;
const terms: RecoveryTerms = {
  mss,
  sack: true,
  timestamps: true,
  ecn: false,
  control: "newreno",
  initialWindow: 10,
  initialRtoUs: 1e6,
  minRtoUs: 200_000,
  maxRtoUs: 120e6,
};

/** A connection at sequence 0 with a round trip of 100 ms known. */
function opened(changes: Partial<RecoveryTerms> = {}): LossRecovery {
  const recovery = new LossRecovery();
  recovery.begin({ ...terms, ...changes }, 0, 0);
  recovery.handshakeRtt(100_000);
  return recovery;
}

function ack(recovery: LossRecovery, at: number, number: number, ...sacks: number[]): number {
  const facts = new AckFacts();
  facts.ack = number;
  facts.sackCount = sacks.length / 2;
  facts.sacks.set(sacks);
  facts.window = 1_000_000;
  facts.receivedUs = at;
  facts.nowUs = at;
  const bytes = recovery.acked(facts);
  expect(recovery.faults()).toEqual([]);
  return bytes;
}

/** Sends what may go, in calls of one segment a moment apart. Returns the numbers sent again. */
function resendAll(recovery: LossRecovery, at: number): number[] {
  const seqs: number[] = [];
  for (let run = recovery.nextLost(mss); run !== undefined; run = recovery.nextLost(mss)) {
    seqs.push(run.seq);
    recovery.resent(run, run.length, 1, at);
  }
  return seqs;
}

describe("the window", () => {
  test("begins with ten segments and grows by what is acknowledged", () => {
    const recovery = opened();
    expect(recovery.allowance(0)).toBe(10 * mss);
    recovery.sent(0, 10 * mss, 0, 0, false);
    expect(recovery.allowance(0)).toBe(0);
    expect(ack(recovery, 100_000, 10 * mss)).toBe(10 * mss);
    expect(recovery.isEmpty).toBe(true);
    expect(recovery.timerAtUs).toBe(Number.POSITIVE_INFINITY);
    expect(recovery.allowance(100_000)).toBe(20 * mss);
  });

  test("does not grow when the sender has nothing to send", () => {
    const recovery = opened();
    let at = 0;
    for (let i = 0; i < 50; i += 1) {
      recovery.sent(i * mss, mss, 0, at, true);
      at += 100_000;
      ack(recovery, at, (i + 1) * mss);
    }
    expect(recovery.cwnd).toBe(10 * mss);
  });

  test("is one segment after a handshake that had to be repeated", () => {
    const recovery = new LossRecovery();
    recovery.begin(terms, 0, 0);
    recovery.handshakeRtt(-1, true);
    expect(recovery.allowance(0)).toBe(mss);
    expect(recovery.rtoUs).toBe(3e6);
  });
});

describe("losses", () => {
  test("the first two duplicates let a new segment out each (limited transmit)", () => {
    for (const sack of [true, false]) {
      const recovery = opened({ sack });
      recovery.sent(0, 10 * mss, 0, 0, false);
      expect(recovery.allowance(0)).toBe(0);
      ack(recovery, 100_000, 0, ...(sack ? [mss, 2 * mss] : []));
      expect(recovery.allowance(100_000)).toBe(mss);
      recovery.sent(10 * mss, mss, 0, 100_000, false);
      ack(recovery, 100_100, 0, ...(sack ? [mss, 3 * mss] : []));
      expect(recovery.allowance(100_100)).toBe(mss);
      expect(recovery.cwnd).toBe(10 * mss);
    }
  });

  test("after a timeout the segment at SND.UNA is the first, however many are lost", () => {
    const recovery = opened({ initialWindow: 400 });
    for (let i = 0; i < 400; i += 1) recovery.sent(i * mss, mss, 0, i, false);
    // Each second one arrives; the first of the others goes out again and again, and is lost each time.
    for (let i = 1; i < 400; i += 2) ack(recovery, 100_000 + i, 0, i * mss, (i + 1) * mss);
    let at = 101_000;
    for (let i = 0; i < 4; i += 1) {
      const run = recovery.nextLost(mss)!;
      expect(run.seq).toBe(0);
      recovery.resent(run, mss, 1, at);
      expect(recovery.lostBytes).toBeGreaterThan(150 * mss);
      const { timeouts } = recovery;
      while (recovery.timeouts === timeouts) {
        at = recovery.timerAtUs;
        recovery.onTimer(at);
      }
      expect(recovery.faults()).toEqual([]);
    }
    expect(recovery.backoffs).toBe(4);
  });

  test("a probe that was for nothing is no loss; one that repaired something is", () => {
    for (const isDuplicate of [true, false]) {
      const recovery = opened();
      recovery.sent(0, 8 * mss, 0, 0, true);
      const at = recovery.timerAtUs;
      expect(recovery.onTimer(at)).toBe("probe");
      recovery.resent(recovery.probeRun()!, mss, 1, at);
      ack(recovery, at + 1000, 8 * mss);
      expect(recovery.isEmpty).toBe(true);
      // It comes when nothing is out any more.
      if (isDuplicate) ack(recovery, at + 100_000, 8 * mss, 7 * mss, 8 * mss);
      recovery.sent(8 * mss, mss, 1, at + 150_000, true);
      ack(recovery, at + 250_000, 9 * mss);
      expect(recovery.duplicates).toBe(isDuplicate ? 1 : 0);
      expect(recovery.ssthresh).toBe(isDuplicate ? Infinity : 4 * mss);
      expect(recovery.allowance(at + 250_000)).toBe(isDuplicate ? 18 * mss : 4 * mss);
    }
  });

  test("F-RTO does not wait twice for new data that does not come", () => {
    const recovery = opened();
    recovery.sent(0, 5 * mss, 0, 0, false);
    let at = recovery.timerAtUs;
    const seen: number[] = [];
    for (let timeouts = 0; timeouts < 2; ) {
      at = recovery.timerAtUs;
      if (recovery.onTimer(at) !== "retransmit") continue;
      timeouts += 1;
      seen.push(...resendAll(recovery, at));
      // It is acknowledged without a clock, which tells nothing about the others.
      ack(recovery, at + 100_000, (seen.at(-1) ?? 0) + mss);
    }
    expect(seen).toEqual([0, mss]);
    expect(resendAll(recovery, at + 100_000)).toEqual([2 * mss, 3 * mss]);
  });

  test("a mark brings the window down once, until something that carried CWR is acknowledged", () => {
    const recovery = opened({ ecn: true });
    const facts = new AckFacts();
    facts.ece = true;
    facts.window = 1e6;
    const marked = (at: number, number: number): void => {
      facts.ack = number;
      facts.receivedUs = at;
      facts.nowUs = at;
      recovery.acked(facts);
    };
    recovery.sent(0, 10 * mss, 0, 0, false);
    marked(100_000, 2 * mss);
    expect(recovery.wantsCwr).toBe(true);
    expect(recovery.ssthresh).toBe(5 * mss);
    marked(100_100, 6 * mss);
    recovery.sent(10 * mss, mss, 0, 100_100, false);
    expect(recovery.wantsCwr).toBe(false);
    marked(100_200, 10 * mss);
    expect(recovery.ssthresh).toBe(5 * mss);
    recovery.sent(11 * mss, 4 * mss, 0, 100_300, false);
    marked(200_000, 12 * mss);
    expect(recovery.cwnd).toBe(5 * mss);
    marked(200_300, 13 * mss);
    expect(recovery.wantsCwr).toBe(true);
    expect(recovery.ssthresh).toBeLessThan(5 * mss);
  });

  test("a hole below three segments is retransmitted once, and the window comes down", () => {
    const recovery = opened();
    recovery.sent(0, 10 * mss, 0, 0, false);
    ack(recovery, 100_000, 0, mss, 2 * mss);
    expect(recovery.inRecovery).toBe(false);
    ack(recovery, 100_100, 0, mss, 4 * mss);
    expect(recovery.inRecovery).toBe(true);
    expect(resendAll(recovery, 100_200)).toEqual([0]);
    ack(recovery, 100_300, 0, mss, 10 * mss);
    ack(recovery, 200_300, 10 * mss);
    expect(recovery.inRecovery).toBe(false);
    expect(recovery.cwnd).toBe(5 * mss);
    expect(recovery.retransmits).toBe(1);
  });

  test("without SACK: three duplicates, and a part acknowledged means the next hole", () => {
    const recovery = opened({ sack: false });
    recovery.sent(0, 10 * mss, 0, 0, false);
    for (let i = 0; i < 3; i += 1) ack(recovery, 100_000 + i, 0);
    expect(resendAll(recovery, 100_010)).toEqual([0]);
    for (let i = 0; i < 5; i += 1) ack(recovery, 100_020 + i, 0);
    ack(recovery, 200_000, 4 * mss);
    expect(resendAll(recovery, 200_010)).toEqual([4 * mss]);
    ack(recovery, 300_000, 10 * mss);
    expect(recovery.inRecovery).toBe(false);
    expect(recovery.retransmits).toBe(2);
  });

  test("a timeout sends the first segment, doubles the RTO and goes on in slow start", () => {
    const recovery = opened({ sack: false });
    recovery.sent(0, 4 * mss, 0, 0, true);
    const rtoUs = recovery.rtoUs;
    expect(recovery.timerAtUs).toBe(rtoUs);
    expect(recovery.onTimer(rtoUs)).toBe("retransmit");
    expect(recovery.backoffs).toBe(1);
    expect(recovery.rtoUs).toBe(2 * rtoUs);
    expect(recovery.cwnd).toBe(mss);
    expect(resendAll(recovery, rtoUs)).toEqual([0]);
    ack(recovery, rtoUs + 100_000, mss);
    expect(recovery.backoffs).toBe(0);
    expect(resendAll(recovery, rtoUs + 100_000)).toEqual([mss, 2 * mss]);
  });

  test("the last segment is probed before the RTO", () => {
    const recovery = opened();
    recovery.sent(0, 4 * mss, 0, 0, true);
    expect(recovery.timerAtUs).toBeLessThan(recovery.rtoUs);
    expect(recovery.onTimer(recovery.timerAtUs)).toBe("probe");
    const run = recovery.probeRun();
    expect(run?.seq).toBe(3 * mss);
    recovery.resent(run!, mss, 1, 210_000);
    expect(recovery.faults()).toEqual([]);
    ack(recovery, 310_000, 3 * mss, 3 * mss, 4 * mss);
    ack(recovery, 310_100, 4 * mss);
    expect(recovery.timeouts).toBe(0);
  });
});
