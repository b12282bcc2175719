/**
 * What `opens` returns for many connections at once: a group, and how far it is.
 *
 * Layer 1. The workers open the connections and count them in shared memory; nothing is kept or told of each here.
 */

import { errorOfWord, tally, tallyWords } from "../layer2-transport/index.ts";
import { type ApoError, type ErrorCode, errorCodes } from "./errors.ts";
import type { Group } from "./types.ts";

/** How often a group that is being closed looks whether its handlers have been told of all ends. */
const lookMs = 10;

/** What a group asks of its runtime. */
export interface GroupHost {
  /** Starts no more of the group's connections, and ends those that stand once what was sent is out. */
  finishGroup(group: RuntimeGroup): void;
  /** Connections whose `closed` has not been called yet, in this thread. */
  untoldOf(group: RuntimeGroup): number;
  /** The group has ended. */
  forgetGroup(group: RuntimeGroup): void;
}

export class RuntimeGroup implements Group {
  readonly id: number;
  readonly connections: number;
  readonly ready: Promise<void>;
  readonly closed: Promise<ApoError | undefined>;
  private readonly host: GroupHost;
  private readonly counts: Int32Array;
  /** By worker: how many it is to open. */
  private readonly shares: readonly number[];
  private readonly waiting: Set<number>;
  private readonly standing: Set<number>;
  private readonly resolveReady: () => void;
  private readonly resolveClosed: (error: ApoError | undefined) => void;
  private aborted = false;

  /** `shares`: how many connections each worker is to open. */
  constructor(host: GroupHost, id: number, memory: SharedArrayBuffer, shares: readonly number[]) {
    this.host = host;
    this.id = id;
    this.counts = new Int32Array(memory);
    this.shares = shares;
    this.connections = shares.reduce((sum, share) => sum + share, 0);
    const workers = Array.from(shares.keys()).filter((index) => shares[index] !== 0);
    this.waiting = new Set(workers);
    this.standing = new Set(workers);
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.resolveReady = ready.resolve;
    const closed = Promise.withResolvers<ApoError | undefined>();
    this.closed = closed.promise;
    this.resolveClosed = closed.resolve;
  }

  get started(): number {
    return this.sum(tally.started);
  }

  get opened(): number {
    return this.sum(tally.opened);
  }

  get open(): number {
    return this.sum(tally.open);
  }

  get failed(): Partial<Record<ErrorCode, number>> {
    const failed: Partial<Record<ErrorCode, number>> = {};
    for (let place = 0; place < Object.keys(errorCodes).length; place += 1) {
      const count = this.sum(tally.failed + place);
      const code = errorOfWord(place + 1);
      if (count > 0 && code !== undefined) failed[code] = count;
    }
    return failed;
  }

  /** Worker `index` says that all have been tried, or that none is left. */
  told(index: number, over: boolean): void {
    this.waiting.delete(index);
    if (this.waiting.size === 0) this.resolveReady();
    if (!over) return;
    this.standing.delete(index);
    if (this.standing.size === 0) void this.finish();
  }

  /** Worker `index` has died: its connections are over, and what it had not tried has failed. */
  forgetWorker(index: number): void {
    if (!this.standing.has(index)) return;
    const block = index * tallyWords;
    let tried = this.counts[block + tally.opened] as number;
    for (let word = tally.failed; word < tallyWords; word += 1) tried += this.counts[block + word] as number;
    const place = block + tally.failed + Object.keys(errorCodes).indexOf("EWORKER");
    Atomics.add(this.counts, place, (this.shares[index] as number) - tried);
    Atomics.store(this.counts, block + tally.open, 0);
    this.told(index, true);
  }

  /** The runtime has ended: whoever waits is told. */
  abort(error: ApoError | undefined): void {
    this.aborted = true;
    this.resolveReady();
    this.resolveClosed(error);
  }

  async close(): Promise<void> {
    if (this.standing.size > 0 && !this.aborted) this.host.finishGroup(this);
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** No connection is left: when the handlers know it too, the group is over. */
  private async finish(): Promise<void> {
    while (!this.aborted && this.host.untoldOf(this) > 0) {
      await new Promise((resolve) => setTimeout(resolve, lookMs));
    }
    this.host.forgetGroup(this);
    this.resolveClosed(undefined);
  }

  private sum(word: number): number {
    let sum = 0;
    for (let at = word; at < this.counts.length; at += tallyWords) sum += Atomics.load(this.counts, at);
    return sum;
  }
}
