/**
 * What is known of each source of connections: a bounded table by prefix, eight places a source by a keyed hash.
 *
 * Layer 2, one worker. It counts and never judges. All arrays are made once; finding a source looks at eight places,
 * making room too. Who has no connection gives way first, the longest silent before others; among those that have some,
 * the one with the fewest. So a flood from forged addresses moves nobody out who really has connections.
 */

import { SteerHash } from "../../layer3-ip/steer.ts";
import { maskInto, type PrefixBits } from "./prefix-text.ts";

const places = 8;

/** Whether event number n of a source comes too soon after those before: a bucket of `burst`, refilled at `rate`/s. */
export class Pace {
  readonly intervalMs: number;
  private readonly slackMs: number;

  constructor(rate: number, burst: number) {
    this.intervalMs = rate > 0 ? 1000 / rate : 0;
    this.slackMs = this.intervalMs * (burst - 1);
  }

  /** The new state after an event at `nowMs`; -1 when it came too soon (the state stays). */
  after(state: number, nowMs: number): number {
    const from = state > nowMs ? state : nowMs;
    return from - nowMs > this.slackMs ? -1 : from + this.intervalMs;
  }
}

export class SourceTable {
  readonly slots: number;
  /** By place: connections now. */
  readonly connections: Int32Array;
  /** State of `Pace` for new connections. */
  readonly paceMs: Float64Array;
  /** State of `Pace` for offences. */
  readonly offenceMs: Float64Array;
  /** Until when it is blocked: what it did before that is paid for. */
  readonly blockedMs: Float64Array;
  /** How often it has been blocked. */
  readonly blocks: Uint8Array;
  /** When it was last looked at. */
  readonly seenMs: Float64Array;
  private readonly high: Int32Array;
  private readonly low: Int32Array;
  /** IP version; 0: nobody is here. */
  private readonly version: Uint8Array;
  private readonly steer: SteerHash;
  private readonly bits: PrefixBits;
  private readonly key = new Int32Array(4);
  private readonly nobody = new Int32Array(2);

  /** `slots`: a power of two. At most 64 bits of an IPv6 address. `low` and `high` are a secret. */
  constructor(slots: number, bits: PrefixBits, low: number, high: number) {
    this.slots = slots;
    this.connections = new Int32Array(slots);
    this.paceMs = new Float64Array(slots);
    this.offenceMs = new Float64Array(slots);
    this.blockedMs = new Float64Array(slots);
    this.blocks = new Uint8Array(slots);
    this.seenMs = new Float64Array(slots);
    this.high = new Int32Array(slots);
    this.low = new Int32Array(slots);
    this.version = new Uint8Array(slots);
    this.steer = new SteerHash({ low, high });
    this.bits = bits;
  }

  /** The source's place; -1 when nothing is known of it. */
  find(words: Int32Array, at: number, wordCount: 1 | 4): number {
    const first = this.firstPlace(words, at, wordCount);
    for (let place = first; place < first + places; place += 1) {
      if (this.holds(place, wordCount)) return place;
    }
    return -1;
  }

  /** The source's place, which is made when there is none. */
  take(words: Int32Array, at: number, wordCount: 1 | 4, nowMs: number): number {
    const first = this.firstPlace(words, at, wordCount);
    let worst = first;
    for (let place = first; place < first + places; place += 1) {
      if (this.holds(place, wordCount)) {
        this.seenMs[place] = nowMs;
        return place;
      }
      if (this.isLess(place, worst)) worst = place;
    }
    this.version[worst] = wordCount;
    this.high[worst] = this.key[0] as number;
    this.low[worst] = this.key[1] as number;
    this.connections[worst] = 0;
    this.paceMs[worst] = 0;
    this.offenceMs[worst] = 0;
    this.blockedMs[worst] = 0;
    this.blocks[worst] = 0;
    this.seenMs[worst] = nowMs;
    return worst;
  }

  /** Writes the prefix at a place as the words of an address; how many words that are (0: nobody is there). */
  prefixAt(place: number, into: Int32Array): 0 | 1 | 4 {
    into.fill(0);
    into[0] = this.high[place] as number;
    into[1] = this.low[place] as number;
    return this.version[place] as 0 | 1 | 4;
  }

  private firstPlace(words: Int32Array, at: number, wordCount: 1 | 4): number {
    const { key } = this;
    key[1] = 0;
    maskInto(key, words, at, wordCount, this.bits);
    const hash = this.steer.hash(key, 0, 0, this.nobody, 0, 0, 2, wordCount);
    return (hash & (this.slots / places - 1)) * places;
  }

  private holds(place: number, wordCount: 1 | 4): boolean {
    return (
      this.high[place] === this.key[0] && this.low[place] === this.key[1] && this.version[place] === wordCount
    );
  }

  /** Whether less is lost by giving up `place` than by giving up `other`. */
  private isLess(place: number, other: number): boolean {
    if (this.version[place] === 0) return this.version[other] !== 0;
    if (this.version[other] === 0) return false;
    const difference = (this.connections[place] as number) - (this.connections[other] as number);
    if (difference !== 0) return difference < 0;
    return (this.seenMs[place] as number) < (this.seenMs[other] as number);
  }
}
