/**
 * A message's bytes on their way out of a worker: pool frames, and how many connections still need them.
 *
 * Layer 2. One container may be on its way to a thousand connections of this worker: the frames go back to the pool
 * when the last one is through. The worker holds one count however many wait. The objects are used again and again.
 */

import type { FramePool } from "./link.ts";

/** Objects that are kept for their next use, at most. */
const mostSpare = 16_384;

export class Container {
  frame = 0;
  offset = 0;
  length = 0;
  /** It is a part of a file: the file is the submission. */
  part = false;
  private frontTaken = false;
  private readonly owner: Containers;
  private made: readonly Buffer[] | undefined;
  private uses = 0;

  constructor(owner: Containers) {
    this.owner = owner;
  }

  /** The bytes, one view a frame: for who writes to sockets. They are made at the first call. */
  get views(): readonly Buffer[] {
    this.made ??= this.owner.pool.views(this.frame, this.offset, this.length);
    return this.made;
  }

  /** Takes over one count and the mark of `hold` for the pool's own party. */
  begin(frame: number, offset: number, length: number, part: boolean): void {
    this.frame = frame;
    this.offset = offset;
    this.length = length;
    this.part = part;
    this.made = undefined;
    this.uses = 1;
    this.frontTaken = false;
  }

  /**
   * Takes the room in front of the bytes for headers, once. False: there is too little, or others may be looking.
   */
  takeFront(bytes: number, pool: FramePool): boolean {
    if (this.frontTaken || this.offset < bytes || this.uses !== 1 || !pool.isSole(this.frame)) return false;
    this.frontTaken = true;
    return true;
  }

  /** One more connection needs it. */
  use(): void {
    this.uses += 1;
  }

  /** One connection less, or its maker, needs it. Whoever calls this must not look at it any more. */
  done(): void {
    this.uses -= 1;
    if (this.uses > 0) return;
    const { pool } = this.owner;
    pool.drop(this.frame, pool.partition);
    this.made = undefined;
    this.owner.giveBack(this);
  }
}

/** The containers of a worker. */
export class Containers {
  readonly pool: FramePool;
  private readonly spare: Container[] = [];

  constructor(pool: FramePool) {
    this.pool = pool;
  }

  /** A container with one use. Takes over one count and the mark of `hold` for the pool's own party. */
  take(frame: number, offset: number, length: number, part = false): Container {
    const container = this.spare.pop() ?? new Container(this);
    container.begin(frame, offset, length, part);
    return container;
  }

  giveBack(container: Container): void {
    if (this.spare.length < mostSpare) this.spare.push(container);
  }
}
