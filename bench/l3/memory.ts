/**
 * Rings and doorbells between a native thread and a JavaScript worker, without any packet.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { type Row, row } from "../lib/bench.ts";
import { median, percentile } from "../lib/stats.ts";
import type { MemoryJob, MemoryResult } from "./memory-worker.ts";
import type { Effort, Part } from "./part.ts";

const descriptors = 10_000_000;
const roundTrips = 5000;
const ringMark = { op: ">=", target: 20 } as const;
const wakeMark = { op: "<=", target: 10 } as const;

export const memoryPart: Part = {
  name: "ring and doorbell",
  async measure({ rounds, say }: Effort): Promise<Row[]> {
    const worker = new Worker(new URL("./memory-worker.ts", import.meta.url), { workerData: "l3-memory" });
    try {
      const rates = { in: [] as number[], out: [] as number[] };
      const p50: number[] = [];
      const p99: number[] = [];
      for (let round = 0; round <= rounds; round += 1) {
        for (const kind of ["in", "out"] as const) {
          const { ns } = await ask(worker, { kind, count: descriptors });
          if (round > 0) rates[kind].push((descriptors / ns) * 1000);
        }
        const { roundTripsUs } = await ask(worker, { kind: "wake", count: roundTrips });
        if (round === 0) continue;
        p50.push(percentile(roundTripsUs, 0.5));
        p99.push(percentile(roundTripsUs, 0.99));
        say(
          `ring, round ${round}: in ${rates.in.at(-1)?.toFixed(1)} M/s, out ${rates.out.at(-1)?.toFixed(1)} M/s, ` +
            `woken and back p50 ${p50.at(-1)?.toFixed(1)} p99 ${p99.at(-1)?.toFixed(1)} us`,
        );
      }
      return [
        row("ring, native thread to worker", median(rates.in), "M descriptors/s", ringMark),
        row("ring, worker to native thread", median(rates.out), "M descriptors/s"),
        row("wake-up round trip p50", median(p50), "us", wakeMark),
        row("wake-up round trip p99", median(p99), "us"),
      ];
    } finally {
      await worker.terminate();
    }
  },
};

async function ask(worker: Worker, job: MemoryJob): Promise<MemoryResult> {
  worker.postMessage(job);
  const [result] = (await once(worker, "message")) as [MemoryResult]; // rejects with the worker's "error"
  return result;
}
