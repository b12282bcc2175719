/**
 * What the native thread does to the bytes of a TCP packet: checksums, the IP header, segments of a super-packet.
 *
 * Layer 2, simulation only; pure. Written for clearness and held against the native functions by a test
 * (native/rawsock/ip/ip_output.cc, segmentation.cc). It knows nothing of frames, descriptors and connections.
 */

/** Offsets in a TCP header, and its flags (RFC 9293 3.1). */
export const tcpField = { seq: 4, ack: 8, dataOffset: 12, flags: 13, window: 14, checksum: 16 } as const;
export const tcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const;
export const tcpHeaderBytes = 20;
export const tcpProtocol = 6;

/** What the IP header says beside addresses. */
export interface IpFields {
  readonly version6: boolean;
  readonly protocol: number;
  readonly hopLimit: number;
  readonly trafficClass: number;
  /** IPv6 alone. */
  readonly label: number;
}

export function load16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

export function store16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

/** As an int32. */
export function load32(bytes: Uint8Array, at: number): number {
  return (load16(bytes, at) << 16) | load16(bytes, at + 2);
}

export function store32(bytes: Uint8Array, at: number, value: number): void {
  store16(bytes, at, value >>> 16);
  store16(bytes, at + 2, value);
}

/** Bytes of the IP header that this side writes. */
export function ipHeaderBytes(version6: boolean): number {
  return version6 ? 40 : 20;
}

/** Adds bytes to a sum of 16-bit words (RFC 1071). Sums of less than 2^37 bytes are exact. */
export function checksumAdd(sum: number, bytes: Uint8Array, from: number, to: number): number {
  let total = sum;
  const even = from + ((to - from) & ~1);
  for (let at = from; at < even; at += 2) total += ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  return even < to ? total + ((bytes[even] as number) << 8) : total;
}

/** The checksum field for a sum. */
export function checksumFinish(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded % 0x10000) + Math.floor(folded / 0x10000);
  return ~folded & 0xffff;
}

/** The sum over the pseudo header of an upper layer that begins at `upper`, right behind its addresses. */
export function pseudoSum(
  bytes: Uint8Array,
  addressesAt: number,
  version6: boolean,
  upperBytes: number,
  protocol: number,
): number {
  const sum = checksumAdd(0, bytes, addressesAt, addressesAt + (version6 ? 32 : 8));
  return sum + (upperBytes >>> 16) + (upperBytes & 0xffff) + protocol;
}

/** Writes everything of an IP header but the addresses, which stand there already. */
export function writeIpHeader(bytes: Uint8Array, ip: number, fields: IpFields, upperBytes: number): void {
  const { version6, protocol, hopLimit, trafficClass, label } = fields;
  if (version6) {
    store32(bytes, ip, (6 << 28) | (trafficClass << 20) | (label & 0xfffff));
    store16(bytes, ip + 4, upperBytes);
    bytes[ip + 6] = protocol;
    bytes[ip + 7] = hopLimit;
    return;
  }
  bytes[ip] = 0x45;
  bytes[ip + 1] = trafficClass;
  store16(bytes, ip + 2, 20 + upperBytes);
  store16(bytes, ip + 4, 0);
  store16(bytes, ip + 6, 0x4000); // "don't fragment": the identification may be 0 (RFC 6864 4.1)
  bytes[ip + 8] = hopLimit;
  bytes[ip + 9] = protocol;
  writeHeaderChecksum(bytes, ip);
}

/** Of an IPv4 header without options. */
export function writeHeaderChecksum(bytes: Uint8Array, ip: number): void {
  store16(bytes, ip + 10, 0);
  store16(bytes, ip + 10, checksumFinish(checksumAdd(0, bytes, ip, ip + 20)));
}

/** Writes the whole checksum of a TCP packet that begins at `ip` and has `length` bytes. */
export function writeTcpChecksum(bytes: Uint8Array, ip: number, version6: boolean, length: number): void {
  const upper = ip + ipHeaderBytes(version6);
  const upperBytes = ip + length - upper;
  store16(bytes, upper + tcpField.checksum, 0);
  const pseudo = pseudoSum(bytes, ip + (version6 ? 8 : 12), version6, upperBytes, tcpProtocol);
  const sum = checksumAdd(pseudo, bytes, upper, ip + length);
  store16(bytes, upper + tcpField.checksum, checksumFinish(sum));
}

/** Leaves the sum of the pseudo header alone in the checksum's field, for whoever cuts the packet up. */
export function writePartialChecksum(bytes: Uint8Array, ip: number, version6: boolean, length: number): void {
  const upper = ip + ipHeaderBytes(version6);
  const pseudo = pseudoSum(bytes, ip + (version6 ? 8 : 12), version6, ip + length - upper, tcpProtocol);
  store16(bytes, upper + tcpField.checksum, ~checksumFinish(pseudo));
}

/** Bytes of the TCP header at `upper`; 0: none that `upperBytes` could hold. */
export function tcpHeaderLength(bytes: Uint8Array, upper: number, upperBytes: number): number {
  if (upperBytes < tcpHeaderBytes) return 0;
  const length = ((bytes[upper + tcpField.dataOffset] as number) >>> 4) * 4;
  return length < tcpHeaderBytes || length > upperBytes ? 0 : length;
}

/**
 * The packets that a TCP super-packet (with an IP header and no IP options) stands for, of `segmentBytes` payload each.
 * The end and the push belong to the last one's data, "congestion window reduced" to the first (RFC 3168 6.1.2).
 */
export function tcpSegments(packet: Uint8Array, segmentBytes: number): Uint8Array[] {
  const version6 = (packet[0] as number) >>> 4 === 6;
  const upper = ipHeaderBytes(version6);
  const headers = upper + tcpHeaderLength(packet, upper, packet.length - upper);
  const payload = packet.length - headers;
  const count = Math.max(1, Math.ceil(payload / segmentBytes));
  const segments: Uint8Array[] = [];
  for (let i = 0; i < count; i += 1) {
    const at = headers + i * segmentBytes;
    const end = Math.min(at + segmentBytes, packet.length);
    const segment = new Uint8Array(headers + end - at);
    segment.set(packet.subarray(0, headers));
    segment.set(packet.subarray(at, end), headers);
    if (version6) store16(segment, 4, segment.length - 40);
    else {
      store16(segment, 2, segment.length);
      store16(segment, 4, load16(packet, 4) + i);
      writeHeaderChecksum(segment, 0);
    }
    store32(segment, upper + tcpField.seq, load32(packet, upper + tcpField.seq) + i * segmentBytes);
    let flags = packet[upper + tcpField.flags] as number;
    if (i < count - 1) flags &= ~(tcpFlag.fin | tcpFlag.psh);
    if (i > 0) flags &= ~tcpFlag.cwr;
    segment[upper + tcpField.flags] = flags;
    writeTcpChecksum(segment, 0, version6, segment.length);
    segments.push(segment);
  }
  return segments;
}
