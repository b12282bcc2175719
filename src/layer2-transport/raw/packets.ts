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
/** A super-packet's bytes (IPv4's longest packet) and segments (what Linux takes: UDP_MAX_SEGMENTS was 64 for long). */
const runBytesMax = 65_535;
const segmentsMax = 64;
const fragmentHeaderBytes = 8;

/** What became of a datagram: nothing (no frame or no place in the ring just now), a packet, or a part of one. */
export const built = { nothing: 0, packet: 1, superPacket: 2, addition: 3 } as const;
type Built = (typeof built)[keyof typeof built];

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

/** The MTU that a received "too big" (ICMPv4: "fragmentation needed") reports; 0: an old router says none. */
export function readReportedMtu(pool: FramePool, words: Int32Array, at: number): number {
  const upper = descriptor.frameOf(words, at) * smallFrameBytes + descriptor.upperOffsetOf(words, at);
  return descriptor.isVersion6(words, at)
    ? pool.bytes.readUInt32BE(upper + 4)
    : pool.bytes.readUInt16BE(upper + 6);
}

/** Bytes of payload that reach the flow's peer in one piece. */
export function wholeMax(flow: Flow): number {
  return flow.pathMtu - ipHeaderBytes(flow.key.wordCount) - upperHeaderBytes;
}

/** Bytes of payload that fit a datagram: an IPv4 packet's 65,535 (RFC 791 3.1), or what a large frame holds. */
export function payloadMax(flow: Flow): number {
  return (flow.key.wordCount === 1 ? 65_535 : 65_536) - ipHeaderBytes(flow.key.wordCount) - upperHeaderBytes;
}

/**
 * Builds the flow's next packet around the container's bytes and reserves its place in the ring, or adds it to the
 * packet before.
 */
export function buildPacket(pool: FramePool, ring: RingProducer, flow: Flow, container: Container): Built {
  const { key, run } = flow;
  if (run.turn === ring.publishes) {
    const added = addToRun(pool, ring.words, flow, container);
    if (added !== built.nothing) return added;
  }
  const length = ipHeaderBytes(key.wordCount) + upperHeaderBytes + container.length;
  const isLarge = smallHeadroomBytes + length > smallFrameBytes;
  const headroomBytes = isLarge ? 0 : smallHeadroomBytes;
  const upperOffset = headroomBytes + ipHeaderBytes(key.wordCount);
  const frame = pool.allocateFrame(isLarge);
  if (frame === 0) return built.nothing;
  // Until the native thread has sent it, it is found by this mark should this worker die.
  pool.hold(frame, pool.partition);
  const slot = ring.reserve();
  if (slot < 0) {
    pool.release(frame);
    return built.nothing;
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
  (ring.words[slot + 3] as number) |= flow.kindWord;
  ring.words[slot + 5] = flow.segmentsWord;
  run.turn = isUdp && container.length > 0 && length <= flow.pathMtu ? ring.publishes : -1;
  run.slot = slot;
  run.frame = frame;
  run.segmentBytes = container.length;
  run.bytes = container.length;
  return built.packet;
}

/**
 * Adds a datagram to a run: those of one flow that follow each other in one turn, all as long as the first but for the
 * last, leave as one super-packet (UDP's generic segmentation offload). Whoever receives it takes it apart again: the
 * link, the kernel behind it, or layer 3. `nothing`: it is to be a packet of its own.
 */
function addToRun(pool: FramePool, words: Int32Array, flow: Flow, container: Container): Built {
  const { run, key } = flow;
  const { length } = container;
  const headerBytes = ipHeaderBytes(key.wordCount) + upperHeaderBytes;
  const fits = run.bytes + length <= runBytesMax - headerBytes && run.bytes < segmentsMax * run.segmentBytes;
  if (length === 0 || length > run.segmentBytes || !fits) return built.nothing;
  const isSecond = run.bytes === run.segmentBytes;
  if (isSecond && !moveToLarge(pool, words, flow)) return built.nothing;
  let to = run.frame * smallFrameBytes + headerBytes + run.bytes;
  for (const view of container.views) {
    pool.bytes.set(view, to);
    to += view.length;
  }
  run.bytes += length;
  words[run.slot + 2] = headerBytes + run.bytes;
  // A shorter one ends the run.
  if (length < run.segmentBytes) run.turn = -1;
  return isSecond ? built.superPacket : built.addition;
}

/** The run's first datagram gets company: its frame becomes one that has room for many. */
function moveToLarge(pool: FramePool, words: Int32Array, flow: Flow): boolean {
  const { run, key } = flow;
  const headerBytes = ipHeaderBytes(key.wordCount) + upperHeaderBytes;
  const isLarge = smallHeadroomBytes + headerBytes + run.bytes > smallFrameBytes;
  if (!isLarge) {
    const frame = pool.allocateFrame(true);
    if (frame === 0) return false;
    pool.hold(frame, pool.partition);
    const from = run.frame * smallFrameBytes + smallHeadroomBytes;
    pool.copy(from, frame * smallFrameBytes, headerBytes + run.bytes);
    pool.drop(run.frame, pool.partition);
    run.frame = frame;
    words[run.slot] = frame;
    words[run.slot + 1] = (headerBytes - upperHeaderBytes) << 16;
  }
  (words[run.slot + 3] as number) |= descriptor.gsoKind.udp;
  (words[run.slot + 5] as number) |= run.segmentBytes;
  return true;
}

/** Addresses right before `upper`, ours first, then the upper layer's header without its checksum. */
function writeHeader(bytes: Buffer, upper: number, flow: Flow): void {
  const { words, wordCount, protocol, localPort, remotePort } = flow.key;
  const { from } = flow;
  const source = upper - 8 * wordCount;
  for (let i = 0; i < wordCount; i += 1) {
    bytes.writeInt32BE(from[i] as number, source + 4 * i);
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
