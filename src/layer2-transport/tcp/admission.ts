/**
 * What TCP asks before it takes something on, and what it tells of strange behaviour: the seam to the guard.
 *
 * Layer 2. `guard/` implements it with limits, a memory ceiling and a detector of attacks; `AcceptAll` here says yes to
 * everything (the simulator, tests). TCP must not know why it was refused; the guard must not know TCP's states.
 * Every method is O(1) and allocates nothing. `words` at `at` are a peer's address in network order: 1 word (IPv4),
 * or 4.
 */

/** What becomes of a SYN. */
export const synVerdict = { take: 0, cookie: 1, drop: 2 } as const;
export type SynVerdict = (typeof synVerdict)[keyof typeof synVerdict];

/** What a peer did that no well-meaning one does often. Numbers, since they are told a million times a second. */
export const strangeKind = {
  /** An ACK or data segment of no connection that we know, and with no cookie of ours (an ACK storm; guessing). */
  ack: 0,
  /** A reset of no connection, or of one but not exactly at RCV.NXT (RFC 5961 3.2). */
  rst: 1,
  /** A SYN inside a connection (RFC 5961 4.2). */
  syn: 2,
  /** An ACK for data that was never sent, or older than RFC 5961 5.2 allows. */
  badAck: 3,
  /** A handshake that nobody completed: its record has been given up. */
  halfOpen: 4,
  /** Out-of-order data beyond the limits of bytes or gaps. */
  gaps: 5,
} as const;
export type StrangeKind = (typeof strangeKind)[keyof typeof strangeKind];

/**
 * The bytes that this worker's connections keep. Whoever keeps or lets go adds and subtracts; frames count whole, since
 * one byte in a frame holds all of it.
 */
export class MemoryAccount {
  /** v-nodes in use and active records. */
  records = 0;
  /** Frames of out-of-order data, and of data that the app has not taken. */
  received = 0;
  /** Bytes queued to be sent, and sent but not acknowledged. */
  queued = 0;

  get total(): number {
    return this.records + this.received + this.queued;
  }
}

export interface Admission {
  /** Kept by the stack, read here: see `MemoryAccount`. */
  readonly account: MemoryAccount;
  /**
   * A SYN for a listener. `halfOpen`: handshakes with a record now. `port` is ours, `hopLimit` what was left of the
   * packet's TTL (0: not known). A drop is counted inside.
   */
  syn(
    words: Int32Array,
    at: number,
    wordCount: 1 | 4,
    halfOpen: number,
    nowMs: number,
    port?: number,
    hopLimit?: number,
  ): SynVerdict;
  /** A listener's connection with this peer stands. False: its source has too many, refuse it (no `closed` follows). */
  opened(words: Int32Array, at: number, wordCount: 1 | 4, nowMs: number, port?: number): boolean;
  /** A connection for which `opened` said true is over. */
  closed(words: Int32Array, at: number, wordCount: 1 | 4): void;
  /** May this many more bytes be kept? False: drop or refuse; the guard sees to it that room is made. */
  memory(bytes: number): boolean;
  /** A peer did something strange; what follows is the guard's business. */
  strange(
    kind: StrangeKind,
    words: Int32Array,
    at: number,
    wordCount: 1 | 4,
    nowMs: number,
    hopLimit?: number,
  ): void;
}

/** No limits at all. */
export class AcceptAll implements Admission {
  readonly account = new MemoryAccount();

  syn(): SynVerdict {
    return synVerdict.take;
  }

  opened(): boolean {
    return true;
  }

  closed(): void {}

  memory(): boolean {
    return true;
  }

  strange(): void {}
}
