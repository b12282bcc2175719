/**
 * Reassembly, the slow and obvious way: written from RFC 791, 1858, 3128, 3168, 5722, 7112 and 8200, with nothing taken
 * from the native one but the names of the outcomes. Memory is not bounded here; datagrams and fragments are.
 */

import { slowChecksum } from "../packets.ts";

export interface SlowLimits {
  readonly datagrams: number;
  readonly datagramsPerSource: number;
  readonly fragmentsPerDatagram: number;
}

interface Fragment {
  readonly six: boolean;
  /** Who sends, as far as shares of memory go. */
  readonly sender: string;
  /** Which datagram it belongs to. */
  readonly datagram: string;
  readonly packet: Buffer;
  /** Everything before the data. */
  readonly headers: Buffer;
  readonly data: Buffer;
  readonly offset: number;
  readonly more: boolean;
  readonly ecn: number;
  readonly protocol: number;
}

interface Datagram {
  readonly six: boolean;
  readonly sender: string;
  readonly arrivedUs: number;
  fragments: Fragment[];
  voidFor: string | undefined;
}

const dropped = (name: string): string => `rx.dropped.fragment${name}`;

function readFragment4(bytes: Buffer): Fragment | undefined {
  const packet = bytes.subarray(0, bytes.readUInt16BE(2));
  const word = packet.readUInt16BE(6);
  if ((word & 0x3fff) === 0) return undefined;
  const headerBytes = ((packet[0] as number) & 15) * 4;
  const source = packet.subarray(12, 16).toString("hex");
  return {
    six: false,
    sender: source,
    datagram: `4 ${packet.subarray(12, 20).toString("hex")} ${packet[9]} ${packet.readUInt16BE(4)}`,
    packet,
    headers: packet.subarray(0, headerBytes),
    data: packet.subarray(headerBytes),
    offset: (word & 0x1fff) * 8,
    more: (word & 0x2000) !== 0,
    ecn: (packet[1] as number) & 3,
    protocol: packet[9] as number,
  };
}

/** Takes packets whose fragment header comes first, or after hop-by-hop options of eight bytes. */
function readFragment6(bytes: Buffer): Fragment | undefined {
  const packet = bytes.subarray(0, 40 + bytes.readUInt16BE(4));
  const at = packet[6] === 0 ? 48 : 40;
  if (packet[at === 48 ? 40 : 6] !== 44) return undefined;
  const word = packet.readUInt16BE(at + 2);
  if ((word & 0xfff9) === 0) return undefined;
  return {
    six: true,
    sender: packet.subarray(8, 16).toString("hex"),
    datagram: `6 ${packet.subarray(8, 40).toString("hex")} ${packet.readUInt32BE(at + 4)}`,
    packet,
    headers: packet.subarray(0, at + 8),
    data: packet.subarray(at + 8),
    offset: word & 0xfff8,
    more: (word & 1) !== 0,
    ecn: (packet.readUInt16BE(0) >> 4) & 3,
    protocol: packet[at] as number,
  };
}

/** RFC 7112: all headers up to and with the upper layer's. */
function holdsAllHeaders(next: number, data: Buffer): boolean {
  if (next === 60 || next === 43) {
    if (data.length < 8) return false;
    const length = 8 + 8 * (data[1] as number);
    return data.length >= length && holdsAllHeaders(data[0] as number, data.subarray(length));
  }
  if (next === 17 || next === 58) return data.length >= 8;
  if (next !== 6) return true;
  if (data.length < 20) return false;
  const length = ((data[12] as number) >> 4) * 4;
  return length >= 20 && length <= data.length;
}

/** What is wrong with a fragment whatever the others are. */
function faultOf({ six, data, headers, offset, more, protocol }: Fragment): string | undefined {
  if (data.length === 0 || (more && data.length % 8 !== 0)) return dropped("Length");
  const whole = offset + data.length + (six ? headers.length - 48 : headers.length);
  if (whole > 65_535) return dropped("TooLong");
  if (six) return offset === 0 && !holdsAllHeaders(protocol, data) ? dropped("Tiny") : undefined;
  if (protocol === 6 && (offset === 8 || (offset === 0 && data.length < 16))) return dropped("Tiny");
  return undefined;
}

const endOf = (fragment: Fragment): number => fragment.offset + fragment.data.length;

/** Two ends, something behind the end, or congestion on what is not capable of saying so. */
function contradicts(all: Fragment[]): boolean {
  const ends = new Set(all.filter((fragment) => !fragment.more).map(endOf));
  const end = Math.min(...ends);
  const ecns = new Set(all.map((fragment) => fragment.ecn));
  return (
    ends.size > 1 ||
    all.some((fragment) => (fragment.more ? endOf(fragment) >= end : endOf(fragment) > end)) ||
    (ecns.has(0) && ecns.has(3))
  );
}

function isWhole(all: Fragment[]): boolean {
  const last = all.find((fragment) => !fragment.more);
  return last !== undefined && all.reduce((sum, { data }) => sum + data.length, 0) === endOf(last);
}

