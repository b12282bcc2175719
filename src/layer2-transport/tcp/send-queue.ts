/**
 * What a connection still owes its peer: containers in order, from the first byte not acknowledged.
 *
 * Layer 2, TCP. A container stays until its last byte is acknowledged, since any of it may have to go out again. Each
 * has the stream position of its first byte, so that a segment's bytes are found by looking at few containers: near
 * the front (retransmissions), or where the last segment ended (new data).
 */

import type { Container } from "../container.ts";
import { type FramePool, smallFrameBytes } from "../link.ts";

/** Containers looked at one after the other before the search is by halves. */
const nearSteps = 4;
/** Places that an empty queue keeps. */
const keptPlaces = 64;
const compactAfter = 32;

export class SendQueue {
  /** Bytes from `sendUna` on, sent or not. */
  bytes = 0;
  private containers: (Container | undefined)[] = [];
  /** Stream position of each container's first byte; positions count from the connection's first byte, as doubles. */
  private starts: number[] = [];
  private front = 0;
  /** Behind the last one; the arrays keep their room. */
  private count = 0;
  /** Stream position of the first byte not acknowledged, and of the end. */
  private ackedTo = 0;
  private end = 0;
  /** Where `find` ended last time. */
  private cursor = 0;

  get isEmpty(): boolean {
    return this.bytes === 0;
  }

  /** Containers that wait. */
  get pieces(): number {
    return this.count - this.front;
  }

  push(container: Container): void {
    this.containers[this.count] = container;
    this.starts[this.count] = this.end;
    this.count += 1;
    this.end += container.length;
    this.bytes += container.length;
  }

  /** Takes `count` acknowledged bytes off the front. Call `takeDone` until it returns nothing. */
  acked(count: number): void {
    this.ackedTo += count;
    this.bytes -= count;
  }

  /** A container whose bytes are all acknowledged, in order; undefined when there is none (or none any more). */
  takeDone(): Container | undefined {
    if (this.front === this.count) return undefined;
    const container = this.containers[this.front] as Container;
    if ((this.starts[this.front] as number) + container.length > this.ackedTo) return undefined;
    return this.takeFirst(container);
  }

  /** Any container that is left: at the end of the connection. */
  takeAny(): Container | undefined {
    const container = this.containers[this.front];
    if (container === undefined) return undefined;
    // What is thrown away is done with: the queue may serve another connection next.
    this.ackedTo = Math.max(this.ackedTo, (this.starts[this.front] as number) + container.length);
    this.bytes = this.end - this.ackedTo;
    return this.takeFirst(container);
  }

  /** The container that holds all of these bytes from its first to its last, if there is one: nothing to copy. */
  whole(offset: number, length: number): Container | undefined {
    const at = this.find(this.ackedTo + offset);
    const container = at < this.count ? this.containers[at] : undefined;
    if (container === undefined || container.length !== length) return undefined;
    return this.starts[at] === this.ackedTo + offset ? container : undefined;
  }

  /** Copies bytes that are `offset` behind the first not acknowledged one. There must be so many. */
  copy(pool: FramePool, offset: number, length: number, to: number): void {
    let position = this.ackedTo + offset;
    let left = length;
    let target = to;
    for (let at = this.find(position); left > 0; at += 1) {
      const container = this.containers[at];
      if (container === undefined)
        throw new RangeError("bytes were asked for that are not in the send queue");
      const skip = position - (this.starts[at] as number);
      const part = Math.min(left, container.length - skip);
      if (part > 0) copyOut(pool, container, skip, part, target);
      position += part;
      target += part;
      left -= part;
      this.cursor = at;
    }
  }

  private takeFirst(container: Container): Container {
    this.containers[this.front] = undefined;
    this.front += 1;
    if (this.front === this.count) {
      this.front = 0;
      this.count = 0;
      this.cursor = 0;
      if (this.containers.length > keptPlaces) {
        this.containers = [];
        this.starts = [];
      }
    } else if (this.front >= compactAfter && 2 * this.front >= this.count) {
      this.containers = this.containers.slice(this.front, this.count);
      this.starts = this.starts.slice(this.front, this.count);
      this.cursor = Math.max(0, this.cursor - this.front);
      this.count -= this.front;
      this.front = 0;
    }
    return container;
  }

  /** The index of the container that has this stream position: the last that starts at or before it. */
  private find(position: number): number {
    const { starts, count } = this;
    let at = this.cursor;
    const near = at >= this.front && at < count && (starts[at] as number) <= position;
    if (near) {
      for (let steps = 0; steps < nearSteps; steps += 1) {
        if (at + 1 >= count || (starts[at + 1] as number) > position) return at;
        at += 1;
      }
    }
    let low = this.front;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((starts[middle] as number) <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Copies a part of a container into the pool's bytes at `to`. */
function copyOut(pool: FramePool, container: Container, skip: number, length: number, to: number): void {
  let frame = container.frame;
  let at = container.offset + skip;
  let left = length;
  let target = to;
  while (left > 0) {
    const size = pool.frameBytes(frame);
    if (at >= size) {
      at -= size;
      frame = pool.nextFrame(frame);
      continue;
    }
    const part = Math.min(left, size - at);
    pool.copy(frame * smallFrameBytes + at, target, part);
    target += part;
    left -= part;
    at += part;
  }
}
