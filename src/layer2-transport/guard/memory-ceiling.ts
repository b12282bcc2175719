/**
 * The ceiling on what all workers together keep for connections, and how near it is.
 *
 * Layer 2, one worker. Each worker writes what it keeps into shared memory and reads the others' every few
 * milliseconds: between two looks the sum may be off by what came in so short a time, never by more. It knows bytes and
 * no connections.
 */

import type { MemoryAccount } from "../tcp/admission.ts";

/** How near: nothing to fear; room is to be made; no new connections; nothing more at all. */
export const pressure = { none: 0, some: 1, high: 2, full: 3 } as const;
export type Pressure = (typeof pressure)[keyof typeof pressure];

const someShare = 0.75;
const highShare = 0.9;
/** Eviction goes on until this share is reached, so that it need not begin again at once. */
const enoughShare = 0.7;
export const ceilingUnitBytes = 1024;

/** Shared memory of the ceiling: one word a worker, KiB that it keeps. */
export function createCeilingMemory(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * workers);
}

export class MemoryCeiling {
  readonly bytes: number;
  private readonly account: MemoryAccount;
  private readonly worker: number;
  private readonly shared: Int32Array;
  private others = 0;

  /** `shared`: `createCeilingMemory`'s. */
  constructor(bytes: number, account: MemoryAccount, worker: number, shared: SharedArrayBuffer) {
    this.bytes = bytes;
    this.account = account;
    this.worker = worker;
    this.shared = new Int32Array(shared);
  }

  /** Tells the others, and hears of them. */
  refresh(): void {
    Atomics.store(this.shared, this.worker, Math.ceil(this.account.total / ceilingUnitBytes));
    let sum = 0;
    for (let worker = 0; worker < this.shared.length; worker += 1) {
      if (worker !== this.worker) sum += Atomics.load(this.shared, worker);
    }
    this.others = sum * ceilingUnitBytes;
  }

  /** Bytes that all keep together. */
  get kept(): number {
    return this.account.total + this.others;
  }

  level(): Pressure {
    const share = this.kept / this.bytes;
    if (share < someShare) return pressure.none;
    if (share < highShare) return pressure.some;
    return share < 1 ? pressure.high : pressure.full;
  }

  allows(bytes: number): boolean {
    return this.kept + bytes <= this.bytes;
  }

  /** Bytes of this worker's share that should go, under pressure; 0 or less: none. */
  excess(): number {
    const { kept } = this;
    const over = kept - enoughShare * this.bytes;
    return kept > 0 ? (over * this.account.total) / kept : 0;
  }
}
