/**
 * Packets that layer 3 makes by itself in answer to others: a reset for a port that nobody has, "too big" of a router.
 *
 * Layer 2, simulation only; pure. Mirrors `build_tcp_reset` and `build_icmp_error` of native/rawsock/ip/icmp_output.cc.
 */

import {
  checksumAdd,
  checksumFinish,
  ipHeaderBytes,
  load32,
  store16,
  store32,
  tcpField,
  tcpFlag,
  tcpHeaderBytes,
  tcpHeaderLength,
  tcpProtocol,
  writeIpHeader,
  writeTcpChecksum,
} from "./packet-bytes.ts";

/** What a closed port answers a segment with (RFC 9293 3.10.7.1); undefined: a reset is not answered. */
export function resetFor(packet: Uint8Array): Uint8Array | undefined {
  const version6 = (packet[0] as number) >>> 4 === 6;
  const upper = ipHeaderBytes(version6);
  const flags = packet[upper + tcpField.flags] as number;
  if ((flags & tcpFlag.rst) !== 0) return undefined;
  const made = new Uint8Array(upper + tcpHeaderBytes);
  swapAddresses(packet, made, version6);
  made.set(packet.subarray(upper + 2, upper + 4), upper);
  made.set(packet.subarray(upper, upper + 2), upper + 2);
  made[upper + tcpField.dataOffset] = 5 << 4;
  if ((flags & tcpFlag.ack) !== 0) {
    store32(made, upper + tcpField.seq, load32(packet, upper + tcpField.ack));
    made[upper + tcpField.flags] = tcpFlag.rst;
  } else {
    const headerBytes = tcpHeaderLength(packet, upper, packet.length - upper);
    const occupied =
      packet.length - upper - headerBytes + (flags & tcpFlag.syn ? 1 : 0) + (flags & tcpFlag.fin ? 1 : 0);
    store32(made, upper + tcpField.ack, load32(packet, upper + tcpField.seq) + occupied);
    made[upper + tcpField.flags] = tcpFlag.rst | tcpFlag.ack;
  }
  const fields = { version6, protocol: tcpProtocol, hopLimit: 64, trafficClass: 0, label: 0 };
  writeIpHeader(made, 0, fields, tcpHeaderBytes);
  writeTcpChecksum(made, 0, version6, made.length);
  return made;
}

/** "Fragmentation needed" or "packet too big" (RFC 1191, RFC 4443 3.2) about a packet, as from its destination. */
export function tooBigFor(packet: Uint8Array, mtu: number): Uint8Array {
  const version6 = (packet[0] as number) >>> 4 === 6;
  const header = ipHeaderBytes(version6);
  const quoted = packet.subarray(0, version6 ? 1280 - 48 : 548);
  const made = new Uint8Array(header + 8 + quoted.length);
  swapAddresses(packet, made, version6);
  made.set(quoted, header + 8);
  made[header] = version6 ? 2 : 3;
  made[header + 1] = version6 ? 0 : 4;
  store16(made, header + 6, mtu);
  const protocol = version6 ? 58 : 1;
  writeIpHeader(
    made,
    0,
    { version6, protocol, hopLimit: 64, trafficClass: 0, label: 0 },
    made.length - header,
  );
  const pseudo = version6 ? checksumAdd(0, made, 8, 40) + (made.length - 40) + 58 : 0;
  store16(made, header + 2, checksumFinish(checksumAdd(pseudo, made, header, made.length)));
  return made;
}

function swapAddresses(packet: Uint8Array, made: Uint8Array, version6: boolean): void {
  const bytes = version6 ? 16 : 4;
  const source = version6 ? 8 : 12;
  made.set(packet.subarray(source + bytes, source + 2 * bytes), source);
  made.set(packet.subarray(source, source + bytes), source + bytes);
}
