/**
 * UDP and ICMP in pool frames: who sent a received packet, and building one to be sent.
 *
 * Layer 2, raw links. Layer 3 has checked every length and checksum before a packet comes here, and completes what
 * leaves: a packet to be sent needs its addresses (right before the upper layer), its ports or echo fields, its bytes.
 */

import * as descriptor from "../../layer3-ip/descriptor.ts";
import type { RingProducer } from "../../layer3-ip/ring.ts";
import type { Container } from "../container.ts";
import { type FramePool, smallFrameBytes } from "../link.ts";
import type { Flow, FlowKey } from "./flow.ts";

export const protocolNumber = { icmp: 1, udp: 17, fragment: 44, icmpv6: 58 } as const;

/** Where packets start in the small frames they are built in; in large ones, at the start. */
const smallHeadroomBytes = 64;
/** UDP's header; an echo message's is as long. */
export const upperHeaderBytes = 8;
const echoRequest = 8;
const echoRequestSix = 128;
const quotedAt = 8;
const fragmentHeaderBytes = 8;

/** Bytes of the IP header that layer 3 will write. */
export function ipHeaderBytes(wordCount: 1 | 4): number {
  return wordCount === 1 ? 20 : 40;
}

/** Copies addresses: `source` 0 reads the packet's source as our far end, 4 as our own (a quoted packet). */
function readAddresses(bytes: Buffer, ip: number, key: FlowKey, source: 0 | 4): void {
  const { words, wordCount } = key;
  const from = ip + (wordCount === 1 ? 12 : 8);
  for (let i = 0; i < wordCount; i += 1) {
    words[source + i] = bytes.readInt32BE(from + 4 * i);
    words[4 - source + i] = bytes.readInt32BE(from + 4 * (wordCount + i));
  }
}

/** Reads a received packet's flow into `key`. Echo flows have the identifier for both ports. */
export function readFlow(pool: FramePool, words: Int32Array, at: number, key: FlowKey): void {
  const { bytes } = pool;
  const frameAt = descriptor.frameOf(words, at) * smallFrameBytes;
  const upper = frameAt + descriptor.upperOffsetOf(words, at);
  key.protocol = descriptor.protocolOf(words, at);
  key.wordCount = descriptor.isVersion6(words, at) ? 4 : 1;
  readAddresses(bytes, frameAt + descriptor.packetOffsetOf(words, at), key, 0);
  if (key.protocol === protocolNumber.udp) {
    key.remotePort = bytes.readUInt16BE(upper);
    key.localPort = bytes.readUInt16BE(upper + 2);
  } else {
    key.remotePort = bytes.readUInt16BE(upper + 4);
    key.localPort = key.remotePort;
  }
}

/** Reads into `key` the flow of the packet of ours that a received ICMP error quotes. */
export function readQuotedFlow(pool: FramePool, words: Int32Array, at: number, key: FlowKey): void {
  const { bytes } = pool;
  const frameAt = descriptor.frameOf(words, at) * smallFrameBytes;
  const quoted = frameAt + descriptor.upperOffsetOf(words, at) + quotedAt;
  const six = descriptor.isVersion6(words, at);
  key.wordCount = six ? 4 : 1;
  key.protocol = bytes[quoted + (six ? 6 : 9)] as number;
  readAddresses(bytes, quoted, key, 4);
  let upper = quoted + (six ? 40 : 4 * ((bytes[quoted] as number) & 15));
  if (six && key.protocol === protocolNumber.fragment) {
    // The first piece of a datagram that layer 3 sent in pieces; it has checked that it is.
    key.protocol = bytes[upper] as number;
    upper += fragmentHeaderBytes;
  }
  if (key.protocol === protocolNumber.udp) {
    key.localPort = bytes.readUInt16BE(upper);
    key.remotePort = bytes.readUInt16BE(upper + 2);
  } else {
    key.localPort = bytes.readUInt16BE(upper + 4);
    key.remotePort = key.localPort;
  }
}

/** Bytes of payload that fit a datagram: an IPv4 packet's 65,535 (RFC 791 3.1), or what a large frame holds. */
export function payloadMax(flow: Flow): number {
  return (flow.key.wordCount === 1 ? 65_535 : 65_536) - ipHeaderBytes(flow.key.wordCount) - upperHeaderBytes;
}

/**
 * Builds the flow's next packet around the container's bytes and reserves its place in the ring. False: there is no
 * frame or no place in the ring just now.
 */
export function buildPacket(pool: FramePool, ring: RingProducer, flow: Flow, container: Container): boolean {
  const { key } = flow;
  const length = ipHeaderBytes(key.wordCount) + upperHeaderBytes + container.length;
  const isLarge = smallHeadroomBytes + length > smallFrameBytes;
  const headroomBytes = isLarge ? 0 : smallHeadroomBytes;
  const upperOffset = headroomBytes + ipHeaderBytes(key.wordCount);
  const frame = pool.allocateFrame(isLarge);
  if (frame === 0) return false;
  // Until the native thread has sent it, it is found by this mark should this worker die.
  pool.hold(frame, pool.partition);
  const slot = ring.reserve();
  if (slot < 0) {
    pool.release(frame);
    return false;
  }
  const frameAt = frame * smallFrameBytes;
  writeHeader(pool.bytes, frameAt + upperOffset, flow);
  let to = frameAt + upperOffset + upperHeaderBytes;
  for (const view of container.views) {
    pool.bytes.set(view, to);
    to += view.length;
  }
  const isUdp = key.protocol === protocolNumber.udp;
  const kind = isUdp ? descriptor.packetKind.data : descriptor.packetKind.echoRequest;
  const six = key.wordCount === 4;
  descriptor.writeOutgoing(
    ring.words,
    slot,
    frame,
    headroomBytes,
    upperOffset,
    length,
    key.protocol,
    six,
    kind,
  );
  return true;
}

/** Addresses right before `upper`, ours first, then the upper layer's header without its checksum. */
function writeHeader(bytes: Buffer, upper: number, flow: Flow): void {
  const { words, wordCount, protocol, localPort, remotePort } = flow.key;
  const source = upper - 8 * wordCount;
  for (let i = 0; i < wordCount; i += 1) {
    bytes.writeInt32BE(words[4 + i] as number, source + 4 * i);
    bytes.writeInt32BE(words[i] as number, source + 4 * (wordCount + i));
  }
  if (protocol === protocolNumber.udp) {
    bytes.writeUInt16BE(localPort, upper);
    bytes.writeUInt16BE(remotePort, upper + 2);
    bytes.writeUInt32BE(0, upper + 4);
    return;
  }
  bytes.writeUInt32BE((wordCount === 4 ? echoRequestSix : echoRequest) * 2 ** 24, upper);
  bytes.writeUInt16BE(localPort, upper + 4);
  bytes.writeUInt16BE(flow.sequence, upper + 6);
  flow.sequence = (flow.sequence + 1) & 0xffff;
}
