/**
 * The timers of a worker's connections: a hierarchical timing wheel whose links stand in the v-nodes.
 *
 * Layer 2, one a worker. A connection has one entry, at its earliest deadline; what that deadline is for is the
 * transport's matter. Nothing is allocated: arming, re-arming and cancelling write words of v-nodes, and advancing
 * costs by what expires and what moves a level down, however many are armed and however long nothing did.
 *
 * A tick is a millisecond; times are int32 and wrap. Four levels of 1024, 256, 128 and 128 buckets divide the 32 bits
 * of a time among them, as digits: an entry stands at the level of the highest digit in which its deadline differs from
 * the wheel's time, in the bucket of that digit. So at most one bucket falls due at any tick, and the lowest level
 * that has an entry has the earliest. When a bucket of a higher level is reached its entries move down. An entry that
 * was put off stays where it is until its bucket is reached: a later deadline costs one write.
 */

import { nodeShift as fieldShift, node as fields, type VNodeTable } from "./v-node.ts";

// Compiled in, as imported ones are not. A record's words are at `base | word`: without an addition there is no check
// for its overflow, and while the record is on its way from memory every instruction behind it counts.
const node = fields;
const nodeShift = fieldShift;

/** Buckets are numbered from 0 through all levels. */
const level0 = 0;
const level1 = 1024;
const level2 = 1280;
const level3 = 1408;
const bucketCount = 1536;
const shift1 = 10;
const shift2 = 18;
const shift3 = 25;

/**
 * Of both link words, the low 25 bits are a record's place in the table plus 1 (0: there is none on that side); the
 * bits above say which bucket it is: its low 7 bits in `timerNext`, the others plus 1 in `timerPrev`, which is 0 so
 * only where nothing is armed. All entries of a bucket have the same upper bits, so a link word may be copied from one
 * to its neighbour.
 */
const placeMask = 0x1ffffff;
const placeBits = 25;
const lowBits = 7;
const lowMask = 0x7f;

/** What `nextMs` is ahead of the wheel's time when nothing is armed: 12 days. */
const farMs = 2 ** 30;
const noWords = new Int32Array(0);

export class TimingWheel {
  private readonly table: VNodeTable;
  // Fields that begin with a value of their kind are known to be of it: no check at each use.
  private readonly words: Int32Array = noWords;
  /** By bucket: its first entry's place plus 1, or 0. */
  private readonly first = new Int32Array(bucketCount);
  /** A bit a bucket that has entries, and for level 0 a bit a word of those. */
  private readonly occupied = new Int32Array(bucketCount / 32);
  private summary0 = 0;
  /** Up to here everything has expired, but for what is left in `draining`. */
  private atMs: number = 0;
  /** The bucket that fell due at `atMs` and is not empty yet; -1: none. */
  private draining = -1;
  private count = 0;

  /** `nowMs` is where the wheel's time starts; like all times here it is taken modulo 2^32. */
  constructor(table: VNodeTable, nowMs: number) {
    this.table = table;
    this.words = table.words;
    this.atMs = nowMs | 0;
  }

  /** Connections that are armed. */
  get armedCount(): number {
    return this.count;
  }

  /** Of a slot in use: whether it will expire. */
  isArmed(sockfd24: number): boolean {
    return this.words[this.table.baseOf(sockfd24) | node.timerPrev] !== 0;
  }

  /**
   * Sets when the connection expires, in whole milliseconds at most 24 days ahead, whether it was armed or not. What is
   * past already expires when the wheel's time moves next.
   */
  arm(sockfd24: number, deadlineMs: number): void {
    const { words } = this;
    const base = this.table.baseOf(sockfd24);
    const prev = words[base | node.timerPrev] as number;
    if (prev === 0) {
      words[base | node.deadline] = deadlineMs;
      this.link(base, this.ahead(deadlineMs));
      return;
    }
    const later = (deadlineMs - (words[base | node.deadline] as number)) | 0;
    words[base | node.deadline] = deadlineMs;
    if (later < 0) this.bringForward(base, prev, this.ahead(deadlineMs));
  }

  /** The connection will not expire. Needed before its slot is given back. */
  cancel(sockfd24: number): void {
    const { words } = this;
    const base = this.table.baseOf(sockfd24);
    const prev = words[base | node.timerPrev] as number;
    if (prev === 0) return;
    this.unlink(words[base | node.timerNext] as number, prev);
    words[base | node.timerNext] = 0;
    words[base | node.timerPrev] = 0;
  }

  /**
   * Moves the wheel's time to `nowMs` and calls `expire` for every connection whose deadline that reaches; returns how
   * many. They are disarmed by then, and may be armed again at once. At most `most` entries are looked at: what is left
   * expires when called again, and till then the wheel's time stays behind.
   */
  advance(nowMs: number, expire: (sockfd24: number) => void, most = 0x7fff_ffff): number {
    const now = nowMs | 0;
    if (this.draining < 0 && ((now - this.atMs) | 0) <= 0) return 0;
    let expired = 0;
    let left = most;
    for (;;) {
      if (this.draining < 0) {
        const bucket = this.nextBucket();
        const due = bucket < 0 ? 0 : this.dueOf(bucket);
        if (bucket < 0 || ((due - now) | 0) > 0) {
          this.atMs = now;
          return expired;
        }
        this.atMs = due;
        this.draining = bucket;
      }
      const bucket = this.draining;
      while ((this.first[bucket] as number) !== 0) {
        if (left === 0) return expired;
        left -= 1;
        if (this.takeFirst(bucket, expire)) expired += 1;
      }
      this.draining = -1;
    }
  }

