/**
 * A raw link with one native thread and one worker, told what to do like the C loops beside it: see
 * reference/loop.h for the lines.
 *
 *   station.ts '{"kind":"tun","options":{…},"own":"10.78.0.2","peer":"10.78.0.1"}'
 */
import { createInterface } from "node:readline";
import { Worker } from "node:worker_threads";
import type { LinkOptions, RawLinkKind } from "../../src/layer3-ip/links/link-options.ts";
import { checkLinkOptions } from "../../src/layer3-ip/links/link-settings.ts";
import { createPool } from "../../src/layer3-ip/pool.ts";
import { type RawLink, startRawLink } from "../../src/layer3-ip/raw-link.ts";
import {
  controlWord,
  countCell,
  superBytes,
  type WorkerBasis,
  type WorkerMode,
  workerModes,
} from "./worker.ts";

export interface StationOptions {
  readonly kind: RawLinkKind;
  readonly options: LinkOptions;
  readonly own: string;
  readonly peer: string;
  /** Packets that "through" begins with; 0: somebody else sends them. */
  readonly circulating?: number;
  /**
   * Empty looks of the worker before it sleeps (50: a microsecond, since it shares its processor with whoever feeds the
   * link).
   */
  readonly idleLooks?: number;
}

/** What a loop, a station or a meter answers. */
export interface Reading {
  readonly packets: number;
  readonly bytes: number;
  readonly us: number;
}

const shards = Array.from({ length: 16 }, (_, shard) => shard);
const poolShape = { partitions: 2, small: 8192, large: 256 };
const workerPartition = 0;
const nativePartition = 1;

export class Station {
  readonly link: RawLink;
  private readonly control = new Int32Array(new SharedArrayBuffer(4 * 4));
  private readonly counts = new Float64Array(new SharedArrayBuffer(8 * 2));
  private readonly worker: Worker;
  private readonly ended: Promise<unknown>;
  private readonly options: StationOptions;

  constructor(options: StationOptions) {
    this.options = options;
    const pool = createPool(poolShape);
    this.link = openLink(options, pool);
    const basis: WorkerBasis = {
      link: this.link.attachWorker(0, shards),
      pool,
      partition: workerPartition,
      own: addressWord(options.own),
      peer: addressWord(options.peer),
      control: this.control.buffer,
      counts: this.counts.buffer,
      idleLooks: options.idleLooks ?? 50,
    };
    this.worker = new Worker(new URL("./worker.ts", import.meta.url), {
      workerData: { bench: "l3-worker", basis },
    });
    this.ended = new Promise((resolve, reject) => {
      this.worker.on("error", reject);
      this.worker.on("exit", resolve);
    });
    this.ended.catch(() => {}); // whoever waits is told
  }

  /** Resolves when the worker polls; rejects when it could not start. */
  async ready(): Promise<void> {
    let failed: Error | undefined;
    this.ended.catch((error: Error) => {
      failed = error;
    });
    while (Atomics.load(this.control, controlWord.ready) === 0) {
      if (failed) throw failed;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** What it has read so far, and when (microseconds of CLOCK_MONOTONIC). */
  read(): Reading {
    return {
      packets: this.counts[countCell.packets] as number,
      bytes: this.counts[countCell.bytes] as number,
      us: Number(process.hrtime.bigint() / 1000n),
    };
  }

  set(mode: WorkerMode, bytes = 0): void {
    const circulating = mode === "through" ? (this.options.circulating ?? 0) : 0;
    if (bytes > 0) this.control[controlWord.bytes] = bytes > 1500 ? superBytes : bytes;
    this.control[controlWord.count] = circulating;
    const now = circulating > 0 ? "out" : mode;
    Atomics.store(this.control, controlWord.mode, workerModes.indexOf(now));
  }

  async close(): Promise<void> {
    this.set("stop");
    await this.ended;
    this.link.close();
  }
}

function openLink({ kind, options }: StationOptions, pool: SharedArrayBuffer): RawLink {
  return startRawLink({ settings: checkLinkOptions(kind, options), pool, partition: nativePartition });
}

/** Dotted IPv4 as the four bytes lie in memory. */
function addressWord(address: string): number {
  return Buffer.from(address.split(".").map(Number)).readInt32LE(0);
}

/** The program: one link, one worker, lines on stdin. */
async function main(options: StationOptions): Promise<void> {
  const station = new Station(options);
  await station.ready();
  process.stdout.write(`${JSON.stringify({ ready: true, device: station.link.device })}\n`);
  for await (const line of createInterface({ input: process.stdin })) {
    const [word = "", bytes = "0"] = line.split(" ");
    if (word === "counters") {
      process.stdout.write(`${JSON.stringify(station.link.counters())}\n`);
      continue;
    }
    if ((workerModes as readonly string[]).includes(word)) station.set(word as WorkerMode, Number(bytes));
    process.stdout.write(`${JSON.stringify(station.read())}\n`);
  }
  await station.close();
}

if (process.argv[1] === import.meta.filename)
  await main(JSON.parse(process.argv[2] ?? "{}") as StationOptions);
