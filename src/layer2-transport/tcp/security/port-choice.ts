/**
 * Local addresses and ports for connections of ours: RFC 6056's double hash (algorithm 4, section 3.3.4).
 *
 * Layer 2, pure: which ports are free is the caller's to know. Every destination has its own sequence of ports, which
 * starts where only the key tells, so that nobody learns from the ports he sees how many connections go elsewhere
 * (CVE-2022-32296), while ports come back as late as can be. Several local addresses count as more ports.
 */

import type { IpPrefix } from "../../../layer3-ip/ip-prefix.ts";
import { SipHash, type WordSource } from "./siphash.ts";
import { addWords } from "./tuple.ts";

/** Linux's `ip_local_port_range`, */
export const usualPorts: PortRange = { first: 32_768, last: 60_999 };
/** and what there is when an app asks for connections by the million. */
export const allPorts: PortRange = { first: 1024, last: 65_535 };

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Counters that destinations share, 64 KiB of them: with few, they could be told apart and traced. */
const counters = 2 ** 14;

/** Addresses of one whole prefix that are used at most: with all its ports, more than there are connections. */
const hostBitsMax = 16;

/**
 * One choice at a time: `begin`, then `next` until what it proposes is free.
 *
 * @example
 * choice.begin(sources, words, wordCount, 443);
 * for (let port = choice.next(local); port > 0; port = choice.next(local)) if (isFree(local, port)) return port;
 */
export class PortChoice {
  readonly range: PortRange;
  private readonly ports: number;
  private readonly hash: SipHash;
  private readonly counts: Int32Array;
  private sources: readonly IpPrefix[] = [];
  private places = 0;
  private offset = 0;
  private counter = 0;
  private left = 0;

  /** `source` fills the counters, which need not be secret: no more than that they differ. */
  constructor(key: Uint32Array, source: WordSource, range: PortRange = usualPorts) {
    const { first, last } = range;
    if (!(first >= 1 && first <= last && last <= 65_535)) {
      throw new RangeError(`${first} to ${last} is no range of ports (1 to 65535)`);
    }
    this.range = range;
    this.ports = last - first + 1;
    this.hash = new SipHash(key);
    this.counts = Int32Array.from({ length: counters }, () => source.word());
  }

  /**
   * For a connection to the address in `words` (1 word or 4) from one of `sources`, or, where a prefix is whole, from
   * any of its addresses. False: there is no source.
   */
  begin(sources: readonly IpPrefix[], words: Int32Array, wordCount: number, remotePort: number): boolean {
    const { hash } = this;
    hash.begin();
    addWords(hash, words, 0, wordCount);
    hash.add(remotePort);
    hash.finish();
    this.sources = sources;
    let addresses = 0;
    for (let i = 0; i < sources.length; i += 1) addresses += addressesOf(sources[i] as IpPrefix);
    this.places = this.ports * addresses;
    this.left = this.places;
    // Two hashes in one: halves of SipHash say nothing of each other.
    this.counter = hash.high & (counters - 1);
    this.offset = (hash.low >>> 0) % Math.max(1, this.places);
    return addresses > 0;
  }

  /** Proposes the next place: a port, and its address in `local`. -1: all have been proposed since `begin`. */
  next(local: Int32Array): number {
    if (this.left <= 0) return -1;
    this.left -= 1;
    const count = this.counts[this.counter] as number;
    this.counts[this.counter] = count + 1;
    const place = (this.offset + (count >>> 0)) % this.places;
    this.address(Math.floor(place / this.ports), local);
    return this.range.first + (place % this.ports);
  }

  private address(index: number, local: Int32Array): void {
    const { sources } = this;
    let left = index;
    for (let i = 0; i < sources.length; i += 1) {
      const source = sources[i] as IpPrefix;
      const count = addressesOf(source);
      if (left >= count) {
        left -= count;
        continue;
      }
      const last = source.version6 ? 3 : 0;
      for (let word = 0; word < last; word += 1) local[word] = source.words[word] as number;
      const lastWord = source.words[last] as number;
      local[last] = count === 1 ? lastWord : (lastWord & ~(2 ** hostBitsOf(source) - 1)) + left + firstHost;
      return;
    }
  }
}

/** The network's own address and the one of all its hosts are left out. */
const firstHost = 1;

/** Of a long prefix the low bits alone vary; the rest is as it was written. */
function hostBitsOf(prefix: IpPrefix): number {
  return Math.min(hostBitsMax, (prefix.version6 ? 128 : 32) - prefix.prefixBits);
}

function addressesOf(prefix: IpPrefix): number {
  const bits = prefix.whole === true ? hostBitsOf(prefix) : 0;
  return bits < 2 ? 1 : 2 ** bits - 2;
}
