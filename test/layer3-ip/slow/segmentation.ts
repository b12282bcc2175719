/**
 * Splitting packets, the slow and obvious way: fragments as RFC 791 3.2 and RFC 8200 4.5 have them, and the packets
 * that a super-packet stands for. Without options and extension headers.
 */

import { slowChecksum } from "../packets.ts";

function withHeaderChecksum(packet: Buffer): Buffer {
  packet.writeUInt16BE(0, 10);
  packet.writeUInt16BE(slowChecksum(packet.subarray(0, 20)), 10);
  return packet;
}

/** The fragments of a packet: every one but the last as long as the MTU allows. */
export function slowFragments(packet: Buffer, mtu: number, identification: number): Buffer[] {
  const six = packet[0] === 0x60;
  const header = packet.subarray(0, six ? 40 : 20);
  const data = packet.subarray(header.length);
  const room = Math.floor((mtu - header.length - (six ? 8 : 0)) / 8) * 8;
  const fragments: Buffer[] = [];
  for (let at = 0; at < data.length; at += room) {
    const part = data.subarray(at, at + room);
    const more = at + room < data.length;
    if (six) {
      const extra = Buffer.from([packet[6] as number, 0, 0, 0, 0, 0, 0, 0]);
      extra.writeUInt16BE(at | (more ? 1 : 0), 2);
      extra.writeUInt32BE(identification, 4);
      const fragment = Buffer.concat([header, extra, part]);
      fragment[6] = 44;
      fragment.writeUInt16BE(fragment.length - 40, 4);
      fragments.push(fragment);
    } else {
      const fragment = Buffer.concat([header, part]);
      fragment.writeUInt16BE(fragment.length, 2);
      fragment.writeUInt16BE(identification & 0xffff, 4);
      fragment.writeUInt16BE(at / 8 + (more ? 0x2000 : 0), 6);
      fragments.push(withHeaderChecksum(fragment));
    }
  }
  return fragments;
}

/** RFC 1071 over the pseudo header and the upper layer. */
export function slowUpperChecksum(packet: Buffer): number {
  const six = packet[0] === 0x60;
  const headerBytes = six ? 40 : 20;
  const protocol = packet[six ? 6 : 9] as number;
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(packet.length - headerBytes, 0);
  pseudo[7] = protocol;
  const addresses = packet.subarray(six ? 8 : 12, headerBytes);
  return slowChecksum(Buffer.concat([addresses, pseudo, packet.subarray(headerBytes)]));
}

/** The segments of a TCP (header of 20 bytes) or UDP super-packet, with whole checksums. */
export function slowSegments(packet: Buffer, segmentBytes: number): Buffer[] {
  const six = packet[0] === 0x60;
  const ip = six ? 40 : 20;
  const tcp = packet[six ? 6 : 9] === 6;
  const headers = packet.subarray(0, ip + (tcp ? 20 : 8));
  const data = packet.subarray(headers.length);
  const segments: Buffer[] = [];
  const count = Math.max(1, Math.ceil(data.length / segmentBytes));
  for (let i = 0; i < count; i++) {
    const part = data.subarray(i * segmentBytes, (i + 1) * segmentBytes);
    const segment = Buffer.concat([headers, part]);
    if (six) {
      segment.writeUInt16BE(segment.length - 40, 4);
    } else {
      segment.writeUInt16BE(segment.length, 2);
      segment.writeUInt16BE((packet.readUInt16BE(4) + i) & 0xffff, 4);
      withHeaderChecksum(segment);
    }
    if (tcp) {
      segment.writeUInt32BE((packet.readUInt32BE(ip + 4) + i * segmentBytes) % 2 ** 32, ip + 4);
      const flags = packet[ip + 13] as number;
      segment[ip + 13] = flags & (i < count - 1 ? ~0x09 : ~0) & (i > 0 ? ~0x80 : ~0);
    } else {
      segment.writeUInt16BE(segment.length - ip, ip + 4);
    }
    const field = ip + (tcp ? 16 : 6);
    segment.writeUInt16BE(0, field);
    const checksum = slowUpperChecksum(segment);
    segment.writeUInt16BE(checksum === 0 && !tcp ? 0xffff : checksum, field);
    segments.push(segment);
  }
  return segments;
}
