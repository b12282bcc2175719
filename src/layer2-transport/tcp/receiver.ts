/**
 * A segment of a connection that stands: is it acceptable, what does it acknowledge, what does it bring.
 *
 * Layer 2, TCP (RFC 9293 3.10.7.4 in its order, RFC 7323 5, RFC 5961). Payload goes to the events' side in order and in
 * its frame; what comes early waits in the reassembly queue, what the app's side is too busy for waits unread.
 */

import * as descriptor from "../../layer3-ip/descriptor.ts";
import { smallFrameBytes } from "../link.ts";
import { node } from "../nodes/v-node.ts";
import type { Acknowledger } from "./acknowledge.ts";
import { strangeKind } from "./admission.ts";
import type { Challenge } from "./challenge.ts";
import type { StackCore } from "./core.ts";
import { inserted } from "./receive/reassembly-queue.ts";
import { type Tcb, tcpState } from "./tcb.ts";
import { flag } from "./wire/segment.ts";

/** TS.Recent is not believed after so long (RFC 7323 5.5). */
const recentValidMs = 24 * 24 * 3600 * 1000;
/** Congestion experienced (RFC 3168 5). */
const ecnCe = 3;
const ecnMask = 3;
/** Payload shorter than this is copied when it must wait: it must not tie up a frame of its own. */
const smallPayload = 512;
/** Early payload that fills less than so much of a large frame is moved to small ones. */
const scatteredBytes = 16_384;

export class Receiver {
  private readonly core: StackCore;
  private readonly acknowledger: Acknowledger;
  private readonly challenge: Challenge;

  constructor(core: StackCore, acknowledger: Acknowledger, challenge: Challenge) {
    this.core = core;
    this.acknowledger = acknowledger;
    this.challenge = challenge;
  }

  /** Takes the segment at hand and its frame. */
  receive(tcb: Tcb, words: Int32Array, at: number): void {
    const { core } = this;
    const { segment } = core;
    const frame = descriptor.frameOf(words, at);
    const receivedUs = this.arrivalUs(words, at);
    if (!this.isAcceptable(tcb)) {
      core.context.pool.release(frame);
      return;
    }
    tcb.lastHeardUs = core.nowUs;
    tcb.probes = 0;
    if (this.endsConnection(tcb)) {
      core.context.pool.release(frame);
      return;
    }
    this.keepTimestamp(tcb);
    if (!this.acknowledger.accept(tcb, receivedUs) || tcb.state === tcpState.closed) {
      core.context.pool.release(frame);
      if (tcb.state === tcpState.closed) this.lastAcknowledged(tcb);
      return;
    }
    if (tcb.ecn) this.noteEcn(tcb, (words[at + 5] as number) >>> 24);
    core.markDirty(tcb);
    if ((segment.flags & flag.fin) !== 0) this.noteFin(tcb);
    if (segment.payloadLength > 0) this.take(tcb, frame, words, at);
    else core.context.pool.release(frame);
    this.takeFin(tcb);
  }

  /** Both sides have ended. Somebody may still be busy with what came before the peer's FIN: then `end` follows. */
  private lastAcknowledged(tcb: Tcb): void {
    if (!tcb.endAwaited) {
      this.core.finish(tcb, "end");
      return;
    }
    tcb.state = tcpState.lastAck;
    tcb.over = true;
  }

  /** The payload of a SYN that brought a Fast Open cookie (RFC 7413 4.2); its SYN has been taken off. */
  receiveEarly(tcb: Tcb, words: Int32Array, at: number): void {
    this.take(tcb, descriptor.frameOf(words, at), words, at);
    // The SYN-ACK acknowledges it.
    tcb.ackNow = false;
    tcb.unackedBytes = 0;
    this.core.markDirty(tcb);
  }

  /** Layer 3's clock is the stack's; its low 32 bits travel in the descriptor. */
  private arrivalUs(words: Int32Array, at: number): number {
    const { nowUs } = this.core;
    const ageUs = (Math.floor(nowUs % 2 ** 32) - ((words[at + 6] as number) >>> 0)) | 0;
    return ageUs > 0 && ageUs < 10e6 ? nowUs - ageUs : nowUs;
  }

  // --- acceptable or not ----------------------------------------------------------------------------------------

