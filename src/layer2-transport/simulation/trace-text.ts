/**
 * The last packets of a virtual wire in words, one a line, with sequence numbers that count from each end's SYN.
 *
 * Layer 2, simulation only; pure. For people who look at a failure.
 */

import type { TraceEntry } from "../../layer3-ip/virtual-trace.ts";
import { ipHeaderBytes, load16, load32, tcpField, tcpFlag, tcpHeaderLength } from "./packet-bytes.ts";

/** The trace's last `count` packets as lines. */
export function traceLines(trace: readonly TraceEntry[], count: number): string[] {
  const first = new Map<string, number>();
  const lines = trace.map((entry) => traceLine(entry, first));
  return lines.slice(-count);
}

function traceLine(entry: TraceEntry, first: Map<string, number>): string {
  const { packet, from, to, atUs, what, copy, corruptBit } = entry;
  const six = (packet[0] as number) >>> 4 === 6;
  const upper = ipHeaderBytes(six);
  const remarks = [copy ? "copy" : "", corruptBit >= 0 ? "corrupt" : "", what === "delivered" ? "" : what];
  const end = remarks.filter((remark) => remark !== "").join(", ");
  const at = `${(atUs / 1e6).toFixed(6).padStart(12)} host ${from} > ${to}`;
  if (packet.length < upper + 20) return `${at}: ${packet.length} bytes ${end}`;
  const flags = packet[upper + tcpField.flags] as number;
  const names = Object.entries(tcpFlag).filter(([, bit]) => (flags & bit) !== 0);
  const ports = [load16(packet, upper), load16(packet, upper + 2)];
  const seq = load32(packet, upper + tcpField.seq);
  const key = `${from} ${to} ${ports.join(" ")}`;
  const back = `${to} ${from} ${ports.reverse().join(" ")}`;
  if ((flags & tcpFlag.syn) !== 0 && corruptBit < 0) first.set(key, seq);
  const length = packet.length - upper - tcpHeaderLength(packet, upper, packet.length - upper);
  const relative = (seq - (first.get(key) ?? 0)) | 0;
  const ack = (load32(packet, upper + tcpField.ack) - (first.get(back) ?? 0)) | 0;
  const acks = (flags & tcpFlag.ack) !== 0 ? ` ack ${ack}` : "";
  const window = load16(packet, upper + tcpField.window);
  const flagText = names.map(([name]) => name).join(" ");
  return `${at}: ${ports[1]} [${flagText}] seq ${relative}+${length}${acks} win ${window} ${end}`.trimEnd();
}
