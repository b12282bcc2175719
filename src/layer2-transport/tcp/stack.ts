/**
 * A TCP stack: segments in, segments out, connections by number. One a worker.
 *
 * Layer 2. The face of this folder, and the order of a turn: `turn` (time), `input` for every segment, the
 * calls of the app's side, `flush`. It reads no clock and draws no number by itself, so that two of them and a wire run
 * in virtual time from a seed. What happens to a connection is in the files that this one puts together.
 */

import { ApoError, type ErrorCode } from "../../layer1-app/errors.ts";
import * as descriptor from "../../layer3-ip/descriptor.ts";
import type { Container } from "../container.ts";
import type { CloseCode } from "../descriptor.ts";
import type { HolderVisitor } from "../guard/evictor.ts";
import { smallFrameBytes } from "../link.ts";
import { ClientIndex } from "../nodes/client-index.ts";
import { node, nodeState } from "../nodes/v-node.ts";
import { Acknowledger } from "./acknowledge.ts";
import { strangeKind } from "./admission.ts";
import { Challenge } from "./challenge.ts";
import { Closing } from "./closing.ts";
import { Connecting, type ConnectTarget } from "./connecting.ts";
import type { TcpContext } from "./context.ts";
import { StackCore } from "./core.ts";
import { EarlyData } from "./early-data.ts";
import { Finder } from "./finder.ts";
import { Handshake } from "./handshake.ts";
import { IcmpErrors } from "./icmp-errors.ts";
import { infoAtRest, infoOf, type TcpInfo } from "./info.ts";
import { invariantsOf } from "./invariants.ts";
import type { TcpOptions } from "./options.ts";
import { Output } from "./output.ts";
import { Receiver } from "./receiver.ts";
import { Replies } from "./replies.ts";
import { Rest } from "./rest.ts";
import { InitialSequence } from "./security/initial-sequence.ts";
import { SynCookies } from "./security/syn-cookie.ts";
import { never, type Tcb, type TcpListener, tcpState } from "./tcb.ts";
import { Timers } from "./timers.ts";
import { flag, parseSegment } from "./wire/segment.ts";

export class TcpStack {
  private readonly core: StackCore;
  private readonly clients: ClientIndex;
  private readonly finder: Finder;
  private readonly output: Output;
  private readonly rest: Rest;
  private readonly replies: Replies;
  private readonly closing: Closing;
  private readonly handshake: Handshake;
  private readonly receiver: Receiver;
  private readonly timers: Timers;
  private readonly connecting: Connecting;
  private readonly icmpErrors: IcmpErrors;
  /** By port; nearly always one. */
  private readonly listeners = new Map<number, TcpListener[]>();
  /** The last flush found no frame or no place in the ring. */
  private blocked = false;

  constructor(context: TcpContext) {
    const core = new StackCore(context);
    this.core = core;
    this.clients = new ClientIndex(context.addresses, context.prefixes);
    this.finder = new Finder(core, this.clients);
    this.output = new Output(core);
    this.rest = new Rest(core);
    this.closing = new Closing(core, this.output, this.rest);
    const key = (): Uint32Array => Uint32Array.from([0, 0, 0, 0], () => context.random.word() >>> 0);
    this.replies = new Replies(core, this.finder, this.output.writer, new SynCookies(key()));
    const { output, rest, finder, replies, closing } = this;
    const sequence = context.initialSequence ?? new InitialSequence(key());
    const challenge = new Challenge(core);
    const early = new EarlyData(core, key());
    this.handshake = new Handshake({
      early,
      core,
      output,
      rest,
      finder,
      replies,
      closing,
      sequence,
      challenge,
    });
    this.receiver = new Receiver(core, new Acknowledger(core, challenge), challenge);
    this.timers = new Timers(core, output, rest, this.handshake, closing);
    this.connecting = new Connecting(core, this.clients, this.handshake, sequence, key());
    this.icmpErrors = new IcmpErrors(core, finder, closing);
    core.unindex = (sockfd24, base) => this.connecting.unindex(sockfd24, base);
  }

