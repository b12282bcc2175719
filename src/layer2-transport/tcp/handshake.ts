/**
 * The beginning of a connection: SYN, SYN-ACK, the third segment, cookies, simultaneous opens.
 *
 * Layer 2, TCP (RFC 9293 3.5 and 3.10.7.2 to 3.10.7.4, RFC 4987, RFC 6528, RFC 7323 1.3). A stranger's SYN costs a
 * record only as long as the guard takes it; else what must be remembered goes to him and comes back in his ACK.
 */

import type { ErrorCode } from "../../layer1-app/errors.ts";
import { node, nodeState } from "../nodes/v-node.ts";
import { strangeKind, synVerdict } from "./admission.ts";
import type { Challenge } from "./challenge.ts";
import type { Closing } from "./closing.ts";
import type { StackCore } from "./core.ts";
import type { EarlyData } from "./early-data.ts";
import type { Finder } from "./finder.ts";
import type { Output } from "./output.ts";
import { headerRoom } from "./packet-writer.ts";
import type { Replies } from "./replies.ts";
import { initialBuffer, leastMss, type Rest, scaleFor, segmentBytes } from "./rest.ts";
import type { InitialSequence } from "./security/initial-sequence.ts";
import { never, type Tcb, type TcpListener, tcpState } from "./tcb.ts";
import { flag, type SynOptions, writeHeader, writeSynOptions } from "./wire/segment.ts";

/** What a peer takes that names no MSS (RFC 9293 3.7.1). */
export const defaultMss = { four: 536, six: 1220 } as const;
const handshakeRetryMaxUs = 60e6;
/** ACKs without delay after the handshake: the peer's window is to open fast (Linux: as many segments). */
const quickAcks = 16;
const windowMax = 65_535;
const optionBytesMax = 40;

export interface HandshakeParts {
  readonly core: StackCore;
  readonly output: Output;
  readonly rest: Rest;
  readonly finder: Finder;
  readonly replies: Replies;
  readonly closing: Closing;
  readonly sequence: InitialSequence;
  readonly early: EarlyData;
  readonly challenge: Challenge;
}

export class Handshake {
  private readonly core: StackCore;
  private readonly output: Output;
  private readonly rest: Rest;
  private readonly finder: Finder;
  private readonly replies: Replies;
  private readonly closing: Closing;
  private readonly sequence: InitialSequence;
  private readonly early: EarlyData;
  /** The SYN at hand has data that the receiver is to take. */
  hasEarlyData = false;
  private readonly challenge: Challenge;
  private readonly syn: SynOptions = {
    mss: 0,
    scale: -1,
    sack: false,
    timestamps: false,
    tsValue: 0,
    tsEcho: 0,
    fastOpen: undefined,
  };

  constructor(parts: HandshakeParts) {
    this.core = parts.core;
    this.output = parts.output;
    this.rest = parts.rest;
    this.finder = parts.finder;
    this.replies = parts.replies;
    this.closing = parts.closing;
    this.sequence = parts.sequence;
    this.early = parts.early;
    this.challenge = parts.challenge;
  }

