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
  /** When the timer fires; Infinity: there is none. Never later than the first entry ends. */
  private armedForMs = Number.POSITIVE_INFINITY;

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
    if (until.getTime() < this.armedForMs) this.arm(until.getTime());
    return true;
  }

  /** Takes a prefix off before its time. False: it was not there. */
  async remove(prefix: string): Promise<boolean> {
    const entry = this.entries.get(prefix);
    if (!entry) return false;
    await this.lift(entry);
    return true;
  }

  close(): void {
    this.cancel?.();
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

  private arm(atMs: number): void {
    this.cancel?.();
    this.armedForMs = atMs;
    const ms = Math.min(timerMostMs, Math.max(0, atMs - this.clock.now()));
    this.cancel = this.clock.later(ms, () => void this.expire());
  }

  private async expire(): Promise<void> {
    this.armedForMs = Number.POSITIVE_INFINITY;
    const now = this.clock.now();
    for (const entry of [...this.entries.values()]) {
      if (entry.until.getTime() <= now) await this.lift(entry);
    }
    const next = this.first()?.until.getTime();
    if (next !== undefined && next < this.armedForMs) this.arm(next);
  }
}
