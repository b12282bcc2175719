/**
 * What the parts of a TCP stack share: the context, the time, the active records, and who has something to send.
 *
 * Layer 2, TCP. A record is found by the v-node's `active` word. Between turns nothing is dirty: `flush` has sent what
 * was due, put idle connections to rest and armed the timers of the others.
 */

import type { ErrorCode } from "../../layer1-app/errors.ts";
import type { CloseCode } from "../descriptor.ts";
import { node, nodeState } from "../nodes/v-node.ts";
import type { TcpContext } from "./context.ts";
import { defaultTcpOptions, type TcpOptions } from "./options.ts";
import { PortsInUse } from "./ports-in-use.ts";
import { never, Tcb, tcpState } from "./tcb.ts";
import { Segment } from "./wire/segment.ts";

/** Records kept for reuse; more than these are left to the collector. */
const spareRecords = 65_536;

/** What an active record takes, with its queues, in bytes (measured: 3 to 4 KiB). */
const recordBytes = 3840;

/** How the connections of one `opens` are treated. */
export interface Terms {
  readonly options: TcpOptions;
  /** Connections that have these terms; the terms are forgotten with the last when the `opens` is over. */
  users: number;
  closed: boolean;
}

export class StackCore {
  readonly context: TcpContext;
  /** The v-nodes' words. */
  readonly words: Int32Array;
  nowUs = 0;
  /** The same in whole milliseconds, */
  timeMs = 0;
  /** and as an int32 that wraps. */
  nowMs = 0;
  /** The segment at hand. */
  readonly segment = new Segment();
  readonly terms = new Map<number, Terms>();
  /** Options of single connections that differ from their terms. */
  readonly tuned = new Map<number, TcpOptions>();
  dirty: Tcb[] = [];
  activeCount = 0;
  halfOpenCount = 0;
  readonly portsInUse: PortsInUse;
  private readonly records: (Tcb | undefined)[] = [undefined];
  private readonly spare: Tcb[] = [];
  private readonly freeIndexes: number[] = [];

  constructor(context: TcpContext) {
    this.context = context;
    this.words = context.nodes.words;
    this.portsInUse = new PortsInUse(
      (port) => context.usePort(port),
      (port) => context.leavePort(port),
    );
  }

  setTime(nowUs: number): void {
    this.nowUs = nowUs;
    this.timeMs = Math.floor(nowUs / 1000);
    this.nowMs = this.timeMs | 0;
  }

  /** The active record of a v-node, if it has one. */
  activeAt(base: number): Tcb | undefined {
    const index = this.words[base + node.active] as number;
    return index <= 0 ? undefined : this.records[index];
  }

  /** One more than the highest index of a record. */
  get recordCount(): number {
    return this.records.length;
  }

  recordAt(index: number): Tcb | undefined {
    return this.records[index];
  }

  /** TCP has nothing more to do with the number, although an app may. */
  isOver(base: number): boolean {
    return (
      (this.words[base + node.active] as number) <= 0 &&
      ((this.words[base + node.tcp] as number) & 15) === tcpState.closed
    );
  }

  /** A fresh record for a v-node that has none. */
  activate(sockfd24: number, base: number): Tcb {
    let tcb = this.spare.pop();
    if (tcb === undefined) tcb = new Tcb(this.freeIndexes.pop() ?? this.records.length, this.context.pool);
    this.records[tcb.index] = tcb;
    this.activeCount += 1;
    tcb.sockfd24 = sockfd24;
    tcb.base = base;
    this.words[base + node.active] = tcb.index;
    this.context.admission.account.records += recordBytes;
    return tcb;
  }

  /** Gives a record back; its v-node is at rest, or free. */
  deactivate(tcb: Tcb): void {
    // At the end of a connection its number may be another's by now. At rest the word keeps the allowance of challenge
    // ACKs: one that began anew with each rest would be none.
    if (this.words[tcb.base + node.active] === tcb.index) {
      this.words[tcb.base + node.active] = tcb.challenge === 0 ? 0 : ~tcb.challenge;
    }
    this.activeCount -= 1;
    const { account } = this.context.admission;
    account.records -= recordBytes;
    account.received -= tcb.unread.bytes + tcb.reassembly.bytes;
    tcb.reset();
    this.records[tcb.index] = undefined;
    if (this.spare.length < spareRecords) this.spare.push(tcb);
    else this.freeIndexes.push(tcb.index);
  }

  /** Every active record, as they are now. */
  active(): Tcb[] {
    return this.records.filter((tcb) => tcb !== undefined);
  }

  markDirty(tcb: Tcb): void {
    if (tcb.dirty) return;
    tcb.dirty = true;
    this.dirty.push(tcb);
  }

