/**
 * Reads every segment that a simulated host sends, as a suspicious neighbour with a pencil would: sequence numbers,
 * windows, options and content must make sense.
 *
 * Layer 2, simulation only. It has a reader of its own and none of the stack's, so that a fault in one does not hide
 * itself. It sees what is sent, not what arrives: what a host could know is judged by the most that it could.
 */

import { formatAddress } from "../../layer3-ip/address.ts";
import type { Content } from "./content.ts";
import { ipHeaderBytes, load16, load32, tcpField, tcpFlag, tcpHeaderLength } from "./packet-bytes.ts";

const { fin, syn, rst, ack } = tcpFlag;

/** A sequence number from `base` on, as a distance that may be negative. */
function from(base: number, seq: number): number {
  return (seq - base) | 0;
}

/** One direction of one connection, as far as its sender has shown it. Positions count from its SYN. */
class Direction {
  readonly name: string;
  readonly source: string;
  readonly target: string;
  known = false;
  iss = 0;
  /** One beyond the last sequence number sent. */
  next = 0;
  /** Where the FIN stands; -1: none yet. */
  finAt = -1;
  /** The highest acknowledgement of the other direction; -1: none yet. */
  acked = -1;
  /** Up to where the other may send. */
  edge = 0;
  scale = 0;
  offersScale = false;
  mss = 0;
  offersStamps = false;
  stamp = 0;
  hasStamp = false;
  /** The stamps sent lately, which may be echoed. */
  readonly stamps = new Set<number>();
  content: Content | undefined;
  /**
   * SYN-ACKs beside the first, for a SYN that came twice (with a cookie and without, or long after): one of them counts
   * once the other end takes it for the answer. By sequence number.
   */
  readonly doubtful = new Map<number, Seen[]>();

  constructor(source: string, target: string) {
    this.source = source;
    this.target = target;
    this.name = `${source} > ${target}`;
  }

  begin(iss: number): void {
    this.known = true;
    this.iss = iss;
    this.next = 1;
    this.finAt = -1;
    this.acked = -1;
    this.edge = 0;
    this.scale = 0;
    this.offersScale = false;
    this.mss = 0;
    this.offersStamps = false;
    this.hasStamp = false;
    this.stamps.clear();
    this.doubtful.clear();
  }
}

/** A direction and the one back. */
interface Pair {
  readonly own: Direction;
  readonly other: Direction;
}

/** What a segment says, read slowly. */
interface Seen {
  readonly version6: boolean;
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
  readonly payloadAt: number;
  readonly length: number;
  readonly optionBytes: number;
  readonly options: Map<number, Uint8Array>;
}

/** Whose bytes go from one end ("10.0.0.1:80", "fd00::1:80") to the other; undefined: nobody's that is known. */
export type ContentFor = (source: string, target: string) => Content | undefined;

export class WireObserver {
  readonly faults: string[] = [];
  segments = 0;
  private readonly ignored = new Set<string>();
  /** By the packets' addresses and ports, byte by byte. */
  private readonly pairs = new Map<string, Pair>();
  private readonly contentFor: ContentFor;

  constructor(contentFor: ContentFor) {
    this.contentFor = contentFor;
  }

  /** A whole packet that a host has sent, before the wire has done anything to it. */
  sent(packet: Uint8Array): void {
    this.segments += 1;
    const seen = read(packet);
    const { own, other } = this.pairOf(packet, seen.version6);
    if ((seen.flags & rst) !== 0 || this.ignored.has(own.name)) return;
    if (isDoubtful(seen, own)) {
      const list = own.doubtful.get(seen.seq);
      if (list) list.push(seen);
      else own.doubtful.set(seen.seq, [seen]);
      return;
    }
    // What a server says of a connection that its peer has not taken up yet.
    if (own.doubtful.has((seen.seq - 1) | 0)) return;
    const answers = other.doubtful.get((seen.ack - 1) | 0);
    if (answers) this.takeUp(answers, other, own);
    if ((seen.flags & syn) !== 0) this.begin(seen, own, other);
    if (!own.known || !other.known) {
      this.firstData(seen, packet, own);
      return;
    }
    this.checkData(seen, packet, own, other);
    this.checkAcknowledgement(seen, own, other);
    this.checkStamps(seen, own, other);
  }

  /** Of several answers to its SYN an end has taken this one, which may have been sent more than once. */
  private takeUp(answers: readonly Seen[], from: Direction, by: Direction): void {
    this.begin(answers[0] as Seen, from, by);
    for (const answer of answers) {
      this.checkAcknowledgement(answer, from, by);
      this.checkStamps(answer, from, by);
    }
    by.acked = -1;
    by.edge = 0;
  }

  /** From here on nothing is said of this flow (ends as in `ContentFor`). */
  ignore(client: string, server: string): void {
    this.ignored.add(`${client} > ${server}`).add(`${server} > ${client}`);
  }

