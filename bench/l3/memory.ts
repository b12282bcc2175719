/**
 * Rings and doorbells between a native thread and a JavaScript worker, without any packet.
 */
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { type Row, row } from "../lib/bench.ts";
import { type Command, runToEnd } from "../lib/children.ts";
import { median, percentile } from "../lib/stats.ts";
import type { Programs } from "./ground.ts";
import type { MemoryJob, MemoryResult } from "./memory-worker.ts";
import type { Effort, Part } from "./part.ts";

const descriptors = 10_000_000;
const roundTrips = 5000;
/** As in memory-worker.ts, which cannot be imported here: it is a program. */
const pauseUs = 30;
const ringMark = { op: ">=", target: 20 } as const;
const wakeMark = { op: "<=", target: 10 } as const;

export function memoryPart(programs: Programs): Part {
  return { name: "ring and doorbell", measure: (effort) => measure(effort, programs) };
}

async function measure({ rounds, say }: Effort, programs: Programs): Promise<Row[]> {
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
      ...(await wakeRows(programs, rounds)),
    ];
  } finally {
    await worker.terminate();
  }
}

async function ask(worker: Worker, job: MemoryJob): Promise<MemoryResult> {
  worker.postMessage(job);
  const [result] = (await once(worker, "message")) as [MemoryResult]; // rejects with the worker's "error"
  return result;
}

interface WakeFigures {
  readonly p50: number;
  readonly p99: number;
}

/** The same beside a C program that does nothing else, and with both threads on one CPU, where nobody is idle. */
async function wakeRows({ wake }: Programs, rounds: number): Promise<Row[]> {
  const ours: Command = [process.execPath, fileURLToPath(new URL("./memory-worker.ts", import.meta.url))];
  const inC: Command = [wake];
  const all: { name: string; command: Command; p50: number[] }[] = [
    { name: "in C", command: [...inC, String(roundTrips), String(pauseUs)], p50: [] },
    { name: "in C, on two CPUs", command: [...inC, String(roundTrips), String(pauseUs), "apart"], p50: [] },
    { name: "on one CPU", command: ["taskset", "-c", "0", ...ours, String(roundTrips)], p50: [] },
    {
      name: "in C, on one CPU",
      command: ["taskset", "-c", "0", ...inC, String(roundTrips), String(pauseUs)],
      p50: [],
    },
  ];
  for (let round = 0; round < rounds; round += 1) {
    for (const { command, p50 } of all) {
      p50.push((JSON.parse(await runToEnd(command)) as WakeFigures).p50);
    }
  }
  return all.map(({ name, p50 }) => row(`wake-up round trip p50, ${name}`, median(p50), "us"));
}