  /** RFC 9293 3.10.7.4, first check, and PAWS before it (RFC 7323 5.3). */
  private isAcceptable(tcb: Tcb): boolean {
    const { segment, context, nowMs } = this.core;
    const isReset = (segment.flags & flag.rst) !== 0;
    if (tcb.timestamps && segment.hasTimestamp && !isReset) {
      const isOld = ((segment.tsValue - tcb.tsRecent) | 0) < 0;
      if (isOld && (nowMs - tcb.tsRecentMs) >>> 0 < recentValidMs) {
        context.counters.add("layer2.tcp.drop.paws");
        this.answerOutOfWindow(tcb);
        return false;
      }
    }
    const syn = (segment.flags & flag.syn) !== 0 ? 1 : 0;
    const fin = (segment.flags & flag.fin) !== 0 ? 1 : 0;
    const length = segment.payloadLength + syn + fin;
    const window = (tcb.receiveEdge - tcb.receiveNext) | 0;
    const start = (segment.seq - tcb.receiveNext) | 0;
    // Linux's reading: anything that touches [RCV.NXT, RCV.NXT + RCV.WND], so that an ACK gets in at window 0.
    if (start <= window && start + length >= 0 && !(length > 0 && start + length === 0)) return true;
    if (isReset) return false;
    context.counters.add("layer2.tcp.drop.out-of-window");
    if (length > 0 && start < 0 && syn === 0 && tcb.sack) {
      tcb.hasDuplicate = true;
      tcb.duplicateStart = segment.seq;
      tcb.duplicateEnd = (segment.seq + length) | 0;
    }
    this.answerOutOfWindow(tcb);
    return false;
  }

  /** An old or early segment is answered by an ACK, but not every one (RFC 5961 7): two such ends would never stop. */
  private answerOutOfWindow(tcb: Tcb): void {
    const { core } = this;
    const { segment } = core;
    const isPure = segment.payloadLength === 0 && (segment.flags & flag.fin) === 0;
    // A keepalive's segment lies before the window and wants an answer; so does every retransmission.
    const isKeepalive = segment.seq === ((tcb.receiveNext - 1) | 0);
    if ((segment.flags & flag.syn) !== 0 || (isPure && !isKeepalive)) {
      this.challenge.send(tcb);
      return;
    }
    tcb.ackNow = true;
    core.markDirty(tcb);
  }

  /** RST and SYN (RFC 5961 3 and 4). True: nothing more is to be done with the segment. */
  private endsConnection(tcb: Tcb): boolean {
    const { core } = this;
    const { segment, context, words, timeMs } = core;
    const six = tcb.version6 ? 4 : 1;
    if ((segment.flags & flag.rst) !== 0) {
      if (tcb.state === tcpState.timeWait || tcb.over) {
        // Both sides have ended, the app has not yet: a reset changes nothing any more (RFC 1337).
        context.counters.add("layer2.tcp.drop.time-wait-reset");
      } else if (segment.seq === tcb.receiveNext) {
        context.counters.add("layer2.tcp.resets-received");
        // All has been said and heard, but for the answer to our FIN.
        const isOver =
          (tcb.state === tcpState.lastAck || tcb.state === tcpState.closing) && tcb.queue.isEmpty;
        core.finish(tcb, isOver ? "end" : "reset", isOver ? undefined : "ECONNRESET");
      } else {
        context.admission.strange(strangeKind.rst, words, tcb.base + node.peerAddress, six, timeMs);
        this.challenge.send(tcb);
      }
      return true;
    }
    if ((segment.flags & flag.syn) !== 0) {
      context.admission.strange(strangeKind.syn, words, tcb.base + node.peerAddress, six, timeMs);
      this.challenge.send(tcb);
      return true;
    }
    if ((segment.flags & flag.ack) !== 0) return false;
    context.counters.add("layer2.tcp.drop.no-ack");
    return true;
  }

  /** RFC 7323 4.3. */
  private keepTimestamp(tcb: Tcb): void {
    const { segment, nowMs } = this.core;
    if (!tcb.timestamps || !segment.hasTimestamp) return;
    if (((segment.seq - tcb.lastAckSent) | 0) > 0) return;
    if (((segment.tsValue - tcb.tsRecent) | 0) < 0 && (nowMs - tcb.tsRecentMs) >>> 0 < recentValidMs) return;
    tcb.tsRecent = segment.tsValue;
    tcb.tsRecentMs = nowMs;
  }

  /** RFC 3168 6.1.3: a mark is echoed until the peer says that it has slowed down. */
  private noteEcn(tcb: Tcb, trafficClass: number): void {
    const { segment } = this.core;
    if ((segment.flags & flag.cwr) !== 0) tcb.ecnEcho = false;
    if ((trafficClass & ecnMask) !== ecnCe || segment.payloadLength === 0) return;
    tcb.ecnEcho = true;
    tcb.ackNow = true;
  }

  // --- payload --------------------------------------------------------------------------------------------------

