/**
 * What a congestion control is to loss recovery: it says how the window grows and how far it falls.
 *
 * Layer 2, TCP. Bytes and microseconds, as doubles. A control knows nothing of runs, ACKs or timers; its objects are
 * pooled with the `LossRecovery` that they belong to.
 */

/** The window that a control works on: a `LossRecovery` seen from below. */
export interface WindowState {
  /** Bytes; no whole number needed. */
  cwnd: number;
  /** Infinity: none yet. */
  ssthresh: number;
  readonly mss: number;
  readonly una: number;
  readonly nxt: number;
  readonly inFlight: number;
  /** Taken for lost and not sent again yet. */
  readonly lostBytes: number;
  /** A loss is being repaired. */
  readonly inRecovery: boolean;
  /** 0: unknown. */
  readonly srttUs: number;
  /** Infinity: unknown. */
  readonly minRttUs: number;
  /** The time of what is being looked at: an ACK's arrival, or now. Not an argument: a call would box it. */
  readonly nowUs: number;
  /** The round trip that the present ACK measured; -1: none. */
  readonly sampleUs: number;
}

export interface CongestionControl {
  /** It sets the window itself at each ACK, also while losses are repaired, and paces what is sent. */
  readonly isModel: boolean;
  /** A connection starts or wakes; cwnd and ssthresh are set. */
  begin(window: WindowState): void;
  /**
   * An ACK delivered `bytes` and the window may be changed upward (nothing is being recovered, or after a timeout).
   * `isLimited`: the window was what held the sender back; else it must not grow.
   */
  acked(window: WindowState, bytes: number, isLimited: boolean): void;
  /**
   * Congestion: returns the new ssthresh and remembers what `undo` needs. `flight`: bytes, at most cwnd.
   * `isTimeout`: found by the retransmission timer.
   */
  reduced(window: WindowState, flight: number, isTimeout: boolean): number;
  /** The last `reduced` was for nothing. */
  undo(): void;
  /** Nothing was sent for so long: time that does not count as growth. */
  idled(idleUs: number): void;
}

/** No window grows beyond this (a scaled receive window cannot either). */
export const maxWindow = 2 ** 30;

/** What one ACK may add in slow start (RFC 3465: L): a super-packet's ACK counts in full, a rare huge one does not. */
export const slowStartLimit = 65_536;

/** Slow start by bytes (RFC 3465), not beyond ssthresh. Returns the bytes left for congestion avoidance. */
export function slowStart(window: WindowState, bytes: number): number {
  const counted = bytes < slowStartLimit ? bytes : slowStartLimit;
  const grown = window.cwnd + counted;
  if (grown <= window.ssthresh) {
    window.cwnd = grown < maxWindow ? grown : maxWindow;
    return 0;
  }
  const left = grown - window.ssthresh;
  window.cwnd = window.ssthresh;
  return left;
}
