/**
 * Starts the layer-2 worker threads, asks them things, and replaces one that dies.
 *
 * Layer 1. It knows control messages and threads; what happens to listeners and connections when a worker dies is the
 * runtime's business.
 */

import { type Transferable, Worker } from "node:worker_threads";
import {
  Counters,
  type FromWorker,
  type ToWorker,
  type WorkerCounter,
  type WorkerStart,
  wakeWorker,
  workerCounterNames,
} from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import { workerFlags } from "./worker-flags.ts";

/** A worker that dies sooner than this after its start, this many times running, is not started again. */
const soonMs = 2000;
const soonDeaths = 5;

type CallBody<T> = T extends { readonly call: number } ? Omit<T, "call"> : never;

interface Call {
  readonly index: number;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: ApoError) => void;
}

/** What a worker is started with, but for its counters. */
export type WorkerBasis = Omit<WorkerStart, "counters">;

/** What the runtime is told. */
export interface WorkerEvents {
  message(index: number, message: FromWorker): void;
  /** The worker died by itself; `again` says whether a fresh one will be started, once the promise has settled. */
  died(index: number, error: Error, again: boolean): Promise<void>;
  /** A fresh one stands in its place. */
  replaced(index: number): void;
}

export class TransportWorkers {
  readonly counters: readonly Counters<WorkerCounter>[];
  private readonly startOf: (index: number) => WorkerBasis;
  private readonly events: WorkerEvents;
  private readonly workers: (Worker | undefined)[] = [];
  /** Of workers on a raw link: they sleep on it and not in their event loop. */
  private readonly doorbells: (Uint32Array | undefined)[] = [];
  private readonly calls = new Map<number, Call>();
  private readonly earlyDeaths: number[];
  private nextCall = 1;
  private stopping = false;

  /** `startOf` is asked anew for a worker that takes a dead one's place. */
  constructor(count: number, startOf: (index: number) => WorkerBasis, events: WorkerEvents) {
    this.counters = Array.from({ length: count }, () => new Counters(workerCounterNames));
    this.startOf = startOf;
    this.earlyDeaths = this.counters.map(() => 0);
    this.events = events;
  }

  async start(): Promise<void> {
    await Promise.all(this.counters.map((_, index) => this.startOne(index)));
  }

  post(index: number, message: ToWorker, transfer: readonly Transferable[] = []): void {
    this.workers[index]?.postMessage(message, transfer);
    this.ring(index);
  }

  /** The words by which a worker on a raw link is woken. */
  doorbell(index: number): SharedArrayBuffer | undefined {
    return this.doorbells[index]?.buffer as SharedArrayBuffer | undefined;
  }

  /** Asks a worker; rejects with what it answered, or with `EWORKER` when it dies meanwhile. */
  call(index: number, body: CallBody<ToWorker>): Promise<unknown> {
    const worker = this.workers[index];
    if (!worker) return Promise.reject(new ApoError("EWORKER", `worker ${index} is not there`));
    const call = this.nextCall++;
    return new Promise((resolve, reject) => {
      this.calls.set(call, { index, resolve, reject });
      worker.postMessage({ ...body, call });
      this.ring(index);
    });
  }

  /** Has all workers end their connections within `graceMs`, then ends the threads. */
  async stop(graceMs: number): Promise<void> {
    this.stopping = true;
    const asked = this.workers.map((worker, index) => worker && this.call(index, { type: "stop", graceMs }));
    await Promise.allSettled(asked);
  }

  /** For tests: ends one thread as if it had died. */
  async kill(index: number): Promise<void> {
    await this.workers[index]?.terminate();
  }

  async terminate(): Promise<void> {
    this.stopping = true;
    await Promise.all(this.workers.map((worker) => worker?.terminate()));
    this.workers.length = 0;
  }

  private startOne(index: number): Promise<void> {
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    const script = new URL(`../layer2-transport/worker.${extension}`, import.meta.url);
    const counters = (this.counters[index] as Counters<WorkerCounter>).memory;
    const workerData: WorkerStart = { ...this.startOf(index), counters };
    const { rawLink } = workerData;
    this.doorbells[index] = rawLink && new Uint32Array(rawLink.words);
    const execArgv = workerFlags();
    const name = `apo-layer2-${index}`;
    const worker = new Worker(script, { workerData, name, ...(execArgv && { execArgv }) });
    const startedMs = performance.now();
    this.workers[index] = worker;
    let failure: Error | undefined;
    return new Promise((resolve, reject) => {
      worker.on("message", (message: FromWorker) => {
        if (message.type === "ready") resolve();
        else if (message.type === "reply") this.answer(message);
        else this.events.message(index, message);
      });
      worker.on("error", (error: Error) => {
        failure = error;
      });
      worker.on("exit", (code) => {
        const error = failure ?? new Error(`the thread ended with code ${code}`);
        reject(startError(error));
        this.ended(index, worker, error, performance.now() - startedMs < soonMs);
      });
    });
  }

  private ring(index: number): void {
    const doorbell = this.doorbells[index];
    if (doorbell) wakeWorker(doorbell);
  }

  private answer(message: Extract<FromWorker, { type: "reply" }>): void {
    const call = this.calls.get(message.call);
    if (!call) return;
    this.calls.delete(message.call);
    if (message.error) call.reject(new ApoError(message.error.code, message.error.message));
    else call.resolve(message.value);
  }

  private ended(index: number, worker: Worker, error: Error, soon: boolean): void {
    if (this.workers[index] !== worker) return;
    this.workers[index] = undefined;
    for (const [number, call] of [...this.calls]) {
      if (call.index !== index) continue;
      this.calls.delete(number);
      call.reject(new ApoError("EWORKER", `worker ${index} died: ${error.message}`, { cause: error }));
    }
    if (this.stopping) return;
    this.earlyDeaths[index] = soon ? (this.earlyDeaths[index] as number) + 1 : 0;
    const again = (this.earlyDeaths[index] as number) < soonDeaths;
    const mayStart = this.events.died(index, error, again);
    if (!again) return;
    void mayStart.then(() => this.replace(index));
  }

  private replace(index: number): void {
    if (this.stopping) return;
    this.startOne(index).then(
      () => this.events.replaced(index),
      () => {}, // Its own exit has been reported by then, and starts the next one.
    );
  }
}

function startError(error: Error): ApoError {
  if (error instanceof Error && "code" in error && error.code === "ENOTSUP") {
    return new ApoError("ENOTSUP", error.message, { cause: error });
  }
  return new ApoError("EWORKER", `a worker thread did not start: ${error.message}`, { cause: error });
}
