/**
 * TCP segments as bytes: reading a received one into a reused record, writing headers and options (RFC 9293 3.1).
 *
 * Layer 2, pure: it knows nothing of connections, frames or v-nodes, and every byte it reads is hostile. Layer 3
 * computes checksums on the way out and has checked them on the way in. Numbers of 32 bits are signed integers.
 */

export const flag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const;

/** Bytes of a header without options. */
export const baseHeaderBytes = 20;
/** Bytes that `writeTimestamps` writes. */
export const timestampBytes = 12;
/** Blocks that one SACK option can hold (RFC 2018 3). */
export const maxSacks = 4;
/** A larger shift is read as this one (RFC 7323 2.3). */
export const maxScale = 14;

const kind = {
  end: 0,
  nop: 1,
  mss: 2,
  scale: 3,
  sackPermitted: 4,
  sack: 5,
  timestamps: 8,
  fastOpen: 34,
} as const;
/** NOP NOP, then the timestamps' kind and length: what stands before nearly every received pair. */
const timestampHead = 0x0101080a;
const fastOpenMin = 4;
const fastOpenMax = 16;

/** One received segment. Offsets are absolute: they count from the first byte of the array that was parsed. */
export class Segment {
  sourcePort = 0;
  destinationPort = 0;
  seq = 0;
  ack = 0;
  flags = 0;
  /** As on the wire, not scaled. */
  window = 0;
  /** The urgent pointer, whether or not URG is set. */
  urgent = 0;
  headerBytes = 0;
  payloadAt = 0;
  payloadLength = 0;
  /** 0: no such option. Options of the handshake are read from SYNs only. */
  mss = 0;
  /** -1: no such option. At most 14. */
  scale = -1;
  sackPermitted = false;
  hasTimestamp = false;
  tsValue = 0;
  tsEcho = 0;
  sackCount = 0;
  /** Pairs of left and right edge, as they came, unchecked. */
  readonly sacks = new Int32Array(2 * maxSacks);
  /** Where the Fast Open cookie is; 0: there is none. */
  fastOpenAt = 0;
  /** -1: no such option; 0: a cookie is asked for; else the cookie's bytes, 4 to 16 (RFC 7413 4.1.1). */
  fastOpenLength = -1;
}

function word(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] as number) << 24) |
    ((bytes[at + 1] as number) << 16) |
    ((bytes[at + 2] as number) << 8) |
    (bytes[at + 3] as number)
  );
}

