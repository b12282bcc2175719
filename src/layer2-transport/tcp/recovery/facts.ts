/**
 * What the owner of a `LossRecovery` tells it: the terms of the connection once, and the facts of each ACK.
 *
 * Layer 2, TCP. Plain data. Knows nothing of packets or v-nodes.
 */

export type ControlName = "cubic" | "newreno" | "bbr";

/** The terms of a connection, as the handshake settled them. */
export interface RecoveryTerms {
  /** Payload bytes of a full segment (without options). */
  readonly mss: number;
  /** SACK permitted by both ends (RFC 2018). */
  readonly sack: boolean;
  /** Timestamps agreed on (RFC 7323). */
  readonly timestamps: boolean;
  /** ECN agreed on (RFC 3168). */
  readonly ecn: boolean;
  readonly control: ControlName;
  /** Segments, RFC 6928: 10. */
  readonly initialWindow: number;
  /** RFC 6298 2.1: one second. */
  readonly initialRtoUs: number;
  /** The least that RTO adds to the smoothed round trip (as Linux has it: 200 ms). */
  readonly minRtoUs: number;
  readonly maxRtoUs: number;
}

/** The most SACK blocks that fit an ACK. */
export const maxSackBlocks = 4;

/** The facts of one ACK: one object a worker, filled by the caller before each `LossRecovery.acked`. */
export class AckFacts {
  /** The acknowledgment number. The caller has refused those beyond SND.NXT. */
  ack = 0;
  /** How many pairs of `sacks` hold. */
  sackCount = 0;
  /** Left and right edges as received, unchecked. */
  readonly sacks = new Int32Array(2 * maxSackBlocks);
  /** The peer's window in bytes after this ACK. */
  window = 0;
  /** The window differs from the one before: no duplicate ACK then (RFC 5681 2). */
  windowChanged = false;
  /** The segment carries data: no duplicate ACK then. */
  hasPayload = false;
  /** The 8-bit clock of our timestamp that the ACK echoes; -1: none. */
  echoClock = -1;
  /** The ECE flag. */
  ece = false;
  /** When the packet arrived at layer 3: round trips and RACK go by it. */
  receivedUs = 0.5;
  nowUs = 0.5;
}
