/**
 * What an acknowledgement brings: bytes off the send queue, round trips, the peer's window, the end of our FIN.
 *
 * Layer 2, TCP (RFC 9293 3.10.7.4 "ESTABLISHED: ACK bit", RFC 5961 5.2). Loss and congestion are recovery's matter.
 */

import { node } from "../nodes/v-node.ts";
import { strangeKind } from "./admission.ts";
import type { Challenge } from "./challenge.ts";
import type { StackCore } from "./core.ts";
import { AckFacts } from "./recovery/recovery.ts";
import { never, type Tcb, tcpState } from "./tcb.ts";
import { flag } from "./wire/segment.ts";

export class Acknowledger {
  private readonly core: StackCore;
  private readonly challenge: Challenge;
  private readonly facts = new AckFacts();

  constructor(core: StackCore, challenge: Challenge) {
    this.core = core;
    this.challenge = challenge;
  }

  /** Takes the ACK of the segment at hand. False: it is not acceptable, the segment is dropped. */
  accept(tcb: Tcb, receivedUs: number): boolean {
    const { segment, context, words, timeMs } = this.core;
    const beyond = (segment.ack - tcb.sendNext) | 0;
    const behind = (tcb.sendUna - segment.ack) | 0;
    if (beyond > 0 || behind > tcb.maxSendWindow) {
      context.counters.add("layer2.tcp.drop.bad-ack");
      const six = tcb.version6 ? 4 : 1;
      context.admission.strange(strangeKind.badAck, words, tcb.base + node.peerAddress, six, timeMs);
      this.challenge.send(tcb);
      return false;
    }
    if (tcb.synAckOut) this.core.completeHandshake(tcb);
    if (tcb.timestamps && segment.hasTimestamp) this.takeEcho(tcb);
    const windowChanged = this.takeWindow(tcb);
    const before = tcb.sendUna;
    // With nothing out a D-SACK may still say that what went out again had arrived before (RFC 2883).
    if (!tcb.recovery.isEmpty || segment.sackCount > 0) this.tellRecovery(tcb, windowChanged, receivedUs);
    const acked = behind >= 0 ? 0 : -behind;
    if (acked > 0) this.advance(tcb, before, acked);
    return true;
  }

  private takeEcho(tcb: Tcb): void {
    const echoed = this.core.segment.tsEcho >>> 24;
    // Never back: an old segment echoes an old clock.
    const ahead = (echoed - tcb.echoedClock) & 0xff;
    if (ahead !== 0 && ahead <= ((tcb.clock - tcb.echoedClock) & 0xff)) tcb.echoedClock = echoed;
  }

  /** RFC 9293 3.10.7.4: only a segment newer than the last one that told the window may tell it anew. */
  private takeWindow(tcb: Tcb): boolean {
    const { segment } = this.core;
    const newer = (segment.seq - tcb.sendWl1) | 0;
    const newerAck = (segment.ack - tcb.sendWl2) | 0;
    if (newer < 0 || (newer === 0 && newerAck < 0)) return false;
    const window = segment.window << tcb.sendScale;
    tcb.sendWl1 = segment.seq;
    tcb.sendWl2 = segment.ack;
    if (window === tcb.sendWindow) return false;
    if (tcb.sendWindow === 0) {
      tcb.persistAtUs = never;
      tcb.persistBackoff = 0;
    }
    tcb.sendWindow = window;
    if (window > tcb.maxSendWindow) tcb.maxSendWindow = window;
    return true;
  }

  private tellRecovery(tcb: Tcb, windowChanged: boolean, receivedUs: number): void {
    const { segment, nowUs } = this.core;
    const { facts } = this;
    facts.ack = segment.ack;
    facts.sackCount = 0;
    if (tcb.sack && segment.sackCount > 0) {
      facts.sackCount = segment.sackCount;
      facts.sacks.set(segment.sacks);
    }
    facts.window = tcb.sendWindow;
    facts.windowChanged = windowChanged;
    facts.hasPayload = segment.payloadLength > 0;
    facts.echoClock = tcb.timestamps && segment.hasTimestamp ? segment.tsEcho >>> 24 : -1;
    facts.ece = tcb.ecn && (segment.flags & flag.ece) !== 0;
    facts.receivedUs = receivedUs;
    facts.nowUs = nowUs;
    tcb.recovery.acked(facts);
  }

  /** SND.UNA moves. */
  private advance(tcb: Tcb, before: number, acked: number): void {
    const { core } = this;
    const { events, admission } = core.context;
    tcb.sendUna = (before + acked) | 0;
    // Progress: segments as long as these do get through, whatever an ICMP error says (RFC 5927 7.2).
    if (acked >= tcb.mss) tcb.provenMss = tcb.mss;
    tcb.doubtfulMss = 0;
    const finAcked = tcb.finSent && tcb.sendUna === tcb.sendNext;
    const data = finAcked ? acked - 1 : acked;
    tcb.queue.acked(data);
    admission.account.queued -= data;
    for (let done = tcb.queue.takeDone(); done; done = tcb.queue.takeDone()) events.sent(tcb, done, true);
    tcb.stalledSinceUs = tcb.sendUna === tcb.sendNext ? 0 : core.nowUs;
    tcb.persistAtUs = never;
    tcb.persistBackoff = 0;
    if (finAcked) this.finAcknowledged(tcb);
  }

  private finAcknowledged(tcb: Tcb): void {
    if (tcb.state === tcpState.finWait1) {
      tcb.state = tcpState.finWait2;
      // A half-closed connection may go on for ever; one that the app has ended may not.
      if (tcb.ending) tcb.closeAtUs = this.core.nowUs + 1000 * tcb.options.finTimeoutMs;
    } else if (tcb.state === tcpState.closing) tcb.state = tcpState.timeWait;
    else if (tcb.state === tcpState.lastAck) tcb.state = tcpState.closed;
  }
}
