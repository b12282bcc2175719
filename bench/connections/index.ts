/**
 * The connections bench: 1M, 4M and 16,777,216 TCP connections on `mem`, both ends in one process; each asks and is
 * answered, all stay open, and each is asked again. Beside it what connections cost the kernel.
 *
 * See docs/benchmarks.md for the method.
 */
import { freemem } from "node:os";
import { type Bench, type BenchContext, type Row, row } from "../lib/bench.ts";
import { Child } from "../lib/children.ts";
import { compileTools, openWorkshop } from "../lib/compile.ts";
import { slabBytes } from "./memory.ts";
import type { PairFigures, PairOptions } from "./pair.ts";

export const bench: Bench = {
  name: "connections",
  summary: "millions of open TCP connections on mem: handshakes a second, bytes a connection, none lost",
  run,
};

const sizes = [1_000_000, 4_000_000, 16_777_216];
/** What both sides take of a connection, with room to spare: a size that does not fit is not tried. */
const bytesOfBoth = 700;
const lossMark = { op: "<=", target: 0 } as const;
const bytesMark = { op: "<=", target: 256 } as const;
const rateMark = { op: ">=", target: 300_000 } as const;
/** Processes of the kernel's herd, and connections in each: descriptors of one process are few. */
const herds = 6;
const herdSize = 9000;
const longMs = 600_000;

async function run({ quick, say }: BenchContext): Promise<Row[]> {
  const rows: Row[] = await kernelRows(quick ? 2 : herds, say);
  for (const connections of quick ? [100_000, 1_000_000] : sizes) {
    if (freemem() < connections * bytesOfBoth) {
      say(`${connections} connections: not tried, ${Math.round(freemem() / 2 ** 20)} MiB of memory are free`);
      continue;
    }
    rows.push(...(await oursAt({ connections, version6: false }, say)));
  }
  if (!quick) rows.push(...(await oursAt({ connections: 1_000_000, version6: true }, say)));
  return rows;
}

async function oursAt(options: PairOptions, say: (line: string) => void): Promise<Row[]> {
  const { connections, version6 } = options;
  const program = `${import.meta.dirname}/pair.ts`;
  const command = [process.execPath, "--max-old-space-size=8192", program, JSON.stringify(options)] as const;
  const child = new Child(command, { name: "the pair", answerMs: longMs });
  const name = `${connections} connections${version6 ? " over IPv6" : ""}`;
  try {
    const figures = await child.answer<PairFigures>();
    say(`${name}: ${JSON.stringify(figures)}`);
    const { opened, answered, answeredAgain, openSeconds, againSeconds } = figures;
    const missing = Math.max(connections - opened, connections - answered, connections - answeredAgain);
    return [
      row(`${name}: lost, unanswered or not open`, Math.max(missing, figures.lost), "", lossMark),
      row(`${name}: handshakes`, opened / openSeconds, "1/s", rateMark),
      row(`${name}: memory of the server's side`, figures.serverBytes, "bytes/connection", bytesMark),
      row(`${name}: memory of both sides`, figures.bothBytes, "bytes/connection"),
      row(`${name}: asked again`, answeredAgain / againSeconds, "1/s"),
    ];
  } finally {
    await child.stop();
  }
}

/** The kernel's herds, two at a time, each sequential: connections a second, and slab an end. */
async function kernelRows(count: number, say: (line: string) => void): Promise<Row[]> {
  const workshop = await openWorkshop();
  const running: Child[] = [];
  try {
    const { herd } = await compileTools(workshop, ["herd"]);
    const before = slabBytes();
    const begun = performance.now();
    let port = 20_000;
    const lane = async (share: number): Promise<void> => {
      for (let i = 0; i < share; i += 1) {
        port += 1;
        const child = new Child([herd, String(herdSize), String(port)], { name: "the kernel's herd" });
        running.push(child);
        await child.answer<{ open: number }>();
      }
    };
    await Promise.all([lane(count >> 1), lane(count - (count >> 1))]);
    const seconds = (performance.now() - begun) / 1000;
    const connections = count * herdSize;
    const perEnd = (slabBytes() - before) / (2 * connections);
    await Promise.all(running.map((child) => child.ask<{ asked: number }>("again")));
    say(
      `the kernel: ${connections} connections in ${seconds.toFixed(2)} s, ${Math.round(perEnd)} bytes of slab an end`,
    );
    const name = `the kernel, ${connections} connections over loopback`;
    return [
      row(`${name}: handshakes`, connections / seconds, "1/s"),
      row(`${name}: slab of one end`, perEnd, "bytes/connection"),
    ];
  } finally {
    for (const child of running) await child.stop();
    workshop.close();
  }
}
