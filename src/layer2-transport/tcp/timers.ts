/**
 * What is done when a connection's time has come: one entry in the wheel stands for all of its deadlines.
 *
 * Layer 2, TCP (RFC 9293 3.8.1, 3.8.3, 3.8.4, 3.8.6.1; RFC 1122 4.2.3.5 and 4.2.3.6). The entry may be too early,
 * since deadlines that move later do not move it; then it is armed anew.
 */

import { node } from "../nodes/v-node.ts";
import type { Closing } from "./closing.ts";
import type { StackCore } from "./core.ts";
import type { Handshake } from "./handshake.ts";
import { narrowPath } from "./icmp-errors.ts";
import type { Output } from "./output.ts";
import type { Rest } from "./rest.ts";
import { never, type Tcb, tcpState } from "./tcb.ts";

/** Timeouts in a row after which the path is suspected of swallowing long packets. */
const blackholeBackoffs = 3;
/** Linux: tcp_base_mss. */
const searchMss = 1024;

export class Timers {
  readonly expire: (sockfd24: number) => void;
  private readonly core: StackCore;
  private readonly output: Output;
  private readonly rest: Rest;
  private readonly handshake: Handshake;
  private readonly closing: Closing;

  constructor(core: StackCore, output: Output, rest: Rest, handshake: Handshake, closing: Closing) {
    this.core = core;
    this.output = output;
    this.rest = rest;
    this.handshake = handshake;
    this.closing = closing;
    this.expire = (sockfd24) => this.expired(sockfd24);
  }

  private expired(sockfd24: number): void {
    const { core } = this;
    const base = core.context.nodes.baseOf(sockfd24);
    const active = core.activeAt(base);
    if (active !== undefined) {
      this.run(active);
      return;
    }
    const state = (core.words[base + node.tcp] as number) & 15;
    if (state === tcpState.timeWait || state === tcpState.closed) this.closing.expire(sockfd24, base);
    else if (state === tcpState.finWait2) this.finWait2(sockfd24, base);
    // What else can be due of a connection at rest? Most entries here are left over from when it was not.
    else if (core.optionsOf(sockfd24, core.words[base + node.open] as number).keepalive) {
      this.run(this.rest.wake(sockfd24, base));
    }
  }

  /** The peer had long enough for its FIN. */
  private finWait2(sockfd24: number, base: number): void {
    const tcb = this.rest.wake(sockfd24, base);
    if (tcb.ending) this.core.finish(tcb, "end");
    else this.core.markDirty(tcb);
  }

  private run(tcb: Tcb): void {
    const { core } = this;
    const { nowUs } = core;
    core.markDirty(tcb);
    if (tcb.handshakeAtUs <= nowUs || tcb.connectUntilUs <= nowUs) {
      this.handshake.timeout(tcb);
      if (tcb.state === tcpState.closed) return;
    }
    if (tcb.closeAtUs <= nowUs) {
      this.closing.abort(tcb, tcb.state !== tcpState.finWait2, "end");
      return;
    }
    if (tcb.delayedAckAtUs <= nowUs) {
      tcb.delayedAckAtUs = never;
      tcb.ackNow = true;
      core.context.counters.add("layer2.tcp.delayed-acks");
    }
    if (tcb.recovery.timerAtUs <= nowUs && this.recovery(tcb)) return;
    if (tcb.persistAtUs <= nowUs && this.persist(tcb)) return;
    if (tcb.keepaliveAtUs <= nowUs) this.keepalive(tcb);
  }

  /** Retransmission, tail loss probe, reordering. True: the connection is over. */
  private recovery(tcb: Tcb): boolean {
    const { core } = this;
    const { timeouts } = tcb.recovery;
    const what = tcb.recovery.onTimer(core.nowUs);
    if (what === "none") return false;
    if (this.isDead(tcb)) return true;
    if (what === "retransmit") {
      // RACK's waiting for what is late ends here too.
      if (tcb.recovery.timeouts > timeouts) core.context.counters.add("layer2.tcp.timeouts");
      this.suspectPath(tcb);
      return false;
    }
    const before = tcb.sendNext;
    this.output.sendNew(tcb);
    if (tcb.sendNext === before) this.output.probe(tcb);
    return false;
  }

