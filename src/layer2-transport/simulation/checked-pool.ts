/**
 * A frame pool for simulations that tells on whoever misuses it: a frame freed twice, or looked at after it was freed.
 *
 * Layer 2, simulation only. Freed frames are filled with a pattern, so that data read from one is wrong data, and the
 * checks of what connections deliver find it.
 */

import { createPool, FramePool, type PoolShape, smallFrameBytes } from "../../layer3-ip/pool.ts";

const metaWords = 4;
/** What is in a frame that nobody owns. */
export const freedByte = 0xdb;

export class CheckedPool extends FramePool {
  readonly faults: string[] = [];
  private readonly counts: Int32Array;

  constructor(buffer: SharedArrayBuffer, partition = 0) {
    super(buffer, partition);
    const header = new Int32Array(buffer, 0, 8);
    this.counts = new Int32Array(buffer, 4 * (header[5] as number));
  }

  /** Users of a container. */
  countOf(ref: number): number {
    return this.counts[ref * metaWords] as number;
  }

  override retain(ref: number, count = 1): void {
    if (this.countOf(ref) <= 0) this.faults.push(`frame ${ref} is free and was retained`);
    super.retain(ref, count);
  }

  override release(ref: number): void {
    const count = this.countOf(ref);
    if (ref <= 0 || !(count > 0)) {
      this.faults.push(`frame ${ref} is free (count ${count}) and was released`);
      return;
    }
    if (count === 1) {
      for (let frame = ref; frame !== 0; frame = this.nextFrame(frame)) {
        this.bytes.fill(freedByte, frame * smallFrameBytes, frame * smallFrameBytes + this.frameBytes(frame));
      }
    }
    super.release(ref);
  }
}

const kept: (PoolShape & { buffer: SharedArrayBuffer })[] = [];

/** A pool's memory like new: that of an earlier simulation, if `returnPool` has brought it back. */
export function takePool(small: number, large: number, parties = 1): SharedArrayBuffer {
  const at = kept.findIndex(
    (one) => one.small === small && one.large === large && one.partitions === parties,
  );
  if (at < 0) return createPool({ partitions: parties, small, large });
  const { buffer } = kept.splice(at, 1)[0] as { buffer: SharedArrayBuffer };
  const words = new Int32Array(buffer);
  const [, partitions = 0, , , first = 0, meta = 0, controls = 0] = words.subarray(0, 7);
  words.fill(0, controls, meta + metaWords * (first + partitions * (small + large * 32)));
  return buffer;
}

/** Gives the memory back: thousands of simulations in a row need not ask the system for it each time. */
export function returnPool(buffer: SharedArrayBuffer): void {
  const [, partitions = 0, small = 0, large = 0] = new Int32Array(buffer, 0, 4);
  kept.push({ buffer, partitions, small, large });
}
