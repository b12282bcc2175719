/**
 * The transport of every raw link: one turn after the other, packets to the transport of their protocol and back.
 *
 * Layer 2, one a worker. It owns the worker's end of the link (the rings, the sleep) and knows nothing of connections:
 * `tcp-transport.ts` has TCP, `udp-transport.ts` UDP and echo requests. IP and checksums are native.
 */

import * as descriptor from "../../layer3-ip/descriptor.ts";
import { parsePrefix } from "../../layer3-ip/ip-prefix.ts";
import { type LinkDescription, PacketPort } from "../../layer3-ip/packet-port.ts";
import { descriptorWords, type RingConsumer } from "../../layer3-ip/ring.ts";
import type { Connection } from "../connection.ts";
import type { Container } from "../container.ts";
import type { Counters, WorkerCounter } from "../counters.ts";
import type { TcpGuard } from "../guard/tcp-guard.ts";
import { type FramePool, smallFrameBytes } from "../link.ts";
import type { NodeTable } from "../nodes/node-table.ts";
import type { TcpInfo } from "../tcp/info.ts";
import type {
  ConnectRequest,
  ListenerRecord,
  LocalAddress,
  Transport,
  TransportEvents,
} from "../transport.ts";
import { PollLoop } from "./poll-loop.ts";
import { TcpTransport } from "./tcp-transport.ts";
import { UdpTransport } from "./udp-transport.ts";

/** Packets that are taken in one turn. */
const packetsPerTurn = 256;
/** Packets that are taken from a ring at once. */
const packetsPerBatch = 32;

const protocolTcp = 6;
/** Where a quoted packet's protocol stands, counted from the ICMP message's first byte. */
const quotedProtocolAt = { four: 8 + 9, six: 8 + 6 } as const;
const longestSleepUs = 1e6;

/** What the transport is given by its worker. */
export interface RawTransportContext {
  readonly link: LinkDescription;
  readonly events: TransportEvents;
  readonly pool: FramePool;
  readonly nodes: NodeTable;
  readonly counters: Counters<WorkerCounter>;
  /** What TCP is held to; it has its turns here. */
  readonly guard: TcpGuard;
  /** Serves the rings of the app endpoints and the control port. True: there was something. */
  serve(): boolean;
  /** Lets the app endpoint that lives in this thread take what it has got, and the dispatcher what it answers. */
  serveLocal(): void;
}

class RawTransport implements Transport {
  private readonly context: RawTransportContext;
  private readonly port: PacketPort;
  private readonly udp: UdpTransport;
  private readonly tcp: TcpTransport;
  /** Puts an end behind what is queued by itself. */
  readonly endsInOrder = true;
  /** From `performance.now` to layer 3's clock, in milliseconds. */
  private readonly clockMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();
  private readonly loop: PollLoop;
  /** The descriptors of the packets at hand. */
  private readonly batch = new Int32Array(packetsPerBatch * descriptorWords);

  constructor(context: RawTransportContext) {
    const { link, events, pool, counters } = context;
    this.context = context;
    this.port = new PacketPort(link);
    const { nodes, guard } = context;
    const addresses = link.addresses.map(parsePrefix);
    const whole = link.prefixes.map((text) => ({ ...parsePrefix(text), whole: true }));
    this.udp = new UdpTransport({
      events,
      pool,
      counters,
      port: this.port,
      prefixes: addresses,
      mtu: link.mtu,
    });
    this.tcp = new TcpTransport({
      events,
      pool,
      nodes,
      counters,
      guard,
      port: this.port,
      addresses,
      prefixes: whole,
      mtu: link.mtu,
      nowUs: () => 1000 * (performance.now() + this.clockMs),
    });
    this.loop = new PollLoop(this.port, {
      poll: () => this.poll(),
      serve: () => context.serve(),
      sleepUs: () => this.sleepUs(),
    });
  }

  // --- the seam: see ../transport.ts ----------------------------------------------------------------------------

  async listen(record: ListenerRecord): Promise<LocalAddress> {
    return record.protocol === "tcp" ? this.tcp.listen(record) : this.udp.listen(record);
  }

  async unlisten(listenerId: number): Promise<void> {
    if (!this.tcp.unlisten(listenerId)) this.udp.unlisten(listenerId);
  }

  connect(request: ConnectRequest): void {
    if (request.protocol === "tcp") this.tcp.connect(request);
    else this.udp.connect(request);
  }

