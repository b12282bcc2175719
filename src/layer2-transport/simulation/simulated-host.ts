/**
 * One host of a simulation: a TCP stack with its tables, a pool that tells on misuse, a clock and randomness of the
 * scenario, layer 3 in virtual time below it, and apps that follow their scripts above it.
 *
 * Layer 2, simulation only. A turn is what a worker's turn is: timers run, what has come goes in, apps act, what is due
 * goes out.
 */

import type { ErrorCode } from "../../layer1-app/errors.ts";
import { parsePrefix } from "../../layer3-ip/ip-prefix.ts";
import { smallFrameBytes } from "../../layer3-ip/pool.ts";
import { RandomStream, SeedMixer } from "../../layer3-ip/random-stream.ts";
import { SteerHash } from "../../layer3-ip/steer.ts";
import type { VirtualWire } from "../../layer3-ip/virtual-wire.ts";
import { Containers } from "../container.ts";
import { Counters, type WorkerCounter, workerCounterNames } from "../counters.ts";
import type { CloseCode } from "../descriptor.ts";
import { Carrier } from "../nodes/carrier.ts";
import { FlowIndex } from "../nodes/flow-index.ts";
import { NodeTable } from "../nodes/node-table.ts";
import { TimingWheel } from "../nodes/timing-wheel.ts";
import { createNodes, node, nodeState, shards } from "../nodes/v-node.ts";
import { AcceptAll } from "../tcp/admission.ts";
import type { TcpEvents } from "../tcp/context.ts";
import { InitialSequence } from "../tcp/security/initial-sequence.ts";
import { TcpStack } from "../tcp/stack.ts";
import type { Tcb, TcpListener } from "../tcp/tcb.ts";
import { CheckedPool, returnPool, takePool } from "./checked-pool.ts";
import type { Content } from "./content.ts";
import type { Plan } from "./plan.ts";
import type { HostSettings } from "./scenario.ts";
import { type Pipe, Session, type WriteResult } from "./session.ts";
import { VirtualLayer3 } from "./virtual-layer3.ts";

/** Threads that have frames of their own, by their partitions: the worker, the native thread, the app. */
const party = { worker: 0, native: 1, app: 2 } as const;
const parties = 3;
const smallPerLarge = 32;
const framesMax = 2048;
const slotsPerShard = 64;
const frontBytes = 128;
/** What a turn takes that follows another without a pause. */
const pollUs = 1;
export const serverPort = 80;
/** The `opens` of the listener, and of all clients. */
const listenerId = 1;
const clientId = 2;

export interface HostParts {
  readonly index: number;
  readonly settings: HostSettings;
  readonly seed: number;
  /** How often it has been started before. */
  readonly restarts: number;
  readonly wire: VirtualWire;
  /** Sees each packet that goes to the wire. */
  readonly onSent: (packet: Uint8Array) => void;
  /** Whose connection a listener has accepted; undefined: nobody's that should be there. */
  readonly planOf: (client: string, server: string) => Plan | undefined;
  /** A plan's connection is on its way: from here on these two ends are its. */
  readonly onConnect: (plan: Plan, client: string, server: string) => void;
  /** Called after each turn. */
  readonly onTurn: (host: SimulatedHost) => void;
}

/** The address of a host, by its index. */
export function addressOf(index: number, version6: boolean): string {
  return version6 ? `fd00::${(index + 1).toString(16)}` : `10.0.0.${index + 1}`;
}

export class SimulatedHost {
  readonly index: number;
  readonly settings: HostSettings;
  readonly pool: CheckedPool;
  readonly appPool: CheckedPool;
  readonly nativePool: CheckedPool;
  readonly nodes: NodeTable;
  readonly layer3: VirtualLayer3;
  readonly stack: TcpStack;
  private readonly containers: Containers;
  readonly wheel: TimingWheel;
  readonly counters = new Counters<WorkerCounter>(workerCounterNames);
  readonly admission = new AcceptAll();
  /** What has been found wrong. */
  readonly faults: string[] = [];
  /** Those of ended connections too. */
  readonly sessions: Session[] = [];
  private readonly parts: HostParts;
  private readonly wire: VirtualWire;
  /** By sockfd24. */
  private readonly live = new Map<number, Session>();
  private due: (() => void)[] = [];
  private turnAtUs = Number.POSITIVE_INFINITY;
  private cancelTurn: () => void = () => {};
  private readonly kept: number[] = [];
  private dead = false;
  private inTurn = false;
  private sending = false;

