/**
 * UDP and echo requests on a raw link: which connection a datagram belongs to, and what goes out.
 *
 * Layer 2, one a worker. `transport.ts` hands it the packets of its protocols and its turns; the native thread has
 * checked lengths and checksums, answers echo requests and closed ports, and writes IP headers and checksums.
 */

import { ApoError, type ErrorCode } from "../../layer1-app/errors.ts";
import { formatAddress } from "../../layer3-ip/address.ts";
import * as descriptor from "../../layer3-ip/descriptor.ts";
import { addressWords, type IpPrefix } from "../../layer3-ip/ip-prefix.ts";
import type { PacketPort } from "../../layer3-ip/packet-port.ts";
import { shardOfHash } from "../../layer3-ip/steer.ts";
import type { Connection } from "../connection.ts";
import type { Container } from "../container.ts";
import type { Counters, WorkerCounter } from "../counters.ts";
import type { CloseCode } from "../descriptor.ts";
import { Fifo } from "../fifo.ts";
import { type FramePool, smallFrameBytes } from "../link.ts";
import type { Ends } from "../nodes/v-node.ts";
import type { ConnectRequest, ListenerRecord, LocalAddress, TransportEvents } from "../transport.ts";
import { Flow, FlowKey, FlowTable, isGroup } from "./flow.ts";
import { LocalPorts, sourceFor, type UdpListener } from "./local-ports.ts";
import {
  buildPacket,
  built,
  payloadMax,
  protocolNumber,
  readFlow,
  readQuotedFlow,
  readReportedMtu,
  upperHeaderBytes,
  wholeMax,
} from "./packets.ts";

const sweepMs = 100;
/** What every path takes: IPv4 by custom (RFC 1191 would believe 68), IPv6 by RFC 8200 5. */
const leastMtu = 576;
const leastMtuSix = 1280;
/** How long a lower path MTU is believed (RFC 1191 6.3, RFC 8201 5.3). */
const pathMtuMs = 600_000;

const noIcmpServer =
  "echo requests are answered by the link itself: icmp is for clients, opens({ protocol, to })";

/** What the transport shares with the other protocols of its worker. */
export interface UdpContext {
  readonly events: TransportEvents;
  readonly pool: FramePool;
  readonly counters: Counters<WorkerCounter>;
  readonly port: PacketPort;
  readonly prefixes: readonly IpPrefix[];
  /** The link's longest IP packet, in bytes. */
  readonly mtu: number;
}

export class UdpTransport {
  private readonly context: UdpContext;
  private readonly port: PacketPort;
  private readonly flows: FlowTable;
  private readonly ports: LocalPorts;
  private readonly waiting = new Fifo<Flow>();
  private readonly prefixes: readonly IpPrefix[];
  /** The flow of the packet at hand. */
  private readonly key = new FlowKey();
  private nowMs = performance.now();
  private sweepAtMs = 0;

  constructor(context: UdpContext) {
    this.context = context;
    this.prefixes = context.prefixes;
    this.port = context.port;
    this.flows = new FlowTable(this.port.steer);
    this.ports = new LocalPorts(this.port, this.flows, this.prefixes);
  }

  // --- what `Transport` asks of it: see ../transport.ts ---------------------------------------------------------

  listen(record: ListenerRecord): LocalAddress {
    if (record.protocol === "icmp") throw new ApoError("ENOTSUP", noIcmpServer);
    return this.ports.listen(record);
  }

  unlisten(listenerId: number): void {
    this.ports.unlisten(listenerId);
  }

  connect(request: ConnectRequest): void {
    const refusal = this.tryConnect(request);
    if (refusal) this.context.events.connectFailed(request, refusal.code, refusal.message);
  }

  send(connection: Connection, container: Container): void {
    const flow = connection.handle as Flow;
    if (flow.waiting.length === 0 && this.transmit(flow, container)) {
      this.context.events.sent(connection, container);
      return;
    }
    flow.waiting.push(container);
    if (flow.isWaiting) return;
    flow.isWaiting = true;
    this.waiting.push(flow);
  }

  end(connection: Connection): void {
    this.endFlow(connection.handle as Flow, "end");
  }

  /** Sends what can be sent, and ends every flow. */
  close(): void {
    this.sendWaiting();
    for (const flow of this.flows.all()) this.endFlow(flow, "shutdown");
  }

  // --- a turn ---------------------------------------------------------------------------------------------------

  /** At the start of a turn, before its packets. */
  begin(nowMs: number): void {
    this.nowMs = nowMs;
  }

  /** At the end of a turn: what waited, and what is due. True: something waits still. */
  flush(): boolean {
    if (this.waiting.length > 0) this.sendWaiting();
    if (this.nowMs >= this.sweepAtMs) this.sweep();
    return this.waiting.length > 0;
  }

