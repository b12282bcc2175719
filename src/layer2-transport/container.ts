/**
 * A message's bytes on their way out of a worker: pool frames, and how many connections still need them.
 *
 * Layer 2. One container may be on its way to a thousand connections of this worker: its views are made once, and
 * the frames go back to the pool when the last one is through. The worker holds one count however many wait.
 */

import type { FramePool } from "./link.ts";

export class Container {
  readonly frame: number;
  readonly offset: number;
  readonly length: number;
  /** The bytes, one view a frame. */
  readonly views: readonly Buffer[];
  /** It is a part of a file: the file is the submission. */
  part = false;
  private readonly pool: FramePool;
  private uses = 1;

  /** Takes over one count and the mark of `hold` for the pool's own party. */
  constructor(pool: FramePool, frame: number, offset: number, length: number) {
    this.pool = pool;
    this.frame = frame;
    this.offset = offset;
    this.length = length;
    this.views = pool.views(frame, offset, length);
  }

  /** One more connection needs it. */
  use(): void {
    this.uses += 1;
  }

  /** One connection less, or its maker, needs it. */
  done(): void {
    this.uses -= 1;
    if (this.uses === 0) this.pool.drop(this.frame, this.pool.partition);
  }
}
