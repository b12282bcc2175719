/**
 * Receive offload: segments of one connection that follow each other made one super-packet, as a kernel hands them up.
 *
 * Layer 2, simulation only; pure. Merged is what `tcpSegments` would cut into exactly these packets again: same headers
 * and options, consecutive data, all but the last equally long (tcp_gro_receive in Linux has the same rules).
 */

import {
  ipHeaderBytes,
  load16,
  load32,
  store16,
  tcpField,
  tcpFlag,
  tcpHeaderLength,
  writeHeaderChecksum,
  writePartialChecksum,
} from "./packet-bytes.ts";

const longestBytes = 65_535;
const endsRun = tcpFlag.fin | tcpFlag.psh;
const neverMerged = tcpFlag.syn | tcpFlag.rst | tcpFlag.urg | tcpFlag.cwr;

/** A packet that grows: several of the same flow in a row. */
export class MergedPacket {
  readonly parts: Uint8Array[];
  private readonly version6: boolean;
  private readonly upper: number;
  private readonly headers: number;
  /** Payload of the first one, and so of every one but the last. */
  private readonly segmentBytes: number;
  private bytes: number;
  private nextSeq: number;
  private open: boolean;

  /** `packet` has been checked, and has no bytes beyond its IP length. */
  constructor(packet: Uint8Array) {
    this.parts = [packet];
    this.version6 = (packet[0] as number) >>> 4 === 6;
    this.upper = ipHeaderBytes(this.version6);
    this.headers = this.upper + tcpHeaderLength(packet, this.upper, packet.length - this.upper);
    this.segmentBytes = packet.length - this.headers;
    this.bytes = packet.length;
    this.nextSeq = (load32(packet, this.upper + tcpField.seq) + this.segmentBytes) | 0;
    const flags = packet[this.upper + tcpField.flags] as number;
    this.open = this.segmentBytes > 0 && (flags & (endsRun | (neverMerged & ~tcpFlag.cwr))) === 0;
  }

  /** Takes the packet in, if it goes on where this one ends. */
  take(packet: Uint8Array): boolean {
    if (!this.open || !this.continues(packet)) return false;
    const payload = packet.length - this.headers;
    this.parts.push(packet);
    this.bytes += payload;
    this.nextSeq = (this.nextSeq + payload) | 0;
    const flags = packet[this.upper + tcpField.flags] as number;
    this.open = payload === this.segmentBytes && (flags & endsRun) === 0;
    return true;
  }

  /** Payload bytes of a segment; 0: it is one packet. */
  get gsoBytes(): number {
    return this.parts.length === 1 ? 0 : this.segmentBytes;
  }

  /** The packet with all payload, its checksum partial if it is a merged one. */
  whole(): Uint8Array {
    const first = this.parts[0] as Uint8Array;
    if (this.parts.length === 1) return first;
    const made = new Uint8Array(this.bytes);
    made.set(first);
    let at = first.length;
    for (const part of this.parts.slice(1)) {
      made.set(part.subarray(this.headers), at);
      at += part.length - this.headers;
    }
    const last = this.parts.at(-1) as Uint8Array;
    const flagsAt = this.upper + tcpField.flags;
    made[flagsAt] = (made[flagsAt] as number) | ((last[flagsAt] as number) & endsRun);
    if (this.version6) store16(made, 4, made.length - 40);
    else {
      store16(made, 2, made.length);
      writeHeaderChecksum(made, 0);
    }
    writePartialChecksum(made, 0, this.version6, made.length);
    return made;
  }

  private continues(packet: Uint8Array): boolean {
    const first = this.parts[0] as Uint8Array;
    const payload = packet.length - this.headers;
    if (payload <= 0 || payload > this.segmentBytes || this.bytes + payload > longestBytes) return false;
    if (load32(packet, this.upper + tcpField.seq) !== this.nextSeq) return false;
    const flags = packet[this.upper + tcpField.flags] as number;
    const firstFlags = first[this.upper + tcpField.flags] as number;
    if ((flags & neverMerged) !== 0 || ((flags ^ firstFlags) & ~(endsRun | tcpFlag.cwr)) !== 0) return false;
    return this.sameHeaders(first, packet);
  }

  /** Everything but lengths, identification, checksums, sequence number and flags. */
  private sameHeaders(first: Uint8Array, packet: Uint8Array): boolean {
    const { upper, version6 } = this;
    for (let at = 0; at < this.headers; at += 1) {
      const changes = version6
        ? at === 4 || at === 5
        : at === 2 || at === 3 || at === 4 || at === 5 || at === 10 || at === 11;
      const inTcp = at - upper;
      const free = (inTcp >= 4 && inTcp < 8) || inTcp === tcpField.flags || inTcp === 16 || inTcp === 17;
      if (!changes && !free && first[at] !== packet[at]) return false;
    }
    return load16(first, upper) === load16(packet, upper);
  }
}