  /** Our SYN, or SYN-ACK, the first time or again. False: no room just now. */
  sendSyn(tcb: Tcb): boolean {
    const { core } = this;
    const { writer } = this.output;
    const { options } = tcb;
    const isAnswer = tcb.state === tcpState.synReceived || tcb.synAckOut;
    const isFirst = tcb.handshakeTries === 0;
    const { syn } = this;
    syn.mss = this.ownMss(tcb);
    syn.scale = !isAnswer || tcb.receiveScale > 0 || tcb.sendScale > 0 ? scaleFor(options.recvBuffer) : -1;
    syn.sack = isAnswer ? tcb.sack : true;
    syn.timestamps = isAnswer ? tcb.timestamps : true;
    if (!isFirst) this.output.advanceClock(tcb, true);
    syn.tsValue = this.output.timestampOf(tcb);
    syn.tsEcho = tcb.tsRecent;
    this.early.fill(tcb, isAnswer, syn);
    const data = isAnswer ? 0 : this.early.bytesFor(tcb);
    if (!writer.open(tcb.version6, 20 + optionBytesMax + data)) return false;
    const { bytes, tcpAt } = writer;
    const length = writeSynOptions(bytes, tcpAt + 20, syn);
    if (data > 0) tcb.queue.copy(core.context.pool, 0, data, tcpAt + 20 + length);
    tcb.earlyBytes = Math.max(tcb.earlyBytes, data);
    writer.trim(20 + length + data);
    writer.addresses(core.words, tcb.base);
    const ports = core.words[tcb.base + node.ports] as number;
    const ecn = isAnswer ? (tcb.ecn ? flag.ece : 0) : options.ecn && isFirst ? flag.ece | flag.cwr : 0;
    const flags = flag.syn | (isAnswer ? flag.ack : 0) | ecn;
    const window = Math.min(windowMax, tcb.receiveBuffer);
    const ack = isAnswer ? tcb.receiveNext : 0;
    writeHeader(bytes, tcpAt, ports & 0xffff, ports >>> 16, tcb.iss, ack, flags, window, 20 + length);
    if (isAnswer) {
      // An ACK between two answers may have told a few bytes more.
      const edge = (tcb.receiveNext + window) | 0;
      if (isFirst || ((edge - tcb.receiveEdge) | 0) > 0) tcb.receiveEdge = edge;
    }
    const label = tcb.version6 ? options.label || tcb.label : 0;
    if (!writer.post(0, label, options.ttl, options.dscp << 2)) return false;
    if (isAnswer) tcb.lastAckSent = tcb.receiveNext;
    this.armRetry(tcb);
    return true;
  }

  private armRetry(tcb: Tcb): void {
    const { nowUs } = this.core;
    const firstUs = 1000 * tcb.options.initialRtoMs;
    tcb.handshakeSentUs = nowUs;
    tcb.handshakeAtUs = nowUs + Math.min(handshakeRetryMaxUs, firstUs * 2 ** tcb.handshakeTries);
    tcb.handshakeTries += 1;
  }

  /** What we take in one segment, told to the peer: RFC 6691, by our link and not by the peer's. */
  private ownMss(tcb: Tcb): number {
    const mine = this.core.context.mtu - headerRoom(tcb.version6);
    return tcb.options.maxseg > 0 ? Math.min(mine, tcb.options.maxseg) : mine;
  }

  // --- the passive side -----------------------------------------------------------------------------------------

  /** A SYN for a listener, of a connection that there is not. */
  listen(listener: TcpListener, hopLimit: number): void {
    const { core, finder } = this;
    const { admission, counters } = core.context;
    const count = finder.wordCount;
    const verdict = admission.syn(
      finder.ends,
      0,
      count,
      core.halfOpenCount,
      core.timeMs,
      listener.port,
      hopLimit,
    );
    if (verdict === synVerdict.drop) return;
    if (verdict === synVerdict.cookie || listener.halfOpen >= listener.options.synBacklog) {
      this.replies.cookie(listener);
      return;
    }
    const tcb = this.create(listener);
    if (tcb === undefined) {
      counters.add("layer2.connections.refused-table");
      return;
    }
    this.takeSyn(tcb);
    tcb.iss = this.sequence.isn(core.words, tcb.base, core.nowUs);
    tcb.state = tcpState.synReceived;
    this.begin(tcb);
    tcb.halfOpen = true;
    core.halfOpenCount += 1;
    listener.halfOpen += 1;
    core.markDirty(tcb);
    tcb.handshakeAtUs = 0;
    if (this.early.takesData(listener, tcb)) this.standEarly(listener, tcb);
  }

  /** The SYN at hand brought a good cookie and data: the app is told at once, the SYN-ACK follows. */
  private standEarly(listener: TcpListener, tcb: Tcb): void {
    const { core } = this;
    const { segment } = core;
    this.established(tcb);
    if (tcb.state !== tcpState.established) return;
    tcb.handshakeAtUs = 0;
    tcb.synAckOut = true;
    tcb.halfOpen = true;
    core.halfOpenCount += 1;
    listener.halfOpen += 1;
    tcb.receiveEdge = (tcb.receiveNext + Math.min(windowMax, tcb.receiveBuffer)) | 0;
    // The receiver is to take the payload as it takes any other.
    segment.seq = tcb.receiveNext;
    segment.flags &= ~flag.syn;
    this.hasEarlyData = true;
  }

