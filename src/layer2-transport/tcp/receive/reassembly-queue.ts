/**
 * What has arrived of a stream beyond a gap: pieces of frames, sorted, without overlaps (RFC 9293 3.10.7.4, RFC 2018).
 *
 * Layer 2, one a connection that is active. Knows sequence numbers and frames, nothing of segments or windows. Pieces
 * that touch form an island, a linked list; the islands are a sorted array, so that finding a place is a binary search
 * and joining islands moves no pieces. Bytes that are there already are never replaced.
 *
 * The sender chooses what comes here, so nothing grows with his will (CVE-2018-5390): there are at most `maxGaps`
 * islands and `maxBytes` bytes; an insert costs a search and at most one step an island; and the frames kept may cost
 * no more than 4 times the bytes in them, plus 128 KiB: small neighbours are copied together, and what would tie up a
 * frame for a few bytes is refused beyond that. Memory is taken when it is needed; an empty queue has next to none.
 */

import { type FramePool, largeFrameBytes, smallFrameBytes } from "../../link.ts";
import { after, atMost, before, distance, earliest, latest } from "../wire/sequence.ts";

/** What became of a piece. */
export const inserted = { kept: 0, duplicate: 1, refused: 2 } as const;

/** Islands that `sackBlocks` reports at most. */
const maxReported = 4;
/** Slots of small-frame size that the frames may take beyond the two a KiB of bytes. */
const spareUnits = 64;
const unitsOfLarge = largeFrameBytes / smallFrameBytes;
/** A piece of at most this many bytes is copied behind its neighbour: beyond, a copy costs more than a frame. */
const joinMaxBytes = 512;
/** What a neighbour may have, to be moved to a frame of the queue's own together with a newcomer. */
const movedMaxBytes = 1024;
/** Records that are kept for the next time when the queue is emptied. */
const keptRecords = 256;

// Words of an island.
const islandStart = 0;
const islandEnd = 1;
const islandHead = 2;
const islandTail = 3;
/** Greater, the later it has changed. */
const islandStamp = 4;
const islandWords = 5;

// Words of a piece; its index is that of its first word, 0 is none.
const pieceSeq = 0;
const pieceLength = 1;
const pieceFrame = 2;
const pieceOffset = 3;
const pieceNext = 4;
/** Bytes that can be written behind it: its frame is the queue's own. */
const pieceRoom = 5;
/** What it counts for the limit, in small frames. */
const pieceUnits = 6;
const pieceWords = 8;

const nothing = new Int32Array(0);

export class ReassemblyQueue {
  maxBytes = 6 * 2 ** 20;
  maxGaps = 128;
  /** Bytes kept. */
  bytes = 0;
  /** Islands, so as many gaps as there are before each of them. */
  gaps = 0;
  pieces = 0;
  /** What the last `insert` had that was there before: its first such run (RFC 2883). Equal: there was none. */
  duplicateStart = 0;
  duplicateEnd = 0;
  /** What `takeNext` took: one count of the frame, and where in the frame the bytes are. */
  frame = 0;
  offset = 0;
  length = 0;
  /** Loop rounds so far, for tests of what hostile input costs. */
  steps = 0;
  private readonly pool: FramePool;
  private units = 0;
  private next = 0;
  private stamp = 0;
  private islands = nothing;
  private records = nothing;
  private freeRecord = 0;
  private usedWords = pieceWords;

  constructor(pool: FramePool) {
    this.pool = pool;
  }

  /** Memory of the frames kept, in bytes; a frame that is shared by several pieces may count a little more. */
  get heldBytes(): number {
    return this.units * smallFrameBytes;
  }

  /** Begins anew: everything before `next` has been taken. */
  reset(next: number): void {
    this.clear();
    this.next = next | 0;
  }

  /** Lets go of everything. */
  clear(): void {
    for (let i = 0; i < this.gaps; i += 1) {
      let piece = this.islands[i * islandWords + islandHead] as number;
      while (piece !== 0) {
        this.pool.release(this.records[piece + pieceFrame] as number);
        piece = this.records[piece + pieceNext] as number;
      }
    }
    this.bytes = 0;
    this.gaps = 0;
    this.pieces = 0;
    this.units = 0;
    this.stamp = 0;
    this.freeRecord = 0;
    this.usedWords = pieceWords;
    if (this.records.length > keptRecords * pieceWords) this.records = nothing;
  }