  constructor(parts: HostParts) {
    const { index, settings, wire } = parts;
    this.parts = parts;
    this.index = index;
    this.settings = settings;
    this.wire = wire;
    const memory = takePool(framesMax, framesMax / smallPerLarge, parties);
    this.pool = new CheckedPool(memory, party.worker);
    this.appPool = new CheckedPool(memory, party.app);
    this.nativePool = new CheckedPool(memory, party.native);
    for (const pool of [this.pool, this.appPool]) {
      for (let i = settings.frames; i < framesMax; i += 1) {
        this.kept.push(pool.allocateFrame(false));
        if (i % smallPerLarge === 0) this.kept.push(pool.allocateFrame(true));
      }
    }
    this.containers = new Containers(this.pool);
    this.nodes = new NodeTable(createNodes(slotsPerShard));
    for (let shard = 0; shard < shards; shard += 1) this.nodes.adopt(shard);
    const keys = this.stream(2);
    const steer = new SteerHash({ low: keys.next(), high: keys.next() });
    const addresses = [parsePrefix(addressOf(index, false)), parsePrefix(addressOf(index, true))];
    this.layer3 = new VirtualLayer3({
      wire,
      pool: this.nativePool,
      ringCapacity: settings.ringCapacity,
      addresses,
      steer,
      random: this.stream(3),
      mtu: settings.mtu,
      pathMtu: settings.pathMtu,
      tellsTooBig: settings.tellsTooBig,
      mergeOf256: settings.mergeOf256,
      clockOffsetUs: settings.clockOffsetUs,
      onArrival: () => this.wake(this.settings.lagUs),
      onSent: parts.onSent,
    });
    this.wheel = new TimingWheel(this.nodes, this.nowMs);
    const stackRandom = this.stream(4);
    this.stack = new TcpStack({
      pool: this.pool,
      nodes: this.nodes,
      wheel: this.wheel,
      index: new FlowIndex(this.nodes),
      carrier: new Carrier({ word: () => keys.next() | 0 }),
      output: this.layer3.output,
      random: { word: () => stackRandom.next() | 0 },
      steer,
      addresses,
      prefixes: [],
      mtu: settings.mtu,
      events: this.events(),
      counters: this.counters,
      admission: this.admission,
      ...(settings.wrapsAt > 0 && { initialSequence: this.sequence() }),
      usePort: (port) => this.layer3.usePort(port),
      leavePort: (port) => this.layer3.leavePort(port),
    });
  }

  get name(): string {
    return `host ${this.index + 1}`;
  }

  /** The host's clock. */
  get nowUs(): number {
    return this.wire.nowUs + this.settings.clockOffsetUs;
  }

  get nowMs(): number {
    return Math.floor(this.nowUs / 1000) | 0;
  }

  get liveSessions(): number {
    return this.live.size;
  }

  listen(): void {
    const { tcp } = this.settings;
    const words = undefined;
    this.stack.listen({ id: listenerId, port: serverPort, words, wordCount: 1, options: tcp, halfOpen: 0 });
  }

  unlisten(): void {
    this.stack.unlisten(listenerId);
    this.wake(0);
  }

  /** Starts a plan's connection from here. */
  connect(plan: Plan, server: number): void {
    this.act(() => {
      const session = new Session(plan, true, this.faults);
      this.sessions.push(session);
      const { words } = parsePrefix(addressOf(server, plan.version6));
      const sockfd24 = this.stack.connect({
        words,
        wordCount: plan.version6 ? 4 : 1,
        port: serverPort,
        options: this.settings.tcp,
        openId: clientId,
        many: false,
        timeoutMs: 0,
        owner: session,
      });
      if (sockfd24 < 0) {
        session.takeEnd("refused", "ENFILE");
        return;
      }
      const { address, port, localAddress, localPort } = this.nodes.endsAt(this.nodes.baseOf(sockfd24));
      this.parts.onConnect(plan, `${localAddress}:${localPort}`, `${address}:${port}`);
    }, 0);
  }

  /** Its app gives up on whatever is open still. */
  giveUp(): void {
    this.act(() => {
      for (const sockfd24 of this.live.keys()) {
        const tcb = this.stack.find(sockfd24);
        if (tcb) this.stack.abort(tcb, true);
      }
    }, 0);
  }

  /** All that it knows is lost, and nothing reaches it any more. */
  crash(): void {
    this.dead = true;
    this.cancelTurn();
    this.wire.unplug(this.layer3.plug);
    for (const session of this.sessions) session.dead = session.ending === undefined;
  }

