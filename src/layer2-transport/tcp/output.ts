/**
 * What a connection sends: retransmissions, new data, FIN, acknowledgements, window updates, resets.
 *
 * Layer 2, TCP (RFC 9293 3.8, RFC 1122 4.2.3.4, RFC 7323). Everything leaves at the end of a turn, so that an
 * acknowledgement rides on the answer to what it acknowledges, and data go out in super-packets of up to 64 KB.
 */

import type { StackCore } from "./core.ts";
import { frontBytes, headerRoom, PacketWriter, packetBytesMax } from "./packet-writer.ts";
import type { SentRun } from "./recovery/recovery.ts";
import { never, type Tcb, tcpState } from "./tcb.ts";
import { flag, timestampBytes, writeHeader, writeSacks, writeTimestamps } from "./wire/segment.ts";

/** Linux's least delay of an ACK; RFC 9293 3.8.6.3 allows 500 ms. */
const delayedAckUs = 40_000;
/** A corked tail leaves after this at the latest, as on Linux. */
const corkUs = 200_000;
/** Our timestamp clock moves at most so often while sending. */
const clockTickUs = 10_000;
/** How far it may run ahead of what the peer has echoed: PAWS there compares in 32 bits, of which 8 are the clock. */
const clockAheadMax = 127;
const firstProbeUs = 200_000;
const probeMaxUs = 60e6;
const ectZero = 2;

export class Output {
  readonly writer: PacketWriter;
  private readonly core: StackCore;
  private readonly blocks = new Int32Array(8);
  private readonly pureAcksPlace: number;

  constructor(core: StackCore) {
    this.core = core;
    this.writer = new PacketWriter(core.context.pool, core.context.output);
    this.pureAcksPlace = core.context.counters.placeOf("layer2.tcp.pure-acks");
  }

  /** Sends what may be sent now. False: no frame or no place in the ring was left; call again. */
  transmit(tcb: Tcb): boolean {
    const { state } = tcb;
    if (state < tcpState.established) return true;
    if (!this.retransmit(tcb)) return false;
    if (state !== tcpState.timeWait && !this.sendNew(tcb)) return false;
    if (this.wantsAck(tcb)) return this.sendAck(tcb);
    return true;
  }

  /** The allowance or the timer has named something lost. */
  private retransmit(tcb: Tcb): boolean {
    const { recovery } = tcb;
    for (let run = this.nextLost(tcb); run !== undefined; run = this.nextLost(tcb)) {
      const offset = (run.seq - tcb.sendUna) | 0;
      const length = Math.min(run.length, this.superBytes(tcb));
      this.advanceClock(tcb, true);
      if (!this.sendRange(tcb, offset, length)) return false;
      recovery.resent(run, length, tcb.clock, this.core.nowUs);
      this.core.context.counters.add("layer2.tcp.retransmits");
    }
    return true;
  }

  private nextLost(tcb: Tcb): SentRun | undefined {
    return tcb.recovery.nextLost(this.superBytes(tcb));
  }

  /** A tail loss probe without new data: the last of what is out goes out again. */
  probe(tcb: Tcb): boolean {
    const run = tcb.recovery.probeRun();
    if (run === undefined) return true;
    this.advanceClock(tcb, true);
    const length = Math.min(run.length, this.superBytes(tcb));
    if (!this.sendRange(tcb, (run.seq - tcb.sendUna) | 0, length)) return false;
    tcb.recovery.resent(run, length, tcb.clock, this.core.nowUs);
    this.core.context.counters.add("layer2.tcp.loss-probes");
    return true;
  }

