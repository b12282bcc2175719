/**
 * The native thread's part for a stack in virtual time: packets from its ring to a virtual wire, and from the wire
 * as descriptors.
 *
 * Layer 2, simulation only. It does what thread/transmit_path.cc and receive_path.cc do, and no more: completes
 * headers, cuts super-packets, checks what arrives, answers for ports that are not open, steers. It knows no
 * connections. What a real native thread would refuse to send is a fault of the stack and is kept in `faults`.
 */

import * as descriptor from "../../layer3-ip/descriptor.ts";
import { type IpPrefix, prefixContains } from "../../layer3-ip/ip-prefix.ts";
import { type FramePool, largeFrameBytes, smallFrameBytes } from "../../layer3-ip/pool.ts";
import type { RandomStream } from "../../layer3-ip/random-stream.ts";
import { createRing, descriptorWords, RingConsumer, RingProducer } from "../../layer3-ip/ring.ts";
import { type SteerHash, shardOfHash } from "../../layer3-ip/steer.ts";
import type { VirtualWire } from "../../layer3-ip/virtual-wire.ts";
import {
  ipHeaderBytes,
  load16,
  load32,
  tcpHeaderLength,
  tcpProtocol,
  tcpSegments,
  writeIpHeader,
  writePartialChecksum,
  writeTcpChecksum,
} from "./packet-bytes.ts";
import { ipLength, refusalOf } from "./packet-check.ts";
import { MergedPacket } from "./packet-merge.ts";
import { resetFor, tooBigFor } from "./packet-replies.ts";

const headroomBytes = 64;
const smallPacketBytes = smallFrameBytes - headroomBytes;
const verified = 1;
const partial = 2;
const gsoTcp4 = 2;
const gsoTcp6 = 3;
const defaultHopLimit = 64;

export interface VirtualLayer3Options {
  readonly wire: VirtualWire;
  readonly pool: FramePool;
  readonly addresses: readonly IpPrefix[];
  readonly prefixes?: readonly IpPrefix[];
  readonly steer: SteerHash;
  readonly random: RandomStream;
  /** The link's longest packet. */
  readonly mtu: number;
  /** The longest packet that gets through; a longer one is lost, and a router says so if `tellsTooBig`. */
  readonly pathMtu?: number;
  readonly tellsTooBig?: boolean;
  /** Of 256 batches, how many are merged where they can be (0). */
  readonly mergeOf256?: number;
  /** What the host's clock shows at virtual time 0, in microseconds (0). */
  readonly clockOffsetUs?: number;
  /** Descriptors the ring to the wire holds (1,024). */
  readonly ringCapacity?: number;
  /** Something has come: `receive` is to be called, at the latest when it gets round to it. */
  readonly onArrival: () => void;
  /** Sees every packet that goes to the wire. */
  readonly onSent?: (packet: Uint8Array, nowUs: number) => void;
}

/** Where descriptors of received packets go; takes over their frames. `icmp` does not. */
export interface DescriptorInput {
  input(words: Int32Array, at: number): void;
  icmp(words: Int32Array, at: number): void;
}

export class VirtualLayer3 {
  /** Where the stack writes its descriptors. */
  readonly output: RingProducer;
  /** The wire's plug. */
  readonly plug: number;
  /** By the names of layer 3's counters. */
  readonly counts = new Map<string, number>();
  /** What the stack asked for that a native thread refuses. */
  readonly faults: string[] = [];
  private readonly options: VirtualLayer3Options;
  private readonly ring: RingConsumer;
  private readonly openPorts = new Map<number, number>();
  private readonly addressWords = new Int32Array(8);
  private readonly received = new Int32Array(descriptorWords);
  private arrived: { packet: Uint8Array; atUs: number }[] = [];
  private readonly errors: Uint8Array[] = [];

  constructor(options: VirtualLayer3Options) {
    this.options = options;
    const memory = createRing(options.ringCapacity ?? 1024);
    this.output = new RingProducer(memory);
    this.ring = new RingConsumer(memory);
    const list = (prefixes: readonly IpPrefix[]) =>
      prefixes.map(({ text, prefixBits, whole }) => (whole ? `${text}/${prefixBits}` : text)).join(", ");
    this.plug = options.wire.plug(
      list(options.addresses),
      (packet, nowUs) => this.arrive(packet, nowUs),
      list(options.prefixes ?? []),
    );
  }

  /** From here on segments to the port reach the stack; before, they are answered with a reset. Counts its users. */
  usePort(port: number): void {
    this.openPorts.set(port, (this.openPorts.get(port) ?? 0) + 1);
  }

  leavePort(port: number): void {
    const users = this.openPorts.get(port) ?? 0;
    if (users === 0) this.faults.push(`port ${port} was left more often than used`);
    if (users > 1) this.openPorts.set(port, users - 1);
    else this.openPorts.delete(port);
  }

