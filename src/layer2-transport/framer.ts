/**
 * What one message is on a byte stream: the framings that a worker knows.
 *
 * Layer 2, pure: bytes in, message boundaries out. A framer looks at what has arrived of one connection, remembers
 * how far it looked, and never looks at a byte twice, so that a slow sender cannot make it work.
 */

import type { FramingKind } from "./nodes/v-node.ts";

export const framerResult = { incomplete: 0, malformed: -1, tooLong: -2 } as const;

/** Longest chunk handed to a framing function at once. */
export const chunkBytes = 65_536;

export interface Framer {
  /** Where the message's own bytes stand after `next` has found one. */
  at: number;
  length: number;
  /**
   * Looks for the first message in bytes[start, end). The number of bytes it takes up with its framing, or one of
   * `framerResult`. Bytes seen before must be there again, at the front, until a message has been found.
   */
  next(bytes: Uint8Array, start: number, end: number): number;
  /** Forgets what it has seen: another connection follows. */
  reset(): void;
}

/** A framer for one connection. `recvlen`: the longest message, without its framing. */
export function createFramer(kind: FramingKind, recvlen: number): Framer {
  switch (kind) {
    case "raw":
      return new RawFramer(Math.min(recvlen, chunkBytes));
    case "chunks":
      return new RawFramer(chunkBytes);
    case "line":
      return new LineFramer(recvlen);
    case "length16":
      return new LengthFramer(2, recvlen);
    case "length32":
      return new LengthFramer(4, recvlen);
    case "msgpack":
      return new MsgpackFramer(recvlen);
  }
}

class RawFramer implements Framer {
  at = 0;
  length = 0;
  private readonly most: number;

  constructor(most: number) {
    this.most = most;
  }

  next(_bytes: Uint8Array, start: number, end: number): number {
    this.at = start;
    this.length = Math.min(end - start, this.most);
    return this.length;
  }

  reset(): void {}
}

const lineFeed = 10;
/** Bytes that are looked at one by one before the search by words is worth its view. */
const shortSearch = 96;
const carriageReturn = 13;

class LineFramer implements Framer {
  at = 0;
  length = 0;
  private readonly recvlen: number;
  private seen = 0;

  constructor(recvlen: number) {
    this.recvlen = recvlen;
  }

  next(bytes: Uint8Array, start: number, end: number): number {
    const found = indexOfLineFeed(bytes, start + this.seen, end);
    if (found < 0) {
      this.seen = end - start;
      // One byte more than a message may have can still be the carriage return.
      const content = bytes[end - 1] === carriageReturn ? this.seen - 1 : this.seen;
      return content > this.recvlen ? framerResult.tooLong : framerResult.incomplete;
    }
    this.seen = 0;
    this.at = start;
    this.length = found - start;
    if (this.length > 0 && bytes[found - 1] === carriageReturn) this.length -= 1;
    return this.length > this.recvlen ? framerResult.tooLong : found + 1 - start;
  }

  reset(): void {
    this.seen = 0;
  }
}

/** The bytes may be a small part of a large array, behind whose end nobody may look. */
function indexOfLineFeed(bytes: Uint8Array, start: number, end: number): number {
  const near = Math.min(end, start + shortSearch);
  for (let at = start; at < near; at += 1) if (bytes[at] === lineFeed) return at;
  if (near === end) return -1;
  const found = bytes.subarray(near, end).indexOf(lineFeed);
  return found < 0 ? -1 : near + found;
}

class LengthFramer implements Framer {
  at = 0;
  length = 0;
  private readonly header: number;
  private readonly recvlen: number;

  constructor(header: number, recvlen: number) {
    this.header = header;
    this.recvlen = recvlen;
  }

  next(bytes: Uint8Array, start: number, end: number): number {
    if (end - start < this.header) return framerResult.incomplete;
    let length = 0;
    for (let i = 0; i < this.header; i += 1) length = length * 256 + (bytes[start + i] as number);
    if (length > this.recvlen) return framerResult.tooLong;
    if (end - start < this.header + length) return framerResult.incomplete;
    this.at = start + this.header;
    this.length = length;
    return this.header + length;
  }

  reset(): void {}
}

/**
 * One MessagePack value (msgpack spec, "Formats"). Nesting needs no stack: it is enough to count how many values
 * are still to come, an array adding its length and a map twice that.
 */
class MsgpackFramer implements Framer {
  at = 0;
  length = 0;
  private readonly recvlen: number;
  private seen = 0;
  private expected = 1;
  private values = 0;

  constructor(recvlen: number) {
    this.recvlen = recvlen;
  }

  next(bytes: Uint8Array, start: number, end: number): number {
    while (this.expected > 0) {
      const size = this.valueAt(bytes, start + this.seen, end);
      if (size < 0) return size;
      // Each value to come is at least one byte: a huge array is refused before its elements arrive.
      if (this.seen + size + this.values + this.expected - 1 > this.recvlen) return framerResult.tooLong;
      if (size === 0 || start + this.seen + size > end) return framerResult.incomplete;
      this.seen += size;
      this.expected += this.values - 1;
    }
    this.at = start;
    this.length = this.seen;
    this.reset();
    return this.length;
  }

  reset(): void {
    this.seen = 0;
    this.expected = 1;
  }

  /** Bytes of the value at `at` without its elements, which are counted in `values`; 0: not known yet. */
  private valueAt(bytes: Uint8Array, at: number, end: number): number {
    this.values = 0;
    if (at >= end) return 0;
    const first = bytes[at] as number;
    if (first < 0x80 || first >= 0xe0) return 1;
    if (first < 0x90) return this.container(1, (first & 15) * 2);
    if (first < 0xa0) return this.container(1, first & 15);
    if (first < 0xc0) return 1 + (first & 31);
    if (first === 0xc1) return framerResult.malformed;
    const fixed = fixedBytes[first - 0xc0] as number;
    if (fixed > 0) return fixed;
    const width = lengthBytes[first - 0xc0] as number;
    if (at + 1 + width > end) return 0;
    let length = 0;
    for (let i = 1; i <= width; i += 1) length = length * 256 + (bytes[at + i] as number);
    if (first >= 0xde) return this.container(1 + width, length * 2);
    if (first >= 0xdc) return this.container(1 + width, length);
    return 1 + width + length + (first >= 0xc7 && first <= 0xc9 ? 1 : 0);
  }

  private container(size: number, values: number): number {
    this.values = values;
    return size;
  }
}

/** For first bytes 0xc0 to 0xdf: the whole value's bytes, or 0 when a length follows. */
const fixedBytes = [
  1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 5, 9, 2, 3, 5, 9, 2, 3, 5, 9, 3, 4, 6, 10, 18, 0, 0, 0, 0, 0, 0, 0,
];
/** Likewise: how many bytes the length has. */
const lengthBytes = [
  0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4,
];