  /** Gives back the frames that were kept away from everybody. */
  releaseKept(): void {
    for (const frame of this.kept.splice(0)) this.pool.release(frame);
  }

  /** Gives memory back; the host is not used after that. */
  close(): void {
    this.cancelTurn();
    returnPool(this.pool.buffer);
  }

  /** A turn will come after so long at the latest. */
  wake(us: number): void {
    const atUs = this.wire.nowUs + us;
    if (this.dead) return;
    if (this.inTurn || atUs >= this.turnAtUs) return;
    this.cancelTurn();
    this.turnAtUs = atUs;
    this.cancelTurn = this.wire.at(atUs, () => this.turn());
  }

  private turn(): void {
    this.turnAtUs = Number.POSITIVE_INFINITY;
    this.inTurn = true;
    const { stack, layer3 } = this;
    stack.turn(this.nowUs);
    layer3.receive(stack);
    for (const action of this.due.splice(0)) action();
    stack.flush();
    this.inTurn = false;
    this.transmit();
    this.scheduleNext();
    this.parts.onTurn(this);
  }

  /** The native thread sends, at once or when it gets round to it. */
  private transmit(): void {
    const { sendLagUs } = this.settings;
    if (sendLagUs === 0) this.layer3.transmit();
    if (this.sending || this.layer3.output.size === 0) return;
    this.sending = true;
    this.wire.at(this.wire.nowUs + sendLagUs, () => {
      if (this.dead) return;
      this.sending = false;
      this.layer3.transmit();
      this.parts.onTurn(this);
    });
  }

  private scheduleNext(): void {
    if (this.due.length > 0) this.wake(pollUs);
    const deadlineUs = this.stack.nextDeadlineUs;
    if (deadlineUs === Number.POSITIVE_INFINITY) return;
    // With a full ring nothing goes before the native thread has been there.
    const leastUs = this.sending ? this.settings.sendLagUs + pollUs : pollUs;
    this.wake(Math.max(leastUs, Math.ceil(deadlineUs - this.nowUs)));
  }

  /** Does something of an app's in a turn, after so long. */
  private act(action: () => void, us: number): void {
    this.wire.at(this.wire.nowUs + us, () => {
      this.due.push(action);
      this.wake(0);
    });
  }

  /** Sequence numbers that are about to pass `wrapsAt`, and that step as RFC 6528's do. */
  private sequence(): InitialSequence {
    const { wrapsAt } = this.settings;
    const begins = wrapsAt - this.stream(5).below(65_536) - Math.floor(this.nowUs / 4);
    const sequence = new InitialSequence(new Uint32Array(4));
    sequence.isn = (_words, _base, nowUs) => (begins + Math.floor(nowUs / 4)) | 0;
    return sequence;
  }

  private stream(purpose: number): RandomStream {
    const { seed, index, restarts } = this.parts;
    const salt = BigInt((purpose + 10 * restarts) * 1000 + index + 1) << 48n;
    return new RandomStream(new SeedMixer(salt ^ BigInt(seed)));
  }

  // --- what the stack tells --------------------------------------------------------------------------------------

  private events(): TcpEvents {
    return {
      accepted: (listener, tcb) => this.accepted(listener, tcb),
      connected: (tcb) => this.begin(tcb.owner as Session, tcb, clientId),
      connectFailed: (tcb, code) => (tcb.owner as Session).takeEnd("refused", code),
      received: (tcb, frame, offset, length) => this.received(tcb, frame, offset, length),
      peerEnded: (tcb) => {
        const session = this.sessionOf(tcb, "the other's end");
        if (!session) return false;
        const holdsEnd = session.holdsEnd;
        this.tell(() => session.takePeerEnd());
        return holdsEnd;
      },
      sent: (tcb, container, taken) => {
        const session = this.sessionOf(tcb, "a write's end");
        const { length } = container;
        container.done();
        if (session) this.tell(() => session.wrote(length, taken));
      },
      ended: (tcb, code, error) => this.ended(tcb, code, error),
    };
  }

  /** Tells an app, at once or later, as the host's settings say. */
  private tell(call: () => void): void {
    if (this.settings.appLagUs === 0) call();
    else this.act(call, this.settings.appLagUs);
  }