  /** A UDP datagram or echo reply. Takes over the frame, with the worker's mark of holding it. */
  packet(words: Int32Array, at: number): void {
    const { pool } = this.context;
    const frame = descriptor.frameOf(words, at);
    readFlow(pool, words, at, this.key);
    const flow = this.flows.find(this.key, descriptor.hashOf(words, at)) ?? this.welcome();
    if (!flow?.connection) {
      this.context.counters.add("layer2.drop.no-connection");
      pool.release(frame);
      return;
    }
    flow.lastHeardMs = this.nowMs;
    const upper = descriptor.upperOffsetOf(words, at);
    const offset = upper + upperHeaderBytes;
    // What an IP packet carries behind the UDP length is not part of the datagram.
    const length =
      this.key.protocol === protocolNumber.udp
        ? pool.bytes.readUInt16BE(frame * smallFrameBytes + upper + 4) - upperHeaderBytes
        : descriptor.packetOffsetOf(words, at) + descriptor.lengthOf(words, at) - offset;
    const segmentBytes = descriptor.segmentBytesOf(words, at);
    if (segmentBytes === 0 || length <= segmentBytes) {
      this.context.counters.add("layer2.udp.received");
      this.context.events.datagram(flow.connection, frame, offset, length);
    } else {
      this.datagrams(flow, frame, offset, length, segmentBytes);
      pool.release(frame);
    }
  }

  /** A super-packet of UDP: each datagram becomes a message of its own, in a frame of its own. */
  private datagrams(flow: Flow, frame: number, offset: number, length: number, segmentBytes: number): void {
    const { pool, events, counters } = this.context;
    const first = frame * smallFrameBytes + offset;
    for (let done = 0; done < length && flow.connection; done += segmentBytes) {
      const bytes = Math.min(segmentBytes, length - done);
      counters.add("layer2.udp.received");
      const copy = pool.allocate(bytes);
      if (copy === 0) {
        counters.add("layer2.drop.pool");
        continue;
      }
      pool.write(copy, 0, pool.bytes.subarray(first + done, first + done + bytes));
      events.datagram(flow.connection, copy, 0, bytes);
    }
  }

  /** The first packet of a stranger: a new connection of the listener at its port, if there is one. */
  private welcome(): Flow | undefined {
    const listener: UdpListener | undefined = this.ports.listenerFor(this.key);
    if (!listener) return undefined;
    const flow = new Flow(listener.record, false, this.key, this.context.mtu);
    if (!this.answersFromOwn(flow)) return undefined;
    const shard = shardOfHash(this.key.hash(this.port.steer));
    flow.connection = this.context.events.accepted(listener.record, this.endsOf(flow), flow, shard);
    if (!flow.connection) return undefined;
    this.addFlow(flow);
    return flow;
  }

  /** What came to a group is answered from an address of ours. False: there is none of that version. */
  private answersFromOwn({ key, from }: Flow): boolean {
    if (!isGroup(key.words, 4, key.wordCount)) return true;
    const own = sourceFor(this.prefixes, key.wordCount === 4, key.words);
    if (own) from.set(own.words);
    return own !== undefined;
  }

  /**
   * An ICMP error about a packet of ours; its frame stays the caller's. "Unreachable" ends its connection, "too big" is
   * learned from; the others are passing troubles.
   */
  icmp(words: Int32Array, at: number): void {
    const { pool, counters } = this.context;
    const six = descriptor.isVersion6(words, at);
    const type = descriptor.labelOf(words, at) >>> 8;
    const code = descriptor.labelOf(words, at) & 0xff;
    readQuotedFlow(pool, words, at, this.key);
    const isTooBig = six ? type === 2 : type === 3 && code === 4;
    const isUnreachable = !isTooBig && type === (six ? 1 : 3);
    const flow =
      isTooBig || isUnreachable ? this.flows.find(this.key, descriptor.hashOf(words, at)) : undefined;
    if (!flow) {
      counters.add("layer2.drop.icmp-ignored");
      return;
    }
    if (isTooBig) {
      this.learnPathMtu(flow, readReportedMtu(pool, words, at));
      return;
    }
    const error: ErrorCode = code === (six ? 4 : 3) ? "ECONNREFUSED" : "EHOSTUNREACH";
    this.endFlow(flow, flow.isClient ? "refused" : "reset", error);
  }

  /** Layer 3 sends longer datagrams in pieces from here on; those that must stay whole are refused. */
  private learnPathMtu(flow: Flow, reported: number): void {
    const least = flow.key.wordCount === 1 ? leastMtu : leastMtuSix;
    const mtu = Math.max(least, reported);
    if (mtu >= flow.pathMtu) return;
    flow.pathMtu = mtu;
    flow.pathMtuUntilMs = this.nowMs + pathMtuMs;
    this.context.counters.add("layer2.udp.path-mtu-lowered");
    this.tellLongest(flow);
  }

  private tellLongest(flow: Flow): void {
    if (flow.connection && !flow.rules.udp.fragment) {
      this.context.events.longestDatagram(flow.connection, wholeMax(flow));
    }
  }

