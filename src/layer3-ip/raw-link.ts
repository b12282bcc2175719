/**
 * A raw link of a runtime: the opened link, and the native thread of each of its queues.
 *
 * Layer 3, used by the runtime when it starts and ends (workers use `packet-port.ts`). It knows no kind of link: what
 * is special about one is in `links/`, and in native/rawsock/links.
 */

import { randomBytes } from "node:crypto";
import { ApoError } from "../layer1-app/errors.ts";
import { type Capture, startCapture } from "./capture.ts";
import { addressRecords, type IpPrefix, parsePrefix, prefixesOfRecords } from "./ip-prefix.ts";
import { linkModule } from "./links/index.ts";
import type { LinkFailure } from "./links/link-module.ts";
import type { RawLinkKind } from "./links/link-options.ts";
import type { LinkSettings } from "./links/link-settings.ts";
import {
  loadNative,
  type NativeGuard,
  type NativeLink,
  type NativeLinkFailure,
  type NativeLinkThread,
} from "./native.ts";
import {
  controlWords,
  createPacketPort,
  createQueueMemory,
  type LinkDescription,
  type QueueMemory,
  shardCount,
} from "./packet-port.ts";
import { RawEngine } from "./raw-engine.ts";
import type { SteerKey } from "./steer.ts";

export interface RawLinkOptions {
  readonly settings: LinkSettings;
  readonly pool: SharedArrayBuffer;
  /** The pool's partition of the first queue's native thread; the next queues' follow, then a fan-out engine's. */
  readonly partition: number;
  /** What drops packets before anything else sees them; its lists are filled. */
  readonly guard?: NativeGuard | undefined;
  /** Which worker owns each shard: an int32 a shard, index + 1 or 0. The link writes it as workers come and go. */
  readonly owners?: SharedArrayBuffer | undefined;
}

interface Queue {
  readonly thread: NativeLinkThread;
  readonly control: SharedArrayBuffer;
  readonly cells: BigUint64Array;
}

/** Places before the engines': native/rawsock/thread/worker_port.h. */
const maxWorkers = 16;

/** A runtime's join to a link. */
export class RawLink {
  readonly kind: RawLinkKind;
  /** The interface's name; "" where there is none. */
  readonly device: string;
  readonly mtu: number;
  /** As "10.0.0.1/24". */
  readonly addresses: readonly string[];
  /** Whole prefixes that are ours, as "10.0.0.0/8". */
  readonly prefixes: readonly string[];
  private readonly link: NativeLink;
  private readonly queues: Queue[] = [];
  private readonly owners: SharedArrayBuffer;
  private readonly names: readonly string[];
  private readonly steerKey: SteerKey;
  private readonly guard: NativeGuard | undefined;
  private readonly capture: Capture | undefined;
  private readonly attached = new Set<number>();
  /** Of the attached workers, by index. */
  private readonly portWords = new Map<number, Uint32Array>();
  private readonly pool: SharedArrayBuffer;
  private readonly partition: number;
  private engine: RawEngine | undefined;

