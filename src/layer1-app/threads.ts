/**
 * The threads of a runtime and the memory that they share.
 *
 * Layer 1. It makes the pool, the v-node shards and the links, and knows who is connected with whom.
 */

import { MessageChannel, type MessagePort } from "node:worker_threads";
import {
  appParty,
  createCeilingMemory,
  createLinkMemory,
  createNodes,
  createPool,
  FramePool,
  type FromWorker,
  type LinkMemory,
  mainParty,
  nativeParty,
  OperatorGuard,
  type Parties,
  type RawEngine,
  type RawLink,
  shapeFor,
  startGuard,
  startRawLink,
  type ToWorker,
} from "../layer2-transport/index.ts";
import { AppWorkers } from "./app-workers.ts";
import type { Endpoint } from "./endpoint.ts";
import { PlacedApps } from "./placed-apps.ts";
import type { RuntimeSettings } from "./runtime-options.ts";
import { type Estate, ShardMoves } from "./shard-moves.ts";
import { TransportWorkers, type WorkerBasis } from "./transport-workers.ts";
import type { Alarm, LinkFacts } from "./types.ts";

/** The most that the pool may take: offsets in it stay below 2^32. */
const mostPoolBytes = 0.98 * 2 ** 32;

/** What the runtime is told. */
export interface ThreadEvents {
  message(index: number, message: FromWorker): void;
  /** Resolves when the ends of the main thread's connections among these have been told. */
  workerDied(index: number, dead: Estate, error: Error, again: boolean): Promise<void>;
  /** Resolves when the fresh worker listens where the others do. */
  workerReplaced(index: number): Promise<void>;
  appWorkerDied(party: number, error: Error, again: boolean): void;
  appWorkerReplaced(party: number): void;
  warn(alarm: Alarm, detail: string): void;
}

export class Threads {
  /** Layer-2 workers. */
  readonly count: number;
  readonly pool: FramePool;
  /** The v-node table of all shards. */
  readonly nodes = createNodes();
  private readonly moves: ShardMoves;
  readonly mainParty: number;
  readonly workers: TransportWorkers;
  /** App workers, once a module has been opened. */
  apps: AppWorkers | undefined;
  /** App endpoints in the layer-2 workers, once a module has asked for them. */
  placed: PlacedApps | undefined;
  /** Listeners and clients whose module has an alarm handler. */
  readonly moduleAlarms = new Set<number>();
  private readonly settings: RuntimeSettings;
  private readonly parties: Parties;
  /** The link and its native threads, on every link but `host`. */
  private rawLink: RawLink | undefined;
  /** What the native threads drop unseen, on every link but `host`. */
  guard: OperatorGuard | undefined;
  private readonly ceiling: SharedArrayBuffer;
  private readonly events: ThreadEvents;
  /** By worker: when the apps have been told of the connections of its last life, and of the one before. */
  private readonly told: Promise<void>[] = [];

  constructor(settings: RuntimeSettings, events: ThreadEvents) {
    const { workers: count, appWorkers } = settings;
    this.settings = settings;
    this.count = count;
    this.ceiling = createCeilingMemory(count);
    this.events = events;
    this.parties = { workers: count, appWorkers };
    this.mainParty = mainParty(this.parties);
    // One partition each: workers, the main thread, app workers, and on a raw link its native threads and a fan-out.
    const partitions = nativeParty(this.parties) + (settings.link ? settings.link.queues + 1 : 1);
    const bytes = Math.min(settings.poolBytes, mostPoolBytes / partitions);
    const memory = createPool(shapeFor(partitions, bytes));
    this.pool = new FramePool(memory, this.mainParty);
    this.workers = new TransportWorkers(count, (index) => this.workerBasis(index), {
      message: (index, message) => events.message(index, message),
      died: (index, error, again) => this.workerDied(index, error, again),
      replaced: (index) => void this.workerReplaced(index),
    });
    this.moves = new ShardMoves(count, {
      post: (index, message) => this.workers.post(index, message),
      disown: async (index, asked) =>
        (await this.workers.call(index, { type: "disown", shards: asked })) as readonly number[],
    });
  }

  /** Who owns each shard, for every thread to see: a worker's index + 1, or 0. */
  get owners(): SharedArrayBuffer {
    return this.moves.owners;
  }

  /** Starts the layer-2 workers and connects the main thread's endpoint with them. */
  async start(endpoint: Endpoint): Promise<void> {
    const { link } = this.settings;
    if (link) {
      this.guard = new OperatorGuard({ bytes: this.settings.tcpGuard.memoryBytes, memory: this.ceiling });
      await startGuard(link.options.guard, this.guard);
      const partition = nativeParty(this.parties);
      this.rawLink = startRawLink({
        settings: link,
        pool: this.pool.buffer,
        partition,
        guard: this.guard.native,
        owners: this.owners,
      });
    }
    await this.workers.start();
    for (let index = 0; index < this.count; index += 1) this.connectMain(endpoint, index);
  }

