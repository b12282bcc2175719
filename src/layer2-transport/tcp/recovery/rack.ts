/**
 * The state of RACK (RFC 8985): the latest transmission known to be delivered, and how much reordering is forgiven.
 *
 * Layer 2, TCP. What was sent so much earlier than something delivered is lost. Times are arrivals at layer 3, not the
 * moments at which the ACKs were looked at. Knows nothing of timers: it says until when to wait.
 */
import type { WindowState } from "./congestion/congestion-control.ts";
import type { SentRuns } from "./sent-runs.ts";

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
  /** RACK.rtt and the reordering window: what is overdue by this much is lost. */
  patienceUs = 0.5;
  /** When the next run will be overdue; Infinity: none is waited for. */
  dueUs = Infinity;
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
    this.patienceUs = 0;
    this.dueUs = Infinity;
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
  update(runs: SentRuns, window: WindowState): void {
    const { delivery } = runs;
    if (delivery.reordered) this.reorderSeen = true;
    const { rackSentUs } = delivery;
    if (rackSentUs < 0) return;
    const rttUs = window.nowUs - rackSentUs;
    // Sooner than any round trip: it was the original that arrived.
    if (delivery.rackResent) {
      if (rttUs < window.minRttUs) return;
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
    const { duplicateRoundEnd } = this;
    const isSameRound = ((una - duplicateRoundEnd) | 0) < 0 && ((duplicateRoundEnd - nxt) | 0) <= 0;
    if (this.hasDuplicateRound && isSameRound) return;
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
  setPatience(runs: SentRuns, inRecovery: boolean, window: WindowState): void {
    if (!this.reorderSeen && (inRecovery || runs.sackedBytes >= duplicateThreshold * runs.mss)) {
      this.patienceUs = this.rttUs;
      return;
    }
    const reorderUs = (this.widen * window.minRttUs) / 4;
    const { srttUs } = window;
    this.patienceUs = this.rttUs + (reorderUs < srttUs ? reorderUs : srttUs);
  }

  /**
   * Step 5: marks as lost what was sent before RACK.segment and is overdue; says in `dueUs` when the next run will be.
   */
  detect(runs: SentRuns, window: WindowState): void {
    const { xmitUs, endSeq, patienceUs } = this;
    const { nowUs } = window;
    this.dueUs = Infinity;
    if (xmitUs < 0) return;
    for (let i = 0; i < maxMarkedRuns; i += 1) {
      const run = runs.oldest;
      if (run === undefined || run.sentUs > xmitUs) return;
      // Sent in the same moment: the one with the lower numbers went first.
      if (run.sentUs === xmitUs && ((run.seq + run.length - endSeq) | 0) > 0) {
        this.detectSameMoment(runs, window);
        return;
      }
      if (run.sentUs + patienceUs > nowUs) {
        this.dueUs = run.sentUs + patienceUs;
        return;
      }
      runs.markLost(run);
    }
    this.dueUs = nowUs;
  }

  /** The list by time is not in order of sequence within a moment when runs were sent again: look at all of them. */
  private detectSameMoment(runs: SentRuns, window: WindowState): void {
    const { xmitUs, endSeq, patienceUs } = this;
    let run = runs.oldest;
    for (let i = 0; i < maxMarkedRuns && run !== undefined && run.sentUs === xmitUs; i += 1) {
      const { newer } = run;
      if (((run.seq + run.length - endSeq) | 0) <= 0) {
        if (run.sentUs + patienceUs > window.nowUs) {
          this.dueUs = run.sentUs + patienceUs;
          return;
        }
        runs.markLost(run);
      }
      run = newer;
    }
  }
}
