/**
 * Prefixes on the block list for a time: put there because of what they did, and taken off when the time is over.
 *
 * Layer 2, main thread. A prefix that an operator had blocked himself stays; one that he allows is never blocked. The
 * list is bounded: when it is full, whoever comes off first gives way. One timer for all of them, and none while there
 * are none.
 */

/** What the lists of layer 3 offer. */
export interface BlockLists {
  block(prefix: string): Promise<number>;
  unblock(prefix: string): Promise<number>;
  verdict(address: string): "allowed" | "blocked" | "unlisted";
}

/** A prefix that is blocked for a time. */
export interface TimedBlock {
  readonly prefix: string;
  readonly reason: string;
  readonly since: Date;
  readonly until: Date;
}

/** The clock and its timer: handed in, so that tests need not wait. */
export interface BlockClock {
  now(): number;
  /** Calls `run` once after `ms`; the result takes it back. */
  later(ms: number, run: () => void): () => void;
}

const entriesMost = 4096;
/** Timers of Node take no longer. */
const timerMostMs = 2 ** 31 - 1;

export const wallClock: BlockClock = {
  now: () => Date.now(),
  later(ms, run) {
    const timer = setTimeout(run, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

export class TimedBlocks {
  private readonly lists: BlockLists;
  private readonly clock: BlockClock;
  private readonly entries = new Map<string, TimedBlock>();
  private cancel: (() => void) | undefined;

  constructor(lists: BlockLists, clock: BlockClock = wallClock) {
    this.lists = lists;
    this.clock = clock;
  }

  /** The latest first. */
  all(): TimedBlock[] {
    return [...this.entries.values()].reverse();
  }

  /** Blocks a prefix for `forMs`, or for longer than it was to be. False: it is allowed, or blocked for good. */
  async add(prefix: string, reason: string, forMs: number): Promise<boolean> {
    const now = this.clock.now();
    const known = this.entries.get(prefix);
    if (!known) {
      const address = prefix.split("/", 1)[0] as string;
      if (this.lists.verdict(address) === "allowed") return false;
      if ((await this.lists.block(prefix)) === 0) return false;
    }
    const since = known?.since ?? new Date(now);
    const until = new Date(Math.max(known?.until.getTime() ?? 0, now + forMs));
    this.entries.delete(prefix);
    this.entries.set(prefix, { prefix, reason, since, until });
    if (this.entries.size > entriesMost) await this.lift(this.first());
    this.arm();
    return true;
  }

  /** Takes a prefix off before its time. False: it was not there. */
  async remove(prefix: string): Promise<boolean> {
    const entry = this.entries.get(prefix);
    if (!entry) return false;
    await this.lift(entry);
    this.arm();
    return true;
  }

  close(): void {
    this.cancel?.();
    this.cancel = undefined;
    this.entries.clear();
  }

  private first(): TimedBlock | undefined {
    let first: TimedBlock | undefined;
    for (const entry of this.entries.values()) if (!first || entry.until < first.until) first = entry;
    return first;
  }

  private async lift(entry: TimedBlock | undefined): Promise<void> {
    if (!entry) return;
    this.entries.delete(entry.prefix);
    await this.lists.unblock(entry.prefix);
  }

  private arm(): void {
    this.cancel?.();
    const next = this.first();
    this.cancel = undefined;
    if (!next) return;
    const ms = Math.min(timerMostMs, Math.max(0, next.until.getTime() - this.clock.now()));
    this.cancel = this.clock.later(ms, () => void this.expire());
  }

  private async expire(): Promise<void> {
    const now = this.clock.now();
    for (const entry of [...this.entries.values()]) {
      if (entry.until.getTime() <= now) await this.lift(entry);
    }
    this.arm();
  }
}