function half(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

function putWord(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/**
 * Reads the segment of `length` bytes that begins at `at`, which must lie within `bytes`. False: it is malformed (a
 * header longer than the segment, an option longer than the header) and `into` holds nothing of use. Options that
 * are unknown, or known but of a wrong length, are passed over.
 */
export function parseSegment(bytes: Uint8Array, at: number, length: number, into: Segment): boolean {
  if (length < baseHeaderBytes) return false;
  const headerBytes = ((bytes[at + 12] as number) >>> 4) * 4;
  if (headerBytes < baseHeaderBytes || headerBytes > length) return false;
  into.sourcePort = half(bytes, at);
  into.destinationPort = half(bytes, at + 2);
  into.seq = word(bytes, at + 4);
  into.ack = word(bytes, at + 8);
  into.flags = bytes[at + 13] as number;
  into.window = half(bytes, at + 14);
  into.urgent = half(bytes, at + 18);
  into.headerBytes = headerBytes;
  into.payloadAt = at + headerBytes;
  into.payloadLength = length - headerBytes;
  into.mss = 0;
  into.scale = -1;
  into.sackPermitted = false;
  into.sackCount = 0;
  into.fastOpenAt = 0;
  into.fastOpenLength = -1;
  if (headerBytes === baseHeaderBytes + timestampBytes && word(bytes, at + 20) === timestampHead) {
    into.hasTimestamp = true;
    into.tsValue = word(bytes, at + 24);
    into.tsEcho = word(bytes, at + 28);
    return true;
  }
  into.hasTimestamp = false;
  into.tsValue = 0;
  into.tsEcho = 0;
  return headerBytes === baseHeaderBytes || parseOptions(bytes, at + baseHeaderBytes, at + headerBytes, into);
}

/** At most 40 bytes, so at most 40 steps. */
function parseOptions(bytes: Uint8Array, start: number, end: number, into: Segment): boolean {
  for (let at = start; at < end; ) {
    const option = bytes[at] as number;
    if (option === kind.end) return true;
    if (option === kind.nop) {
      at += 1;
      continue;
    }
    if (at + 1 >= end) return false;
    const length = bytes[at + 1] as number;
    if (length < 2 || at + length > end) return false;
    if (option === kind.timestamps) {
      if (length === 10) {
        into.hasTimestamp = true;
        into.tsValue = word(bytes, at + 2);
        into.tsEcho = word(bytes, at + 6);
      }
    } else if (option === kind.sack) {
      parseSacks(bytes, at, length, into);
    } else if ((into.flags & flag.syn) !== 0) {
      parseSynOption(bytes, at, option, length, into);
    }
    at += length;
  }
  return true;
}

function parseSacks(bytes: Uint8Array, at: number, length: number, into: Segment): void {
  const count = (length - 2) >>> 3;
  if (count < 1 || count > maxSacks || length !== 2 + 8 * count) return;
  for (let i = 0; i < 2 * count; i += 1) into.sacks[i] = word(bytes, at + 2 + 4 * i);
  into.sackCount = count;
}

function parseSynOption(bytes: Uint8Array, at: number, option: number, length: number, into: Segment): void {
  if (option === kind.mss) {
    if (length === 4) into.mss = half(bytes, at + 2);
  } else if (option === kind.scale) {
    if (length === 3) into.scale = Math.min(bytes[at + 2] as number, maxScale);
  } else if (option === kind.sackPermitted) {
    if (length === 2) into.sackPermitted = true;
  } else if (option === kind.fastOpen) {
    const cookie = length - 2;
    const isCookie = cookie >= fastOpenMin && cookie <= fastOpenMax && (cookie & 1) === 0;
    if (!isCookie && cookie !== 0) return;
    into.fastOpenAt = isCookie ? at + 2 : 0;
    into.fastOpenLength = cookie;
  }
}

/** Writes the 20 bytes before the options; checksum and urgent pointer are 0. `headerBytes` counts the options. */
export function writeHeader(
  bytes: Uint8Array,
  at: number,
  sourcePort: number,
  destinationPort: number,
  seq: number,
  ack: number,
  flags: number,
  window: number,
  headerBytes: number,
): void {
  putWord(bytes, at, (sourcePort << 16) | destinationPort);
  putWord(bytes, at + 4, seq);
  putWord(bytes, at + 8, ack);
  putWord(bytes, at + 12, (headerBytes << 26) | (flags << 16) | window);
  putWord(bytes, at + 16, 0);
}

/** Writes NOP NOP and the timestamps. Returns the bytes written: 12. */
export function writeTimestamps(bytes: Uint8Array, at: number, value: number, echo: number): number {
  putWord(bytes, at, timestampHead);
  putWord(bytes, at + 4, value);
  putWord(bytes, at + 8, echo);
  return timestampBytes;
}

/** Writes NOP NOP and `count` pairs of edges as SACK blocks. Returns the bytes written; 0 for no blocks. */
export function writeSacks(bytes: Uint8Array, at: number, blocks: Int32Array, count: number): number {
  if (count === 0) return 0;
  putWord(bytes, at, 0x0101_0000 | (kind.sack << 8) | (2 + 8 * count));
  for (let i = 0; i < 2 * count; i += 1) putWord(bytes, at + 4 + 4 * i, blocks[i] as number);
  return 4 + 8 * count;
}

/** What a SYN or SYN-ACK says of its sender. */
export interface SynOptions {
  /** 0: left out. */
  mss: number;
  /** -1: left out. */
  scale: number;
  sack: boolean;
  timestamps: boolean;
  tsValue: number;
  tsEcho: number;
  /** A cookie of 4 to 16 bytes; empty: asks for one; undefined: left out. */
  fastOpen: Uint8Array | undefined;
}

/** Writes a SYN's options, in words of 4 bytes, at most 40. Returns the bytes written. */
export function writeSynOptions(bytes: Uint8Array, at: number, options: SynOptions): number {
  let to = at;
  if (options.mss > 0) {
    putWord(bytes, to, (kind.mss << 24) | (4 << 16) | options.mss);
    to += 4;
  }
  // SACK-permitted fills the two bytes that align the timestamps.
  if (options.timestamps) {
    writeTimestamps(bytes, to, options.tsValue, options.tsEcho);
    if (options.sack) {
      bytes[to] = kind.sackPermitted;
      bytes[to + 1] = 2;
    }
    to += timestampBytes;
  } else if (options.sack) {
    putWord(bytes, to, 0x0101_0000 | (kind.sackPermitted << 8) | 2);
    to += 4;
  }
  if (options.scale >= 0) {
    putWord(bytes, to, (kind.nop << 24) | (kind.scale << 16) | (3 << 8) | options.scale);
    to += 4;
  }
  const cookie = options.fastOpen;
  if (cookie !== undefined) {
    bytes[to] = kind.fastOpen;
    bytes[to + 1] = 2 + cookie.length;
    for (let i = 0; i < cookie.length; i += 1) bytes[to + 2 + i] = cookie[i] as number;
    to += 2 + cookie.length;
    while (((to - at) & 3) !== 0) {
      bytes[to] = kind.nop;
      to += 1;
    }
  }
  return to - at;
}
