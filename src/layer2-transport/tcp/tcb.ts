/**
 * The active record of a TCP connection: everything that a v-node's 128 bytes have no room for.
 *
 * Layer 2. Taken from a pool when a connection has something to do (bytes in flight, queued, out of order or unread, a
 * handshake, a record of the dispatcher's) and given back when it has not: an idle connection is its v-node and nothing
 * else. State only; `input.ts`, `output.ts` and the others move it. Sequence numbers are int32 that wrap, times are
 * microseconds on the stack's clock, `never` where there is none.
 */

import type { FramePool } from "../link.ts";
import { defaultTcpOptions, type TcpOptions } from "./options.ts";
import { ReassemblyQueue } from "./receive/reassembly-queue.ts";
import { UnreadQueue } from "./receive/unread-queue.ts";
import { LossRecovery } from "./recovery/recovery.ts";
import { SendQueue } from "./send-queue.ts";

/** RFC 9293 3.3.2, in its order. */
export const tcpState = {
  closed: 0,
  listen: 1,
  synSent: 2,
  synReceived: 3,
  established: 4,
  finWait1: 5,
  finWait2: 6,
  closeWait: 7,
  closing: 8,
  lastAck: 9,
  timeWait: 10,
} as const;

export const never = Number.POSITIVE_INFINITY;

/** What a listener is to the stack. */
export interface TcpListener {
  /** The `opens` that it belongs to. */
  readonly id: number;
  readonly port: number;
  /** Our address in network order; undefined: every one of the link. */
  readonly words: Int32Array | undefined;
  readonly wordCount: 1 | 4;
  readonly options: TcpOptions;
  /** Half-open connections of it. */
  halfOpen: number;
}

export class Tcb {
  /** Its place among the active records; what stands in the v-node. */
  readonly index: number;
  sockfd24 = 0;
  /** The v-node's first word. */
  base = 0;
  state = 0;
  isClient = false;
  version6 = false;
  /** The `opens` that its terms come from. */
  openId = 0;
  options: TcpOptions = defaultTcpOptions;
  listener: TcpListener | undefined = undefined;
  /** What `connect` was given. */
  owner: unknown = undefined;
  /** The dispatcher's record, while it has one. */
  connection: unknown = undefined;
  /** The app's side has been told of it, and is to be told of its end. */
  told = false;
  /** A client's handshake of which nobody has been told yet. */
  connecting = false;
  /** It counts among the listener's half-open connections. */
  halfOpen = false;
  /** It stands by data in its SYN; our SYN-ACK has not been acknowledged yet. */
  synAckOut = false;
  /** Our SYN-ACK brings a Fast Open cookie. */
  grantsCookie = false;
  /** Bytes of the queue that went out in our SYN. */
  earlyBytes = 0;
  /** It waits for `flush`. */
  dirty = false;

  // --- sending ---
  iss = 0;
  sendUna = 0;
  sendNext = 0;
  /** The peer's window in bytes. */
  sendWindow = 0;
  sendWl1 = 0;
  sendWl2 = 0;
  maxSendWindow = 0;
  sendScale = 0;
  /** What the peer says it takes; a segment's payload is less by its options. */
  peerMss = 536;
  /** Payload bytes of a full segment without SACK blocks. */
  mss = 536;
  readonly queue = new SendQueue();
  /** Nothing comes behind what is queued. */
  finWanted = false;
  finSent = false;
  persistAtUs = never;
  persistBackoff = 0;
  /** Segments of this length have got through, as far as is known since the record was made; 0: none has. */
  provenMss = 0;
  /** What an ICMP error says of the path, against what is known: believed when nothing gets through any more. */
  doubtfulMss = 0;
  /** Since when something has been unacknowledged without any progress; 0: nothing is. */
  stalledSinceUs = 0;

  // --- receiving ---
  irs = 0;
  receiveNext = 0;
  /** The right edge that the peer knows. */
  receiveEdge = 0;
  receiveScale = 0;
  receiveBuffer = 0;
  readonly unread: UnreadQueue;
  readonly reassembly: ReassemblyQueue;
  /** The dispatcher takes nothing just now. */
  paused = false;
  /** Nobody reads any more: what comes is acknowledged and dropped. */
  discarding = false;
  hasFin = false;
  finSeq = 0;
  finTaken = false;
  /** Bytes delivered in the present round trip: the buffer grows with them. */
  roundBytes = 0;
  roundStartedUs = 0;