  /** True: the container has been dealt with (sent, or dropped and counted). */
  private transmit(flow: Flow, container: Container): boolean {
    const { pool, counters } = this.context;
    if (container.length > (flow.rules.udp.fragment ? payloadMax(flow) : wholeMax(flow))) {
      counters.add("layer2.drop.send-failed");
      return true;
    }
    const outcome = buildPacket(pool, this.port.toSend, flow, container);
    if (outcome === built.nothing) return false;
    counters.add("layer2.udp.sent");
    if (outcome === built.superPacket) counters.add("layer2.udp.super-packets");
    return true;
  }

  /** Containers that found no room: each flow's in order, the flows in turn. */
  private sendWaiting(): void {
    for (let turns = this.waiting.length; turns > 0; turns -= 1) {
      const flow = this.waiting.shift();
      const container = flow?.waiting.peek();
      if (!flow || !container || !flow.connection) {
        if (flow) flow.isWaiting = false;
        continue;
      }
      const done = this.transmit(flow, container);
      if (done) {
        flow.waiting.shift();
        this.context.events.sent(flow.connection, container);
      }
      if (flow.waiting.length > 0) this.waiting.push(flow);
      else flow.isWaiting = false;
      if (!done) return;
    }
  }

  // --- the life of a flow ---------------------------------------------------------------------------------------

  /** Makes a client's flow, or says why not. */
  private tryConnect(request: ConnectRequest): ApoError | undefined {
    const { protocol, address, port } = request;
    const far = addressWords(address);
    if (!far)
      return new ApoError("EHOSTUNREACH", `"${address}" is not an IP address; a raw link knows no names`);
    const own = sourceFor(this.prefixes, far.version6, far.words);
    if (!own) {
      return new ApoError(
        "EHOSTUNREACH",
        `no IPv${far.version6 ? 6 : 4} address here to reach ${address} from`,
      );
    }
    const key = new FlowKey();
    key.words.set(far.words, 0);
    key.words.set(own.words, 4);
    key.wordCount = far.version6 ? 4 : 1;
    key.protocol = protocolOf(protocol, far.version6);
    key.remotePort = port;
    if (!this.ports.choose(key)) return new ApoError("EADDRNOTAVAIL", `no local port is left for ${address}`);
    const flow = new Flow(request, true, key, this.context.mtu);
    // No slot: `connected` has said so itself.
    const shard = shardOfHash(key.hash(this.port.steer));
    flow.connection = this.context.events.connected(request, this.endsOf(flow), flow, shard);
    if (flow.connection) this.addFlow(flow);
    // `choose` has used it; from here on the flow does.
    if (protocol === "udp") this.ports.leave(key.localPort);
    return undefined;
  }

  private addFlow(flow: Flow): void {
    flow.lastHeardMs = this.nowMs;
    this.flows.add(flow);
    this.tellLongest(flow);
    if (flow.key.protocol === protocolNumber.udp) this.ports.use(flow.key.localPort);
    else this.ports.useEcho(flow.key.localPort);
  }

  private endFlow(flow: Flow, code: CloseCode, error?: ErrorCode): void {
    const { events } = this.context;
    const { connection } = flow;
    if (!connection) return;
    flow.connection = undefined;
    if (this.flows.remove(flow)) {
      if (flow.key.protocol === protocolNumber.udp) this.ports.leave(flow.key.localPort);
      else this.ports.leaveEcho(flow.key.localPort);
    }
    for (let left = flow.waiting.shift(); left; left = flow.waiting.shift()) {
      this.context.counters.add("layer2.drop.send-unsent");
      events.sent(connection, left);
    }
    events.ended(connection, code, error);
  }

  /** Ends the flows that were silent for too long. */
  private sweep(): void {
    this.sweepAtMs = this.nowMs + Math.max(sweepMs, this.flows.size / 100);
    for (const flow of this.flows.all()) {
      if (this.nowMs > flow.pathMtuUntilMs) {
        flow.pathMtu = this.context.mtu;
        flow.pathMtuUntilMs = Number.POSITIVE_INFINITY;
        this.tellLongest(flow);
      }
      const { idleMs } = flow.rules;
      if (idleMs > 0 && this.nowMs - flow.lastHeardMs > idleMs) this.endFlow(flow, "idle");
    }
  }

  private endsOf(flow: Flow): Ends {
    const { words, wordCount, protocol, remotePort, localPort } = flow.key;
    const six = wordCount === 4;
    const hasPorts = protocol === protocolNumber.udp;
    return {
      address: formatAddress(words, 0, six),
      port: hasPorts ? remotePort : 0,
      localAddress: formatAddress(words, 4, six),
      localPort: hasPorts ? localPort : 0,
    };
  }
}

function protocolOf(protocol: "udp" | "icmp" | "tcp", version6: boolean): number {
  if (protocol === "udp") return protocolNumber.udp;
  return version6 ? protocolNumber.icmpv6 : protocolNumber.icmp;
}