  /** `force`: the probe of a window of 0, or the end of a cork: a byte at least, whatever else forbids it. */
  sendNew(tcb: Tcb, force = false): boolean {
    const { queue, recovery } = tcb;
    const { nowUs } = this.core;
    let forced = force;
    while (!tcb.finSent) {
      const offset = (tcb.sendNext - tcb.sendUna) | 0;
      const pending = queue.bytes - offset;
      if (pending <= 0 && !tcb.finWanted) break;
      const length = forced ? this.forcedBytes(tcb, pending, offset) : this.sendable(tcb, pending, offset);
      forced = false;
      // Without data a FIN goes out whatever the window says, as long as it is the next thing.
      const isLast = length === pending && tcb.finWanted;
      if (length < 0 || (length === 0 && !isLast)) break;
      this.advanceClock(tcb, false);
      if (!this.sendRange(tcb, offset, length + (isLast ? 1 : 0))) return false;
      const sent = length + (isLast ? 1 : 0);
      if (recovery.isEmpty) tcb.stalledSinceUs = nowUs;
      recovery.sent(tcb.sendNext, sent, tcb.clock, nowUs, length === pending && !tcb.finWanted);
      tcb.sendNext = (tcb.sendNext + sent) | 0;
      if (isLast) this.finGone(tcb);
    }
    this.armPersist(tcb);
    return true;
  }

  private finGone(tcb: Tcb): void {
    tcb.finSent = true;
    if (tcb.state === tcpState.established) tcb.state = tcpState.finWait1;
    else if (tcb.state === tcpState.closeWait) tcb.state = tcpState.lastAck;
  }

  /** Bytes of new data that may leave now: window, congestion, Nagle, cork, silly windows. */
  private sendable(tcb: Tcb, pending: number, offset: number): number {
    const { mss, options, recovery } = tcb;
    const usable = tcb.sendWindow - offset;
    const most = Math.min(pending, usable, recovery.allowance(this.core.nowUs), this.superBytes(tcb));
    if (most <= 0) return pending <= 0 ? 0 : -1;
    if (most < pending) {
      if (most >= mss) return most - (most % mss);
      // RFC 9293 3.8.6.2.1: a piece of the window, if that is half of the largest there ever was.
      const isWindow = usable < mss && usable <= most;
      return isWindow && 2 * usable >= tcb.maxSendWindow ? usable : -1;
    }
    const tail = most % mss;
    if (tail === 0 || tcb.finWanted) return most;
    const holdsBack = options.cork || (!options.nodelay && !recovery.isEmpty);
    if (!holdsBack) return most;
    return most > tail ? most - tail : -1;
  }

  private forcedBytes(tcb: Tcb, pending: number, offset: number): number {
    const usable = tcb.sendWindow - offset;
    if (pending <= 0) return 0;
    return Math.max(1, Math.min(pending, usable, tcb.mss));
  }

  /** Something waits and nothing is out that could bring an ACK: the window is asked after, later and later. */
  private armPersist(tcb: Tcb): void {
    const { nowUs } = this.core;
    const pending = tcb.queue.bytes - ((tcb.sendNext - tcb.sendUna) | 0);
    if (pending <= 0 || tcb.finSent || !tcb.recovery.isEmpty) {
      tcb.persistAtUs = never;
      if (pending <= 0) tcb.persistBackoff = 0;
      return;
    }
    if (tcb.persistAtUs !== never) return;
    const isCorked = tcb.options.cork && tcb.sendWindow > 0;
    const firstUs = isCorked ? corkUs : Math.max(firstProbeUs, tcb.recovery.rtoUs);
    tcb.persistAtUs = nowUs + Math.min(probeMaxUs, firstUs * 2 ** tcb.persistBackoff);
    if (!isCorked && tcb.stalledSinceUs === 0) tcb.stalledSinceUs = nowUs;
  }

  /** Bytes of a super-packet, in whole segments. A packet that carries CWR is one segment (RFC 3168 6.1.2). */
  private superBytes(tcb: Tcb): number {
    const { mss } = tcb;
    if (tcb.recovery.wantsCwr) return mss;
    const room = packetBytesMax - headerRoom(tcb.version6) - 40;
    return mss * Math.max(1, Math.floor(room / mss));
  }

