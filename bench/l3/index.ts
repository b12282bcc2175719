/**
 * The layer-3 bench: rings, doorbells, checksums, and the path of packets through a worker on every link, beside C
 * loops that only receive and send.
 *
 * See docs/benchmarks.md for the method.
 */
import type { Bench, BenchContext, Row } from "../lib/bench.ts";
import { memoryPart } from "./memory.ts";
import { CannotRun, type Effort, type Part } from "./part.ts";

export const bench: Bench = {
  name: "l3",
  summary: "rings, wake-ups, checksums and packets a second of the raw links, beside loops in C",
  run,
};

const parts: readonly Part[] = [memoryPart];

async function run({ quick, say }: BenchContext): Promise<Row[]> {
  const effort: Effort = { rounds: quick ? 1 : 5, windowMs: quick ? 400 : 1000, say };
  const rows: Row[] = [];
  for (const part of parts) {
    try {
      rows.push(...(await part.measure(effort)));
    } catch (error) {
      if (!(error instanceof CannotRun)) throw error;
      say(`${part.name}: not measured: ${error.message}`);
    }
  }
  return rows;
}