  constructor({ settings, pool, partition, guard, owners }: RawLinkOptions) {
    const native = loadNative();
    const { kind, prefixes, routes } = settings;
    const own = [...settings.addresses, ...prefixes.map((prefix) => ({ ...prefix, whole: true }))];
    const ways = routes.flatMap(({ to, via }) => [to, via]);
    this.kind = kind;
    this.pool = pool;
    this.partition = partition;
    this.guard = guard;
    this.owners = owners ?? new SharedArrayBuffer(4 * shardCount);
    this.names = native.linkCounterNames();
    const key = randomBytes(8);
    this.steerKey = { low: key.readUInt32LE(0), high: key.readUInt32LE(4) };
    this.capture = settings.pcap === undefined ? undefined : startCapture(settings.pcap);
    try {
      this.link = new native.NativeLink(kind, settings.native, addressRecords(own), addressRecords(ways));
    } catch (error) {
      this.capture?.close();
      if (typeof (error as NativeLinkFailure).errno !== "number") throw error;
      throw this.explain(settings, error as NativeLinkFailure);
    }
    this.device = this.link.device;
    this.mtu = this.link.mtu;
    const found = prefixesOfRecords(this.link.addresses);
    this.addresses = found.filter((prefix) => !prefix.whole).map(textOf);
    this.prefixes = found.filter((prefix) => prefix.whole).map(textOf);
    try {
      for (let queue = 0; queue < this.link.queues; queue += 1) {
        const errno = this.startQueue(queue, pool, partition + queue);
        if (errno !== 0) throw this.explain(settings, { errno, step: "start" });
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Gives a worker (0 to 15) its end and the shards that it owns. A worker that had died is taken out first. */
  attachWorker(index: number, ownedShards: readonly number[]): LinkDescription {
    if (this.attached.has(index)) this.detachWorker(index);
    const words = createPacketPort();
    const queues: QueueMemory[] = [];
    for (const { thread, control } of this.queues) {
      const memory = createQueueMemory(control, thread.wakeFd);
      const done = thread.attachWorker(
        index,
        new Uint32Array(memory.receive),
        new Uint32Array(memory.transmit),
        new Uint32Array(words),
      );
      if (!done) throw new ApoError("ECLOSED", `worker ${index} cannot join: the native thread has ended`);
      queues.push(memory);
    }
    this.attached.add(index);
    this.portWords.set(index, new Uint32Array(words));
    const owners = new Int32Array(this.owners);
    for (const shard of ownedShards) Atomics.store(owners, shard, index + 1);
    const { kind, mtu, addresses, prefixes, steerKey } = this;
    return {
      worker: index,
      link: this.link.id,
      kind,
      words,
      queues,
      owners: this.owners,
      addresses,
      prefixes,
      mtu,
      steerKey,
    };
  }

  /** Takes a worker out: what it had published goes out, what it had not read is taken back and counted. */
  detachWorker(index: number): void {
    if (!this.attached.delete(index)) return;
    this.portWords.delete(index);
    const owners = new Int32Array(this.owners);
    for (let shard = 0; shard < shardCount; shard += 1) {
      Atomics.compareExchange(owners, shard, index + 1, 0);
    }
    for (const { thread } of this.queues) thread.detachWorker(index);
  }

  /**
   * A place for a fan-out engine at this link. Throws `ENFILE` when there is one: it has the only partition of the pool
   * that is kept for engines.
   */
  attachEngine(): RawEngine {
    const [first] = this.queues;
    if (this.engine || !first) {
      throw new ApoError("ENFILE", "a runtime on a raw link has one fan-out engine at a time");
    }
    const own = [...this.addresses, ...this.prefixes].map(parsePrefix);
    this.engine = new RawEngine({
      place: maxWorkers,
      link: this.link.id,
      threads: this.queues.map(({ thread }) => thread),
      control: first.control,
      wakeFd: first.thread.wakeFd,
      pool: this.pool,
      partition: this.partition + this.queues.length,
      addresses: addressRecords(own),
      workers: () => [...this.portWords.values()],
      left: () => {
        this.engine = undefined;
      },
    });
    return this.engine;
  }

  /** The counters of all queues together, by dotted name under `layer3.`. */
  counters(): Record<string, number> {
    const counters: Record<string, number> = {};
    this.names.forEach((name, i) => {
      let sum = 0;
      for (const { cells } of this.queues) sum += Number(cells[i]);
      counters[`layer3.${name}`] = sum;
    });
    return Object.assign(counters, this.capture?.counters());
  }

  /**
   * Ends the native threads; every frame is back in the pool when it returns. What had ended the capture early, if
   * something had. Idempotent.
   */
  close(): ApoError | undefined {
    this.attached.clear();
    for (const { thread } of this.queues) thread.close();
    this.link.close();
    return this.capture?.close();
  }

  /** 0, or an errno. */
  private startQueue(queue: number, pool: SharedArrayBuffer, partition: number): number {
    const { NativeLinkThread: Thread } = loadNative();
    const control = new SharedArrayBuffer(4 * controlWords);
    const cells = new BigUint64Array(new SharedArrayBuffer(8 * this.names.length));
    const thread = new Thread(
      this.link,
      queue,
      this.steerKey.low,
      this.steerKey.high,
      new Uint32Array(pool),
      partition,
      new Uint32Array(control),
      new Uint32Array(this.owners),
      cells,
      this.guard,
      this.capture?.native,
    );
    const errno = thread.start();
    if (errno === 0) this.queues.push({ thread, control, cells });
    else thread.close();
    return errno;
  }

  /** The failure in words; the kernel's own word is the cause. */
  private explain({ kind, options }: LinkSettings, failure: LinkFailure): ApoError {
    return linkModule(kind).explain(failure, options);
  }
}

function textOf(prefix: IpPrefix): string {
  return `${prefix.text}/${prefix.prefixBits}`;
}

/** Opens a link and starts its native threads. Throws `EINVAL`, `ENATIVE`, and what the kind's `explain` says. */
export function startRawLink(options: RawLinkOptions): RawLink {
  return new RawLink(options);
}