  /** One packet with `length` bytes (a FIN counted) from `offset` behind SND.UNA on. */
  private sendRange(tcb: Tcb, offset: number, length: number): boolean {
    const { writer } = this;
    const { queue } = tcb;
    const data = Math.min(length, queue.bytes - offset);
    const fin = data < length;
    const blocks = this.sackBlocks(tcb);
    const optionBytes = (tcb.timestamps ? timestampBytes : 0) + (blocks > 0 ? 4 + 8 * blocks : 0);
    const headerBytes = 20 + optionBytes;
    const whole = data > 0 && !fin ? queue.whole(offset, data) : undefined;
    const inPlace = whole?.takeFront(frontBytes, this.core.context.pool) === true && data <= tcb.mss;
    if (inPlace && whole !== undefined) {
      writer.openAround(whole.frame, whole.offset, tcb.version6, headerBytes, data);
    } else {
      if (!writer.open(tcb.version6, headerBytes + data)) return false;
      if (data > 0) queue.copy(this.core.context.pool, offset, data, writer.tcpAt + headerBytes);
    }
    let flags: number = flag.ack;
    if (fin) flags |= flag.fin;
    if (data > 0 && offset + data === queue.bytes) flags |= flag.psh;
    if (tcb.ecn && tcb.ecnEcho) flags |= flag.ece;
    const isNew = ((tcb.sendUna + offset - tcb.sendNext) | 0) >= 0;
    if (tcb.recovery.wantsCwr && isNew && data > 0) {
      flags |= flag.cwr;
      tcb.recovery.wantsCwr = false;
    }
    this.writeTcp(tcb, (tcb.sendUna + offset) | 0, flags, blocks, headerBytes);
    const segment = tcb.mss - (blocks > 0 ? 4 + 8 * blocks : 0);
    const ect = tcb.ecn && data > 0 && isNew ? ectZero : 0;
    if (!this.post(tcb, data > segment ? segment : 0, ect)) return false;
    this.acknowledged(tcb);
    return true;
  }

  /** Addresses, header, timestamps and SACK blocks of the packet under way. */
  private writeTcp(tcb: Tcb, seq: number, flags: number, blocks: number, headerBytes: number): void {
    const { writer, core } = this;
    const { words } = core;
    const { bytes, tcpAt } = writer;
    writer.addresses(words, tcb.base);
    const ports = words[tcb.base + 8] as number;
    const window = this.windowField(tcb);
    writeHeader(bytes, tcpAt, ports & 0xffff, ports >>> 16, seq, tcb.receiveNext, flags, window, headerBytes);
    let at = tcpAt + 20;
    if (tcb.timestamps) at += writeTimestamps(bytes, at, this.timestampOf(tcb), tcb.tsRecent);
    if (blocks > 0) writeSacks(bytes, at, this.blocks, blocks);
  }

  private post(tcb: Tcb, segmentBytes: number, ect: number): boolean {
    const { options } = tcb;
    const label = tcb.version6 ? options.label || tcb.label : 0;
    return this.writer.post(segmentBytes, label, options.ttl, (options.dscp << 2) | ect);
  }

  /** A segment without data: an ACK, or a probe that lies before the window. */
  sendAck(tcb: Tcb, seq: number = tcb.sendNext): boolean {
    const blocks = this.sackBlocks(tcb);
    const headerBytes = 20 + (tcb.timestamps ? timestampBytes : 0) + (blocks > 0 ? 4 + 8 * blocks : 0);
    if (!this.writer.open(tcb.version6, headerBytes)) return false;
    const flags = flag.ack | (tcb.ecn && tcb.ecnEcho ? flag.ece : 0);
    this.writeTcp(tcb, seq, flags, blocks, headerBytes);
    if (!this.post(tcb, 0, 0)) return false;
    this.acknowledged(tcb);
    this.core.context.counters.addAt(this.pureAcksPlace, 1);
    return true;
  }

  /** Ends the connection at the peer. Not sent when there is no room: the peer finds out by itself. */
  sendReset(tcb: Tcb): void {
    const { writer, core } = this;
    const headerBytes = 20 + (tcb.timestamps ? timestampBytes : 0);
    if (!writer.open(tcb.version6, headerBytes)) return;
    this.writeTcp(tcb, tcb.sendNext, flag.rst | flag.ack, 0, headerBytes);
    this.post(tcb, 0, 0);
    core.context.counters.add("layer2.tcp.resets-sent");
  }

