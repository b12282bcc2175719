/**
 * Bytes that have arrived on a stream and wait to be cut into messages.
 *
 * Layer 2, also used by layer 1 for framing functions. A lone chunk is adopted without a copy; a second one makes a
 * buffer of our own that grows by doubling, so that long messages cost linear time.
 */

import { copyBytes } from "../layer3-ip/copy-bytes.ts";

const empty = new Uint8Array(0);
const leastBytes = 4096;

export class StreamBuffer {
  /** Waiting bytes are bytes[start, end). */
  bytes: Uint8Array = empty;
  start = 0;
  end = 0;
  private owned = false;

  get length(): number {
    return this.end - this.start;
  }

  /** Adds a chunk, which must not change from now on. */
  append(chunk: Uint8Array): void {
    if (this.start === this.end) {
      this.bytes = chunk;
      this.start = 0;
      this.end = chunk.length;
      this.owned = false;
      return;
    }
    this.reserve(chunk.length);
    copyBytes(chunk, 0, this.bytes, this.end, chunk.length);
    this.end += chunk.length;
  }

  /** Adds a copy of a chunk. */
  appendCopy(chunk: Uint8Array): void {
    if (this.start === this.end) {
      this.start = 0;
      this.end = 0;
      if (!this.owned) this.bytes = empty;
    }
    this.reserve(chunk.length);
    copyBytes(chunk, 0, this.bytes, this.end, chunk.length);
    this.end += chunk.length;
  }

  /** Takes `count` bytes off the front. */
  consume(count: number): void {
    this.start += count;
    if (this.start < this.end) return;
    this.clear();
  }

  clear(): void {
    this.bytes = empty;
    this.start = 0;
    this.end = 0;
    this.owned = false;
  }

  /** Makes room behind `end`, in a buffer that is ours. */
  private reserve(more: number): void {
    const held = this.end - this.start;
    if (this.owned && this.end + more <= this.bytes.length) return;
    const needed = held + more;
    if (this.owned && needed <= this.bytes.length / 2) {
      this.bytes.copyWithin(0, this.start, this.end);
    } else {
      const grown = new Uint8Array(Math.max(leastBytes, needed * 2));
      grown.set(this.bytes.subarray(this.start, this.end));
      this.bytes = grown;
      this.owned = true;
    }
    this.start = 0;
    this.end = held;
  }
}