  /**
   * When `advance` should be called: not later than the first connection expires, and as late as is known without
   * looking at it. Without any, far ahead.
   */
  nextMs(): number {
    if (this.draining >= 0) return this.atMs;
    const bucket = this.nextBucket();
    return bucket < 0 ? (this.atMs + farMs) | 0 : this.dueOf(bucket);
  }

  /** A deadline, or the next tick where that is past. */
  private ahead(deadlineMs: number): number {
    const due = (this.atMs + 1) | 0;
    return ((deadlineMs - due) | 0) < 0 ? due : deadlineMs | 0;
  }

  /** Moves an entry whose deadline has become an earlier one, unless it is looked at early enough where it is. */
  private bringForward(base: number, prev: number, at: number): void {
    const next = this.words[base | node.timerNext] as number;
    if (((at - this.dueOf(bucketOfLinks(next, prev))) | 0) >= 0) return;
    this.unlink(next, prev);
    this.link(base, at);
  }

  /** Takes the first entry out of the bucket that is due. True: it expired; else it was put where it belongs now. */
  private takeFirst(bucket: number, expire: (sockfd24: number) => void): boolean {
    const { words } = this;
    const base = ((this.first[bucket] as number) - 1) << nodeShift;
    this.unlink(words[base | node.timerNext] as number, words[base | node.timerPrev] as number);
    const deadline = words[base | node.deadline] as number;
    if (((deadline - this.atMs) | 0) > 0) {
      this.link(base, deadline);
      return false;
    }
    words[base | node.timerNext] = 0;
    words[base | node.timerPrev] = 0;
    expire(this.table.sockfd24At(base));
    return true;
  }

  /** Puts a record into the bucket of a time that is ahead of the wheel's. */
  private link(base: number, at: number): void {
    const { words, first } = this;
    const bucket = this.bucketOf(at);
    const place = (base >>> nodeShift) + 1;
    const head = first[bucket] as number;
    const low = (bucket & lowMask) << placeBits;
    const high = ((bucket >>> lowBits) + 1) << placeBits;
    words[base | node.timerNext] = low | head;
    words[base | node.timerPrev] = high;
    first[bucket] = place;
    this.count += 1;
    if (head !== 0) {
      words[((head - 1) << nodeShift) | node.timerPrev] = high | place;
      return;
    }
    this.occupied[bucket >>> 5] = (this.occupied[bucket >>> 5] as number) | (1 << (bucket & 31));
    if (bucket < level1) this.summary0 |= 1 << (bucket >>> 5);
  }

  /** Takes the record with these link words out of its bucket; the words themselves stay as they were. */
  private unlink(next: number, prev: number): void {
    const { words, first } = this;
    const after = next & placeMask;
    const before = prev & placeMask;
    this.count -= 1;
    if (after !== 0) words[((after - 1) << nodeShift) | node.timerPrev] = prev;
    if (before !== 0) {
      words[((before - 1) << nodeShift) | node.timerNext] = next;
      return;
    }
    const bucket = bucketOfLinks(next, prev);
    first[bucket] = after;
    if (after !== 0) return;
    const rest = (this.occupied[bucket >>> 5] as number) & ~(1 << (bucket & 31));
    this.occupied[bucket >>> 5] = rest;
    if (bucket < level1 && rest === 0) this.summary0 &= ~(1 << (bucket >>> 5));
  }

  /** The bucket of a time ahead: by the highest digit in which it differs from the wheel's. */
  private bucketOf(at: number): number {
    const differs = (at ^ this.atMs) >>> shift1;
    if (differs === 0) return level0 + (at & 1023);
    if (differs >>> (shift2 - shift1) === 0) return level1 + ((at >>> shift1) & 255);
    if (differs >>> (shift3 - shift1) === 0) return level2 + ((at >>> shift2) & 127);
    return level3 + (at >>> shift3);
  }

  /** When a bucket with entries is reached. Higher digits than its own are those of the wheel's time. */
  private dueOf(bucket: number): number {
    const at = this.atMs;
    if (bucket < level1) return (at & -1024) | bucket;
    if (bucket < level2) return (at & (-1 << shift2)) | ((bucket - level1) << shift1);
    if (bucket < level3) return (at & (-1 << shift3)) | ((bucket - level2) << shift2);
    return (bucket - level3) << shift3;
  }

  /** The bucket that is reached next; -1: all are empty. */
  private nextBucket(): number {
    if (this.count === 0) return -1;
    const at = this.atMs;
    const word = (at & 1023) >>> 5;
    const near = (this.occupied[word] as number) & (-1 << (at & 31));
    if (near !== 0) return word * 32 + lowestBit(near);
    // A shift by 32 would be one by 0.
    const later = word === 31 ? 0 : this.summary0 & (-1 << (word + 1));
    if (later !== 0) {
      const found = lowestBit(later);
      return found * 32 + lowestBit(this.occupied[found] as number);
    }
    const below = this.firstOf(level1, level2);
    if (below >= 0) return below;
    const middle = this.firstOf(level2, level3);
    if (middle >= 0) return middle;
    // The highest digit wraps: what is behind the wheel's own is a turn ahead.
    const now = level3 + (at >>> shift3);
    const ahead = this.firstOf(now, bucketCount);
    return ahead >= 0 ? ahead : this.firstOf(level3, now);
  }

  /** The first bucket with entries of those from `from` up to `to`; -1: none. */
  private firstOf(from: number, to: number): number {
    for (let word = from >>> 5; word * 32 < to; word += 1) {
      let bits = this.occupied[word] as number;
      if (word === from >>> 5) bits &= -1 << (from & 31);
      if (bits === 0) continue;
      const bucket = word * 32 + lowestBit(bits);
      return bucket < to ? bucket : -1;
    }
    return -1;
  }
}

function bucketOfLinks(next: number, prev: number): number {
  return (next >>> placeBits) | (((prev >>> placeBits) - 1) << lowBits);
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}
