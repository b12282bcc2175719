/**
 * Counters in shared memory: the owning thread adds, the main thread reads, by dotted name.
 *
 * Layer 2, also used by layer 1. Every name that a runtime counts is listed here with its meaning; a test holds
 * docs/counters.md against these lists.
 */

export const workerCounterNames = [
  "layer2.connections.accepted",
  "layer2.connections.connected",
  "layer2.connections.ended",
  "layer2.connections.refused-backlog",
  "layer2.connections.refused-table",
  "layer2.connections.refused-system",
  "layer2.connections.failed",
  "layer2.receive.bytes",
  "layer2.receive.messages",
  "layer2.receive.pauses",
  "layer2.receive.starved",
  "layer2.drop.waiting",
  "layer2.drop.pool",
  "layer2.drop.recvlen",
  "layer2.drop.closing",
  "layer2.drop.read-shutdown",
  "layer2.drop.unfinished-bytes",
  "layer2.drop.send-after-end",
  "layer2.drop.send-unsent",
  "layer2.drop.send-failed",
  "layer2.drop.no-connection",
  "layer2.drop.icmp-ignored",
  "layer2.guard.cookies",
  "layer2.guard.syn-memory",
  "layer2.guard.syn-rate",
  "layer2.guard.syn-source",
  "layer2.guard.refused-source",
  "layer2.guard.memory-refused",
  "layer2.guard.evicted",
  "layer2.guard.blocks",
  "layer2.guard.strange",
  "layer2.send.bytes",
  "layer2.send.messages",
  "layer2.send.file-bytes",
] as const;

export const appCounterNames = [
  "layer1.receive.messages",
  "layer1.receive.chunks",
  "layer1.send.messages",
  "layer1.send.bytes",
  "layer1.send.deferred",
  "layer1.drop.stale",
  "layer1.drop.over-sendlen",
  "layer1.handler.errors",
] as const;

export type WorkerCounter = (typeof workerCounterNames)[number];
export type AppCounter = (typeof appCounterNames)[number];

/** One thread's counters. */
export class Counters<Name extends string> {
  readonly memory: SharedArrayBuffer;
  private readonly names: readonly Name[];
  private readonly values: Float64Array;
  private readonly at: Record<Name, number>;

  constructor(names: readonly Name[], memory = new SharedArrayBuffer(names.length * 8)) {
    this.names = names;
    this.memory = memory;
    this.values = new Float64Array(memory);
    this.at = Object.fromEntries(names.map((name, i) => [name, i])) as Record<Name, number>;
  }

  add(name: Name, count = 1): void {
    (this.values[this.at[name]] as number) += count;
  }

  /** Where a counter stands, for `addAt`: a path that is taken for every packet looks its names up once. */
  placeOf(name: Name): number {
    return this.at[name];
  }

  addAt(place: number, count: number): void {
    (this.values[place] as number) += count;
  }

  get(name: Name): number {
    return this.values[this.at[name]] as number;
  }

  /** Adds these counters to a sum by name. */
  addTo(sum: Record<string, number>): void {
    for (const name of this.names) sum[name] = (sum[name] ?? 0) + this.get(name);
  }
}
