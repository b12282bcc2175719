/**
 * The transport of every raw link: one turn after the other, packets to the transport of their protocol and back.
 *
 * Layer 2, one a worker. It owns the worker's end of the link (the rings, the sleep) and knows nothing of connections:
 * `udp-transport.ts` has UDP and echo requests. IP and checksums are the native thread's matter.
 */

import { ApoError } from "../../layer1-app/errors.ts";
import * as descriptor from "../../layer3-ip/descriptor.ts";
import { parsePrefix } from "../../layer3-ip/ip-prefix.ts";
import { type LinkDescription, PacketPort } from "../../layer3-ip/packet-port.ts";
import { descriptorWords, type RingConsumer } from "../../layer3-ip/ring.ts";
import type { Connection } from "../connection.ts";
import type { Container } from "../container.ts";
import type { Counters, WorkerCounter } from "../counters.ts";
import type { TcpGuard } from "../guard/tcp-guard.ts";
import type { FramePool } from "../link.ts";
import type {
  ConnectRequest,
  ListenerRecord,
  LocalAddress,
  Transport,
  TransportEvents,
} from "../transport.ts";
import { PollLoop } from "./poll-loop.ts";
import { UdpTransport } from "./udp-transport.ts";

/** Packets that are taken in one turn. */
const packetsPerTurn = 256;

const noTcp = 'raw links carry udp and icmp; tcp on them is not there yet: use link "host" for tcp';

/** What the transport is given by its worker. */
export interface RawTransportContext {
  readonly link: LinkDescription;
  readonly events: TransportEvents;
  readonly pool: FramePool;
  readonly counters: Counters<WorkerCounter>;
  /** What TCP is held to; it has its turns here. */
  readonly guard: TcpGuard;
  /** Serves the rings of the app endpoints and the control port. True: there was something. */
  serve(): boolean;
}

class RawTransport implements Transport {
  private readonly context: RawTransportContext;
  private readonly port: PacketPort;
  private readonly udp: UdpTransport;
  private readonly loop: PollLoop;
  /** The descriptor of the packet at hand. */
  private readonly atHand = new Int32Array(descriptorWords);

  constructor(context: RawTransportContext) {
    const { link, events, pool, counters } = context;
    this.context = context;
    this.port = new PacketPort(link);
    const prefixes = link.addresses.map(parsePrefix);
    this.udp = new UdpTransport({ events, pool, counters, port: this.port, prefixes });
    this.loop = new PollLoop(this.port, { poll: () => this.poll(), serve: () => context.serve() });
  }

  // --- the seam: see ../transport.ts ----------------------------------------------------------------------------

  async listen(record: ListenerRecord): Promise<LocalAddress> {
    if (record.protocol === "tcp") throw new ApoError("ENOTSUP", noTcp);
    return this.udp.listen(record);
  }

  async unlisten(listenerId: number): Promise<void> {
    this.udp.unlisten(listenerId);
  }

  connect(request: ConnectRequest): void {
    if (request.protocol === "tcp") this.context.events.connectFailed(request, "ENOTSUP", noTcp);
    else this.udp.connect(request);
  }

  send(connection: Connection, container: Container): void {
    this.udp.send(connection, container);
  }

  // A datagram that the app is not ready for waits in the dispatcher, or is dropped there: there is nothing to pause.
  pause(): void {}
  resume(): void {}

  end(connection: Connection): void {
    this.udp.end(connection);
  }

  destroy(connection: Connection): void {
    this.udp.end(connection);
  }

  async close(): Promise<void> {
    this.udp.close();
    this.port.flush();
    this.loop.stop();
  }

  // --- a turn ---------------------------------------------------------------------------------------------------

  private poll(): boolean {
    const nowMs = performance.now();
    this.udp.begin(nowMs);
    let taken = 0;
    for (const ring of this.port.received) taken += this.takeFrom(ring);
    const isWaiting = this.udp.flush();
    this.context.guard.turn(nowMs);
    this.port.flush();
    return taken > 0 || isWaiting;
  }

  private takeFrom(ring: RingConsumer): number {
    const { pool } = this.context;
    const packet = this.atHand;
    let taken = 0;
    while (taken < packetsPerTurn) {
      const at = ring.take();
      if (at < 0) break;
      taken += 1;
      // Copied and given back before anything is done with it. Should this worker die, what the ring still holds has
      // never been touched and the native thread takes it back; the packet at hand is found by its holder.
      for (let i = 0; i < descriptorWords; i += 1) packet[i] = ring.words[at + i] as number;
      pool.hold(descriptor.frameOf(packet, 0), pool.partition);
      ring.release();
      this.packet(packet, 0);
    }
    return taken;
  }

  /** One packet, with one count of its frame and this worker's mark of holding it. */
  private packet(words: Int32Array, at: number): void {
    if (descriptor.packetKindOf(words, at) === descriptor.packetKind.icmpError) {
      this.udp.icmp(words, at);
      this.context.pool.release(descriptor.frameOf(words, at));
    } else this.udp.packet(words, at);
  }
}

export function createRawTransport(context: RawTransportContext): Transport {
  return new RawTransport(context);
}