  /**
   * Full segments that time out again and again may be too long for the path without anybody saying so (RFC 8899 1.1,
   * RFC 4821 7.7): they become as short as Linux's search begins with.
   */
  private suspectPath(tcb: Tcb): void {
    if (tcb.doubtfulMss > 0 && tcb.recovery.backoffs > 0) {
      // Nothing gets through any more: what an ICMP error said is true.
      narrowPath(this.core, tcb, Math.min(tcb.mss, tcb.doubtfulMss));
      return;
    }
    if (tcb.recovery.backoffs !== blackholeBackoffs || tcb.mss <= searchMss) return;
    const out = (tcb.sendNext - tcb.sendUna) | 0;
    // Whatever is out in shorter segments than these cannot be too long.
    if (out <= searchMss) return;
    tcb.peerMss = Math.min(tcb.peerMss, searchMss);
    tcb.mss = searchMss;
    tcb.recovery.setMss(searchMss);
    this.core.context.counters.add("layer2.tcp.path-mtu-changes");
  }

  /** Whether what is out has been without an answer for too long; ends the connection then. */
  private isDead(tcb: Tcb): boolean {
    const { core } = this;
    const { userTimeoutMs, maxRetries } = tcb.options;
    const stalledUs = tcb.stalledSinceUs === 0 ? 0 : core.nowUs - tcb.stalledSinceUs;
    const isLate = userTimeoutMs > 0 ? stalledUs >= 1000 * userTimeoutMs : tcb.recovery.backoffs > maxRetries;
    if (!isLate) return false;
    core.context.counters.add("layer2.tcp.timed-out");
    this.closing.abort(tcb, true, "timeout", "ETIMEDOUT");
    return true;
  }

  /** The window is closed: one byte of what waits asks after it (RFC 9293 3.8.6.1). True: the connection is over. */
  private persist(tcb: Tcb): boolean {
    const { core } = this;
    tcb.persistAtUs = never;
    const { userTimeoutMs, maxRetries } = tcb.options;
    const stalledUs = tcb.stalledSinceUs === 0 ? 0 : core.nowUs - tcb.stalledSinceUs;
    // A peer that answers probes is alive, however long its window stays closed; one that does not is not.
    if (tcb.probes > maxRetries || (userTimeoutMs > 0 && stalledUs >= 1000 * userTimeoutMs)) {
      core.context.counters.add("layer2.tcp.timed-out");
      this.closing.abort(tcb, true, "timeout", "ETIMEDOUT");
      return true;
    }
    if (tcb.sendWindow > ((tcb.sendNext - tcb.sendUna) | 0)) {
      this.output.sendNew(tcb, true);
      return false;
    }
    // As Linux: an old byte, that is answered at once and takes no place in the window.
    core.context.counters.add("layer2.tcp.window-probes");
    this.output.advanceClock(tcb, true);
    this.output.sendAck(tcb, (tcb.sendUna - 1) | 0);
    tcb.probes += 1;
    tcb.persistBackoff = Math.min(tcb.persistBackoff + 1, 30);
    return false;
  }

  /** RFC 9293 3.8.4: is the peer there still? */
  private keepalive(tcb: Tcb): void {
    const { core } = this;
    const { keepaliveIdleMs, keepaliveIntervalMs, keepaliveProbes } = tcb.options;
    const idleAtUs = tcb.lastHeardUs + 1000 * keepaliveIdleMs;
    if (core.nowUs < idleAtUs || !tcb.recovery.isEmpty) {
      tcb.probes = 0;
      tcb.keepaliveAtUs = Math.max(idleAtUs, core.nowUs + 1000 * keepaliveIntervalMs);
      return;
    }
    if (tcb.probes >= keepaliveProbes) {
      core.context.counters.add("layer2.tcp.timed-out");
      this.closing.abort(tcb, true, "timeout", "ETIMEDOUT");
      return;
    }
    tcb.probes += 1;
    core.context.counters.add("layer2.tcp.keepalive-probes");
    this.output.advanceClock(tcb, true);
    this.output.sendAck(tcb, (tcb.sendUna - 1) | 0);
    tcb.keepaliveAtUs = core.nowUs + 1000 * keepaliveIntervalMs;
  }
}