  send(connection: Connection, container: Container): void {
    if (connection.isStream) this.tcp.send(connection, container);
    else this.udp.send(connection, container);
  }

  // A datagram that the app is not ready for waits in the dispatcher, or is dropped there: there is nothing to pause.
  pause(connection: Connection): void {
    if (connection.isStream) this.tcp.pause(connection);
  }

  resume(connection: Connection): void {
    if (connection.isStream) this.tcp.resume(connection);
  }

  find(sockfd24: number): Connection | undefined {
    return this.tcp.find(sockfd24);
  }

  released(connection: Connection): void {
    this.tcp.released(connection);
  }

  retired(sockfd24: number): boolean {
    return this.tcp.retired(sockfd24);
  }

  shutdown(connection: Connection): void {
    this.tcp.shutdown(connection);
  }

  tune(connection: Connection, place: number, word: number): void {
    this.tcp.tune(connection, place, word);
  }

  lingerMs(connection: Connection): number {
    return connection.isStream ? this.tcp.lingerMs(connection) : -1;
  }

  info(connection: Connection): TcpInfo | undefined {
    return connection.isStream ? this.tcp.info(connection) : undefined;
  }

  end(connection: Connection): void {
    if (connection.isStream) this.tcp.end(connection);
    else this.udp.end(connection);
  }

  destroy(connection: Connection, reset: boolean): void {
    if (connection.isStream) this.tcp.destroy(connection, reset);
    else this.udp.end(connection);
  }

  async close(): Promise<void> {
    this.tcp.close();
    this.udp.close();
    this.port.flush();
    this.loop.stop();
  }

  // --- a turn ---------------------------------------------------------------------------------------------------

  private poll(): boolean {
    const nowMs = performance.now();
    const { context, tcp } = this;
    this.udp.begin(nowMs);
    tcp.stack.turn(1000 * (nowMs + this.clockMs));
    let taken = 0;
    for (const ring of this.port.received) taken += this.takeFrom(ring);
    context.serveLocal();
    const isWaiting = this.udp.flush();
    tcp.stack.flush();
    context.guard.turn(nowMs + this.clockMs);
    this.port.flush();
    return taken > 0 || isWaiting;
  }

  private takeFrom(ring: RingConsumer): number {
    const { pool } = this.context;
    const { batch } = this;
    let taken = 0;
    while (taken < packetsPerTurn) {
      let count = 0;
      for (; count < packetsPerBatch; count += 1) {
        const at = ring.take();
        if (at < 0) break;
        const to = count * descriptorWords;
        for (let i = 0; i < descriptorWords; i += 1) batch[to + i] = ring.words[at + i] as number;
        pool.hold(descriptor.frameOf(batch, to), pool.partition);
      }
      if (count === 0) break;
      // Copied and given back before anything is done with them. Should this worker die, what the ring still holds has
      // never been touched and the native thread takes it back; the packets at hand are found by their holder.
      ring.release();
      for (let i = 0; i < count; i += 1) this.packet(batch, i * descriptorWords);
      taken += count;
    }
    return taken;
  }

  /** Until the next timer of a connection. */
  private sleepUs(): number {
    const deadlineUs = this.tcp.stack.nextDeadlineUs;
    if (deadlineUs === Number.POSITIVE_INFINITY) return longestSleepUs;
    return deadlineUs - 1000 * (performance.now() + this.clockMs);
  }

  /** One packet, with one count of its frame and this worker's mark of holding it. */
  private packet(words: Int32Array, at: number): void {
    if (descriptor.packetKindOf(words, at) === descriptor.packetKind.icmpError) {
      if (this.quotesTcp(words, at)) this.tcp.stack.icmp(words, at);
      else this.udp.icmp(words, at);
      this.context.pool.release(descriptor.frameOf(words, at));
    } else if (descriptor.protocolOf(words, at) === protocolTcp) this.tcp.stack.input(words, at);
    else this.udp.packet(words, at);
  }

  private quotesTcp(words: Int32Array, at: number): boolean {
    const six = descriptor.isVersion6(words, at);
    const upper = descriptor.frameOf(words, at) * smallFrameBytes + descriptor.upperOffsetOf(words, at);
    const { bytes } = this.context.pool;
    return bytes[upper + (six ? quotedProtocolAt.six : quotedProtocolAt.four)] === protocolTcp;
  }
}

export function createRawTransport(context: RawTransportContext): Transport {
  return new RawTransport(context);
}