  get nowUs(): number {
    return this.core.nowUs;
  }

  /** Connections that have a record. */
  get activeCount(): number {
    return this.core.activeCount;
  }

  get halfOpenCount(): number {
    return this.core.halfOpenCount;
  }

  /** When `turn` must be called at the latest. */
  get nextDeadlineUs(): number {
    if (this.blocked || this.core.dirty.length > 0) return this.core.nowUs;
    const { wheel } = this.core.context;
    if (wheel.armedCount === 0) return never;
    return this.core.nowUs + 1000 * Math.max(0, (wheel.nextMs() - this.core.nowMs) | 0);
  }

  // --- a turn ---------------------------------------------------------------------------------------------------

  /** Begins a turn: the time is `nowUs` until the next one. */
  turn(nowUs: number): void {
    this.core.setTime(nowUs);
  }

  /** One received segment. Takes over one count of its frame. */
  input(words: Int32Array, at: number): void {
    const { core, finder } = this;
    const { pool, counters, nodes } = core.context;
    const frame = descriptor.frameOf(words, at);
    const upperOffset = descriptor.upperOffsetOf(words, at);
    const length = descriptor.packetOffsetOf(words, at) + descriptor.lengthOf(words, at) - upperOffset;
    if (!parseSegment(pool.bytes, frame * smallFrameBytes + upperOffset, length, core.segment)) {
      counters.add("layer2.tcp.drop.malformed");
      pool.release(frame);
      return;
    }
    finder.read(words, at);
    const sockfd24 = finder.find();
    if (sockfd24 < 0) {
      this.stranger(words, at);
      return;
    }
    const base = nodes.baseOf(sockfd24);
    let tcb = core.activeAt(base);
    if (tcb === undefined) {
      const state = (core.words[base + node.tcp] as number) & 15;
      if (state === tcpState.timeWait) {
        this.inTimeWait(sockfd24, base, words, at);
        return;
      }
      tcb = this.rest.wake(sockfd24, base);
    }
    if (tcb.state >= tcpState.established) {
      this.receiver.receive(tcb, words, at);
    } else if (tcb.state === tcpState.synReceived && this.handshake.answersCookie(tcb)) {
      this.closing.abort(tcb, false);
      this.stranger(words, at);
    } else if (tcb.state === tcpState.synReceived && this.handshake.synReceived(tcb)) {
      this.receiver.receive(tcb, words, at);
    } else {
      if (tcb.state === tcpState.synSent) this.handshake.synSent(tcb);
      pool.release(frame);
    }
  }

  /** An ICMP error about a segment of ours. Its frame stays the caller's. */
  icmp(words: Int32Array, at: number): void {
    this.icmpErrors.take(words, at);
  }

  /** Does what is due by now and sends what the turn has made due; connections with nothing to do go to rest. */
  flush(): void {
    const { core } = this;
    const { dirty } = core;
    // After what has come: an ACK that waited while we were late is no reason to send again.
    core.context.wheel.advance(core.nowMs, this.timers.expire);
    this.blocked = false;
    let kept = 0;
    for (let i = 0; i < dirty.length; i += 1) {
      const tcb = dirty[i] as Tcb;
      if (!tcb.dirty) continue;
      tcb.dirty = false;
      if (this.settle(tcb)) continue;
      tcb.dirty = true;
      dirty[kept] = tcb;
      kept += 1;
      this.blocked = true;
    }
    dirty.length = kept;
    const { writer } = this.output;
    if (writer.framesMissed === 0) return;
    core.context.counters.add("layer2.tcp.frames-missed", writer.framesMissed);
    writer.framesMissed = 0;
  }

