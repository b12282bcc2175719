/**
 * The 32-byte packet descriptor on the rings between the native thread and the workers, field by field.
 *
 * Layer 3. The words are those of native/rawsock/wire/packet_descriptor.h, which says what each means; a test holds
 * the two together. `at` is the descriptor's first word in its ring.
 */

export const packetKind = { data: 0, echoReply: 1, icmpError: 2, echoRequest: 3 } as const;
export type PacketKind = (typeof packetKind)[keyof typeof packetKind];

/** The pool frame that holds the packet. */
export function frameOf(words: Int32Array, at: number): number {
  return words[at] as number;
}

/** Where the IP header starts in the frame. */
export function packetOffsetOf(words: Int32Array, at: number): number {
  return (words[at + 1] as number) & 0xffff;
}

/** Where the upper layer (UDP, ICMP) starts in the frame. */
export function upperOffsetOf(words: Int32Array, at: number): number {
  return (words[at + 1] as number) >>> 16;
}

/** Bytes of the IP packet. */
export function lengthOf(words: Int32Array, at: number): number {
  return words[at + 2] as number;
}

export function protocolOf(words: Int32Array, at: number): number {
  return (words[at + 3] as number) & 0xff;
}

export function shardOf(words: Int32Array, at: number): number {
  return ((words[at + 3] as number) >>> 8) & 0xf;
}

export function isVersion6(words: Int32Array, at: number): boolean {
  return (((words[at + 3] as number) >>> 12) & 0xf) === 6;
}

/** 0 unchecked (IPv4 UDP without a checksum), 1 verified, 2 partial. */
export function checksumStateOf(words: Int32Array, at: number): number {
  return ((words[at + 3] as number) >>> 16) & 3;
}

export function packetKindOf(words: Int32Array, at: number): number {
  return ((words[at + 3] as number) >>> 21) & 7;
}

/** The IPv6 flow label; of ICMP, type << 8 | code. */
export function labelOf(words: Int32Array, at: number): number {
  return words[at + 4] as number;
}

/** Of a super-packet, the payload bytes of each packet that it stands for (the last may have fewer); else 0. */
export function segmentBytesOf(words: Int32Array, at: number): number {
  return (words[at + 5] as number) & 0xffff;
}

export function hopLimitOf(words: Int32Array, at: number): number {
  return ((words[at + 5] as number) >>> 16) & 0xff;
}

/** Arrival in microseconds of CLOCK_MONOTONIC: the low 32 bits, signed. Take differences: `(now - low) | 0`. */
export function receivedUsLowOf(words: Int32Array, at: number): number {
  return words[at + 6] as number;
}

/** The flow's steering hash (see steer.ts), signed; of an ICMP error, that of the flow whose packet it quotes. */
export function hashOf(words: Int32Array, at: number): number {
  return words[at + 7] as number;
}

/** What a super-packet is made of, in word 3. */
export const gsoKind = { none: 0, udp: 1 << 18, tcp4: 2 << 18, tcp6: 3 << 18 } as const;
/** To be sent: the packet must not go in pieces, in word 3. */
export const wholeFlag = 1 << 24;

/** Writes a descriptor for a packet to be sent; hop limit and traffic class are the link's defaults. */
export function writeOutgoing(
  words: Int32Array,
  at: number,
  frame: number,
  packetOffset: number,
  upperOffset: number,
  length: number,
  protocol: number,
  version6: boolean,
  kind: PacketKind,
): void {
  words[at] = frame;
  words[at + 1] = packetOffset | (upperOffset << 16);
  words[at + 2] = length;
  words[at + 3] = protocol | ((version6 ? 6 : 4) << 12) | (kind << 21);
  words[at + 4] = 0;
  words[at + 5] = 0;
  words[at + 6] = 0;
  words[at + 7] = 0;
}