  private take(tcb: Tcb, frame: number, words: Int32Array, at: number): void {
    const { core } = this;
    const { segment, context } = core;
    const { state } = tcb;
    const canReceive =
      state === tcpState.established || state === tcpState.finWait1 || state === tcpState.finWait2;
    if (!canReceive || tcb.finTaken) {
      context.pool.release(frame);
      return;
    }
    let { seq } = segment;
    let offset = segment.payloadAt - frame * smallFrameBytes;
    let length = segment.payloadLength;
    const old = (tcb.receiveNext - seq) | 0;
    if (old > 0) {
      this.noteDuplicate(tcb, seq, Math.min(old, length));
      if (old >= length) {
        context.pool.release(frame);
        return;
      }
      seq = tcb.receiveNext;
      offset += old;
      length -= old;
    }
    const over = (seq + length - tcb.receiveEdge) | 0;
    if (over > 0) {
      length -= over;
      if (length <= 0) {
        // A probe of a closed window.
        context.counters.add("layer2.tcp.drop.window");
        context.pool.release(frame);
        tcb.ackNow = true;
        return;
      }
    }
    const packet = descriptor.segmentBytesOf(words, at) || length;
    if (packet > tcb.receiveMss) tcb.receiveMss = packet;
    if (seq === tcb.receiveNext) this.inOrder(tcb, frame, offset, length);
    else this.early(tcb, seq, frame, offset, length);
  }

  private noteDuplicate(tcb: Tcb, seq: number, length: number): void {
    tcb.ackNow = true;
    if (!tcb.sack) return;
    tcb.hasDuplicate = true;
    tcb.duplicateStart = seq;
    tcb.duplicateEnd = (seq + length) | 0;
  }

  private inOrder(tcb: Tcb, frame: number, offset: number, length: number): void {
    tcb.receiveNext = (tcb.receiveNext + length) | 0;
    tcb.unackedBytes += length;
    // A hole is being filled: the sender must know at once (RFC 5681 4.2).
    if (tcb.reassembly.bytes > 0) tcb.ackNow = true;
    this.growBuffer(tcb, length);
    this.deliver(tcb, frame, offset, length);
    const { reassembly } = tcb;
    const { account } = this.core.context.admission;
    for (let before = reassembly.bytes; before > 0; before = reassembly.bytes) {
      const taken = reassembly.takeNext(tcb.receiveNext);
      // What overlaps is taken out with it.
      account.received -= before - reassembly.bytes;
      if (!taken) break;
      tcb.receiveNext = (tcb.receiveNext + reassembly.length) | 0;
      tcb.unackedBytes += reassembly.length;
      this.deliver(tcb, reassembly.frame, reassembly.offset, reassembly.length);
    }
  }

  private early(tcb: Tcb, seq: number, frame: number, offset: number, length: number): void {
    const { context, timeMs, words } = this.core;
    const { reassembly } = tcb;
    tcb.ackNow = true;
    if (!context.admission.memory(length)) {
      context.counters.add("layer2.tcp.drop.memory");
      context.pool.release(frame);
      return;
    }
    const before = reassembly.bytes;
    reassembly.maxBytes = Math.max(tcb.receiveBuffer, 65_536);
    const wastes =
      length > smallFrameBytes && length < scatteredBytes && context.pool.frameBytes(frame) > length;
    const result = wastes
      ? this.scatter(tcb, seq, frame, offset, length)
      : reassembly.insert(seq, frame, offset, length, tcb.receiveNext);
    context.admission.account.received += reassembly.bytes - before;
    if (result === inserted.duplicate) {
      // Of several pieces the last may have been new: a block of nothing tells nobody anything.
      if (!tcb.sack || reassembly.duplicateStart === reassembly.duplicateEnd) return;
      tcb.hasDuplicate = true;
      tcb.duplicateStart = reassembly.duplicateStart;
      tcb.duplicateEnd = reassembly.duplicateEnd;
    } else if (result === inserted.refused) {
      context.counters.add("layer2.tcp.drop.reassembly");
      // An honest peer on a bad path has many gaps, too, but of whole segments.
      if (4 * length > tcb.receiveMss) return;
      const six = tcb.version6 ? 4 : 1;
      context.admission.strange(strangeKind.gaps, words, tcb.base + node.peerAddress, six, timeMs);
    }
  }

