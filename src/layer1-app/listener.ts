/**
 * What `opens` returns for a server: the listener of all workers together.
 *
 * Layer 1. It counts connections in shared memory, where the workers keep one word each.
 */

import type { ListenerRecord } from "../layer2-transport/index.ts";
import type { ApoError } from "./errors.ts";
import type { Listener } from "./types.ts";

/** How often a draining listener looks whether its last connection has ended. */
const drainLookMs = 10;

/** What a listener asks of its runtime. */
export interface ListenerHost {
  /** Stops accepting in all workers. */
  unlisten(listener: RuntimeListener): Promise<void>;
  /** Ends the listener's connections once what was sent is out. */
  finish(listener: RuntimeListener): void;
  /** Connections whose `closed` has not been called yet, in this thread. */
  untold(listener: RuntimeListener): number;
  /** The listener has ended. */
  forget(listener: RuntimeListener): void;
}

export class RuntimeListener implements Listener {
  readonly protocol: "tcp" | "udp" | "icmp";
  readonly closed: Promise<ApoError | undefined>;
  readonly record: ListenerRecord;
  /** Its handlers run in the layer-2 workers, in each for its own connections. */
  readonly inWorkers: boolean;
  address = "";
  port = 0;
  private readonly host: ListenerHost;
  private readonly counts: Int32Array;
  private readonly resolveClosed: (error: ApoError | undefined) => void;
  private unlistened: Promise<void> | undefined;
  private ending: Promise<void> | undefined;
  private aborted = false;

  constructor(host: ListenerHost, record: ListenerRecord, inWorkers: boolean) {
    this.host = host;
    this.inWorkers = inWorkers;
    this.record = record;
    this.protocol = record.protocol;
    this.counts = new Int32Array(record.counts);
    const { promise, resolve } = Promise.withResolvers<ApoError | undefined>();
    this.closed = promise;
    this.resolveClosed = resolve;
  }

  get connections(): number {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }

  /** Whether it still accepts. */
  get accepting(): boolean {
    return this.unlistened === undefined && !this.aborted;
  }

  /** What worker `index` is to know of it. */
  recordFor(index: number): ListenerRecord {
    return this.inWorkers ? { ...this.record, endpoints: [index] } : this.record;
  }

  /** Worker `index` has died with its connections. */
  forgetWorker(index: number): void {
    Atomics.store(this.counts, index, 0);
  }

  /** The runtime has ended: whoever waits is told. */
  abort(error: ApoError | undefined): void {
    this.aborted = true;
    this.resolveClosed(error);
  }

  async close(): Promise<void> {
    await this.unlisten();
    this.host.finish(this);
    await this.empty();
  }

  async drain(): Promise<void> {
    await this.unlisten();
    await this.empty();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private unlisten(): Promise<void> {
    this.unlistened ??= this.aborted ? Promise.resolve() : this.host.unlisten(this);
    return this.unlistened;
  }

  private empty(): Promise<void> {
    this.ending ??= this.waitUntilEmpty();
    return this.ending;
  }

  private async waitUntilEmpty(): Promise<void> {
    while (!this.aborted && (this.connections > 0 || this.host.untold(this) > 0)) {
      await new Promise((resolve) => setTimeout(resolve, drainLookMs));
    }
    this.host.forget(this);
    this.resolveClosed(undefined);
  }
}
