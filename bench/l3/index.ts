/**
 * The layer-3 bench: rings, doorbells, checksums, and the path of packets through a worker on every link, beside C
 * loops that only receive and send.
 *
 * See docs/benchmarks.md for the method.
 */
import type { Bench, BenchContext, Row } from "../lib/bench.ts";
import { openWorkshop } from "../lib/compile.ts";
import { createNetwork } from "../lib/netns.ts";
import { checksumPart } from "./checksum.ts";
import { deviceParts } from "./devices.ts";
import { compilePrograms } from "./ground.ts";
import { memPart } from "./mem-path.ts";
import { memoryPart } from "./memory.ts";
import { CannotRun, type Effort, type Part } from "./part.ts";

export const bench: Bench = {
  name: "l3",
  summary: "rings, wake-ups, checksums and packets a second of the raw links, beside loops in C",
  run,
};

async function run({ quick, say }: BenchContext): Promise<Row[]> {
  const effort: Effort = { rounds: quick ? 1 : 5, windowMs: quick ? 400 : 600, say };
  const workshop = await openWorkshop();
  const network = await createNetwork(say);
  try {
    const programs = await compilePrograms(workshop);
    const parts: readonly Part[] = [
      memoryPart(programs),
      checksumPart,
      memPart,
      ...deviceParts({ network, programs }),
    ];
    const rows: Row[] = [];
    for (const part of parts) rows.push(...(await measured(part, effort)));
    return rows;
  } finally {
    await network.close();
    workshop.close();
  }
}

async function measured(part: Part, effort: Effort): Promise<Row[]> {
  try {
    return await part.measure(effort);
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    effort.say(`${part.name}: not measured: ${error.message}`);
    return [];
  }
}
