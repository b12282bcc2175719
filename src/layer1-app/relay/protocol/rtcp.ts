/**
 * RTCP (RFC 3550 section 6): sender and receiver reports, source descriptions, goodbyes, and compounds of them.
 *
 * Layer 1, relay/protocol: pure, no clock. A compound is read as far as it makes sense; what follows a broken
 * packet is left out, because its length cannot be believed.
 */

import { readUint16, readUint32, writeUint16, writeUint32 } from "./rtp-packet.ts";

const SENDER_REPORT = 200;
const RECEIVER_REPORT = 201;
const SOURCE_DESCRIPTION = 202;
const GOODBYE = 203;
/** Most report blocks of a packet: its count has 5 bits. */
const BLOCKS_MAX = 31;

/** One report block (RFC 3550 6.4.1). */
export interface ReportBlock {
  /** Whose packets are reported on. */
  readonly ssrc: number;
  /** 0 to 255, in 256ths. */
  readonly fractionLost: number;
  /** 24 bits, signed. */
  readonly lost: number;
  readonly extendedSeq: number;
  /** In units of the RTP clock. */
  readonly jitter: number;
  /** Middle 32 bits of the last sender report's NTP time; 0 if none came. */
  readonly lastReport: number;
  /** Since that report came, in 65,536ths of a second. */
  readonly delay: number;
}

export interface SenderInfo {
  readonly ntpSeconds: number;
  readonly ntpFraction: number;
  readonly rtpTime: number;
  readonly packets: number;
  readonly octets: number;
}

export type RtcpPacket =
  | { readonly kind: "sr"; readonly ssrc: number; readonly info: SenderInfo; readonly blocks: ReportBlock[] }
  | { readonly kind: "rr"; readonly ssrc: number; readonly blocks: ReportBlock[] }
  | { readonly kind: "sdes"; readonly names: { readonly ssrc: number; readonly cname: string }[] }
  | { readonly kind: "bye"; readonly ssrcs: number[]; readonly reason: string }
  | { readonly kind: "other"; readonly type: number; readonly ssrc: number };

/** The packets of a compound (or of a lone, reduced-size one). An empty list: this is no RTCP. */
export function parseRtcp(bytes: Uint8Array): RtcpPacket[] {
  const packets: RtcpPacket[] = [];
  let at = 0;
  while (at + 4 <= bytes.length) {
    const first = bytes[at] ?? 0;
    const end = at + 4 + 4 * readUint16(bytes, at + 2);
    if (first >> 6 !== 2 || end > bytes.length) break;
    const packet = parseOne(bytes.subarray(at, end), first & 0x1f, bytes[at + 1] ?? 0);
    if (packet === undefined) break;
    packets.push(packet);
    at = end;
  }
  return packets;
}

/** Could this be RTCP and not RTP? (RFC 5761 section 4.) */
export function looksLikeRtcp(bytes: Uint8Array): boolean {
  const type = bytes[1] ?? 0;
  return bytes.length >= 4 && (bytes[0] ?? 0) >> 6 === 2 && type >= 192 && type <= 223;
}

function parseOne(packet: Uint8Array, count: number, type: number): RtcpPacket | undefined {
  const ssrc = readUint32(packet, 4);
  switch (type) {
    case SENDER_REPORT: {
      if (packet.length < 28) return undefined;
      const info: SenderInfo = {
        ntpSeconds: readUint32(packet, 8),
        ntpFraction: readUint32(packet, 12),
        rtpTime: readUint32(packet, 16),
        packets: readUint32(packet, 20),
        octets: readUint32(packet, 24),
      };
      const blocks = parseBlocks(packet, 28, count);
      return blocks && { kind: "sr", ssrc, info, blocks };
    }
    case RECEIVER_REPORT: {
      if (packet.length < 8) return undefined;
      const blocks = parseBlocks(packet, 8, count);
      return blocks && { kind: "rr", ssrc, blocks };
    }
    case SOURCE_DESCRIPTION:
      return parseDescriptions(packet, count);
    case GOODBYE:
      return parseGoodbye(packet, count);
    default:
      return { kind: "other", type, ssrc: packet.length < 8 ? 0 : ssrc };
  }
}

function parseBlocks(packet: Uint8Array, from: number, count: number): ReportBlock[] | undefined {
  if (packet.length < from + 24 * count) return undefined;
  const blocks: ReportBlock[] = [];
  for (let i = 0; i < count; i++) {
    const at = from + 24 * i;
    blocks.push({
      ssrc: readUint32(packet, at),
      fractionLost: packet[at + 4] ?? 0,
      lost: (readUint32(packet, at + 4) << 8) >> 8,
      extendedSeq: readUint32(packet, at + 8),
      jitter: readUint32(packet, at + 12),
      lastReport: readUint32(packet, at + 16),
      delay: readUint32(packet, at + 20),
    });
  }
  return blocks;
}