  optionsOf(sockfd24: number, openId: number): TcpOptions {
    if (this.tuned.size > 0) {
      const own = this.tuned.get(sockfd24);
      if (own !== undefined) return own;
    }
    return this.terms.get(openId)?.options ?? defaultTcpOptions;
  }

  /** The earliest of the connection's deadlines. */
  deadlineOf(tcb: Tcb): number {
    let atUs = tcb.recovery.timerAtUs;
    if (tcb.delayedAckAtUs < atUs) atUs = tcb.delayedAckAtUs;
    if (tcb.persistAtUs < atUs) atUs = tcb.persistAtUs;
    if (tcb.handshakeAtUs < atUs) atUs = tcb.handshakeAtUs;
    if (tcb.connectUntilUs < atUs) atUs = tcb.connectUntilUs;
    if (tcb.keepaliveAtUs < atUs) atUs = tcb.keepaliveAtUs;
    if (tcb.closeAtUs < atUs) atUs = tcb.closeAtUs;
    return atUs;
  }

  arm(tcb: Tcb): void {
    const atUs = this.deadlineOf(tcb);
    // What is armed already and not needed any more is let pass: see `Timers`.
    if (atUs !== never) this.context.wheel.arm(tcb.sockfd24, Math.ceil(atUs / 1000) | 0);
  }

  /** Throws away what waits to be sent; the events' side hears of each container. */
  dropQueued(tcb: Tcb): void {
    const { events, admission } = this.context;
    admission.account.queued -= tcb.queue.bytes;
    for (let left = tcb.queue.takeAny(); left; left = tcb.queue.takeAny()) events.sent(tcb, left, false);
  }

  /** The connection is over for the app; TCP may still have a use for its number (TIME-WAIT). */
  tellEnded(tcb: Tcb, code: CloseCode, error?: ErrorCode): void {
    this.dropQueued(tcb);
    const { context } = this;
    if (tcb.connecting) {
      tcb.connecting = false;
      context.events.connectFailed(tcb, error ?? "ECONNRESET", failureText(error));
    } else if (tcb.told) {
      tcb.told = false;
      if (!tcb.isClient) {
        context.admission.closed(this.words, tcb.base + node.peerAddress, tcb.version6 ? 4 : 1);
      }
      context.events.ended(tcb, code, error);
    }
    tcb.connection = undefined;
  }

  /** Ends a connection altogether: its record and, once the app is through with it, its number are free. */
  finish(tcb: Tcb, code: CloseCode, error?: ErrorCode): void {
    const { sockfd24, base } = tcb;
    if (tcb.halfOpen) this.leaveHalfOpen(tcb);
    tcb.state = tcpState.closed;
    // First of all: whoever hears of the end may free the number at once, and it may be given out again.
    this.forget(sockfd24, base, tcb.openId);
    this.words[base + node.active] = 0;
    const generation = this.words[base + node.generation];
    this.tellEnded(tcb, code, error);
    this.deactivate(tcb);
    const isSame = this.words[base + node.generation] === generation;
    if (isSame && this.words[base + node.state] === nodeState.transport) this.context.nodes.release(sockfd24);
  }

  /** Takes a connection out of every table but the v-nodes'. */
  forget(sockfd24: number, base: number, openId: number): void {
    const { context, words } = this;
    context.wheel.cancel(sockfd24);
    this.unindex(sockfd24, base);
    words[base + node.tcp] = 0;
    if (this.tuned.size > 0) this.tuned.delete(sockfd24);
    const terms = this.terms.get(openId);
    if (terms === undefined) return;
    terms.users -= 1;
    if (terms.closed && terms.users === 0) this.terms.delete(openId);
  }

  /** The first acknowledgement of a connection that stood before its handshake was complete. */
  completeHandshake(tcb: Tcb): void {
    tcb.synAckOut = false;
    tcb.handshakeAtUs = never;
    if (tcb.halfOpen) this.leaveHalfOpen(tcb);
  }

  leaveHalfOpen(tcb: Tcb): void {
    tcb.halfOpen = false;
    this.halfOpenCount -= 1;
    if (tcb.listener !== undefined) tcb.listener.halfOpen -= 1;
  }

  /** The flow label of what an accepted connection sends: its slot, so that a reflecting peer returns it. */
  labelOf(tcb: Tcb): number {
    return tcb.version6 ? this.context.carrier.labelOf(tcb.sockfd24 & 0xfffff) : 0;
  }

  /** Set by the stack: takes a flow out of the index that it is in, and lets go of a client's port. */
  unindex: (sockfd24: number, base: number) => void = () => {};
}

function failureText(error: ErrorCode | undefined): string {
  if (error === "ECONNREFUSED") return "the peer refuses (nobody listens there)";
  if (error === "ETIMEDOUT") return "no answer came in time";
  if (error === "EHOSTUNREACH") return "the peer cannot be reached";
  return "the peer reset the connection";
}
