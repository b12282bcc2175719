/**
 * One measurement of one path: packets in, out or through a loop or a station, counted where they end.
 *
 * It knows the lines that both are spoken to with (reference/loop.h), and no kind of link.
 */
import type { Child } from "../lib/children.ts";
import { cpuBetween, snapshotCpu } from "../lib/cpu-time.ts";
import type { Reading } from "./station.ts";

export type PathMode = "in" | "out" | "through";

/** What one measurement gave. A super-packet counts as one packet. */
export interface PathFigures {
  readonly packetsPerSecond: number;
  readonly bytesPerSecond: number;
  /** CPU time of the loop's (or station's) threads a packet; the kernel's work done for them is in it. */
  readonly cpuNsPerPacket: number;
  /** The busiest threads, for the line of progress. */
  readonly threads: string;
}

export interface PathUnderTest {
  /** The loop or station. */
  readonly runner: Child;
  /** Counts what leaves it. */
  readonly meter: Child;
  /** Feeds it. */
  readonly generator: Child;
}

/** Until a path runs evenly: rings fill, a just-in-time compiler has seen the code. */
const settleMs = 150;

/** Measures for `windowMs`. `bytes`: length of the IP packets; more than 1,500: super-packets. */
export async function measurePath(
  { runner, meter, generator }: PathUnderTest,
  mode: PathMode,
  bytes: number,
  windowMs: number,
): Promise<PathFigures> {
  await runner.ask(`${mode} ${bytes}`);
  if (mode !== "out") await generator.ask(`start ${bytes}`);
  await sleep(settleMs);
  const counted = mode === "in" ? runner : meter;
  const cpuBefore = snapshotCpu(runner.pid);
  const before = await counted.ask<Reading>("read");
  await sleep(windowMs);
  const after = await counted.ask<Reading>("read");
  const { cpuNs, threads } = cpuBetween(cpuBefore, snapshotCpu(runner.pid));
  if (mode !== "out") await generator.ask("stop");
  await runner.ask("idle");
  const seconds = (after.us - before.us) / 1e6;
  const packets = after.packets - before.packets;
  return {
    packetsPerSecond: packets / seconds,
    bytesPerSecond: (after.bytes - before.bytes) / seconds,
    cpuNsPerPacket: packets > 0 ? cpuNs / packets : Number.NaN,
    threads: threads
      .slice(0, 3)
      .map((thread) => `${thread.name} ${((100 * thread.cpuNs) / (seconds * 1e9)).toFixed(0)} %`)
      .join(", "),
  };
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