  /** What has been received is acknowledged by what has just been sent. */
  private acknowledged(tcb: Tcb): void {
    tcb.ackNow = false;
    tcb.unackedBytes = 0;
    tcb.delayedAckAtUs = never;
    tcb.lastAckSent = tcb.receiveNext;
    tcb.hasDuplicate = false;
  }

  private wantsAck(tcb: Tcb): boolean {
    if (tcb.ackNow) return true;
    if (tcb.unackedBytes > 0) {
      if (tcb.unackedBytes >= 2 * tcb.receiveMss || tcb.options.quickack) return true;
      if (tcb.quickAcks > 0) {
        tcb.quickAcks -= 1;
        return true;
      }
      if (tcb.delayedAckAtUs === never) tcb.delayedAckAtUs = this.core.nowUs + delayedAckUs;
    }
    return this.windowHasGrown(tcb);
  }

  /** RFC 9293 3.8.6.2.2: a window update is worth a packet when it offers half of the buffer, or two segments. */
  private windowHasGrown(tcb: Tcb): boolean {
    if (tcb.finTaken) return false;
    const offered = (tcb.receiveEdge - tcb.receiveNext) | 0;
    const free = this.freeBytes(tcb);
    if (free <= offered || offered >= 2 * tcb.receiveMss + (tcb.receiveBuffer >>> 2)) return false;
    return free - offered >= Math.min(tcb.receiveBuffer >>> 1, 2 * tcb.receiveMss);
  }

  private freeBytes(tcb: Tcb): number {
    return Math.max(0, tcb.receiveBuffer - tcb.unread.bytes);
  }

  /** The window as it goes on the wire. Its right edge never moves back (RFC 9293 3.8.6.2.2, RFC 7323 2.4). */
  private windowField(tcb: Tcb): number {
    const { receiveScale } = tcb;
    const offered = Math.max(0, (tcb.receiveEdge - tcb.receiveNext) | 0);
    const free = this.freeBytes(tcb);
    const step = Math.min(tcb.receiveBuffer >>> 1, tcb.receiveMss);
    const unit = 1 << receiveScale;
    const wanted = free >= offered + step ? Math.floor(free / unit) : Math.ceil(offered / unit);
    const field = Math.min(0xffff, wanted);
    const edge = (tcb.receiveNext + field * unit) | 0;
    if (((edge - tcb.receiveEdge) | 0) > 0) tcb.receiveEdge = edge;
    return field;
  }

  private sackBlocks(tcb: Tcb): number {
    if (!tcb.sack) return 0;
    const { blocks } = this;
    const most = tcb.timestamps ? 3 : 4;
    let count = 0;
    if (tcb.hasDuplicate) {
      // RFC 2883 4: what came twice stands first.
      blocks[0] = tcb.duplicateStart;
      blocks[1] = tcb.duplicateEnd;
      count = 1;
    }
    if (tcb.reassembly.bytes === 0) return count;
    const held = tcb.reassembly.sackBlocks(this.held);
    for (let i = 0; i < held && count < most; i += 1) {
      blocks[2 * count] = this.held[2 * i] as number;
      blocks[2 * count + 1] = this.held[2 * i + 1] as number;
      count += 1;
    }
    return count;
  }

  private readonly held = new Int32Array(8);

  /** TSval: 8 bits of clock above the connection's id, so that what is echoed finds it. */
  timestampOf(tcb: Tcb): number {
    const { carrier } = this.core.context;
    const id = tcb.quiet ? carrier.reservedId : carrier.wireId(tcb.sockfd24);
    return (tcb.clock << 24) | id;
  }

  /** The clock moves with what is sent, never with time that passes, and not past what PAWS at the peer takes. */
  advanceClock(tcb: Tcb, again: boolean): void {
    const { nowUs } = this.core;
    if (!again && nowUs - tcb.clockTickedUs < clockTickUs) return;
    if (((tcb.clock + 1 - tcb.echoedClock) & 0xff) > clockAheadMax) return;
    tcb.clock = (tcb.clock + 1) & 0xff;
    tcb.clockTickedUs = nowUs;
  }
}