  /** Likewise of a packet's flow, when its SYN is forged: whoever answers it contradicts what he says to the other. */
  ignoreForged(packet: Uint8Array): void {
    const version6 = (packet[0] as number) >>> 4 === 6;
    if (((packet[ipHeaderBytes(version6) + tcpField.flags] as number) & syn) === 0) return;
    const { source, target } = this.pairOf(packet, version6).own;
    this.ignore(source, target);
  }

  private pairOf(packet: Uint8Array, version6: boolean): Pair {
    const bytes = Buffer.from(packet.buffer, packet.byteOffset, packet.length);
    // Both addresses, and both ports right behind them.
    const key = bytes.toString("latin1", version6 ? 8 : 12, version6 ? 44 : 24);
    const found = this.pairs.get(key);
    if (found) return found;
    const size = version6 ? 16 : 4;
    const back =
      key.slice(size, 2 * size) +
      key.slice(0, size) +
      key.slice(2 * size + 2, 2 * size + 4) +
      key.slice(2 * size, 2 * size + 2);
    const [source, target] = endsOf(packet, version6);
    const pair = { own: new Direction(source, target), other: new Direction(target, source) };
    this.pairs.set(key, pair);
    this.pairs.set(back, { own: pair.other, other: pair.own });
    return pair;
  }

  private fault(own: Direction, seen: Seen, what: string): void {
    const flags = Object.entries(tcpFlag).filter(([, bit]) => (seen.flags & bit) !== 0);
    const at = `seq ${from(own.iss, seen.seq)}+${seen.length}`;
    this.faults.push(`${own.name} [${flags.map(([name]) => name).join(" ")}] ${at}: ${what}`);
  }

  private begin(seen: Seen, own: Direction, other: Direction): void {
    if (own.known && own.iss === seen.seq) return; // repeated
    own.begin(seen.seq);
    // The first SYN of a connection ends what the other end said of an earlier one.
    if ((seen.flags & ack) === 0 && !(other.known && other.next === 1)) other.known = false;
    const mss = seen.options.get(2);
    own.mss = mss ? load16(mss, 0) : seen.version6 ? 1220 : 536;
    const scale = seen.options.get(3);
    own.offersScale = scale !== undefined;
    own.scale = scale?.[0] ?? 0;
    own.offersStamps = seen.options.has(8);
    if (own.scale > 14) this.fault(own, seen, `a window scale of ${own.scale}`);
    own.content = this.contentFor(own.source, own.target);
  }

  /** Data on a SYN (RFC 7413), before the other end has said anything. */
  private firstData(seen: Seen, packet: Uint8Array, own: Direction): void {
    if (!own.known) return;
    this.checkContent(seen, packet, own);
    own.next = Math.max(own.next, dataStart(seen, own) + seen.length);
    const stamps = seen.options.get(8);
    if (stamps) own.stamps.add(load32(stamps, 0));
  }

  private checkContent(seen: Seen, packet: Uint8Array, own: Direction): void {
    if (seen.length === 0 || !own.content) return;
    const start = dataStart(seen, own);
    // A probe for a silent peer may carry one byte of anything, before the window (RFC 9293 3.8.4).
    if (seen.length === 1 && start < own.next - 1) return;
    const right = own.content.match(packet, seen.payloadAt, start - 1, seen.length);
    if (right < seen.length) this.fault(own, seen, `the byte at position ${start - 1 + right} is wrong`);
  }

  private checkData(seen: Seen, packet: Uint8Array, own: Direction, other: Direction): void {
    this.checkContent(seen, packet, own);
    const start = dataStart(seen, own);
    const dataEnd = start + seen.length;
    const end = dataEnd + (seen.flags & fin ? 1 : 0);
    if (start > own.next) this.fault(own, seen, `leaves out what follows ${own.next}`);
    const says = seen.length > 0 || (seen.flags & fin) !== 0;
    if (
      own.finAt >= 0 &&
      says &&
      (dataEnd > own.finAt || ((seen.flags & fin) !== 0 && dataEnd !== own.finAt))
    ) {
      this.fault(own, seen, `the FIN was sent at ${own.finAt} before`);
    }
    if ((seen.flags & fin) !== 0) own.finAt = dataEnd;
    own.next = Math.max(own.next, end);
    // One byte beyond is a probe of a closed window.
    const beyond = dataEnd - other.edge;
    if (seen.length > 0 && (seen.flags & syn) === 0 && beyond > (seen.length === 1 ? 1 : 0)) {
      this.fault(
        own,
        seen,
        `goes ${beyond} bytes beyond the window of ${other.name}, which ends at ${other.edge}`,
      );
    }
    const most = other.mss - (seen.flags & syn ? 0 : seen.optionBytes);
    if (seen.length > most) this.fault(own, seen, `has more than the other's MSS of ${other.mss}`);
  }