  /**
   * Takes over one count of the frame, whatever it answers: `inserted.kept` (some of it was new), `duplicate` or
   * `refused` (limits). What lies before `nextExpected` is cut off. A piece that begins there is never refused.
   */
  insert(seq: number, frame: number, offset: number, length: number, nextExpected: number): number {
    const end = (seq + length) | 0;
    let start = seq | 0;
    this.next = nextExpected | 0;
    this.duplicateStart = start;
    this.duplicateEnd = start;
    if (before(start, nextExpected)) {
      this.duplicateEnd = earliest(end, nextExpected);
      start = nextExpected | 0;
    }
    if (atMost(end, start)) {
      this.pool.release(frame);
      return inserted.duplicate;
    }
    const first = this.firstNotBefore(start);
    // The islands first to last - 1 overlap or touch it.
    let last = first;
    let fresh = distance(end, start);
    let holes = 0;
    let at = start;
    for (; last < this.gaps && atMost(this.startOf(last), end); last += 1) {
      const left = latest(this.startOf(last), start);
      const right = earliest(this.endOf(last), end);
      if (before(at, left)) holes += 1;
      at = right;
      if (!before(left, right)) continue;
      fresh -= distance(right, left);
      if (this.duplicateStart !== this.duplicateEnd) continue;
      this.duplicateStart = left;
      this.duplicateEnd = right;
    }
    this.steps += last - first + 1;
    if (before(at, end)) holes += 1;
    let answer: number = inserted.kept;
    if (holes === 0) {
      this.touch(first);
      answer = inserted.duplicate;
    } else if (start !== this.next && !this.admits(first, last, fresh)) {
      answer = inserted.refused;
    } else if (this.joins(first, last, start, holes, frame, offset + distance(start, seq), fresh)) {
      this.bytes += fresh;
      this.fuse(first, last, start, end, 0, 0);
    } else if (start !== this.next && !this.affords(frame, fresh, holes)) {
      answer = inserted.refused;
    } else {
      this.bytes += fresh;
      this.fuse(first, last, start, end, frame, offset + distance(start, seq));
      return answer;
    }
    this.pool.release(frame);
    return answer;
  }

  /**
   * Takes out the piece that has the byte `next`, from there on, and lets go of what lies before. True: `frame`,
   * `offset` and `length` tell of it, and one count of the frame is the caller's. False: that byte is not there.
   */
  takeNext(next: number): boolean {
    this.next = next | 0;
    while (this.gaps > 0) {
      const { islands, records } = this;
      if (after(islands[islandStart] as number, next)) return false;
      const piece = islands[islandHead] as number;
      const seq = records[piece + pieceSeq] as number;
      const length = records[piece + pieceLength] as number;
      const end = (seq + length) | 0;
      this.frame = records[piece + pieceFrame] as number;
      const behind = records[piece + pieceNext] as number;
      islands[islandStart] = end;
      islands[islandHead] = behind;
      const skip = distance(next, seq);
      this.offset = (records[piece + pieceOffset] as number) + skip;
      this.length = length - skip;
      this.bytes -= length;
      this.freePiece(piece);
      if (behind === 0) this.removeIslands(0, 1);
      this.steps += 1;
      if (this.length > 0) return true;
      this.pool.release(this.frame);
    }
    return false;
  }

  /** Writes the edges of at most 4 islands, the one that changed last first (RFC 2018 4). Returns how many. */
  sackBlocks(out: Int32Array): number {
    const count = Math.min(this.gaps, maxReported);
    let below = this.stamp + 1;
    for (let reported = 0; reported < count; reported += 1) {
      let found = 0;
      let highest = -1;
      for (let i = 0; i < this.gaps; i += 1) {
        const stamp = this.islands[i * islandWords + islandStamp] as number;
        if (stamp <= highest || stamp >= below) continue;
        highest = stamp;
        found = i;
      }
      below = highest;
      out[2 * reported] = this.startOf(found);
      out[2 * reported + 1] = this.endOf(found);
    }
    this.steps += count * this.gaps;
    return count;
  }

