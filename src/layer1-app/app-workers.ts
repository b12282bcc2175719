/**
 * The app workers: a Piscina pool in which every thread runs one endless task, an app endpoint.
 *
 * Layer 1. Started when the first handler module is opened. It knows modules and threads, and nothing of connections.
 */

import { MessageChannel, type MessagePort } from "node:worker_threads";
import { Piscina } from "piscina";
import { type AppCounter, appCounterNames, Counters, type LinkMemory } from "../layer2-transport/index.ts";
import type { AppWorkerStart, FromAppWorker, ModuleFacts, ModuleOpen, ToAppWorker } from "./app-control.ts";
import { ModuleCalls } from "./module-calls.ts";
import type { Estate } from "./shard-moves.ts";
import type { Alarm } from "./types.ts";
import { workerFlags } from "./worker-flags.ts";

/** A worker that dies sooner than this, this many times running, is not started again. */
const soonMs = 2000;
const soonDeaths = 5;

export interface AppWorkersOptions {
  readonly count: number;
  readonly partyOf: (index: number) => number;
  readonly isHost: boolean;
  readonly pool: SharedArrayBuffer;
  readonly nodes: SharedArrayBuffer;
  readonly owners: SharedArrayBuffer;
  /** Connects the endpoint `party` with every layer-2 worker; each end is given to `give`. */
  readonly connect: (
    party: number,
    give: (index: number, memory: LinkMemory, port: MessagePort) => void,
  ) => void;
  /** A worker has died. Resolves when nothing of it is left in the layer-2 workers. */
  readonly died: (party: number, error: Error, again: boolean) => Promise<void>;
  /** A fresh worker has its modules and takes connections. */
  readonly replaced: (party: number) => void;
  readonly warn: (alarm: Alarm, detail: string) => void;
}

interface Place {
  readonly party: number;
  readonly counters: Counters<AppCounter>;
  port: MessagePort | undefined;
  earlyDeaths: number;
  ended: Promise<void>;
}

export class AppWorkers {
  private readonly options: AppWorkersOptions;
  private readonly pool: Piscina;
  private readonly places: Place[];
  private readonly modules = new Map<number, ModuleOpen>();
  private readonly calls = new ModuleCalls();
  private stopping = false;

  constructor(options: AppWorkersOptions) {
    this.options = options;
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    const execArgv = workerFlags();
    this.pool = new Piscina({
      filename: new URL(`./app-worker.${extension}`, import.meta.url).href,
      minThreads: options.count,
      maxThreads: options.count,
      ...(execArgv && { execArgv }),
      // Its workers would otherwise block their thread between tasks, and ours never end theirs.
      atomics: "disabled",
      recordTiming: false,
    });
    this.pool.on("error", () => {}); // A worker's death is seen in its task.
    this.places = Array.from({ length: options.count }, (_, index) => ({
      party: options.partyOf(index),
      counters: new Counters(appCounterNames),
      port: undefined,
      earlyDeaths: 0,
      ended: Promise.resolve(),
    }));
    for (const place of this.places) this.startOne(place);
  }

  get parties(): number[] {
    return this.places.filter((place) => place.port).map((place) => place.party);
  }

  get counters(): Counters<AppCounter>[] {
    return this.places.map((place) => place.counters);
  }

  /** Loads a module in every worker. Rejects with `EINVAL` when it cannot be. */
  async load(open: ModuleOpen): Promise<ModuleFacts> {
    this.modules.set(open.id, open);
    try {
      const facts = await Promise.all(this.places.map((place) => this.loadIn(place, open)));
      return facts[0] as ModuleFacts;
    } catch (error) {
      this.unload(open.id);
      throw error;
    }
  }

  unload(openId: number): void {
    this.modules.delete(openId);
    this.tellAll({ type: "unload", open: openId });
  }

  /** Layer-2 worker `index` is new: every endpoint gets a link to it. */
  relink(index: number, connect: (party: number) => { memory: LinkMemory; port: MessagePort }): void {
    for (const place of this.places) {
      if (!place.port) continue;
      const { memory, port } = connect(place.party);
      this.tell(place, { type: "link", index, memory, port }, [port]);
    }
  }

  /**
   * Layer-2 worker `index` has died, and this is what it left. Resolves when every endpoint has told the ends of its
   * connections there: until then their records must stay.
   */
  async unlink(index: number, dead: Estate): Promise<void> {
    const told = this.places.map((place) =>
      place.port
        ? this.calls.unlink(place.party, index, dead, (message) => this.tell(place, message))
        : undefined,
    );
    await Promise.all(told);
  }

  /** Tells one of the workers of an alarm, for its module's handler. */
  alarm(open: number, alarm: Alarm): void {
    const place = this.places.find((candidate) => candidate.port);
    if (place) this.tell(place, { type: "alarm", open, alarm });
  }

  async stop(): Promise<void> {
    this.stopping = true;
    this.tellAll({ type: "stop" });
    await Promise.all(this.places.map((place) => place.ended));
    await this.pool.destroy();
  }

  private tell(place: Place, message: ToAppWorker, transfer: MessagePort[] = []): void {
    place.port?.postMessage(message, transfer);
  }

  private tellAll(message: ToAppWorker): void {
    for (const place of this.places) this.tell(place, message);
  }

  private loadIn(place: Place, open: ModuleOpen): Promise<ModuleFacts> {
    return this.calls.load(place.party, open, (message) => this.tell(place, message));
  }

  private startOne(place: Place): void {
    const { party, counters } = place;
    const { port1, port2 } = new MessageChannel();
    place.port = port1;
    port1.on("message", (message: FromAppWorker) => this.hear(message));
    port1.unref();
    const { isHost, pool, nodes, owners } = this.options;
    const start: AppWorkerStart = {
      party,
      isHost,
      pool,
      nodes,
      owners,
      counters: counters.memory,
      port: port2,
    };
    const startedMs = performance.now();
    this.options.connect(party, (index, memory, port) => {
      this.tell(place, { type: "link", index, memory, port }, [port]);
    });
    place.ended = this.pool.run(start, { transferList: [port2] }).then(
      () => {},
      (error: Error) => this.died(place, error, performance.now() - startedMs < soonMs),
    );
  }

  private hear(message: FromAppWorker): void {
    if (message.type === "warning") {
      this.options.warn(message.alarm, message.detail);
      return;
    }
    this.calls.hear(message);
  }

  private async died(place: Place, error: Error, soon: boolean): Promise<void> {
    place.port?.close();
    place.port = undefined;
    this.calls.died(place.party, error);
    if (this.stopping) return;
    place.earlyDeaths = soon ? place.earlyDeaths + 1 : 0;
    const again = place.earlyDeaths < soonDeaths;
    await this.options.died(place.party, error, again);
    if (!again || this.stopping) return;
    this.startOne(place);
    const loads = [...this.modules.values()].map((open) => this.loadIn(place, open));
    Promise.all(loads).then(
      () => this.options.replaced(place.party),
      () => {}, // It died again, which is reported by itself; or the module loads no more and gets no connections.
    );
  }
}