  /** A number and a record for the flow whose packet has been read. */
  create(listener: TcpListener): Tcb | undefined {
    const { core, finder } = this;
    const { nodes, index, admission } = core.context;
    if (!admission.memory(nodeBytes)) return undefined;
    const sockfd24 = nodes.allocate(finder.hash >>> 28);
    if (sockfd24 < 0) return undefined;
    const base = nodes.baseOf(sockfd24);
    const { words } = core;
    words[base + node.ports] = finder.ports;
    const { ends } = finder;
    for (let i = 0; i < finder.wordCount; i += 1) {
      words[base + node.peerAddress + i] = ends[i] as number;
      words[base + node.localAddress + i] = ends[4 + i] as number;
    }
    words[base + node.hash] = finder.hash;
    words[base + node.open] = listener.id;
    if (finder.wordCount === 4) (words[base + node.flags] as number) |= sixFlag;
    Atomics.store(words, base + node.state, nodeState.transport);
    index.add(sockfd24, finder.hash);
    core.portsInUse.use(listener.port);
    const tcb = core.activate(sockfd24, base);
    tcb.version6 = finder.wordCount === 4;
    tcb.listener = listener;
    tcb.openId = listener.id;
    tcb.options = listener.options;
    const terms = core.terms.get(listener.id);
    if (terms !== undefined) terms.users += 1;
    tcb.label = core.labelOf(tcb);
    return tcb;
  }

  /**
   * The ACK at hand has brought a cookie of ours: its connection stands, as far as cookie and timestamp remember the
   * SYN. False: there is no room for it.
   */
  fromCookie(listener: TcpListener, mss: number): boolean {
    const { core } = this;
    const { segment } = core;
    const tcb = this.create(listener);
    if (tcb === undefined) return false;
    core.context.counters.add("layer2.tcp.cookies-taken");
    const remembered = this.replies.remembered();
    tcb.peerMss = Math.max(leastMss, mss);
    tcb.irs = (segment.seq - 1) | 0;
    tcb.receiveNext = segment.seq;
    tcb.lastAckSent = segment.seq;
    tcb.reassembly.reset(tcb.receiveNext);
    tcb.timestamps = segment.hasTimestamp;
    tcb.tsRecent = segment.tsValue;
    tcb.tsRecentMs = core.nowMs;
    tcb.sack = remembered.sack;
    tcb.sendScale = Math.max(0, remembered.scale);
    tcb.receiveScale = remembered.scale >= 0 ? scaleFor(tcb.options.recvBuffer) : 0;
    tcb.mss = segmentBytes(tcb, core.context.mtu);
    tcb.receiveMss = Math.min(tcb.peerMss, tcb.mss);
    tcb.iss = (segment.ack - 1) | 0;
    this.begin(tcb);
    // What the peer has as TS.Recent: our clock goes on from there.
    if (tcb.timestamps) {
      tcb.echoedClock = segment.tsEcho >>> 24;
      tcb.clock = (tcb.echoedClock + 1) & 0xff;
    }
    tcb.receiveEdge = (tcb.receiveNext + Math.min(windowMax, tcb.receiveBuffer)) | 0;
    this.established(tcb);
    return true;
  }

  /** What the SYN at hand says: options, sequence, window. */
  takeSyn(tcb: Tcb): void {
    const { segment, nowMs } = this.core;
    const floor = tcb.version6 ? defaultMss.six : defaultMss.four;
    tcb.peerMss = Math.max(leastMss, segment.mss > 0 ? segment.mss : floor);
    tcb.irs = segment.seq;
    tcb.receiveNext = (segment.seq + 1) | 0;
    tcb.reassembly.reset(tcb.receiveNext);
    tcb.sack = segment.sackPermitted;
    tcb.timestamps = segment.hasTimestamp;
    tcb.tsRecent = segment.tsValue;
    tcb.tsRecentMs = nowMs;
    const ownScale = scaleFor(tcb.options.recvBuffer);
    tcb.sendScale = segment.scale >= 0 ? segment.scale : 0;
    tcb.receiveScale = segment.scale >= 0 ? ownScale : 0;
    if (segment.scale < 0) tcb.receiveBuffer = Math.min(tcb.receiveBuffer, windowMax);
    // A SYN's window is never scaled.
    tcb.sendWindow = segment.window;
    tcb.maxSendWindow = segment.window;
    const asked = flag.ece | flag.cwr;
    if (!tcb.isClient) tcb.ecn = (segment.flags & (asked | flag.ack)) === asked;
    else tcb.ecn = tcb.options.ecn && (segment.flags & asked) === flag.ece;
    tcb.mss = segmentBytes(tcb, this.core.context.mtu);
    tcb.receiveMss = Math.min(tcb.peerMss, tcb.mss);
  }