function parseDescriptions(packet: Uint8Array, count: number): RtcpPacket | undefined {
  const names: { ssrc: number; cname: string }[] = [];
  let at = 4;
  for (let i = 0; i < count; i++) {
    if (at + 4 > packet.length) return undefined;
    const ssrc = readUint32(packet, at);
    at += 4;
    let cname = "";
    while (at < packet.length && packet[at] !== 0) {
      const length = packet[at + 1] ?? 0;
      if (at + 2 + length > packet.length) return undefined;
      if (packet[at] === 1) cname = new TextDecoder().decode(packet.subarray(at + 2, at + 2 + length));
      at += 2 + length;
    }
    names.push({ ssrc, cname });
    at = (at + 4) & ~3; // The list ends with at least one zero, up to a word's end.
  }
  return { kind: "sdes", names };
}

function parseGoodbye(packet: Uint8Array, count: number): RtcpPacket | undefined {
  const reasonAt = 4 + 4 * count;
  if (packet.length < reasonAt) return undefined;
  const ssrcs: number[] = [];
  for (let i = 0; i < count; i++) ssrcs.push(readUint32(packet, 4 + 4 * i));
  const length = packet[reasonAt] ?? 0;
  const reason = new TextDecoder().decode(packet.subarray(reasonAt + 1, reasonAt + 1 + length));
  return { kind: "bye", ssrcs, reason };
}

/** A sender report without report blocks. */
export function buildSenderReport(ssrc: number, info: SenderInfo): Uint8Array {
  const packet = header(SENDER_REPORT, 0, 28);
  writeUint32(packet, 4, ssrc);
  writeUint32(packet, 8, info.ntpSeconds);
  writeUint32(packet, 12, info.ntpFraction);
  writeUint32(packet, 16, info.rtpTime);
  writeUint32(packet, 20, info.packets);
  writeUint32(packet, 24, info.octets);
  return packet;
}

/** A receiver report; no blocks makes the empty report that keeps a session alive. */
export function buildReceiverReport(ssrc: number, blocks: readonly ReportBlock[] = []): Uint8Array {
  if (blocks.length > BLOCKS_MAX) throw new RangeError(`an RR holds 31 blocks, not ${blocks.length}`);
  const packet = header(RECEIVER_REPORT, blocks.length, 8 + 24 * blocks.length);
  writeUint32(packet, 4, ssrc);
  for (const [i, block] of blocks.entries()) {
    const at = 8 + 24 * i;
    writeUint32(packet, at, block.ssrc);
    const lost = Math.max(-0x80_0000, Math.min(0x7f_ffff, block.lost));
    writeUint32(packet, at + 4, ((block.fractionLost & 0xff) << 24) | (lost & 0xff_ffff));
    writeUint32(packet, at + 8, block.extendedSeq);
    writeUint32(packet, at + 12, block.jitter);
    writeUint32(packet, at + 16, block.lastReport);
    writeUint32(packet, at + 20, block.delay);
  }
  return packet;
}

/** A source description with a CNAME: every compound has one. */
export function buildSourceDescription(ssrc: number, cname: string): Uint8Array {
  const name = new TextEncoder().encode(cname).subarray(0, 255);
  const bytes = 4 + ((4 + 2 + name.length + 1 + 3) & ~3);
  const packet = header(SOURCE_DESCRIPTION, 1, bytes);
  writeUint32(packet, 4, ssrc);
  packet[8] = 1;
  packet[9] = name.length;
  packet.set(name, 10);
  return packet;
}

/** A goodbye, with a reason if there is one. */
export function buildGoodbye(ssrc: number, reason = ""): Uint8Array {
  const text = new TextEncoder().encode(reason).subarray(0, 255);
  const bytes = text.length === 0 ? 8 : 8 + ((1 + text.length + 3) & ~3);
  const packet = header(GOODBYE, 1, bytes);
  writeUint32(packet, 4, ssrc);
  if (text.length > 0) {
    packet[8] = text.length;
    packet.set(text, 9);
  }
  return packet;
}

/** Packets one behind the other: a compound (RFC 3550 6.1 wants a report first, then SDES). */
export function compound(...packets: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(packets.reduce((sum, packet) => sum + packet.length, 0));
  let at = 0;
  for (const packet of packets) {
    bytes.set(packet, at);
    at += packet.length;
  }
  return bytes;
}

function header(type: number, count: number, bytes: number): Uint8Array {
  const packet = new Uint8Array(bytes);
  packet[0] = 0x80 | count;
  packet[1] = type;
  writeUint16(packet, 2, bytes / 4 - 1);
  return packet;
}

/** Seconds between 1900 (NTP) and 1970 (Unix). */
const NTP_EPOCH_SECONDS = 2_208_988_800;

/** Milliseconds since 1970 as NTP time. */
export function ntpFromMs(ms: number): { ntpSeconds: number; ntpFraction: number } {
  const seconds = Math.floor(ms / 1000);
  return {
    ntpSeconds: (seconds + NTP_EPOCH_SECONDS) >>> 0,
    ntpFraction: Math.floor(((ms - seconds * 1000) / 1000) * 4_294_967_296) >>> 0,
  };
}

/** NTP time as milliseconds since 1970. */
export function msFromNtp(ntpSeconds: number, ntpFraction: number): number {
  return (ntpSeconds - NTP_EPOCH_SECONDS) * 1000 + (ntpFraction / 4_294_967_296) * 1000;
}

/** The middle 32 bits, as report blocks carry them. */
export function ntpMiddle(ntpSeconds: number, ntpFraction: number): number {
  return (((ntpSeconds & 0xffff) << 16) | (ntpFraction >>> 16)) >>> 0;
}