  get portsInUse(): number {
    return this.openPorts.size;
  }

  count(name: string, by = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + by);
  }

  /** Sends all that the stack has put into `output`, and gives its frames back. */
  transmit(): void {
    this.output.publish();
    for (let at = this.ring.take(); at !== -1; at = this.ring.take()) {
      const frame = descriptor.frameOf(this.ring.words, at);
      const refusal = this.transmitOne(this.ring.words, at);
      if (refusal !== "") this.faults.push(`layer 3 refused a packet: ${refusal}`);
      this.options.pool.release(frame);
    }
    this.ring.release();
  }

  /** Hands everything that has arrived to the stack. */
  receive(stack: DescriptorInput): void {
    const { random, mergeOf256 = 0 } = this.options;
    const batch = this.arrived;
    this.arrived = [];
    const merges = mergeOf256 > 0 && random.below(256) < mergeOf256;
    for (let i = 0; i < batch.length; ) {
      const { packet, atUs } = batch[i] as { packet: Uint8Array; atUs: number };
      const merged = new MergedPacket(packet);
      i += 1;
      while (merges && i < batch.length && merged.take((batch[i] as { packet: Uint8Array }).packet)) i += 1;
      this.deliver(stack, merged.whole(), merged.gsoBytes, atUs);
    }
    for (const error of this.errors.splice(0)) this.deliverError(stack, error);
  }

  /** Nothing waits here: neither on its way out nor for `receive`. */
  get isEmpty(): boolean {
    return this.output.size === 0 && this.arrived.length === 0 && this.errors.length === 0;
  }

  private transmitOne(words: Int32Array, at: number): string {
    const { pool, mtu, addresses, prefixes } = this.options;
    const six = descriptor.isVersion6(words, at);
    const offset = descriptor.packetOffsetOf(words, at);
    const length = descriptor.lengthOf(words, at);
    const frame = descriptor.frameOf(words, at);
    const upper = descriptor.upperOffsetOf(words, at);
    const headerBytes = ipHeaderBytes(six);
    if (upper !== offset + headerBytes || offset + length > pool.frameBytes(frame)) return "offsets";
    if (length > (six ? 65_575 : 65_535)) return "longer than IP can say";
    const ip = frame * smallFrameBytes + offset;
    const tcpBytes = tcpHeaderLength(pool.bytes, ip + headerBytes, length - headerBytes);
    if (descriptor.protocolOf(words, at) !== tcpProtocol || tcpBytes === 0) return "not TCP";
    this.readAddresses(pool.bytes, ip, six);
    const own = [...addresses, ...(prefixes ?? [])].some((one) => this.isSource(one, six));
    if (!own) return "not from an own address";
    const gsoBytes = descriptor.segmentBytesOf(words, at);
    const gsoKind = ((words[at + 3] as number) >>> 18) & 7;
    if (gsoKind !== 0 && (gsoKind !== (six ? gsoTcp6 : gsoTcp4) || gsoBytes === 0)) return "GSO kind";
    const fields = {
      version6: six,
      protocol: tcpProtocol,
      hopLimit: descriptor.hopLimitOf(words, at) || defaultHopLimit,
      trafficClass: (words[at + 5] as number) >>> 24,
      label: descriptor.labelOf(words, at),
    };
    writeIpHeader(pool.bytes, ip, fields, length - headerBytes);
    if (gsoKind === 0) {
      if (length > mtu) return `${length} bytes, which are more than the MTU of ${mtu}`;
      writeTcpChecksum(pool.bytes, ip, six, length);
      this.send(new Uint8Array(pool.bytes.subarray(ip, ip + length)));
      return "";
    }
    if (headerBytes + tcpBytes + Math.min(gsoBytes, length - headerBytes - tcpBytes) > mtu) {
      return `segments of ${gsoBytes} bytes are more than the MTU of ${mtu}`;
    }
    writePartialChecksum(pool.bytes, ip, six, length);
    for (const segment of tcpSegments(pool.bytes.subarray(ip, ip + length), gsoBytes)) this.send(segment);
    return "";
  }

  private send(packet: Uint8Array): void {
    const { wire, pathMtu = 0, tellsTooBig = false, onSent } = this.options;
    this.count("tx.packets");
    onSent?.(packet, wire.nowUs);
    if (pathMtu > 0 && packet.length > pathMtu) {
      this.count("path.tooBig");
      if (tellsTooBig) {
        this.errors.push(tooBigFor(packet, pathMtu));
        this.options.onArrival();
      }
      return;
    }
    wire.send(this.plug, packet);
  }

  private arrive(packet: Uint8Array, atUs: number): void {
    this.count("rx.packets");
    const refusal = refusalOf(packet);
    if (refusal !== "") {
      this.count(refusal);
      return;
    }
    const bytes = packet.subarray(0, ipLength(packet));
    const upper = ipHeaderBytes((bytes[0] as number) >>> 4 === 6);
    if (!this.openPorts.has(load16(bytes, upper + 2))) {
      this.count("rx.dropped.unopened");
      const reset = resetFor(bytes);
      if (reset) {
        this.count("tcp.resets");
        this.send(reset);
      }
      return;
    }
    this.arrived.push({ packet: bytes, atUs });
    this.options.onArrival();
  }

  private deliver(stack: DescriptorInput, packet: Uint8Array, gsoBytes: number, atUs: number): void {
    const six = (packet[0] as number) >>> 4 === 6;
    const words = this.frameFor(packet);
    if (!words) return;
    const upper = ipHeaderBytes(six);
    this.readAddresses(packet, 0, six);
    const { steer } = this.options;
    const count = six ? 4 : 1;
    const from = this.addressWords;
    const hash = steer.hash(from, 0, load16(packet, upper), from, 4, load16(packet, upper + 2), count, 6);
    const kind = gsoBytes === 0 ? 0 : six ? gsoTcp6 : gsoTcp4;
    const checksum = gsoBytes === 0 ? verified : partial;
    words[3] =
      tcpProtocol | (shardOfHash(hash) << 8) | ((six ? 6 : 4) << 12) | (checksum << 16) | (kind << 18);
    const first = load32(packet, 0);
    words[4] = six ? first & 0xfffff : 0;
    const trafficClass = six ? (first >>> 20) & 0xff : (packet[1] as number);
    words[5] = gsoBytes | ((packet[six ? 7 : 8] as number) << 16) | (trafficClass << 24);
    words[6] = (atUs + (this.options.clockOffsetUs ?? 0)) | 0;
    words[7] = hash;
    this.count("rx.delivered");
    stack.input(words, 0);
  }

  /** An ICMP error of ours to the stack, which leaves its frame. */
  private deliverError(stack: DescriptorInput, packet: Uint8Array): void {
    const six = (packet[0] as number) >>> 4 === 6;
    const words = this.frameFor(packet);
    if (!words) return;
    const quoted = ipHeaderBytes(six) + 8;
    this.readAddresses(packet, quoted, six);
    const ports = quoted + ipHeaderBytes(six);
    const from = this.addressWords;
    const { steer } = this.options;
    const hash = steer.hash(
      from,
      0,
      load16(packet, ports),
      from,
      4,
      load16(packet, ports + 2),
      six ? 4 : 1,
      6,
    );
    words[3] =
      (six ? 58 : 1) | (shardOfHash(hash) << 8) | ((six ? 6 : 4) << 12) | (verified << 16) | (2 << 21);
    words[4] = load16(packet, ipHeaderBytes(six));
    words[5] = 64 << 16;
    words[6] = (this.options.wire.nowUs + (this.options.clockOffsetUs ?? 0)) | 0;
    words[7] = hash;
    this.count("rx.icmp");
    stack.icmp(words, 0);
    this.options.pool.release(words[0] as number);
  }

  /** Puts a packet into a frame and begins its descriptor; undefined, and counted: no frame. */
  private frameFor(packet: Uint8Array): Int32Array | undefined {
    const { pool } = this.options;
    const small = packet.length <= smallPacketBytes;
    const frame = packet.length > largeFrameBytes ? 0 : pool.allocateFrame(!small);
    if (frame === 0) {
      this.count("rx.dropped.poolEmpty");
      return undefined;
    }
    const offset = small ? headroomBytes : 0;
    pool.bytes.set(packet, frame * smallFrameBytes + offset);
    const words = this.received;
    words[0] = frame;
    words[1] = offset | ((offset + ipHeaderBytes((packet[0] as number) >>> 4 === 6)) << 16);
    words[2] = packet.length;
    return words;
  }

  /** Whether the source in `addressWords` is this address, or of this whole prefix. */
  private isSource(prefix: IpPrefix, six: boolean): boolean {
    if (prefix.version6 !== six) return false;
    if (prefix.whole) return prefixContains(prefix, this.addressWords);
    for (let i = 0; i < (six ? 4 : 1); i += 1) if (prefix.words[i] !== this.addressWords[i]) return false;
    return true;
  }

  /** Source to words 0-3, destination to 4-7 of `addressWords`. */
  private readAddresses(bytes: Uint8Array, ip: number, six: boolean): void {
    const count = six ? 4 : 1;
    const at = ip + (six ? 8 : 12);
    this.addressWords.fill(0);
    for (let i = 0; i < count; i += 1) {
      this.addressWords[i] = load32(bytes, at + 4 * i);
      this.addressWords[4 + i] = load32(bytes, at + 4 * (count + i));
    }
  }
}