  /** False: no room, try again. */
  private settle(tcb: Tcb): boolean {
    const { core, rest } = this;
    if (tcb.handshakeAtUs === 0) {
      if (!this.handshake.sendSyn(tcb)) return false;
      if (tcb.synAckOut && !this.output.transmit(tcb)) return false;
    } else if (!this.output.transmit(tcb)) return false;
    if (tcb.state === tcpState.timeWait) {
      // After a half-close somebody may still be busy with what came before the peer's FIN.
      if (tcb.endAwaited) core.arm(tcb);
      else this.closing.timeWait(tcb);
    } else if (rest.mayRest(tcb)) {
      const atUs = core.deadlineOf(tcb);
      const { sockfd24 } = tcb;
      rest.rest(tcb);
      // An entry that is armed already stays: to take it out costs its neighbours' memory, to let it pass costs nothing
      // that lasts.
      if (atUs !== never) core.context.wheel.arm(sockfd24, Math.ceil(atUs / 1000) | 0);
    } else {
      core.arm(tcb);
    }
    return true;
  }

  // --- segments of nobody ---------------------------------------------------------------------------------------

  private stranger(words: Int32Array, at: number): void {
    const { core, finder } = this;
    const { segment, context } = core;
    const { pool, counters, admission } = context;
    const frame = descriptor.frameOf(words, at);
    const hopLimit = descriptor.hopLimitOf(words, at);
    const listener = this.listenerFor(segment.destinationPort);
    const flags = segment.flags & (flag.syn | flag.ack | flag.rst | flag.fin);
    if (listener !== undefined && flags === flag.syn) {
      this.handshake.listen(listener, hopLimit);
      if (this.handshake.hasEarlyData) {
        this.handshake.hasEarlyData = false;
        const sockfd24 = finder.find();
        const tcb = sockfd24 < 0 ? undefined : core.activeAt(context.nodes.baseOf(sockfd24));
        if (tcb !== undefined) {
          this.receiver.receiveEarly(tcb, words, at);
          return;
        }
      }
    } else if (listener !== undefined && (flags & ~flag.fin) === flag.ack && this.cookieCame(listener)) {
      const sockfd24 = finder.find();
      const tcb = sockfd24 < 0 ? undefined : core.activeAt(context.nodes.baseOf(sockfd24));
      if (tcb !== undefined && tcb.state === tcpState.established) {
        this.receiver.receive(tcb, words, at);
        return;
      }
    } else if (listener !== undefined && (flags & flag.ack) === 0) {
      // RFC 9293 3.10.7.2: neither a plain SYN nor an acknowledgement of anything: a listener says nothing to that.
      if ((flags & flag.rst) !== 0) {
        admission.strange(strangeKind.rst, finder.ends, 0, finder.wordCount, core.timeMs, hopLimit);
      }
      counters.add("layer2.drop.no-connection");
    } else {
      const isReset = (flags & flag.rst) !== 0;
      const kind = isReset ? strangeKind.rst : strangeKind.ack;
      admission.strange(kind, finder.ends, 0, finder.wordCount, core.timeMs, hopLimit);
      counters.add("layer2.drop.no-connection");
      this.replies.reset();
    }
    pool.release(frame);
  }

  /** Whether the ACK at hand brings a cookie of ours; then its connection stands. */
  private cookieCame(listener: TcpListener): boolean {
    const mss = this.replies.checkCookie();
    if (mss === 0) return false;
    return this.handshake.fromCookie(listener, mss);
  }

  private listenerFor(port: number): TcpListener | undefined {
    const listeners = this.listeners.get(port);
    if (listeners === undefined) return undefined;
    const { ends, wordCount } = this.finder;
    for (const listener of listeners) {
      if (listener.words === undefined) return listener;
      if (listener.wordCount !== wordCount) continue;
      let same = true;
      for (let i = 0; i < wordCount; i += 1) same = same && listener.words[i] === ends[4 + i];
      if (same) return listener;
    }
    return undefined;
  }

