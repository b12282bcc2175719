/**
 * The state of RACK (RFC 8985): the latest transmission known to be delivered, and how much reordering is forgiven.
 *
 * Layer 2, TCP. What was sent so much earlier than something delivered is lost. Times are arrivals at layer 3, not the
 * moments at which the ACKs were looked at. Knows nothing of timers: it says until when to wait.
 */
import type { Delivery, SentRuns } from "./sent-runs.ts";

/** Duplicate segments that mean loss while no reordering has been seen (RFC 8985: DupThresh). */
export const duplicateThreshold = 3;
/** Recoveries after which a widened reordering window comes back (RFC 8985 6.2 step 4). */
const widenedRecoveries = 16;
const maxWiden = 255;
/** Runs that one ACK or timer may mark; the timer comes back for the rest. */
export const maxMarkedRuns = 4096;

export class Rack {
  /** When RACK.segment went out; -1: nothing was delivered yet. */
  xmitUs = -0.5;
  endSeq = 0;
  rttUs = 0.5;
  reorderSeen = false;
  /** The reordering window in quarters of the least round trip. */
  private widen = 1;
  private widenedFor = 0;
  /** D-SACKs before this number arrives count as one. */
  private duplicateRoundEnd = 0;
  private hasDuplicateRound = false;
  /** After a reduction was taken back: below this number retransmissions cannot be told from originals. */
  private doubtEnd = 0;
  private hasDoubt = false;

  begin(): void {
    this.xmitUs = -1;
    this.endSeq = 0;
    this.rttUs = 0;
    this.reorderSeen = false;
    this.widen = 1;
    this.widenedFor = 0;
    this.hasDuplicateRound = false;
    this.hasDoubt = false;
  }

  /**
   * Retransmissions have overtaken what they were for: their times say nothing about the originals, which go on
   * arriving. The next delivery is the first to count, and what was sent twice below `nxt` does not count at all.
   */
  forget(nxt: number): void {
    this.xmitUs = -1;
    this.doubtEnd = nxt;
    this.hasDoubt = true;
  }

  /** Steps 1 to 3: takes in what an ACK delivered. */
  update(delivery: Delivery, receivedUs: number, minRttUs: number): void {
    if (delivery.reordered) this.reorderSeen = true;
    const { rackSentUs } = delivery;
    if (rackSentUs < 0) return;
    const rttUs = receivedUs - rackSentUs;
    // Sooner than any round trip: it was the original that arrived.
    if (delivery.rackResent) {
      if (rttUs < minRttUs) return;
      if (this.hasDoubt && ((delivery.rackEndSeq - this.doubtEnd) | 0) <= 0) return;
    } else if (this.hasDoubt && ((delivery.rackEndSeq - this.doubtEnd) | 0) > 0) {
      this.hasDoubt = false;
    }
    if (
      rackSentUs > this.xmitUs ||
      (rackSentUs === this.xmitUs && ((delivery.rackEndSeq - this.endSeq) | 0) > 0)
    ) {
      this.xmitUs = rackSentUs;
      this.endSeq = delivery.rackEndSeq;
      this.rttUs = rttUs;
    }
  }

  /** A D-SACK: something went out twice for nothing. At most one step a round trip. */
  duplicate(una: number, nxt: number): void {
    this.widenedFor = widenedRecoveries;
    if (this.hasDuplicateRound && ((una - this.duplicateRoundEnd) | 0) < 0) return;
    this.hasDuplicateRound = true;
    this.duplicateRoundEnd = nxt;
    if (this.widen < maxWiden) this.widen += 1;
  }

  /** A recovery is over. */
  recovered(): void {
    if (this.widenedFor > 0) {
      this.widenedFor -= 1;
      if (this.widenedFor === 0) this.widen = 1;
    }
  }

  /** Step 4: the reordering window. */
  windowUs(runs: SentRuns, inRecovery: boolean, minRttUs: number, srttUs: number): number {
    if (!this.reorderSeen && (inRecovery || runs.sackedBytes >= duplicateThreshold * runs.mss)) return 0;
    const windowUs = (this.widen * minRttUs) / 4;
    return windowUs < srttUs ? windowUs : srttUs;
  }

  /**
   * Step 5: marks as lost what was sent before RACK.segment and is overdue. Returns when the next run will be: Infinity
   * when none is waited for.
   */
  detect(runs: SentRuns, windowUs: number, nowUs: number): number {
    const { xmitUs, endSeq } = this;
    if (xmitUs < 0) return Infinity;
    const patienceUs = this.rttUs + windowUs;
    for (let i = 0; i < maxMarkedRuns; i += 1) {
      const run = runs.oldest;
      if (run === undefined || run.sentUs > xmitUs) return Infinity;
      // Sent in the same moment: the one with the lower numbers went first.
      if (run.sentUs === xmitUs && ((run.seq + run.length - endSeq) | 0) > 0) {
        return this.detectSameMoment(runs, patienceUs, nowUs);
      }
      if (run.sentUs + patienceUs > nowUs) return run.sentUs + patienceUs;
      runs.markLost(run);
    }
    return nowUs;
  }

  /** The list by time is not in order of sequence within a moment when runs were sent again: look at all of them. */
  private detectSameMoment(runs: SentRuns, patienceUs: number, nowUs: number): number {
    const { xmitUs, endSeq } = this;
    let run = runs.oldest;
    for (let i = 0; i < maxMarkedRuns && run !== undefined && run.sentUs === xmitUs; i += 1) {
      const { newer } = run;
      if (((run.seq + run.length - endSeq) | 0) <= 0) {
        if (run.sentUs + patienceUs > nowUs) return run.sentUs + patienceUs;
        runs.markLost(run);
      }
      run = newer;
    }
    return Infinity;
  }
}
