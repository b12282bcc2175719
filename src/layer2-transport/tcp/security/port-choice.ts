/**
 * Local addresses and ports for connections of ours: RFC 6056's double hash (algorithm 4, section 3.3.4).
 *
 * Layer 2, pure: which ports are free is the caller's to know. Every destination has its own sequence of ports, which
 * starts where only the key tells, so that nobody learns from the ports he sees how many connections go elsewhere
 * (CVE-2022-32296), while ports come back as late as can be. Several local addresses count as more ports.
 */

import { SipHash } from "./siphash.ts";
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

/**
 * One choice at a time: `begin`, then `next` until what it proposes is free.
 *
 * @example
 * choice.begin(words, at, wordCount, 443, addresses.length);
 * while (choice.next()) if (isFree(addresses[choice.addressIndex], choice.port)) return true;
 */
export class PortChoice {
  /** What `next` proposes: an index of the local addresses, */
  addressIndex = 0;
  /** and a port. */
  port = 0;
  readonly range: PortRange;
  private readonly ports: number;
  private readonly hash: SipHash;
  private readonly counts: Int32Array;
  private places = 0;
  private offset = 0;
  private counter = 0;
  private left = 0;

  /** `source` fills the counters, which need not be secret: no more than that they differ. */
  constructor(key: Uint32Array, source: { word(): number }, range: PortRange = usualPorts) {
    const { first, last } = range;
    if (!(first >= 1 && first <= last && last <= 65_535)) {
      throw new RangeError(`${first} to ${last} is no range of ports (1 to 65535)`);
    }
    this.range = range;
    this.ports = last - first + 1;
    this.hash = new SipHash(key);
    this.counts = Int32Array.from({ length: counters }, () => source.word());
  }

  /** For a connection to the address in `words` at `at` (1 word or 4) from one of `addressCount` addresses. */
  begin(words: Int32Array, at: number, wordCount: number, remotePort: number, addressCount: number): void {
    const { hash } = this;
    hash.begin();
    addWords(hash, words, at, wordCount);
    hash.add(remotePort);
    hash.finish();
    this.places = this.ports * addressCount;
    this.left = this.places;
    // Two hashes in one: halves of SipHash say nothing of each other.
    this.counter = hash.high & (counters - 1);
    this.offset = (hash.low >>> 0) % this.places;
  }

  /** Proposes the next place. False: every one has been proposed since `begin`. */
  next(): boolean {
    if (this.left <= 0) return false;
    this.left -= 1;
    const count = this.counts[this.counter] as number;
    this.counts[this.counter] = count + 1;
    const place = (this.offset + (count >>> 0)) % this.places;
    this.addressIndex = Math.floor(place / this.ports);
    this.port = this.range.first + (place % this.ports);
    return true;
  }
}