  // --- acknowledging ---
  ackNow = false;
  /** Bytes received since the last ACK left. */
  unackedBytes = 0;
  delayedAckAtUs = never;
  quickAcks = 0;
  lastAckSent = 0;
  /** The longest payload that has come: what "full-sized" means for delayed ACKs. */
  receiveMss = 536;
  hasDuplicate = false;
  duplicateStart = 0;
  duplicateEnd = 0;
  /** State of the allowance for challenge ACKs. */
  challenge = 0;

  // --- options in use ---
  timestamps = false;
  sack = false;
  ecn = false;
  /** An ECN mark has come and the peer has not said that it heard. */
  ecnEcho = false;
  tsRecent = 0;
  tsRecentMs = 0;
  /** Ours: 8 bits, in the top of TSval. */
  clock = 0;
  /** The last of ours that the peer has echoed. */
  echoedClock = 0;
  clockTickedUs = 0;
  /** The timestamps that we send carry no connection id. */
  quiet = false;
  label = 0;

  // --- life ---
  handshakeAtUs = never;
  handshakeSentUs = 0;
  handshakeTries = 0;
  connectUntilUs = never;
  keepaliveAtUs = never;
  probes = 0;
  /** FIN-WAIT-2, TIME-WAIT and lingering end here. */
  closeAtUs = never;
  lastHeardUs = 0;
  openedUs = 0;
  /** The app asked for the end of both directions. */
  ending = false;
  /** The peer has ended, and the events' side will call `end` when it is through with what came before. */
  endAwaited = false;
  /** In LAST-ACK all is acknowledged, but `end` is awaited. */
  over = false;
  readonly recovery = new LossRecovery();

  constructor(index: number, pool: FramePool) {
    this.index = index;
    this.unread = new UnreadQueue(pool);
    this.reassembly = new ReassemblyQueue(pool);
  }

  /** As new, but for its place. */
  reset(): void {
    this.sockfd24 = 0;
    this.base = 0;
    this.state = tcpState.closed;
    this.isClient = false;
    this.version6 = false;
    this.openId = 0;
    this.options = defaultTcpOptions;
    this.listener = undefined;
    this.owner = undefined;
    this.connection = undefined;
    this.told = false;
    this.connecting = false;
    this.halfOpen = false;
    this.synAckOut = false;
    this.grantsCookie = false;
    this.earlyBytes = 0;
    this.dirty = false;
    this.resetSending();
    this.resetReceiving();
    this.timestamps = false;
    this.sack = false;
    this.ecn = false;
    this.ecnEcho = false;
    this.tsRecent = 0;
    this.tsRecentMs = 0;
    this.clock = 0;
    this.echoedClock = 0;
    this.clockTickedUs = 0;
    this.quiet = false;
    this.label = 0;
    this.handshakeAtUs = never;
    this.handshakeTries = 0;
    this.connectUntilUs = never;
    this.keepaliveAtUs = never;
    this.probes = 0;
    this.closeAtUs = never;
    this.lastHeardUs = 0;
    this.openedUs = 0;
    this.ending = false;
    this.endAwaited = false;
    this.over = false;
    this.challenge = 0;
  }

  private resetSending(): void {
    this.sendWindow = 0;
    this.maxSendWindow = 0;
    this.sendScale = 0;
    this.peerMss = 536;
    this.mss = 536;
    this.finWanted = false;
    this.finSent = false;
    this.persistAtUs = never;
    this.persistBackoff = 0;
    this.provenMss = 0;
    this.doubtfulMss = 0;
    this.stalledSinceUs = 0;
    this.recovery.drop();
  }

  private resetReceiving(): void {
    this.receiveScale = 0;
    this.receiveBuffer = 0;
    this.unread.clear();
    this.reassembly.clear();
    this.paused = false;
    this.discarding = false;
    this.hasFin = false;
    this.finTaken = false;
    this.roundBytes = 0;
    this.roundStartedUs = 0;
    this.ackNow = false;
    this.unackedBytes = 0;
    this.delayedAckAtUs = never;
    this.quickAcks = 0;
    this.receiveMss = 536;
    this.hasDuplicate = false;
  }
}
