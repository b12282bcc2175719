/**
 * Puts TCP segments into pool frames and their descriptors into the ring to layer 3.
 *
 * Layer 2, TCP. It knows addresses, frames and descriptors, and nothing of a connection's state. Layer 3 completes the
 * IP header and the checksums, and cuts super-packets (`segmentBytes` > 0) where the link cannot take them whole.
 */

import { type FramePool, smallFrameBytes } from "../link.ts";
import { node } from "../nodes/v-node.ts";
import type { PacketOutput } from "./context.ts";
import { baseHeaderBytes } from "./wire/segment.ts";

/** Where packets start in small frames; in large ones at 0, since a packet may have 65,535 bytes. */
const headroomBytes = 64;
/** In front of a message that goes out from where it lies: its headers. */
export const frontBytes = 128;
const protocolTcp = 6;
const gsoTcp = { four: 2, six: 3 } as const;
/** The longest IP packet. */
export const packetBytesMax = 65_535;

export function ipHeaderBytes(version6: boolean): number {
  return version6 ? 40 : 20;
}

/** IP and TCP header without options. */
export function headerRoom(version6: boolean): number {
  return ipHeaderBytes(version6) + baseHeaderBytes;
}

/** Writes address words of a v-node or of a received packet in network order. */
export function putAddress(
  bytes: Uint8Array,
  to: number,
  words: Int32Array,
  at: number,
  count: number,
): void {
  for (let i = 0; i < count; i += 1) {
    const word = words[at + i] as number;
    bytes[to + 4 * i] = word >>> 24;
    bytes[to + 4 * i + 1] = word >>> 16;
    bytes[to + 4 * i + 2] = word >>> 8;
    bytes[to + 4 * i + 3] = word;
  }
}

export class PacketWriter {
  /** Where the TCP header of the packet under way goes, counted from the pool's first byte. */
  tcpAt = 0;
  /** The pool's bytes. */
  readonly bytes: Uint8Array;
  private readonly pool: FramePool;
  private readonly output: PacketOutput;
  /** Packets that had to wait because the pool was empty. */
  framesMissed = 0;
  private frame = 0;
  private packetOffset = 0;
  private version6 = false;
  private length = 0;

  constructor(pool: FramePool, output: PacketOutput) {
    this.pool = pool;
    this.bytes = pool.bytes;
    this.output = output;
  }

  /** Takes a frame for a packet with so many bytes of TCP header and payload. False: there is none just now. */
  open(version6: boolean, tcpBytes: number): boolean {
    const ip = ipHeaderBytes(version6);
    const length = ip + tcpBytes;
    const large = headroomBytes + length > smallFrameBytes;
    // A small packet goes in a large frame before it goes not at all: an ACK may free what others wait for.
    const frame = this.pool.allocateFrame(large) || (large ? 0 : this.pool.allocateFrame(true));
    if (frame === 0) {
      this.framesMissed += 1;
      return false;
    }
    this.begin(frame, large ? 0 : headroomBytes, version6, length);
    return true;
  }

  /**
   * Uses a frame in which the payload stands already, with room in front of it. The frame gets one more count, and
   * whoever had it must not change it again.
   */
  openAround(
    frame: number,
    payloadOffset: number,
    version6: boolean,
    headerBytes: number,
    payload: number,
  ): void {
    this.pool.retain(frame);
    const before = ipHeaderBytes(version6) + headerBytes;
    this.begin(frame, payloadOffset - before, version6, before + payload);
  }

  /** The packet turns out shorter than what `open` was told. */
  trim(tcpBytes: number): void {
    this.length = ipHeaderBytes(this.version6) + tcpBytes;
  }

  /** Source and destination as a v-node has them: its local end sends. */
  addresses(words: Int32Array, base: number): void {
    const count = this.version6 ? 4 : 1;
    putAddress(this.bytes, this.tcpAt - 8 * count, words, base + node.localAddress, count);
    putAddress(this.bytes, this.tcpAt - 4 * count, words, base + node.peerAddress, count);
  }

  /** Likewise for an answer to a packet of no connection: peer words at `at`, ours at `at + 4`. */
  answerAddresses(words: Int32Array, at: number): void {
    const count = this.version6 ? 4 : 1;
    putAddress(this.bytes, this.tcpAt - 8 * count, words, at + 4, count);
    putAddress(this.bytes, this.tcpAt - 4 * count, words, at, count);
  }

  /** Hands the packet to layer 3. False: the ring is full; the frame is given back. */
  post(segmentBytes: number, label: number, hopLimit: number, trafficClass: number): boolean {
    const { frame, packetOffset, version6 } = this;
    const at = this.output.reserve();
    if (at < 0) {
      this.pool.release(frame);
      return false;
    }
    // Until layer 3 has sent it, it is found by this mark should this worker die.
    this.pool.hold(frame, this.pool.partition);
    const { words } = this.output;
    const gso = segmentBytes === 0 ? 0 : version6 ? gsoTcp.six : gsoTcp.four;
    words[at] = frame;
    words[at + 1] = packetOffset | ((packetOffset + ipHeaderBytes(version6)) << 16);
    words[at + 2] = this.length;
    words[at + 3] = protocolTcp | ((version6 ? 6 : 4) << 12) | (gso << 18);
    words[at + 4] = label;
    words[at + 5] = segmentBytes | (hopLimit << 16) | (trafficClass << 24);
    words[at + 6] = 0;
    words[at + 7] = 0;
    return true;
  }

  private begin(frame: number, packetOffset: number, version6: boolean, length: number): void {
    this.frame = frame;
    this.packetOffset = packetOffset;
    this.version6 = version6;
    this.length = length;
    this.tcpAt = frame * smallFrameBytes + packetOffset + ipHeaderBytes(version6);
  }
}