  /** Fields that both sides start with. */
  begin(tcb: Tcb): void {
    const { core } = this;
    tcb.sendUna = tcb.iss;
    tcb.sendNext = (tcb.iss + 1) | 0;
    if (tcb.receiveBuffer === 0) tcb.receiveBuffer = initialBuffer(tcb);
    tcb.clock = core.context.random.word() & 0xff;
    tcb.echoedClock = tcb.clock;
    tcb.clockTickedUs = core.nowUs;
    tcb.lastHeardUs = core.nowUs;
    tcb.openedUs = core.nowUs;
    tcb.roundStartedUs = core.nowUs;
  }

  /**
   * Whether the segment at hand acknowledges a cookie that had answered the same SYN before this half-open connection
   * did: the peer has taken that one, and the half-open one stands in its way.
   */
  answersCookie(tcb: Tcb): boolean {
    const { flags } = this.core.segment;
    if (tcb.isClient || tcb.synAckOut || (flags & (flag.ack | flag.syn | flag.rst)) !== flag.ack)
      return false;
    return !this.acksOurSyn(tcb) && this.replies.checkCookie() !== 0;
  }

  /** A segment of a connection in SYN-RECEIVED. True: it stands now, and the segment goes on to the receiver. */
  synReceived(tcb: Tcb): boolean {
    const { core } = this;
    const { segment, context } = core;
    if ((segment.flags & flag.rst) !== 0) {
      if (segment.seq === tcb.receiveNext) core.finish(tcb, "reset", "ECONNREFUSED");
      else if (this.isInWindow(tcb)) this.answer(tcb);
      return false;
    }
    if ((segment.flags & flag.syn) !== 0) {
      // The same SYN again: our answer was lost. Another one: its sender starts anew (RFC 9293 3.10.7.4).
      if (segment.seq === tcb.irs && (segment.flags & flag.ack) === 0) this.sendSyn(tcb);
      else if (segment.seq === tcb.irs && tcb.isClient && this.acksOurSyn(tcb)) this.established(tcb);
      else this.answer(tcb);
      return false;
    }
    if (!this.isInWindow(tcb)) {
      this.answer(tcb);
      return false;
    }
    if ((segment.flags & flag.ack) === 0) return false;
    if (!this.acksOurSyn(tcb)) {
      this.replies.reset();
      context.counters.add("layer2.tcp.drop.bad-ack");
      return false;
    }
    if (tcb.timestamps && segment.hasTimestamp && ((segment.tsValue - tcb.tsRecent) | 0) < 0) return false;
    this.established(tcb);
    return tcb.state === tcpState.established;
  }

  /** RFC 9293 3.10.7.4, first check. */
  private isInWindow(tcb: Tcb): boolean {
    const { segment } = this.core;
    const start = (segment.seq - tcb.receiveNext) | 0;
    return start >= 0 && start <= ((tcb.receiveEdge - tcb.receiveNext) | 0);
  }

  /** A challenge ACK (RFC 5961). */
  private answer(tcb: Tcb): void {
    if (this.challenge.allows(tcb)) this.output.sendAck(tcb);
  }

  private acksOurSyn(tcb: Tcb): boolean {
    const { ack } = this.core.segment;
    return ((ack - tcb.iss) | 0) > 0 && ((ack - tcb.sendNext - tcb.earlyBytes) | 0) <= 0;
  }

