/**
 * The RTP header (RFC 3550 5.1): reading it, and making the empty packet that opens a NAT.
 *
 * Layer 1, relay/protocol: pure. Media are never repacketised, so nothing here writes a header into a stream.
 */

/** The fixed header, bytes. */
export const RTP_HEADER_BYTES = 12;

export interface RtpHeader {
  readonly marker: boolean;
  readonly payloadType: number;
  readonly seq: number;
  readonly timestamp: number;
  readonly ssrc: number;
  /** Where the payload starts: after the CSRC list and the extension. */
  readonly payloadStart: number;
  /** Payload octets without padding. */
  readonly payloadBytes: number;
}

/** Reads a packet's header; undefined when it is no RTP version 2 packet or its lengths do not fit. */
export function parseRtpHeader(bytes: Uint8Array): RtpHeader | undefined {
  const first = bytes[0] ?? 0;
  if (bytes.length < RTP_HEADER_BYTES || first >> 6 !== 2) return undefined;
  let start = RTP_HEADER_BYTES + 4 * (first & 0x0f);
  if ((first & 0x10) !== 0) {
    if (bytes.length < start + 4) return undefined;
    start += 4 + 4 * readUint16(bytes, start + 2);
  }
  const padding = (first & 0x20) !== 0 ? (bytes[bytes.length - 1] ?? 0) : 0;
  if (start + padding > bytes.length) return undefined;
  return {
    marker: ((bytes[1] ?? 0) & 0x80) !== 0,
    payloadType: (bytes[1] ?? 0) & 0x7f,
    seq: readUint16(bytes, 2),
    timestamp: readUint32(bytes, 4),
    ssrc: readUint32(bytes, 8),
    payloadStart: start,
    payloadBytes: bytes.length - start - padding,
  };
}

/**
 * Payload octets of the packet at `start`, or 0 if it is none; allocates nothing (the counting of sender reports).
 */
export function payloadOctets(bytes: Uint8Array, start: number, length: number): number {
  const first = bytes[start] ?? 0;
  let header = RTP_HEADER_BYTES + 4 * (first & 0x0f);
  if ((first & 0x10) !== 0) header += 4 + 4 * readUint16(bytes, start + header + 2);
  const padding = (first & 0x20) !== 0 ? (bytes[start + length - 1] ?? 0) : 0;
  const octets = length - header - padding;
  return octets > 0 ? octets : 0;
}

/** An empty RTP packet: what is sent to open the way through a NAT or a firewall. */
export function buildPunch(ssrc: number): Uint8Array {
  const bytes = new Uint8Array(RTP_HEADER_BYTES);
  bytes[0] = 0x80;
  writeUint32(bytes, 8, ssrc);
  return bytes;
}

/** Network order. Past the end reads as 0. */
export function readUint16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

export function readUint32(bytes: Uint8Array, at: number): number {
  return ((readUint16(bytes, at) << 16) | readUint16(bytes, at + 2)) >>> 0;
}

export function writeUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  writeUint16(bytes, at, value >>> 16);
  writeUint16(bytes, at + 2, value & 0xffff);
}
