/**
 * What a worker's guard tells the main thread, at most once a second: attacks, whom to block, and who did what.
 *
 * Layer 2. Plain data: it crosses threads. Times are milliseconds ago, since threads have clocks of their own.
 */

export type AttackKind =
  | "syn-flood"
  | "connection-flood"
  | "reset-storm"
  | "stray-segments"
  | "gap-flood"
  | "slow-read"
  | "memory";

/** One kind of attack at one worker. */
export interface AttackNote {
  readonly kind: AttackKind;
  readonly isOver: boolean;
  /** Who sends at least a quarter of it: an address or a prefix; "": many. */
  readonly from: string;
  /** Hops away, guessed from the TTL; -1: not known. */
  readonly distance: number;
  readonly perSecond: number;
  /** Since it began. */
  readonly count: number;
  readonly sinceMs: number;
}

/** A source whose completed handshakes prove that the address is its own, and that has offended too often. */
export interface BlockNote {
  readonly prefix: string;
  readonly reason: string;
  readonly forMs: number;
}

/** One source and one reason. */
export interface TraceNote {
  readonly source: string;
  readonly reason: string;
  /** Since the last report. */
  readonly count: number;
  readonly distance: number;
}

export interface GuardReport {
  readonly attacks: readonly AttackNote[];
  readonly blocks: readonly BlockNote[];
  readonly traces: readonly TraceNote[];
}
