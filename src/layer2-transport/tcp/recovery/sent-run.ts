/**
 * A run of bytes on the scoreboard, the pool that such runs come from, and what one ACK delivered of them.
 *
 * Layer 2, TCP. The pool is one for all connections of a thread, and gives up what is more than enough: a connection
 * at rest has no runs, one with a window in flight has a few hundred at most.
 */

/** Where a run is: exactly one of these. */
export const flying = 0;
export const lost = 1;
export const sacked = 2;

/** Free runs that are kept for later; more are left to the garbage collector. */
const maxFreeRuns = 65_536;

export class SentRun {
  seq = 0;
  length = 0;
  /** `flying`, `lost` or `sacked`. */
  state = flying;
  /** How often it was retransmitted. */
  resends = 0;
  /** The 8-bit timestamp clock of its last transmission. */
  clock = 0;
  /** The clock of its first retransmission. */
  resendClock = 0;
  /** When it last went out. */
  sentUs = 0.5;
  /** For delivery rates: the bytes delivered, when the last of them was, and when the first of the flight went out. */
  deliveredBytes = 0.5;
  deliveredUs = 0.5;
  flightStartUs = 0.5;
  appLimited = false;
  prev: SentRun | undefined = undefined;
  next: SentRun | undefined = undefined;
  /** Neighbours in the list by time (flying) or of the lost. */
  older: SentRun | undefined = undefined;
  newer: SentRun | undefined = undefined;
}

// Shared by all connections of the thread.
let freeRun: SentRun | undefined;
let freeRuns = 0;

export function takeRun(): SentRun {
  const run = freeRun;
  if (run === undefined) return new SentRun();
  freeRun = run.next;
  freeRuns -= 1;
  run.next = undefined;
  return run;
}

export function giveRun(run: SentRun): void {
  run.prev = undefined;
  run.older = undefined;
  run.newer = undefined;
  if (freeRuns >= maxFreeRuns) {
    run.next = undefined;
    return;
  }
  run.next = freeRun;
  freeRun = run;
  freeRuns += 1;
}

/** What one ACK delivered: filled by the scoreboard, read by loss detection and congestion control. */
export class Delivery {
  /** Bytes of this ACK that had not been delivered before, cumulatively or selectively. */
  bytes = 0;
  /** Of these, the selectively acknowledged. */
  sackedBytes = 0;
  /** When the latest never-retransmitted run went out that was delivered; -1: none. */
  rttSentUs = -0.5;
  /** The last transmission delivered (RACK.segment): -1 none. */
  rackSentUs = -0.5;
  rackEndSeq = 0;
  rackResent = false;
  /** The run behind `rackSentUs`, for delivery rates: copies, since the run may be gone. */
  rateBytes = 0.5;
  rateUs = 0.5;
  rateFlightStartUs = 0.5;
  rateAppLimited = false;
  /** A run that was never retransmitted was delivered, sent before `highSeq` (RFC 5682). */
  original = false;
  /** SND.UNA moved by the original of a segment that went out again: the echo is older (Eifel, RFC 3522). */
  spurious = false;
  /** A run that had been retransmitted was delivered. */
  resent = false;
  /** A never-retransmitted run was delivered after one with higher numbers: the path reorders (RFC 8985 6.2 step 3). */
  reordered = false;
}
