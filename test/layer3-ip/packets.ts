/**
 * IP packets for tests, built and checked the slow and obvious way: nothing here is shared with the code under test.
 */

import { isIPv4 } from "node:net";

/** RFC 1071, sixteen bits at a time. */
export function slowChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += ((bytes[i] as number) << 8) + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum = (sum & 0xffff) + 1;
  }
  return ~sum & 0xffff;
}

/** The bytes of an address, by way of the URL parser's canonical form for IPv6. */
export function addressBytes(text: string): Buffer {
  if (isIPv4(text)) return Buffer.from(text.split(".").map(Number));
  const [left = "", right] = new URL(`http://[${text}]`).hostname.slice(1, -1).split("::");
  const groups = (part: string): number[] =>
    part === "" ? [] : part.split(":").map((g) => Number.parseInt(g, 16));
  const head = groups(left);
  const tail = right === undefined ? [] : groups(right);
  const all = [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 255]));
}

export interface Ends {
  readonly from: string;
  readonly to: string;
}

function pseudoHeader(ends: Ends, protocol: number, length: number): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(length, 0);
  tail[7] = protocol;
  return Buffer.concat([addressBytes(ends.from), addressBytes(ends.to), tail]);
}

/** The checksum of an upper layer whose checksum field holds zero. */
export function upperChecksum(ends: Ends, protocol: number, upper: Uint8Array): number {
  if (protocol === 1) return slowChecksum(upper);
  return slowChecksum(Buffer.concat([pseudoHeader(ends, protocol, upper.length), upper]));
}

export function ipPacket(ends: Ends, protocol: number, upper: Uint8Array): Buffer {
  const addresses = [addressBytes(ends.from), addressBytes(ends.to)];
  if (isIPv4(ends.from)) {
    const header = Buffer.concat([Buffer.alloc(12), ...addresses]);
    header[0] = 0x45;
    header.writeUInt16BE(20 + upper.length, 2);
    header[8] = 64;
    header[9] = protocol;
    header.writeUInt16BE(slowChecksum(header), 10);
    return Buffer.concat([header, upper]);
  }
  const header = Buffer.concat([Buffer.alloc(8), ...addresses]);
  header[0] = 0x60;
  header.writeUInt16BE(upper.length, 4);
  header[6] = protocol;
  header[7] = 64;
  return Buffer.concat([header, upper]);
}

export function udpPacket(ends: Ends, fromPort: number, toPort: number, payload: Uint8Array): Buffer {
  const upper = Buffer.concat([Buffer.alloc(8), payload]);
  upper.writeUInt16BE(fromPort, 0);
  upper.writeUInt16BE(toPort, 2);
  upper.writeUInt16BE(upper.length, 4);
  upper.writeUInt16BE(upperChecksum(ends, 17, upper) || 0xffff, 6);
  return ipPacket(ends, 17, upper);
}

/** What is wrong with a packet's checksums; undefined: nothing. It must be a plain one of IPv4 or IPv6. */
export function checksumFault(packet: Buffer, ends: Ends): string | undefined {
  const six = packet[0] === 0x60;
  const headerBytes = six ? 40 : 20;
  if (!six && slowChecksum(packet.subarray(0, 20)) !== 0) return "IPv4 header";
  const protocol = packet[six ? 6 : 9] as number;
  const upper = packet.subarray(headerBytes);
  return upperChecksum(ends, protocol, upper) === 0 ? undefined : `protocol ${protocol}`;
}