  /** Both SYNs are acknowledged. The app's side is told, and may refuse. */
  established(tcb: Tcb): void {
    const { core } = this;
    const { segment, context, nowUs } = core;
    if (tcb.halfOpen) core.leaveHalfOpen(tcb);
    tcb.state = tcpState.established;
    tcb.handshakeAtUs = never;
    tcb.connectUntilUs = never;
    tcb.sendUna = (tcb.iss + 1) | 0;
    tcb.sendNext = tcb.sendUna;
    tcb.sendWl1 = segment.seq;
    tcb.sendWl2 = segment.ack;
    const isSyn = (segment.flags & flag.syn) !== 0;
    tcb.sendWindow = isSyn ? segment.window : segment.window << tcb.sendScale;
    tcb.maxSendWindow = tcb.sendWindow;
    tcb.quickAcks = quickAcks;
    tcb.recovery.begin(this.rest.recoveryTerms(tcb), tcb.sendNext, nowUs);
    // A connection from a cookie has sent nothing that we remember.
    if (tcb.handshakeTries > 0) {
      tcb.recovery.handshakeRtt(nowUs - tcb.handshakeSentUs, tcb.handshakeTries > 1);
    }
    if (tcb.options.keepalive) tcb.keepaliveAtUs = nowUs + 1000 * tcb.options.keepaliveIdleMs;
    core.markDirty(tcb);
    if (tcb.isClient) {
      tcb.connecting = false;
      tcb.told = context.events.connected(tcb);
      if (!tcb.told) this.closing.abort(tcb, true);
      return;
    }
    const { listener } = tcb;
    const six = tcb.version6 ? 4 : 1;
    const peer = tcb.base + node.peerAddress;
    if (
      listener === undefined ||
      !context.admission.opened(core.words, peer, six, core.timeMs, listener.port)
    ) {
      this.closing.abort(tcb, true);
      return;
    }
    tcb.told = true;
    if (context.events.accepted(listener, tcb)) return;
    tcb.told = false;
    context.admission.closed(core.words, peer, six);
    this.closing.abort(tcb, true);
  }

  // --- the active side ------------------------------------------------------------------------------------------

  /** A segment of a connection in SYN-SENT (RFC 9293 3.10.7.3). */
  synSent(tcb: Tcb): void {
    const { core } = this;
    const { segment } = core;
    const hasAck = (segment.flags & flag.ack) !== 0;
    if (hasAck && !this.acksOurSyn(tcb)) {
      if ((segment.flags & flag.rst) === 0) this.replies.reset();
      return;
    }
    if ((segment.flags & flag.rst) !== 0) {
      if (hasAck) core.finish(tcb, "refused", "ECONNREFUSED");
      return;
    }
    if ((segment.flags & flag.syn) === 0) return;
    this.takeSyn(tcb);
    if (tcb.timestamps && hasAck) tcb.echoedClock = segment.tsEcho >>> 24;
    tcb.receiveEdge = (tcb.receiveNext + Math.min(windowMax, tcb.receiveBuffer)) | 0;
    if (!hasAck) {
      // Both ends called at once.
      tcb.state = tcpState.synReceived;
      tcb.handshakeTries = 0;
      tcb.handshakeAtUs = 0;
      core.markDirty(tcb);
      return;
    }
    this.adoptLabel(tcb);
    this.early.answered(tcb);
    tcb.ackNow = true;
    const taken = (segment.ack - tcb.iss - 1) | 0;
    this.established(tcb);
    if (taken > 0 && tcb.state === tcpState.established) this.earlyTaken(tcb, taken);
  }

  /** The server has taken data of our SYN. */
  private earlyTaken(tcb: Tcb, bytes: number): void {
    const { events, admission } = this.core.context;
    tcb.sendUna = (tcb.sendUna + bytes) | 0;
    tcb.sendNext = tcb.sendUna;
    tcb.recovery.begin(this.rest.recoveryTerms(tcb), tcb.sendNext, this.core.nowUs);
    tcb.queue.acked(bytes);
    admission.account.queued -= bytes;
    for (let done = tcb.queue.takeDone(); done; done = tcb.queue.takeDone()) events.sent(tcb, done, true);
  }

  /** The server's label leads the server to the connection: from here on it is ours too. */
  private adoptLabel(tcb: Tcb): void {
    const { label } = this.finder;
    if (tcb.version6 && tcb.options.label === 0 && label !== 0) {
      tcb.label = label;
    }
  }

  /** The handshake's timer. */
  timeout(tcb: Tcb): void {
    const { core } = this;
    if (core.nowUs >= tcb.connectUntilUs || tcb.handshakeTries > tcb.options.synRetries) {
      if (!tcb.isClient) {
        const six = tcb.version6 ? 4 : 1;
        core.context.counters.add("layer2.tcp.handshakes-given-up");
        const peer = tcb.base + node.peerAddress;
        core.context.admission.strange(strangeKind.halfOpen, core.words, peer, six, core.timeMs);
      }
      const error: ErrorCode = "ETIMEDOUT";
      core.finish(tcb, "timeout", error);
      return;
    }
    if (!this.sendSyn(tcb)) core.markDirty(tcb);
  }
}

const sixFlag = 4;
/** A v-node and its place in the index. */
const nodeBytes = 136;
