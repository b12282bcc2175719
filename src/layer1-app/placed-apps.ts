/**
 * The app endpoints in the layer-2 workers themselves (`placement: "worker"`), as the main thread sees them.
 *
 * Layer 1. Made when the first module asks for it. A worker's endpoint dies with it, and is made anew with its modules
 * when a fresh worker stands in its place. It knows control messages, and nothing of connections.
 */

import { MessageChannel } from "node:worker_threads";
import { type AppCounter, appCounterNames, Counters, createLinkMemory } from "../layer2-transport/index.ts";
import type { FromAppWorker, ModuleFacts, ModuleOpen, ToAppWorker } from "./app-control.ts";
import { ModuleCalls } from "./module-calls.ts";
import type { Estate } from "./shard-moves.ts";
import type { TransportWorkers } from "./transport-workers.ts";
import type { Alarm } from "./types.ts";

export interface PlacedAppsOptions {
  readonly workers: TransportWorkers;
  readonly isHost: boolean;
  readonly warn: (alarm: Alarm, detail: string) => void;
}

export class PlacedApps {
  readonly counters: readonly Counters<AppCounter>[];
  private readonly options: PlacedAppsOptions;
  private readonly modules = new Map<number, ModuleOpen>();
  private readonly calls = new ModuleCalls();
  /** Workers that have their endpoint. */
  private readonly placed = new Set<number>();
  private started: Promise<void> | undefined;

  constructor(options: PlacedAppsOptions) {
    this.options = options;
    this.counters = options.workers.counters.map(() => new Counters(appCounterNames));
  }

  /** Loads a module in every worker. Rejects with `EINVAL` when it cannot be. */
  async load(open: ModuleOpen): Promise<ModuleFacts> {
    this.started ??= this.start();
    await this.started;
    this.modules.set(open.id, open);
    try {
      const facts = await Promise.all([...this.placed].map((index) => this.loadIn(index, open)));
      return facts[0] as ModuleFacts;
    } catch (error) {
      this.unload(open.id);
      throw error;
    }
  }

  unload(openId: number): void {
    if (!this.modules.delete(openId)) return;
    for (const index of this.placed) this.tell(index, { type: "unload", open: openId });
  }

  /** Tells one of the endpoints of an alarm, for its module's handler. False: the module is not one of these. */
  alarm(open: number, alarm: Alarm): boolean {
    if (!this.modules.has(open)) return false;
    const [index] = this.placed;
    if (index !== undefined) this.tell(index, { type: "alarm", open, alarm });
    return true;
  }

  hear(message: FromAppWorker): void {
    if (message.type === "warning") this.options.warn(message.alarm, message.detail);
    else this.calls.hear(message);
  }

  /** Worker `index` has died, with its endpoint. Resolves when the others have forgotten it. */
  async died(index: number, dead: Estate, error: Error): Promise<void> {
    if (!this.placed.delete(index)) return;
    this.calls.died(index, error);
    const told = [...this.placed].map(async (other) => {
      await this.calls.unlink(other, index, dead, (message) => this.tell(other, message));
      await this.options.workers.call(other, { type: "unlink", party: index });
    });
    await Promise.allSettled(told);
  }

  /** A fresh worker stands in its place: its endpoint is made, and gets its modules. Never rejects. */
  async replaced(index: number): Promise<void> {
    if (!this.started) return;
    await this.started;
    try {
      await this.revive(index);
    } catch (error) {
      // Either it has died again, which is reported by itself, or a module loads no more.
      const text = `the fresh worker ${index} cannot run the handlers placed there: ${(error as Error).message}`;
      this.options.warn({ code: "worker", text, count: 1 }, "");
    }
  }

  private async revive(index: number): Promise<void> {
    await this.place(index);
    for (const other of this.placed) {
      if (other === index) continue;
      this.connect(index, other);
      this.connect(other, index);
    }
    await Promise.all([...this.modules.values()].map((open) => this.loadIn(index, open)));
  }

  private async start(): Promise<void> {
    const all = Array.from(this.counters.keys());
    await Promise.all(all.map((index) => this.place(index)));
    for (const from of all) for (const to of all) if (from !== to) this.connect(from, to);
  }

  private async place(index: number): Promise<void> {
    const { workers, isHost } = this.options;
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    const url = new URL(`./placed-app.${extension}`, import.meta.url).href;
    const counters = (this.counters[index] as Counters<AppCounter>).memory;
    await workers.call(index, { type: "place", place: { url, counters, isHost } });
    this.placed.add(index);
  }

  /** Makes the link from one worker's endpoint to another worker. */
  private connect(from: number, to: number): void {
    const { workers } = this.options;
    const memory = createLinkMemory(workers.doorbell(to), workers.doorbell(from));
    const { port1, port2 } = new MessageChannel();
    workers.post(to, { type: "link", party: from, memory, port: port1 }, [port1]);
    this.tell(from, { type: "link", index: to, memory, port: port2 });
  }

  private loadIn(index: number, open: ModuleOpen): Promise<ModuleFacts> {
    return this.calls.load(index, open, (message) => this.tell(index, message));
  }

  private tell(index: number, message: ToAppWorker): void {
    const transfer = message.type === "link" ? [message.port] : [];
    this.options.workers.post(index, { type: "app", message }, transfer);
  }
}