  /** A fan-out engine's place at the raw link; undefined on `host`. Throws `ENFILE`: it is taken. */
  attachEngine(): RawEngine | undefined {
    return this.rawLink?.attachEngine();
  }

  connectMain(endpoint: Endpoint, index: number): void {
    const { memory, port } = this.connect(index, this.mainParty);
    endpoint.addLink(index, memory, port);
  }

  /** The app workers; they are started when first asked for. */
  startApps(): AppWorkers {
    this.apps ??= new AppWorkers({
      count: this.parties.appWorkers,
      isHost: this.settings.link === undefined,
      partyOf: (index) => appParty(this.parties, index),
      pool: this.pool.buffer,
      nodes: this.nodes,
      owners: this.owners,
      connect: (party, give) => {
        for (let index = 0; index < this.count; index += 1) {
          const { memory, port } = this.connect(index, party);
          give(index, memory, port);
        }
      },
      died: async (party, error, again) => {
        this.events.appWorkerDied(party, error, again);
        const calls = this.workers.counters.map((_, index) =>
          this.workers.call(index, { type: "unlink", party }),
        );
        await Promise.allSettled(calls);
        // Only now does nobody pass it frames any more.
        this.pool.dropAll(party);
      },
      replaced: (party) => this.events.appWorkerReplaced(party),
      warn: (alarm, detail) => this.events.warn(alarm, detail),
    });
    return this.apps;
  }

  /** The app endpoints in the layer-2 workers; they are made when the first module is loaded there. */
  startPlaced(): PlacedApps {
    this.placed ??= new PlacedApps({
      workers: this.workers,
      isHost: this.settings.link === undefined,
      warn: (alarm, detail) => this.events.warn(alarm, detail),
    });
    return this.placed;
  }

  tellWorkers(message: ToWorker): void {
    for (let index = 0; index < this.count; index += 1) this.workers.post(index, message);
  }

  linkFacts(): LinkFacts {
    if (!this.rawLink) return { kind: "host", device: "", mtu: 0, addresses: [], prefixes: [] };
    const { kind, device, mtu, addresses, prefixes } = this.rawLink;
    return { kind, device, mtu, addresses, prefixes };
  }

  addCounters(sum: Record<string, number>): void {
    for (const counters of this.workers.counters) counters.addTo(sum);
    for (const counters of this.apps?.counters ?? []) counters.addTo(sum);
    for (const counters of this.placed?.counters ?? []) counters.addTo(sum);
    if (this.rawLink) Object.assign(sum, this.rawLink.counters());
    sum["layer3.pool.frames-in-use"] = this.pool.framesInUse();
  }

  async terminate(): Promise<void> {
    this.moves.close();
    await this.apps?.stop();
    await this.workers.terminate();
    this.guard?.close();
    const failure = this.rawLink?.close();
    // What was posted to a thread that had stopped listening is nobody's: every thread has ended by now.
    for (let party = 0; party <= this.mainParty + this.parties.appWorkers; party += 1)
      this.pool.dropAll(party);
    if (failure) process.emitWarning(failure.message, { type: "ApoWarning", code: "APO_PCAP" });
  }

  /** What worker `index` starts with. */
  private workerBasis(index: number): WorkerBasis {
    const rawLink = this.rawLink?.attachWorker(index, []);
    const { ceiling, count: workers, moves, nodes } = this;
    const guard = { settings: this.settings.tcpGuard, ceiling, worker: index, workers };
    const place = { shards: moves.first(index), tag: moves.tagOf(index), owners: moves.owners };
    return { index, pool: this.pool.buffer, nodes, ...place, rawLink, guard };
  }

  /** Makes the link between worker `index` and an endpoint; returns the endpoint's end. */
  private connect(index: number, party: number): { memory: LinkMemory; port: MessagePort } {
    const memory = createLinkMemory(this.workers.doorbell(index));
    const { port1, port2 } = new MessageChannel();
    this.workers.post(index, { type: "link", party, memory, port: port1 }, [port1]);
    return { memory, port: port2 };
  }

  /** Resolves when a successor may start: its tag must not be on records of which not all apps have been told. */
  private async workerDied(index: number, error: Error, again: boolean): Promise<void> {
    // Before all else: what lies in the rings of the native thread goes out or comes back before frames are looked for.
    this.rawLink?.detachWorker(index);
    this.guard?.forgetWorker(index);
    Atomics.store(new Int32Array(this.ceiling), index, 0);
    const estate = this.moves.died(index);
    const told = [
      this.apps?.unlink(index, estate),
      this.placed?.died(index, estate, error),
      this.events.workerDied(index, estate, error, again),
    ];
    this.pool.dropAll(index);
    const before = this.told[index];
    this.told[index] = Promise.all(told).then(() => this.moves.bury(estate));
    await before;
  }

  private async workerReplaced(index: number): Promise<void> {
    this.apps?.relink(index, (party) => this.connect(index, party));
    await this.placed?.replaced(index);
    await this.events.workerReplaced(index);
    this.moves.replaced(index);
  }
}
