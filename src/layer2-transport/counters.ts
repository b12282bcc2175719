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
  "layer2.udp.received",
  "layer2.udp.sent",
  "layer2.udp.super-packets",
  "layer2.udp.path-mtu-lowered",
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
  "layer2.find.client",
  "layer2.find.hash",
  "layer2.find.label",
  "layer2.find.mismatch",
  "layer2.find.timestamp",
  "layer2.tcp.challenge-acks",
  "layer2.tcp.cookies-sent",
  "layer2.tcp.cookies-taken",
  "layer2.tcp.delayed-acks",
  "layer2.tcp.drop.bad-ack",
  "layer2.tcp.drop.challenge-limit",
  "layer2.tcp.drop.malformed",
  "layer2.tcp.drop.memory",
  "layer2.tcp.drop.no-ack",
  "layer2.tcp.drop.out-of-window",
  "layer2.tcp.drop.paws",
  "layer2.tcp.drop.reassembly",
  "layer2.tcp.drop.time-wait-reset",
  "layer2.tcp.drop.unread",
  "layer2.tcp.drop.window",
  "layer2.tcp.fast-open-accepted",
  "layer2.tcp.fast-open-lost",
  "layer2.tcp.fast-open-refused",
  "layer2.tcp.fast-open-sent",
  "layer2.tcp.frames-missed",
  "layer2.tcp.handshakes-given-up",
  "layer2.tcp.icmp-soft-errors",
  "layer2.tcp.keepalive-probes",
  "layer2.tcp.loss-probes",
  "layer2.tcp.path-mtu-changes",
  "layer2.tcp.pure-acks",
  "layer2.tcp.resets-received",
  "layer2.tcp.resets-sent",
  "layer2.tcp.retransmits",
  "layer2.tcp.time-waits",
  "layer2.tcp.timed-out",
  "layer2.tcp.timeouts",
  "layer2.tcp.window-probes",
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