  /** RFC 9293 3.10.7.4, RFC 1337 (resets are ignored), RFC 6191 (a newer SYN takes the number's place). */
  private inTimeWait(sockfd24: number, base: number, words: Int32Array, at: number): void {
    const { core } = this;
    const { segment, context } = core;
    const frame = descriptor.frameOf(words, at);
    const isSyn = (segment.flags & (flag.syn | flag.ack | flag.rst)) === flag.syn;
    if ((segment.flags & flag.rst) !== 0) {
      context.counters.add("layer2.tcp.drop.time-wait-reset");
    } else if (isSyn && this.isNewer(base)) {
      this.closing.expire(sockfd24, base);
      this.stranger(words, at);
      return;
    } else if (segment.payloadLength > 0 || (segment.flags & (flag.fin | flag.syn)) !== 0) {
      const tcb = this.rest.wake(sockfd24, base);
      tcb.ackNow = true;
      core.markDirty(tcb);
    }
    context.pool.release(frame);
  }

  private isNewer(base: number): boolean {
    const { segment, words } = this.core;
    const hadTimestamps = ((words[base + node.terms] as number) & 1) !== 0;
    const newer = ((segment.seq - (words[base + node.receiveNext] as number)) | 0) > 0;
    if (!hadTimestamps || !segment.hasTimestamp) return newer;
    const step = (segment.tsValue - (words[base + node.tsRecent] as number)) | 0;
    return step > 0 || (step === 0 && newer);
  }

  // --- the app's side -------------------------------------------------------------------------------------------

  /** Throws `EADDRINUSE`. */
  listen(listener: TcpListener): void {
    const others = this.listeners.get(listener.port) ?? [];
    const overlaps = others.some((other) => {
      if (other.words === undefined || listener.words === undefined) return true;
      return (
        other.wordCount === listener.wordCount && other.words.every((word, i) => word === listener.words?.[i])
      );
    });
    if (overlaps) throw new ApoError("EADDRINUSE", `tcp port ${listener.port} has a listener already`);
    this.core.portsInUse.listen(listener.port);
    this.listeners.set(listener.port, [...others, listener]);
    this.setTerms(listener.id, listener.options);
  }

  /** Stops accepting; half-open connections are forgotten, those that stand go on. */
  unlisten(id: number): void {
    const { core } = this;
    for (const [port, listeners] of this.listeners) {
      const left = listeners.filter((listener) => listener.id !== id);
      if (left.length === listeners.length) continue;
      if (left.length > 0) this.listeners.set(port, left);
      else this.listeners.delete(port);
      // Connections of the port go on using it.
      core.portsInUse.unlisten(port);
    }
    if (core.halfOpenCount > 0) {
      for (const tcb of core.active()) {
        if (tcb.halfOpen && tcb.openId === id) this.closing.abort(tcb, true);
      }
    }
    this.closeTerms(id);
  }

  /** How the connections of an `opens` are treated. */
  setTerms(openId: number, options: TcpOptions): void {
    if (!this.core.terms.has(openId)) this.core.terms.set(openId, { options, users: 0, closed: false });
  }

  closeTerms(openId: number): void {
    const terms = this.core.terms.get(openId);
    if (terms === undefined) return;
    terms.closed = true;
    if (terms.users === 0) this.core.terms.delete(openId);
  }

  /**
   * Begins a connection. Returns its sockfd24; -1: no number, no port, or no memory is left. `connected` or
   * `connectFailed` follows, never from within this call.
   */
  connect(target: ConnectTarget): number {
    return this.connecting.connect(target);
  }

  /** The connection's record, woken if it is at rest; undefined: there is none that an app could name. */
  find(sockfd24: number): Tcb | undefined {
    const { core } = this;
    if (!core.context.nodes.owns(sockfd24 >>> 20)) return undefined;
    const base = core.context.nodes.baseOf(sockfd24);
    if (core.words[base + node.state] !== nodeState.open || core.isOver(base)) return undefined;
    return this.rest.wake(sockfd24, base);
  }

  send(tcb: Tcb, container: Container): void {
    const { core } = this;
    if (tcb.finWanted || tcb.state === tcpState.closed) {
      core.context.events.sent(tcb, container, false);
      return;
    }
    if (container.length === 0) {
      core.context.events.sent(tcb, container, true);
      return;
    }
    core.context.admission.account.queued += container.length;
    tcb.queue.push(container);
    core.markDirty(tcb);
  }

  /** Nothing more will be sent; receiving goes on. */
  shutdown(tcb: Tcb): void {
    this.closing.shutdown(tcb);
  }

