/**
 * The bulk bench: Gbit/s of one and of 32 streams over our TCP, on `tun` and `mem`, beside the kernel's CUBIC over the
 * same wire, with loss and delay.
 *
 * See docs/benchmarks.md for the method.
 */
import type { BulkReading } from "../lib/apo/bulk-peer.ts";
import { type Bench, type BenchContext, type Row, row } from "../lib/bench.ts";
import { compileTools, openWorkshop } from "../lib/compile.ts";
import { median } from "../lib/stats.ts";
import { BulkGround, type BulkPath, startMem, type Transfer } from "./ground.ts";

export const bench: Bench = {
  name: "bulk",
  summary: "Gbit/s of one and 32 streams over our TCP with loss and delay, beside the kernel's CUBIC",
  run,
};

/** A path: probability of loss, and milliseconds from one end to the other. */
interface Impairment {
  readonly loss: number;
  readonly delayMs: number;
}

interface Effort {
  readonly rounds: number;
  readonly windowMs: number;
  say(line: string): void;
}

const deviceMark = { op: ">=", target: 10 } as const;
const ratioMark = { op: ">=", target: 0.9 } as const;
const losses = [0, 0.001, 0.01];
const delays = [0, 5, 50];
const streamCounts = [1, 32];

async function run({ quick, say }: BenchContext): Promise<Row[]> {
  if (process.getuid?.() !== 0)
    throw new Error("this bench makes network namespaces and devices: run it as root");
  const workshop = await openWorkshop();
  const { wire, bulk_peer } = await compileTools(workshop, ["wire", "bulk_peer"]);
  const ground = await BulkGround.open(wire, bulk_peer);
  const effort: Effort = { rounds: quick ? 1 : 3, windowMs: quick ? 800 : 4000, say };
  const impairments = losses.flatMap((loss) => delays.map((delayMs) => ({ loss, delayMs })));
  const chosen = quick
    ? impairments.filter(({ loss, delayMs }) => delayMs < 50 && loss !== 0.001)
    : impairments;
  try {
    const rows: Row[] = [];
    for (const streams of quick ? [1] : streamCounts) {
      rows.push(...(await onDevice(ground, streams, effort)));
      for (const impairment of chosen) {
        rows.push(...(await overWire(ground, { streams, impairment, effort })));
        rows.push(...(await inMemory(ground, { streams, impairment, effort })));
      }
    }
    return rows;
  } finally {
    await ground.close();
    workshop.close();
  }
}

interface Cell {
  readonly streams: number;
  readonly impairment: Impairment;
  readonly effort: Effort;
}

/** Nothing between us and the kernel but our TUN device. */
async function onDevice(ground: BulkGround, streams: number, effort: Effort): Promise<Row[]> {
  const rows: Row[] = [];
  for (const path of ["ours to the kernel, on the device", "the kernel to ours, on the device"] as const) {
    const rates: number[] = [];
    for (let round = 0; round < effort.rounds; round += 1) {
      rates.push(await rateOf(await ground.start(path, streams), { loss: 0, delayMs: 0 }, effort));
    }
    const name = `tun, ${path}, ${streamsOf(streams)}`;
    effort.say(`${name}: ${rates.map((rate) => rate.toFixed(2)).join(", ")} Gbit/s`);
    rows.push(row(name, median(rates), "Gbit/s", streams === 1 ? deviceMark : undefined));
  }
  return rows;
}

/** Each direction beside two kernels on the same wire, in turn. */
async function overWire(ground: BulkGround, { streams, impairment, effort }: Cell): Promise<Row[]> {
  await ground.wire.set({ ...impairment, whole: 0 });
  const paths = ["ours to the kernel, over the wire", "the kernel to ours, over the wire"] as const;
  const rates: Record<string, number[]> = {};
  for (let round = 0; round < effort.rounds; round += 1) {
    for (const path of ["kernel, over the wire", ...paths] as readonly BulkPath[]) {
      const rate = await rateOf(await ground.start(path, streams), impairment, effort);
      rates[path] = [...(rates[path] ?? []), rate];
    }
  }
  const reference = rates["kernel, over the wire"] as number[];
  return paths.flatMap((path) => {
    const name = `tun, ${path}, ${streamsOf(streams)}, ${impairmentOf(impairment)}`;
    return compared(name, rates[path] as number[], reference, effort);
  });
}

/** Both ends ours, beside two kernels on a wire that takes super-packets for packets, as `mem` does. */
async function inMemory(ground: BulkGround, { streams, impairment, effort }: Cell): Promise<Row[]> {
  await ground.wire.set({ ...impairment, whole: 1 });
  const rates: number[][] = [[], [], []];
  for (let round = 0; round < effort.rounds; round += 1) {
    rates[0]?.push(await rateOf(await ground.start("kernel, over the wire", streams), impairment, effort));
    rates[1]?.push(await rateOf(await startMem(impairment, streams, true), impairment, effort));
    rates[2]?.push(await rateOf(await startMem(impairment, streams, false), impairment, effort));
  }
  const [reference = [], up = [], down = []] = rates;
  const name = `${streamsOf(streams)}, ${impairmentOf(impairment)}`;
  return [
    ...compared(`mem, from the client, ${name}`, up, reference, effort),
    ...compared(`mem, to the client, ${name}`, down, reference, effort),
  ];
}

/** Bytes a second at the reader, once the streams run evenly. Ends the transfer. */
async function rateOf(transfer: Transfer, { loss, delayMs }: Impairment, effort: Effort): Promise<number> {
  try {
    await sleep(300 + 20 * delayMs);
    const before = await transfer.reader.ask<BulkReading>("read");
    await sleep(loss > 0 && delayMs > 0 ? 2 * effort.windowMs : effort.windowMs);
    const after = await transfer.reader.ask<BulkReading>("read");
    return (8 * (after.bytes - before.bytes)) / (after.us - before.us) / 1000;
  } finally {
    await transfer.stop();
  }
}

function compared(
  name: string,
  own: readonly number[],
  reference: readonly number[],
  { say }: Effort,
): Row[] {
  const ratios = own.map((rate, i) => rate / (reference[i] as number));
  say(`${name}: ours ${median(own).toFixed(3)}, the kernel's ${median(reference).toFixed(3)} Gbit/s`);
  return [
    row(`${name}: ours / the kernel's`, median(ratios), "x", ratioMark),
    row(`${name}: ours`, median(own), "Gbit/s"),
    row(`${name}: the kernel's`, median(reference), "Gbit/s"),
  ];
}

function streamsOf(streams: number): string {
  return streams === 1 ? "1 stream" : `${streams} streams`;
}

function impairmentOf({ loss, delayMs }: Impairment): string {
  return `loss ${loss * 100} %, round trip ${2 * delayMs} ms`;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