  /** What is wrong with the queue, in words: nothing, ever. For tests and the simulator; costs a step a piece. */
  checkInvariants(): string[] {
    const wrong: string[] = [];
    let bytes = 0;
    let pieces = 0;
    let units = 0;
    let last = this.next;
    for (let i = 0; i < this.gaps; i += 1) {
      if (i > 0 && !after(this.startOf(i), last))
        wrong.push(`island ${i} does not lie behind the one before`);
      if (before(this.startOf(i), last)) wrong.push(`island ${i} begins before ${last}`);
      let at = this.startOf(i);
      let piece = this.islands[i * islandWords + islandHead] as number;
      for (; piece !== 0; piece = this.records[piece + pieceNext] as number) {
        if (this.records[piece + pieceSeq] !== at) wrong.push(`a piece of island ${i} is not at ${at}`);
        const length = this.records[piece + pieceLength] as number;
        if (length <= 0) wrong.push(`a piece of island ${i} has ${length} bytes`);
        at = (at + length) | 0;
        bytes += length;
        pieces += 1;
        units += this.records[piece + pieceUnits] as number;
        const isTail = this.islands[i * islandWords + islandTail] === piece;
        if (isTail !== (this.records[piece + pieceNext] === 0)) wrong.push(`island ${i} has a wrong tail`);
      }
      last = this.endOf(i);
      if (at !== last) wrong.push(`island ${i} ends at ${last}, its pieces at ${at}`);
    }
    if (bytes !== this.bytes) wrong.push(`${this.bytes} bytes are counted, ${bytes} are there`);
    if (pieces !== this.pieces) wrong.push(`${this.pieces} pieces are counted, ${pieces} are there`);
    if (units !== this.units) wrong.push(`${this.units} units are counted, ${units} are there`);
    return wrong;
  }

  private startOf(island: number): number {
    return this.islands[island * islandWords + islandStart] as number;
  }

  private endOf(island: number): number {
    return this.islands[island * islandWords + islandEnd] as number;
  }

  private touch(island: number): void {
    this.stamp += 1;
    this.islands[island * islandWords + islandStamp] = this.stamp;
  }