  private checkAcknowledgement(seen: Seen, own: Direction, other: Direction): void {
    if ((seen.flags & ack) === 0) return;
    const acked = from(other.iss, seen.ack);
    if (acked > other.next) this.fault(own, seen, `acknowledges ${acked}; only ${other.next} has been sent`);
    if (acked < own.acked) this.fault(own, seen, `acknowledges ${acked}, after ${own.acked}`);
    own.acked = Math.max(own.acked, acked);
    const scales = own.offersScale && other.offersScale;
    const shift = (seen.flags & syn) !== 0 || !scales ? 0 : own.scale;
    const edge = acked + seen.window * 2 ** shift;
    // A window that cannot be told exactly is rounded down; more than that is shrinking (RFC 9293 3.8.6).
    if (edge < own.edge - 2 ** (scales ? own.scale : 0) + 1) {
      this.fault(own, seen, `shrinks its window: it ended at ${own.edge}, now at ${edge}`);
    }
    own.edge = Math.max(own.edge, edge);
    this.checkSacks(seen, own, other, acked);
  }

  private checkSacks(seen: Seen, own: Direction, other: Direction, acked: number): void {
    const sacks = seen.options.get(5);
    if (!sacks) return;
    for (let at = 0; at + 8 <= sacks.length; at += 8) {
      const left = from(other.iss, load32(sacks, at));
      const right = from(other.iss, load32(sacks, at + 4));
      const text = `SACK block ${at / 8}, ${left} to ${right}, with an acknowledgement of ${acked}`;
      // The first may tell of any old segment that came, from whoever.
      const isOld = at === 0 && left < right && right <= acked;
      if (!isOld && (left >= right || left < 0 || right > other.next))
        this.fault(own, seen, `${text}: never sent`);
      // Only the first may tell of a duplicate (RFC 2883 4).
      else if (at > 0 && left <= acked) this.fault(own, seen, `${text}: acknowledged already`);
    }
  }

  private checkStamps(seen: Seen, own: Direction, other: Direction): void {
    const stamps = seen.options.get(8);
    const agreed = own.offersStamps && other.offersStamps;
    if ((seen.flags & syn) === 0 && agreed !== (stamps !== undefined)) {
      this.fault(own, seen, agreed ? "has no timestamp" : "has a timestamp that was not agreed on");
    }
    if (!stamps) return;
    const value = load32(stamps, 0);
    const echo = load32(stamps, 4);
    if (own.hasStamp && from(own.stamp, value) < 0) {
      this.fault(own, seen, `its timestamp goes back from ${own.stamp} to ${value}`);
    }
    own.stamp = value;
    own.hasStamp = true;
    own.stamps.add(value);
    if ((seen.flags & ack) !== 0 && other.hasStamp && !other.stamps.has(echo)) {
      this.fault(own, seen, `echoes a timestamp (${echo}) that was never sent`);
    }
  }
}

/** Another answer to a SYN than the one that counts, or the same again long after (a cookie is always the same). */
function isDoubtful(seen: Seen, own: Direction): boolean {
  if ((seen.flags & (syn | ack)) !== (syn | ack) || !own.known) return false;
  return own.iss !== seen.seq || own.acked > 1;
}

/** Where the payload begins, the SYN being at 0. */
function dataStart(seen: Seen, own: Direction): number {
  return from(own.iss, seen.seq) + (seen.flags & syn ? 1 : 0);
}

function read(packet: Uint8Array): Seen {
  const version6 = (packet[0] as number) >>> 4 === 6;
  const upper = ipHeaderBytes(version6);
  const headerBytes = tcpHeaderLength(packet, upper, packet.length - upper);
  return {
    version6,
    seq: load32(packet, upper + tcpField.seq),
    ack: load32(packet, upper + tcpField.ack),
    flags: packet[upper + tcpField.flags] as number,
    window: load16(packet, upper + tcpField.window),
    payloadAt: upper + headerBytes,
    length: packet.length - upper - headerBytes,
    optionBytes: headerBytes - 20,
    options: readOptions(packet, upper + 20, upper + headerBytes),
  };
}

/** Source and destination in words. */
function endsOf(packet: Uint8Array, version6: boolean): [string, string] {
  const words = new Int32Array(8);
  const at = version6 ? 8 : 12;
  const count = version6 ? 4 : 1;
  for (let i = 0; i < 2 * count; i += 1) words[i] = load32(packet, at + 4 * i);
  const ports = at + 8 * count;
  const name = (from: number, port: number) =>
    `${formatAddress(words, from, version6)}:${load16(packet, port)}`;
  return [name(0, ports), name(count, ports + 2)];
}

function readOptions(packet: Uint8Array, start: number, to: number): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>();
  for (let at = start; at < to; ) {
    const kind = packet[at] as number;
    if (kind === 0) break;
    if (kind === 1) {
      at += 1;
      continue;
    }
    const length = packet[at + 1] as number;
    options.set(kind, packet.subarray(at + 2, at + length));
    at += length;
  }
  return options;
}