function putTogether(all: Fragment[]): Buffer {
  const sorted = [...all].sort((a, b) => a.offset - b.offset);
  const { six, headers, protocol } = sorted[0] as Fragment;
  const congestion = all.some(({ ecn }) => ecn === 3);
  const data = Buffer.concat(sorted.map((fragment) => fragment.data));
  if (six) {
    const header = Buffer.from(headers.subarray(0, headers.length - 8));
    header[header.length === 48 ? 40 : 6] = protocol;
    header.writeUInt16BE(header.length - 40 + data.length, 4);
    if (congestion) header[1] = (header[1] as number) | 0x30;
    return Buffer.concat([header, data]);
  }
  const header = Buffer.from(headers);
  header.writeUInt16BE(header.length + data.length, 2);
  header.writeUInt16BE(0, 6);
  if (congestion) header[1] = (header[1] as number) | 3;
  header.writeUInt16BE(0, 10);
  header.writeUInt16BE(slowChecksum(header), 10);
  return Buffer.concat([header, data]);
}

export class SlowReassembler {
  readonly #limits: SlowLimits;
  /** By key; a Map keeps the order in which they came. */
  readonly #datagrams = new Map<string, Datagram>();
  readonly counters: Record<string, number> = {};

  constructor(limits: SlowLimits) {
    this.#limits = limits;
  }

  /** As `NativeReassembler.add`. */
  add(packet: Buffer, nowUs: number): Buffer | string {
    const fragment = (packet[0] as number) >> 4 === 4 ? readFragment4(packet) : readFragment6(packet);
    if (!fragment) return "not a fragment";
    const fault = faultOf(fragment);
    if (fault) return this.#count(fault, 1);
    const datagram = this.#findOrMake(fragment, nowUs);
    if (datagram.voidFor) return this.#count(datagram.voidFor, 1);
    if (contradicts([...datagram.fragments, fragment])) return this.#makeVoid(datagram, "Mismatch");
    const overlapping = datagram.fragments.filter(
      (other) => other.offset < endOf(fragment) && fragment.offset < endOf(other),
    );
    const [first] = overlapping;
    if (first && overlapping.length === 1 && this.#isSame(first, fragment)) {
      return this.#count(dropped("Duplicate"), 1);
    }
    if (first) return this.#makeVoid(datagram, "Overlap");
    if (datagram.fragments.length >= this.#limits.fragmentsPerDatagram) {
      return this.#makeVoid(datagram, "TooMany");
    }
    datagram.fragments.push(fragment);
    if (!isWhole(datagram.fragments)) return "waiting";
    const whole = putTogether(datagram.fragments);
    if (whole.length > (fragment.six ? 65_575 : 65_535)) {
      datagram.fragments.pop();
      return this.#makeVoid(datagram, "TooLong");
    }
    this.#count("rx.reassembled", 1);
    this.#count("rx.merged", datagram.fragments.length - 1);
    this.#datagrams.delete(fragment.datagram);
    return whole;
  }

  /** As `NativeReassembler.expire`. */
  expire(nowUs: number): Buffer | undefined {
    const isOver = ([, { six, arrivedUs }]: [string, Datagram]): boolean =>
      arrivedUs + (six ? 60e6 : 30e6) <= nowUs;
    const over = [...this.#datagrams].filter(isOver);
    const [key, datagram] = over.find(([, { six }]) => !six) ?? over[0] ?? [];
    if (key === undefined || !datagram) return undefined;
    this.#datagrams.delete(key);
    this.#count(dropped("Timeout"), datagram.fragments.length);
    return datagram.fragments.find(({ offset }) => offset === 0)?.packet ?? Buffer.alloc(0);
  }

  /** Of fragments and of datagrams. */
  get waiting(): [number, number] {
    const all = [...this.#datagrams.values()];
    return [all.reduce((sum, { fragments }) => sum + fragments.length, 0), all.length];
  }

  #findOrMake(fragment: Fragment, nowUs: number): Datagram {
    const known = this.#datagrams.get(fragment.datagram);
    if (known) return known;
    const own = [...this.#datagrams].filter(([, { sender, six }]) => {
      return sender === fragment.sender && six === fragment.six;
    });
    if (own.length >= this.#limits.datagramsPerSource) this.#evict(own[0]?.[0] as string);
    if (this.#datagrams.size >= this.#limits.datagrams) {
      this.#evict([...this.#datagrams.keys()][0] as string);
    }
    const { six, sender } = fragment;
    const made: Datagram = { six, sender, arrivedUs: nowUs, fragments: [], voidFor: undefined };
    this.#datagrams.set(fragment.datagram, made);
    return made;
  }

  #isSame(a: Fragment, b: Fragment): boolean {
    return a.offset === b.offset && a.data.equals(b.data);
  }

  #evict(key: string): void {
    this.#count(dropped("Memory"), this.#datagrams.get(key)?.fragments.length ?? 0);
    this.#datagrams.delete(key);
  }

  #makeVoid(datagram: Datagram, name: string): string {
    datagram.voidFor = dropped(name);
    this.#count(datagram.voidFor, datagram.fragments.length + 1);
    datagram.fragments = [];
    return datagram.voidFor;
  }

  #count(name: string, amount: number): string {
    if (amount > 0) this.counters[name] = (this.counters[name] ?? 0) + amount;
    return name;
  }
}