  /** The first island that ends at `seq` or behind it. */
  private firstNotBefore(seq: number): number {
    let low = 0;
    let high = this.gaps;
    while (low < high) {
      this.steps += 1;
      const middle = (low + high) >>> 1;
      if (before(this.endOf(middle), seq)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private admits(first: number, last: number, fresh: number): boolean {
    return this.bytes + fresh <= this.maxBytes && (last > first || this.gaps < this.maxGaps);
  }

  /** Whether the frames kept stay within what the bytes in them justify. */
  private affords(frame: number, fresh: number, holes: number): boolean {
    const cost = holes - 1 + this.costOf(frame, fresh);
    return this.units + cost <= ((this.bytes + fresh) >>> 9) + spareUnits;
  }

  /** A large frame costs as much as a small one when what is kept of it goes into a small one. */
  private costOf(frame: number, fresh: number): number {
    return fresh > smallFrameBytes && this.pool.frameBytes(frame) > smallFrameBytes ? unitsOfLarge : 1;
  }

  /** Copies a few bytes behind those that they follow. False: that is not worth it, or cannot be done. */
  private joins(
    first: number,
    last: number,
    start: number,
    holes: number,
    frame: number,
    offset: number,
    length: number,
  ): boolean {
    if (length > joinMaxBytes || holes !== 1 || first === last) return false;
    // What is missing must lie behind the first island: it is not moved to make room before one.
    if (after(this.startOf(first), start)) return false;
    const { pool, records } = this;
    const tail = this.islands[first * islandWords + islandTail] as number;
    const end = this.endOf(first);
    const from = frame * smallFrameBytes + offset + distance(end, start);
    const had = records[tail + pieceLength] as number;
    if ((records[tail + pieceRoom] as number) < length) {
      if (had + length > movedMaxBytes) return false;
      const own = pool.allocateFrame(false);
      if (own === 0) return false;
      const old = records[tail + pieceFrame] as number;
      const oldAt = old * smallFrameBytes + (records[tail + pieceOffset] as number);
      pool.copy(oldAt, own * smallFrameBytes, had);
      pool.release(old);
      this.units += 1 - (records[tail + pieceUnits] as number);
      records[tail + pieceUnits] = 1;
      records[tail + pieceFrame] = own;
      records[tail + pieceOffset] = 0;
      records[tail + pieceRoom] = smallFrameBytes - had;
    }
    const tailAt = (records[tail + pieceFrame] as number) * smallFrameBytes;
    pool.copy(from, tailAt + (records[tail + pieceOffset] as number) + had, length);
    records[tail + pieceLength] = had + length;
    records[tail + pieceRoom] = (records[tail + pieceRoom] as number) - length;
    this.islands[first * islandWords + islandEnd] = (end + length) | 0;
    return true;
  }

  /**
   * Makes one island of the islands `first` to `last` - 1 and of the bytes `start` to `end` between them, which are
   * in the frame from `offset` on. Frame 0: there is nothing to fill. Takes over one count of the frame.
   */
  private fuse(first: number, last: number, start: number, end: number, frame: number, offset: number): void {
    let from = start;
    let at = start;
    let head = 0;
    let tail = 0;
    let shares = 0;
    let sharer = 0;
    for (let i = first; i <= last; i += 1) {
      const to = i < last ? this.startOf(i) : end;
      if (before(at, to)) {
        const piece = this.append(tail, at, distance(to, at), frame, offset + distance(at, start));
        if (head === 0) head = piece;
        tail = piece;
        if (this.records[piece + pieceFrame] === frame) {
          shares += 1;
          sharer = piece;
        }
      }
      if (i === last) break;
      if (i === first && before(to, start)) from = to;
      const next = this.islands[i * islandWords + islandHead] as number;
      if (head === 0) head = next;
      else this.records[tail + pieceNext] = next;
      tail = this.islands[i * islandWords + islandTail] as number;
      at = this.endOf(i);
    }
    const to = latest(at, end);
    if (first === last) this.makeRoom(first);
    else this.removeIslands(first + 1, last - first - 1);
    const island = first * islandWords;
    this.islands[island + islandStart] = from;
    this.islands[island + islandEnd] = to;
    this.islands[island + islandHead] = head;
    this.islands[island + islandTail] = tail;
    this.touch(first);
    if (frame === 0) return;
    if (shares === 0) this.pool.release(frame);
    else this.share(frame, shares, sharer);
  }

  /** The frame is in `shares` pieces now. The last of them, which will be taken last, bears what it costs. */
  private share(frame: number, shares: number, last: number): void {
    if (shares > 1) this.pool.retain(frame, shares - 1);
    if (this.pool.frameBytes(frame) <= smallFrameBytes) return;
    this.records[last + pieceUnits] = unitsOfLarge;
    this.units += unitsOfLarge - 1;
  }

  /** A new piece behind `tail`. Of a large frame, what fits a small one is copied, if there is one. */
  private append(tail: number, seq: number, length: number, frame: number, offset: number): number {
    const piece = this.takeRecord();
    const { pool, records } = this;
    const copies = length <= smallFrameBytes && pool.frameBytes(frame) > smallFrameBytes;
    const own = copies ? pool.allocateFrame(false) : 0;
    if (own !== 0) {
      const from = frame * smallFrameBytes + offset;
      pool.copy(from, own * smallFrameBytes, length);
    }
    records[piece + pieceSeq] = seq;
    records[piece + pieceLength] = length;
    records[piece + pieceFrame] = own === 0 ? frame : own;
    records[piece + pieceOffset] = own === 0 ? offset : 0;
    records[piece + pieceNext] = 0;
    records[piece + pieceRoom] = own === 0 ? 0 : smallFrameBytes - length;
    records[piece + pieceUnits] = 1;
    if (tail !== 0) records[tail + pieceNext] = piece;
    this.pieces += 1;
    this.units += 1;
    return piece;
  }

  private takeRecord(): number {
    const free = this.freeRecord;
    if (free !== 0) {
      this.freeRecord = this.records[free + pieceNext] as number;
      return free;
    }
    const piece = this.usedWords;
    this.usedWords += pieceWords;
    if (this.usedWords > this.records.length) this.records = grown(this.records, 16 * pieceWords);
    return piece;
  }

  private freePiece(piece: number): void {
    this.pieces -= 1;
    this.units -= this.records[piece + pieceUnits] as number;
    this.records[piece + pieceNext] = this.freeRecord;
    this.freeRecord = piece;
  }

  /** Moves the islands from `at` on by one. */
  private makeRoom(at: number): void {
    if ((this.gaps + 1) * islandWords > this.islands.length)
      this.islands = grown(this.islands, 4 * islandWords);
    const from = at * islandWords;
    this.islands.copyWithin(from + islandWords, from, this.gaps * islandWords);
    this.gaps += 1;
  }

  private removeIslands(at: number, count: number): void {
    if (count === 0) return;
    this.islands.copyWithin(at * islandWords, (at + count) * islandWords, this.gaps * islandWords);
    this.gaps -= count;
    if (this.gaps === 0) this.stamp = 0;
  }
}

function grown(words: Int32Array<ArrayBuffer>, least: number): Int32Array<ArrayBuffer> {
  const more = new Int32Array(Math.max(least, 2 * words.length));
  more.set(words);
  return more;
}
