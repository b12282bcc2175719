/**
 * TCP on a raw link: between the stack, which knows segments and sockfds, and the dispatcher, which knows messages.
 *
 * Layer 2, one a worker. A connection has an object of the dispatcher's only while something goes on between the two;
 * the stack's record leads to it (`tcb.connection`), and it to the record (`handle`).
 */

import { randomFillSync } from "node:crypto";
import { ApoError, type ErrorCode } from "../../layer1-app/errors.ts";
import { addressWords, type IpPrefix } from "../../layer3-ip/ip-prefix.ts";
import type { PacketPort } from "../../layer3-ip/packet-port.ts";
import type { Connection } from "../connection.ts";
import { type Container, Containers } from "../container.ts";
import type { Counters, WorkerCounter } from "../counters.ts";
import type { CloseCode } from "../descriptor.ts";
import type { TcpGuard } from "../guard/tcp-guard.ts";
import type { FramePool } from "../link.ts";
import { Carrier } from "../nodes/carrier.ts";
import { FlowIndex } from "../nodes/flow-index.ts";
import type { NodeTable } from "../nodes/node-table.ts";
import { TimingWheel } from "../nodes/timing-wheel.ts";
import type { ConnectTarget } from "../tcp/connecting.ts";
import type { RandomSource, TcpEvents } from "../tcp/context.ts";
import type { TcpInfo } from "../tcp/info.ts";
import { withTcpOption } from "../tcp/options.ts";
import { TcpStack } from "../tcp/stack.ts";
import type { Tcb, TcpListener } from "../tcp/tcb.ts";
import type { ConnectRequest, ListenerRecord, LocalAddress, TransportEvents } from "../transport.ts";

/** The ports that listeners get who leave the choice to us (RFC 6335 6: the dynamic ports). */
const firstFreePort = 49_152;
const lastPort = 65_535;

export interface TcpTransportContext {
  readonly events: TransportEvents;
  readonly pool: FramePool;
  readonly nodes: NodeTable;
  readonly counters: Counters<WorkerCounter>;
  readonly guard: TcpGuard;
  readonly port: PacketPort;
  readonly addresses: readonly IpPrefix[];
  readonly prefixes: readonly IpPrefix[];
  readonly mtu: number;
  /** Microseconds of layer 3's clock. */
  nowUs(): number;
}

/** Unpredictable words, a page of them at a time. */
class CryptoRandom implements RandomSource {
  private readonly words = new Int32Array(4096);
  private left = 0;

  word(): number {
    if (this.left === 0) {
      randomFillSync(this.words);
      this.left = this.words.length;
    }
    this.left -= 1;
    return this.words[this.left] as number;
  }
}

interface OwnListener extends TcpListener {
  readonly record: ListenerRecord;
}

export class TcpTransport implements TcpEvents {
  readonly stack: TcpStack;
  private readonly context: TcpTransportContext;
  private readonly events: TransportEvents;
  private readonly listeners = new Map<number, OwnListener>();
  /** A group's connections have one request: what it comes to is found once. */
  private lastRequest: ConnectRequest | undefined;
  private lastTarget: ConnectTarget | undefined;
  private readonly containers: Containers;

  constructor(context: TcpTransportContext) {
    const { pool, nodes, counters, guard, port, addresses, prefixes, mtu } = context;
    this.context = context;
    this.events = context.events;
    this.containers = new Containers(pool);
    const random = new CryptoRandom();
    const nowUs = context.nowUs();
    this.stack = new TcpStack({
      pool,
      nodes,
      wheel: new TimingWheel(nodes, Math.floor(nowUs / 1000) | 0),
      index: new FlowIndex(nodes),
      carrier: new Carrier(random),
      output: port.toSend,
      random,
      steer: port.steer,
      addresses,
      prefixes,
      mtu,
      events: this,
      counters,
      admission: guard,
      usePort: (number) => port.openTcpPort(number),
      leavePort: (number) => port.closeTcpPort(number),
    });
    this.stack.turn(nowUs);
    guard.attach(this.stack);
  }

  // --- from the dispatcher --------------------------------------------------------------------------------------

  /** Throws `EADDRINUSE`, `EADDRNOTAVAIL`. */
  listen(record: ListenerRecord): LocalAddress {
    const own = record.address === undefined ? undefined : this.ownAddress(record.address);
    const port = record.port === 0 ? this.freePort() : record.port;
    const listener: OwnListener = {
      id: record.id,
      port,
      words: own?.words,
      wordCount: own?.version6 ? 4 : 1,
      options: record.tcp,
      halfOpen: 0,
      record,
    };
    this.stack.listen(listener);
    this.listeners.set(record.id, listener);
    const any = this.context.addresses.some((prefix) => prefix.version6) ? "::" : "0.0.0.0";
    return { address: record.address ?? any, port };
  }

  unlisten(listenerId: number): boolean {
    if (!this.listeners.delete(listenerId)) return false;
    this.stack.unlisten(listenerId);
    return true;
  }

  connect(request: ConnectRequest): void {
    let target = this.lastTarget;
    if (request !== this.lastRequest || target === undefined) {
      target = this.targetOf(request);
      if (target === undefined) {
        const text = `"${request.address}" is not an IP address; a raw link knows no names`;
        this.events.connectFailed(request, "EHOSTUNREACH", text);
        return;
      }
      this.lastRequest = request;
      this.lastTarget = target;
    }
    this.stack.setTerms(request.id, request.tcp);
    const early = request.early && this.earlyContainer(request.early);
    if (request.early && !early) {
      this.events.connectFailed(request, "ENOBUFS", "the frame pool is empty: the first message has no room");
      return;
    }
    const sockfd24 = this.stack.connect(early ? { ...target, early } : target);
    if (early && sockfd24 >= 0) this.context.nodes.addEnqueued(sockfd24, early.length);
    if (sockfd24 < 0) {
      early?.done();
      const text = `no local address, port or number is left for ${request.address}:${request.port}`;
      this.events.connectFailed(request, "EADDRNOTAVAIL", text);
    }
    // The terms live as long as connections have them.
    this.stack.closeTerms(request.id);
  }

