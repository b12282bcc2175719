/**
 * What a snapshot of a TCP connection tells, in the manner of TCP_INFO.
 *
 * Layer 2, read by layer 1. Plain data: it crosses threads as JSON.
 */

import { node } from "../nodes/v-node.ts";
import type { StackCore } from "./core.ts";
import type { CongestionControl } from "./options.ts";
import { rttUnitUs, termBit } from "./rest.ts";
import type { Tcb } from "./tcb.ts";

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

const stateNames: readonly TcpStateName[] = [
  "closed",
  "listen",
  "syn-sent",
  "syn-received",
  "established",
  "fin-wait-1",
  "fin-wait-2",
  "close-wait",
  "closing",
  "last-ack",
  "time-wait",
];

/** Of a connection that has a record. */
export function infoOf(tcb: Tcb, nowUs: number): TcpInfo {
  const { recovery, queue } = tcb;
  const data = Math.min((tcb.sendNext - tcb.sendUna) | 0, queue.bytes);
  return {
    state: stateNames[tcb.state] ?? "closed",
    mss: tcb.mss,
    peerMss: tcb.peerMss,
    sendScale: tcb.sendScale,
    receiveScale: tcb.receiveScale,
    timestamps: tcb.timestamps,
    sack: tcb.sack,
    ecn: tcb.ecn,
    congestion: tcb.options.congestion,
    rttUs: recovery.srttUs,
    rttvarUs: recovery.rttvarUs,
    minRttUs: Number.isFinite(recovery.minRttUs) ? recovery.minRttUs : 0,
    rtoUs: recovery.rtoUs,
    backoffs: recovery.backoffs,
    retransmits: recovery.retransmits,
    lost: recovery.lostTotal,
    cwndBytes: recovery.cwnd,
    ssthreshBytes: Number.isFinite(recovery.ssthresh) ? recovery.ssthresh : 0,
    sendWindow: tcb.sendWindow,
    receiveWindow: Math.max(0, (tcb.receiveEdge - tcb.receiveNext) | 0),
    unackedBytes: data,
    unsentBytes: queue.bytes - data,
    unreadBytes: tcb.unread.bytes,
    outOfOrderBytes: tcb.reassembly.bytes,
    keepaliveProbes: tcb.probes,
    silentMs: Math.max(0, Math.floor((nowUs - tcb.lastHeardUs) / 1000)),
  };
}

/** Of a connection at rest: what its v-node's words remember. */
export function infoAtRest(core: StackCore, sockfd24: number, base: number): TcpInfo {
  const { words, nowMs } = core;
  const word = (at: number): number => words[base + at] as number;
  const terms = word(node.terms);
  const rtt = word(node.rtt);
  const windows = word(node.windows);
  const cwnd = word(node.cwnd);
  const timestamps = (terms & termBit.timestamps) !== 0;
  const mss = (terms >>> 16) - (timestamps ? 12 : 0);
  const options = core.optionsOf(sockfd24, word(node.open));
  const rttUs = (rtt >>> 16) * rttUnitUs;
  const rttvarUs = (rtt & 0xffff) * rttUnitUs;
  return {
    state: stateNames[word(node.tcp) & 15] ?? "closed",
    mss,
    peerMss: terms >>> 16,
    sendScale: (terms >>> 12) & 15,
    receiveScale: (terms >>> 8) & 15,
    timestamps,
    sack: (terms & termBit.sack) !== 0,
    ecn: (terms & termBit.ecn) !== 0,
    congestion: options.congestion,
    rttUs,
    rttvarUs,
    minRttUs: rttUs,
    rtoUs: Math.max(1000 * options.minRtoMs, rttUs + 4 * rttvarUs),
    backoffs: 0,
    retransmits: 0,
    lost: 0,
    cwndBytes: (cwnd >>> 16) * mss,
    ssthreshBytes: (cwnd & 0xffff) === 0xffff ? 0 : (cwnd & 0xffff) * mss,
    sendWindow: (windows >>> 16) * 2 ** ((terms >>> 12) & 15),
    receiveWindow: (windows & 0xffff) * 2 ** ((terms >>> 8) & 15),
    unackedBytes: 0,
    unsentBytes: 0,
    unreadBytes: 0,
    outOfOrderBytes: 0,
    keepaliveProbes: (word(node.tcp) >>> 20) & 15,
    silentMs: Math.max(0, (nowMs - word(node.lastHeard)) | 0),
  };
}
