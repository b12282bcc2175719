/**
 * What a snapshot of a TCP connection tells, in the manner of TCP_INFO.
 *
 * Layer 2, read by layer 1. Plain data: it crosses threads as JSON.
 */

import type { CongestionControl } from "./options.ts";

/** The states of RFC 9293 3.3.2, in words. */
export type TcpStateName =
  | "listen"
  | "syn-sent"
  | "syn-received"
  | "established"
  | "fin-wait-1"
  | "fin-wait-2"
  | "close-wait"
  | "closing"
  | "last-ack"
  | "time-wait"
  | "closed";

/** A connection at one moment. Bytes and microseconds. */
export interface TcpInfo {
  readonly state: TcpStateName;
  /** Payload bytes of a segment that we send, and that the peer takes. */
  readonly mss: number;
  readonly peerMss: number;
  readonly sendScale: number;
  readonly receiveScale: number;
  readonly timestamps: boolean;
  readonly sack: boolean;
  readonly ecn: boolean;
  readonly congestion: CongestionControl;
  /** 0 where nothing has been measured. */
  readonly rttUs: number;
  readonly rttvarUs: number;
  readonly minRttUs: number;
  readonly rtoUs: number;
  /** Timeouts running without an acknowledgement. */
  readonly backoffs: number;
  /** Segments sent again, and found lost, over the connection's life. */
  readonly retransmits: number;
  readonly lost: number;
  readonly cwndBytes: number;
  /** 0: none has been set. */
  readonly ssthreshBytes: number;
  /** The peer's window, and ours as last told. */
  readonly sendWindow: number;
  readonly receiveWindow: number;
  /** Sent and not acknowledged; given to us and not sent; arrived and not with the app; arrived out of order. */
  readonly unackedBytes: number;
  readonly unsentBytes: number;
  readonly unreadBytes: number;
  readonly outOfOrderBytes: number;
  readonly keepaliveProbes: number;
  /** Milliseconds since the peer was last heard. */
  readonly silentMs: number;
}
