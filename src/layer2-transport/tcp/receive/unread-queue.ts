/**
 * In-order payload that waits in the stack because the app's side is busy: what closes the receive window.
 *
 * Layer 2, TCP. A queue of pieces of pool frames, each with one count of its frame. Small pieces are packed behind one
 * another into the free room of a frame, so that a peer of many tiny segments does not tie up a frame for each.
 */

import { type FramePool, smallFrameBytes } from "../../link.ts";

const firstCapacity = 8;

export class UnreadQueue {
  /** Bytes that wait. */
  bytes = 0;
  /** The piece that `shift` took off. */
  frame = 0;
  offset = 0;
  length = 0;
  private readonly pool: FramePool;
  private words = new Int32Array(0);
  private first = 0;
  private count = 0;

  constructor(pool: FramePool) {
    this.pool = pool;
  }

  /** Pieces that wait. */
  get pieces(): number {
    return this.count;
  }

  push(frame: number, offset: number, length: number): void {
    const capacity = this.words.length / 3;
    if (this.count === capacity) this.grow(capacity);
    const at = 3 * ((this.first + this.count) % (this.words.length / 3));
    this.words[at] = frame;
    this.words[at + 1] = offset;
    this.words[at + 2] = length;
    this.count += 1;
    this.bytes += length;
  }

  /** Copies a small piece behind the last one, where its frame has room. False: there is none; `push` it. */
  append(frame: number, offset: number, length: number): boolean {
    if (this.count === 0) return false;
    const { pool } = this;
    const at = 3 * ((this.first + this.count - 1) % (this.words.length / 3));
    const last = this.words[at] as number;
    const end = (this.words[at + 1] as number) + (this.words[at + 2] as number);
    // Bytes behind the payload of a frame that others read too are not ours.
    if (end + length > pool.frameBytes(last) || !pool.isSole(last)) return false;
    const from = frame * smallFrameBytes + offset;
    pool.copy(from, last * smallFrameBytes + end, length);
    this.words[at + 2] = (this.words[at + 2] as number) + length;
    this.bytes += length;
    return true;
  }

  /** Takes the first piece: its frame, offset and length stand in the fields. False: there is none. */
  shift(): boolean {
    if (this.count === 0) return false;
    const at = 3 * this.first;
    this.frame = this.words[at] as number;
    this.offset = this.words[at + 1] as number;
    this.length = this.words[at + 2] as number;
    this.first = (this.first + 1) % (this.words.length / 3);
    this.count -= 1;
    this.bytes -= this.length;
    return true;
  }

  clear(): void {
    while (this.shift()) this.pool.release(this.frame);
  }

  private grow(capacity: number): void {
    const next = Math.max(firstCapacity, 2 * capacity);
    const words = new Int32Array(3 * next);
    for (let i = 0; i < this.count; i += 1) {
      const from = 3 * ((this.first + i) % capacity);
      words[3 * i] = this.words[from] as number;
      words[3 * i + 1] = this.words[from + 1] as number;
      words[3 * i + 2] = this.words[from + 2] as number;
    }
    this.words = words;
    this.first = 0;
  }
}