  /** A first message in the pool; undefined when the pool is empty. */
  private earlyContainer(bytes: Uint8Array): Container | undefined {
    const { pool } = this.context;
    const frame = pool.allocate(bytes.length);
    if (frame === 0) return undefined;
    pool.hold(frame, pool.partition);
    pool.write(frame, 0, bytes);
    // A part: it was never submitted, so nobody waits for its completion.
    return this.containers.take(frame, 0, bytes.length, true);
  }

  /** The object of an open connection, made if it is at rest. */
  find(sockfd24: number): Connection | undefined {
    const tcb = this.stack.find(sockfd24);
    return tcb === undefined ? undefined : this.connectionOf(tcb);
  }

  send(connection: Connection, container: Container): void {
    this.stack.send(connection.handle as Tcb, container);
  }

  pause(connection: Connection): void {
    this.stack.pause(connection.handle as Tcb);
  }

  resume(connection: Connection): void {
    this.stack.resume(connection.handle as Tcb);
  }

  released(connection: Connection): void {
    this.stack.released(connection.handle as Tcb);
  }

  retired(sockfd24: number): boolean {
    return this.stack.retired(sockfd24);
  }

  shutdown(connection: Connection): void {
    this.stack.shutdown(connection.handle as Tcb);
  }

  end(connection: Connection): void {
    this.stack.end(connection.handle as Tcb);
  }

  destroy(connection: Connection, reset: boolean): void {
    this.stack.abort(connection.handle as Tcb, reset);
  }

  tune(connection: Connection, place: number, word: number): void {
    const tcb = connection.handle as Tcb;
    this.stack.tune(tcb, withTcpOption(tcb.options, place, word));
  }

  lingerMs(connection: Connection): number {
    return (connection.handle as Tcb).options.lingerMs;
  }

  info(connection: Connection): TcpInfo | undefined {
    return this.stack.info(connection.sockfd);
  }

  // --- from the stack -------------------------------------------------------------------------------------------

  accepted(listener: TcpListener, tcb: Tcb): boolean {
    return this.events.acceptedNode((listener as OwnListener).record, tcb.sockfd24);
  }

  connected(tcb: Tcb): boolean {
    return this.events.connectedNode(tcb.owner as ConnectRequest, tcb.sockfd24);
  }

  connectFailed(tcb: Tcb, code: ErrorCode, text: string): void {
    const request = tcb.owner as ConnectRequest;
    const where = `${request.address}:${request.port}`;
    this.events.connectFailed(request, code, `cannot connect to ${where} over tcp: ${text}`);
  }

  received(tcb: Tcb, frame: number, offset: number, length: number): void {
    const { pool } = this.context;
    // The dispatcher marks anew what it keeps.
    pool.unhold(frame, pool.partition);
    this.events.receivedFrame(this.connectionOf(tcb), frame, offset, length);
  }

  peerEnded(tcb: Tcb): boolean {
    this.events.peerEnded(this.connectionOf(tcb));
    // The dispatcher ends what nobody is busy with at once.
    return !tcb.ending;
  }

  sent(tcb: Tcb, container: Container, taken: boolean): void {
    if (tcb.told) this.events.sent(this.connectionOf(tcb), container, taken);
    else container.done();
  }

  ended(tcb: Tcb, code: CloseCode, error?: ErrorCode): void {
    this.events.ended(this.connectionOf(tcb), code, error);
  }

  private connectionOf(tcb: Tcb): Connection {
    const found = tcb.connection as Connection | undefined;
    if (found !== undefined) return found;
    const made = this.events.connection(tcb.sockfd24, tcb);
    tcb.connection = made;
    return made;
  }

  private targetOf(request: ConnectRequest): ConnectTarget | undefined {
    const far = addressWords(request.address);
    if (!far) return undefined;
    return {
      words: far.words,
      wordCount: far.version6 ? 4 : 1,
      port: request.port,
      options: request.tcp,
      openId: request.id,
      timeoutMs: request.connectMs,
      many: request.group !== undefined,
      owner: request,
    };
  }

  private ownAddress(text: string): IpPrefix | undefined {
    const wanted = addressWords(text);
    if (text === "0.0.0.0" || text === "::") return undefined;
    const { addresses } = this.context;
    const found = addresses.find(
      (prefix) =>
        prefix.version6 === wanted?.version6 && prefix.words.every((word, i) => word === wanted.words[i]),
    );
    if (found) return found;
    const own = addresses.map((prefix) => prefix.text).join(", ");
    throw new ApoError("EADDRNOTAVAIL", `${text} is not an address of this link (it has ${own})`);
  }

  private freePort(): number {
    const count = lastPort - firstFreePort + 1;
    const word = new Uint32Array(1);
    randomFillSync(word);
    for (let tries = 0; tries < count; tries += 1) {
      const port = firstFreePort + (((word[0] as number) + tries) % count);
      if (!this.stack.isPortUsed(port)) return port;
    }
    throw new ApoError("EADDRNOTAVAIL", "no tcp port is free on this link");
  }

  /** Ends all connections at once, of which layer 3 is told. */
  close(): void {
    for (const id of [...this.listeners.keys()]) this.unlisten(id);
    this.stack.close();
  }
}
