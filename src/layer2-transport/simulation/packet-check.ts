/**
 * Whether a received packet may reach a worker: the rules of the native thread's input check, for TCP.
 *
 * Layer 2, simulation only; pure. Reasons have the names of layer 3's counters. Mirrors native/rawsock/ip/ip_input.cc
 * and native/rawsock/guard/tcp_rules.h; fragments and extension headers do not occur here and are refused.
 */

import {
  checksumAdd,
  checksumFinish,
  ipHeaderBytes,
  load16,
  pseudoSum,
  tcpField,
  tcpFlag,
  tcpHeaderLength,
  tcpProtocol,
} from "./packet-bytes.ts";

const { fin, syn, rst, psh, ack, urg } = tcpFlag;
const tree = fin | psh | urg;
const all = tree | syn | rst | ack;

/** "" when the packet is good TCP; otherwise the counter that tells why not. Bytes behind the IP packet are ignored. */
export function refusalOf(packet: Uint8Array): string {
  if (packet.length === 0) return "rx.dropped.header";
  const version6 = (packet[0] as number) >>> 4 === 6;
  const wrong = version6 ? checkSix(packet) : checkFour(packet);
  return wrong || checkTcp(packet, version6);
}

/** Bytes of the IP packet, as its header has them. */
export function ipLength(packet: Uint8Array): number {
  return (packet[0] as number) >>> 4 === 6 ? 40 + load16(packet, 4) : load16(packet, 2);
}

function checkFour(packet: Uint8Array): string {
  const length = packet.length < 20 ? 0 : load16(packet, 2);
  if (length < 20 || length > packet.length || packet[0] !== 0x45) return "rx.dropped.header";
  if (checksumFinish(checksumAdd(0, packet, 0, 20)) !== 0) return "rx.dropped.headerChecksum";
  if ((load16(packet, 6) & 0x3fff) !== 0) return "rx.dropped.fragment";
  return packet[9] === tcpProtocol ? "" : "rx.dropped.protocol";
}

function checkSix(packet: Uint8Array): string {
  if (packet.length < 40 || 40 + load16(packet, 4) > packet.length) return "rx.dropped.header";
  return packet[6] === tcpProtocol ? "" : "rx.dropped.protocol";
}

function checkTcp(packet: Uint8Array, version6: boolean): string {
  const upper = ipHeaderBytes(version6);
  const end = ipLength(packet);
  const headerBytes = tcpHeaderLength(packet, upper, end - upper);
  if (headerBytes === 0) return "rx.dropped.tcpLength";
  const flags = flagRefusal(packet[upper + tcpField.flags] as number);
  if (flags !== "") return flags;
  if (load16(packet, upper) === 0 || load16(packet, upper + 2) === 0) return "rx.dropped.tcpPort";
  if (!optionsFit(packet, upper + 20, upper + headerBytes)) return "rx.dropped.tcpOptions";
  const pseudo = pseudoSum(packet, version6 ? 8 : 12, version6, end - upper, tcpProtocol);
  return checksumFinish(checksumAdd(pseudo, packet, upper, end)) === 0 ? "" : "rx.dropped.tcpChecksum";
}

function flagRefusal(flags: number): string {
  const given = flags & all;
  if ((given & (syn | rst | ack | fin)) === 0) return "rx.dropped.tcpNull";
  if (given === tree || given === all) return "rx.dropped.tcpXmas";
  if ((given & (syn | fin)) === (syn | fin)) return "rx.dropped.tcpSynFin";
  if ((given & (syn | rst)) === (syn | rst)) return "rx.dropped.tcpSynRst";
  return (given & (fin | ack)) === fin ? "rx.dropped.tcpFin" : "";
}

function optionsFit(packet: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; ) {
    const kind = packet[at] as number;
    if (kind === 0) return true;
    const length = kind === 1 ? 1 : at + 1 < to ? (packet[at + 1] as number) : 0;
    if (length < (kind === 1 ? 1 : 2) || at + length > to) return false;
    at += length;
  }
  return true;
}