  /** What comes from here on is dropped. */
  shutdownRead(tcb: Tcb): void {
    tcb.discarding = true;
    this.receiver.drain(tcb);
  }

  /** Ends in order: what is queued goes out, then FIN; what still comes is dropped. */
  end(tcb: Tcb): void {
    this.closing.end(tcb);
  }

  abort(tcb: Tcb, reset: boolean, code?: CloseCode, error?: ErrorCode): void {
    this.closing.abort(tcb, reset, code, error);
  }

  /** Payload is kept here from now on, and the window closes as it grows. */
  pause(tcb: Tcb): void {
    tcb.paused = true;
  }

  resume(tcb: Tcb): void {
    tcb.paused = false;
    this.receiver.drain(tcb);
  }

  /** The events' side has no record of the connection any more. */
  released(tcb: Tcb): void {
    tcb.connection = undefined;
    this.core.markDirty(tcb);
  }

  /**
   * The app is through with a number that has ended. True: it is in TIME-WAIT, and freed here when that is over; the
   * caller has set its state to `transport`.
   */
  retired(sockfd24: number): boolean {
    const base = this.core.context.nodes.baseOf(sockfd24);
    const active = this.core.activeAt(base);
    if (active !== undefined) return active.state !== tcpState.closed;
    return ((this.core.words[base + node.tcp] as number) & 15) !== tcpState.closed;
  }

  /** Other options for one connection, as long as it lives. */
  tune(tcb: Tcb, options: TcpOptions): void {
    this.core.tuned.set(tcb.sockfd24, options);
    tcb.options = options;
    tcb.keepaliveAtUs = options.keepalive ? tcb.lastHeardUs + 1000 * options.keepaliveIdleMs : never;
    this.core.markDirty(tcb);
  }

  /** A snapshot; undefined: there is no such connection. */
  info(sockfd24: number): TcpInfo | undefined {
    const { core } = this;
    const base = core.context.nodes.baseOf(sockfd24);
    const active = core.activeAt(base);
    if (active !== undefined) return infoOf(active, core.nowUs);
    if (core.words[base + node.state] !== nodeState.open) return undefined;
    return infoAtRest(core, sockfd24, base);
  }

  isPortUsed(port: number): boolean {
    return this.core.portsInUse.isUsed(port);
  }

  /** Ends every connection that is doing something, with resets; those at rest are left as they are. */
  close(): void {
    for (const tcb of this.core.active()) this.closing.abort(tcb, true, "shutdown");
    this.flush();
  }

  /** See `MemoryHolders` of the guard. */
  holders(cursor: number, most: number, visitor: HolderVisitor): number {
    const { core } = this;
    let at = Math.max(1, cursor);
    for (let seen = 0; at < core.recordCount && seen < most; at += 1) {
      const tcb = core.recordAt(at);
      if (tcb === undefined) continue;
      seen += 1;
      const received = tcb.unread.bytes + tcb.reassembly.heldBytes;
      const stalledMs = tcb.stalledSinceUs === 0 ? 0 : Math.floor((core.nowUs - tcb.stalledSinceUs) / 1000);
      const peer = tcb.base + node.peerAddress;
      const { bytes } = tcb.queue;
      visitor.holder(tcb.sockfd24, received, bytes, stalledMs, core.words, peer, tcb.version6 ? 4 : 1);
    }
    return at < core.recordCount ? at : 0;
  }

  /** Ends a connection with a reset because memory is short, or its peer holds too much of it for too long. */
  evict(sockfd24: number): void {
    const tcb = this.core.activeAt(this.core.context.nodes.baseOf(sockfd24));
    if (tcb !== undefined && tcb.sockfd24 === sockfd24) this.closing.abort(tcb, true, "reset", "ENOBUFS");
  }

  /** Every active record, as they are now: for guards and simulators. */
  active(): Tcb[] {
    return this.core.active();
  }

  /** What is wrong, in words; for the simulator. */
  checkInvariants(): string[] {
    return invariantsOf(this.core);
  }
}