  private sessionOf(tcb: Tcb, what: string): Session | undefined {
    const session = this.live.get(tcb.sockfd24);
    if (!session) this.faults.push(`${what} was told of ${tcb.sockfd24}, which is no connection`);
    return session;
  }

  private accepted(listener: TcpListener, tcb: Tcb): boolean {
    const { address, port, localAddress, localPort } = this.nodes.endsAt(tcb.base);
    const plan = this.parts.planOf(`${address}:${port}`, `${localAddress}:${localPort}`);
    if (!plan) {
      this.faults.push(`${address}:${port} was accepted, which nobody opened`);
      return false;
    }
    const session = new Session(plan, false, this.faults);
    this.sessions.push(session);
    return this.begin(session, tcb, listener.id);
  }

  private begin(session: Session, tcb: Tcb, openId: number): boolean {
    const { sockfd24 } = tcb;
    if (this.live.has(sockfd24)) this.faults.push(`${sockfd24} was given out twice`);
    this.live.set(sockfd24, session);
    this.nodes.open(tcb.base, { protocol: "tcp", framing: "raw", sendlen: 2 ** 24 }, 0, openId);
    if (session.plan.pinned) tcb.connection = session;
    this.tell(() => session.opened(this.pipeFor(session, sockfd24)));
    return true;
  }

  private received(tcb: Tcb, frame: number, offset: number, length: number): void {
    const session = this.sessionOf(tcb, "payload");
    if (tcb.paused) this.faults.push(`${session?.name}: payload was delivered while paused`);
    if (this.pool.countOf(frame) <= 0) this.faults.push(`payload was given in frame ${frame}, which is free`);
    this.tell(() => {
      session?.take(this.pool.bytes, frame * smallFrameBytes + offset, length);
      this.pool.release(frame);
    });
  }

  private ended(tcb: Tcb, code: CloseCode, error: ErrorCode | undefined): void {
    const session = this.sessionOf(tcb, "the end");
    const { sockfd24, base } = tcb;
    this.live.delete(sockfd24);
    if (session) this.tell(() => session.takeEnd(code, error ?? ""));
    Atomics.store(this.nodes.words, base + node.state, nodeState.ended);
    // The app says that it is through with the number.
    this.tell(() => {
      Atomics.store(this.nodes.words, base + node.state, nodeState.transport);
      if (!this.stack.retired(sockfd24)) this.nodes.release(sockfd24);
    });
  }

  // --- what apps do ----------------------------------------------------------------------------------------------

  private pipeFor(session: Session, sockfd24: number): Pipe {
    const withTcb = (call: (tcb: Tcb) => void): void => {
      if (this.live.get(sockfd24) !== session) return;
      const tcb = this.stack.find(sockfd24);
      // None: it is just being told the end.
      if (tcb) call(tcb);
    };
    return {
      write: (content, position, length) => this.write(session, sockfd24, content, position, length),
      shutdown: () => withTcb((tcb) => this.stack.shutdown(tcb)),
      end: () => withTcb((tcb) => this.stack.end(tcb)),
      abort: () => withTcb((tcb) => this.stack.abort(tcb, true)),
      pause: () =>
        withTcb((tcb) => {
          tcb.connection = session;
          this.stack.pause(tcb);
        }),
      resume: () =>
        withTcb((tcb) => {
          if (!session.plan.pinned) tcb.connection = undefined;
          this.stack.resume(tcb);
        }),
      later: (us, call) => this.act(call, us),
    };
  }

  private write(
    session: Session,
    sockfd24: number,
    content: Content,
    position: number,
    length: number,
  ): WriteResult {
    if (this.live.get(sockfd24) !== session) return "gone";
    const { appPool: pool } = this;
    // Room for headers in front, so that a small message goes out from where it lies.
    const front = session.plan.id % 2 === 0 ? frontBytes : 0;
    const frame = pool.allocate(front + length);
    if (frame === 0) return "full";
    // Handed over to the worker.
    pool.hold(frame, this.pool.partition);
    let done = 0;
    let at = front;
    for (let one = frame; one !== 0 && done < length; one = pool.nextFrame(one)) {
      const part = Math.min(length - done, pool.frameBytes(one) - at);
      content.write(pool.bytes, one * smallFrameBytes + at, position + done, part);
      done += part;
      at = 0;
    }
    const tcb = this.stack.find(sockfd24);
    if (!tcb) {
      pool.drop(frame, this.pool.partition);
      return "gone";
    }
    this.stack.send(tcb, this.containers.take(frame, front, length));
    return "queued";
  }
}