  /**
   * Keeps early payload in small frames: a few segments that came as one would tie up a large frame, and the queue
   * would soon refuse the next. Answers as `insert` does, for the worst of the pieces.
   */
  private scatter(tcb: Tcb, seq: number, frame: number, offset: number, length: number): number {
    const { pool } = this.core.context;
    const from = frame * smallFrameBytes + offset;
    let worst: number = inserted.kept;
    for (let done = 0; done < length; done += smallFrameBytes) {
      const bytes = Math.min(smallFrameBytes, length - done);
      const own = pool.allocateFrame(false);
      if (own === 0) {
        worst = inserted.refused;
        break;
      }
      pool.copy(from + done, own * smallFrameBytes, bytes);
      const result = tcb.reassembly.insert((seq + done) | 0, own, 0, bytes, tcb.receiveNext);
      if (result > worst) worst = result;
    }
    pool.release(frame);
    return worst;
  }

  /** Hands payload to the events' side, or lets it wait. */
  private deliver(tcb: Tcb, frame: number, offset: number, length: number): void {
    const { context } = this.core;
    if (tcb.discarding) {
      context.counters.add("layer2.tcp.drop.unread", length);
      context.pool.release(frame);
      return;
    }
    if (!tcb.paused && tcb.unread.bytes === 0) {
      context.events.received(tcb, frame, offset, length);
      return;
    }
    context.admission.account.received += length;
    const { pool } = context;
    if (length < smallPayload && tcb.unread.append(frame, offset, length)) pool.release(frame);
    else tcb.unread.push(frame, offset, length);
  }

  /** What waited is delivered, until the events' side pauses again. */
  drain(tcb: Tcb): void {
    const { unread } = tcb;
    const { context } = this.core;
    while (!tcb.paused && !tcb.discarding && unread.shift()) {
      context.admission.account.received -= unread.length;
      context.events.received(tcb, unread.frame, unread.offset, unread.length);
      if (tcb.state === tcpState.closed) return;
    }
    if (tcb.discarding) {
      context.admission.account.received -= unread.bytes;
      unread.clear();
    }
    this.takeFin(tcb);
    this.core.markDirty(tcb);
  }

  /**
   * Dynamic right-sizing: a peer that fills half of the buffer in a round trip gets twice as much, up to `recvBuffer`,
   * but not one whose bytes nobody takes.
   */
  private growBuffer(tcb: Tcb, length: number): void {
    const { nowUs } = this.core;
    const most = tcb.options.recvBuffer;
    if (tcb.receiveBuffer >= most) return;
    tcb.roundBytes += length;
    const roundUs = Math.max(tcb.recovery.srttUs, 1000);
    if (2 * tcb.roundBytes >= tcb.receiveBuffer && 2 * tcb.unread.bytes < tcb.receiveBuffer) {
      tcb.receiveBuffer = Math.min(most, Math.max(2 * tcb.receiveBuffer, 2 * tcb.roundBytes));
      tcb.roundBytes = 0;
      tcb.roundStartedUs = nowUs;
    } else if (nowUs - tcb.roundStartedUs > roundUs) {
      tcb.roundBytes = 0;
      tcb.roundStartedUs = nowUs;
    }
  }

  // --- FIN ------------------------------------------------------------------------------------------------------

  private noteFin(tcb: Tcb): void {
    const { segment } = this.core;
    const finSeq = (segment.seq + segment.payloadLength) | 0;
    if (tcb.finTaken) {
      tcb.ackNow = true;
      return;
    }
    // One beyond the window is not taken (RFC 9293 3.10.7.4, eighth check).
    if (((finSeq - tcb.receiveEdge) | 0) > 0) return;
    if (tcb.hasFin && tcb.finSeq !== finSeq) return;
    tcb.hasFin = true;
    tcb.finSeq = finSeq;
    tcb.ackNow = true;
  }

  /** The peer's FIN is next, and all before it has been delivered. */
  takeFin(tcb: Tcb): void {
    if (!tcb.hasFin || tcb.finTaken || tcb.receiveNext !== tcb.finSeq) return;
    if (tcb.unread.bytes > 0 && !tcb.discarding) {
      // The FIN is acknowledged when the app's side has taken what stands before it.
      return;
    }
    const { core } = this;
    tcb.finTaken = true;
    tcb.receiveNext = (tcb.receiveNext + 1) | 0;
    tcb.ackNow = true;
    core.markDirty(tcb);
    if (tcb.state === tcpState.established) tcb.state = tcpState.closeWait;
    else if (tcb.state === tcpState.finWait1) tcb.state = tcpState.closing;
    else if (tcb.state === tcpState.finWait2) tcb.state = tcpState.timeWait;
    if (tcb.told && !tcb.ending) tcb.endAwaited = core.context.events.peerEnded(tcb) && !tcb.ending;
  }
}
