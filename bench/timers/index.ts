/**
 * The timers bench: arming, re-arming and cancelling among all the connections there can be, and what a tick costs.
 *
 * See docs/benchmarks.md for the method.
 */
import { randomBytes } from "node:crypto";
import { Permutation } from "../../src/layer2-transport/nodes/carrier.ts";
import type { NodeTable } from "../../src/layer2-transport/nodes/node-table.ts";
import { TimingWheel } from "../../src/layer2-transport/nodes/timing-wheel.ts";
import { type Bench, type BenchContext, type Row, row } from "../lib/bench.ts";
import { median } from "../lib/stats.ts";
import { wholeTable } from "../lookup/population.ts";

const all = 2 ** 24;
const million = 2 ** 20;
/** Connections a call: the code is compiled as a worker's is, and not as one loop. */
const perCall = 256;
/** Of every round so many are put off, brought forward, cancelled and armed again. */
const sample = million;
/** Far enough that none of it expires while it is measured: keepalive. */
const farMs = 7_200_000;
/** All deadlines are spread over so many milliseconds, and one. */
const spreadMask = 0xffff;
/** Expiries a tick, and ticks, of the rows on ticks. */
const expiriesPerTick = 1000;
const ticks = 500;
const opMark = { op: "<=", target: 50 } as const;
const tickMark = { op: "<=", target: 1.5 } as const;

export const bench: Bench = {
  name: "timers",
  summary: "arming, re-arming and cancelling a connection's timer with 16.7M armed, and what a tick costs",
  run,
};

/** All connections of a population are armed, `farMs` ahead and spread over a minute. */
interface Ground {
  readonly count: number;
  readonly wheel: TimingWheel;
  /** All its numbers in an order without pattern. */
  readonly order: Int32Array;
  nowMs: number;
}

type Operation = "armed" | "put off" | "brought forward" | "cancelled";
const operations: readonly Operation[] = ["put off", "brought forward", "cancelled", "armed"];

async function run({ quick, say }: BenchContext): Promise<Row[]> {
  const most = quick ? 4 * million : all;
  const rounds = quick ? 3 : 9;
  const few = measured(prepare(wholeTable(), million), rounds, say);
  const many = measured(prepare(wholeTable(), most), rounds, say);
  const label = `${(most / 1e6).toFixed(1)}M armed`;
  const mark = quick ? undefined : opMark;
  return [
    ...operations.map((what) => row(`1.0M armed: one ${what}`, few.ns[what], "ns")),
    ...operations.map((what) => row(`${label}: one ${what}`, many.ns[what], "ns", mark)),
    row("1.0M armed: tick without expiries", few.idleTickNs, "ns"),
    row(`${label}: tick without expiries`, many.idleTickNs, "ns"),
    row(`1.0M armed: tick with ${expiriesPerTick} expiries`, few.tickUs, "us"),
    row(`${label}: tick with ${expiriesPerTick} expiries`, many.tickUs, "us"),
    row("tick with the same expiries, many armed / few", many.tickUs / few.tickUs, "", tickMark),
    row(`${label}: an hour without expiries, at once`, many.jumpUs, "us"),
  ];
}

function prepare(table: NodeTable, count: number): Ground {
  const nowMs = 1000;
  const wheel = new TimingWheel(table, nowMs);
  const random = new Permutation(Math.log2(count) / 2, { word: () => randomBytes(4).readInt32LE(0) });
  const order = new Int32Array(count);
  for (let i = 0; i < count; i += 1) order[i] = random.forward(i);
  const ground = { count, wheel, order, nowMs };
  for (let i = 0; i < count; i += perCall) arm(ground, i, 0);
  return ground;
}

interface Figures {
  readonly ns: Record<Operation, number>;
  readonly idleTickNs: number;
  readonly tickUs: number;
  readonly jumpUs: number;
}

function measured(ground: Ground, rounds: number, say: BenchContext["say"]): Figures {
  const { count, wheel } = ground;
  const ns: Record<Operation, number[]> = { armed: [], "put off": [], "brought forward": [], cancelled: [] };
  for (let round = 0; round <= rounds; round += 1) {
    const from = (round * sample) % count;
    const took = operations.map((what) => {
      const ms = timed(() => {
        for (let i = from; i < from + sample; i += perCall) perform[what](ground, i, round);
      });
      return (ms * 1e6) / sample;
    });
    if (wheel.armedCount !== count) throw new Error(`${wheel.armedCount} of ${count} are armed`);
    say(
      `${count}, round ${round}: ${operations.map((what, i) => `${what} ${took[i]?.toFixed(1)} ns`).join(", ")}`,
    );
    // The first warms up.
    if (round > 0) for (const [i, what] of operations.entries()) ns[what].push(took[i] as number);
  }
  const times = Array.from({ length: rounds });
  return {
    ns: {
      armed: median(ns.armed),
      "put off": median(ns["put off"]),
      "brought forward": median(ns["brought forward"]),
      cancelled: median(ns.cancelled),
    },
    idleTickNs: median(times.map(() => idleTick(ground))),
    tickUs: median(times.map((_, round) => tickWithExpiries(ground, round))),
    jumpUs: 1000 * timed(() => advance(ground, 3_600_000)),
  };
}

/** Milliseconds. */
function timed(run: () => void): number {
  const began = performance.now();
  run();
  return performance.now() - began;
}

/** Each is done to the 256 connections from the `from`th on in the ground's order; `round` varies the deadlines. */
const perform: Record<Operation, (ground: Ground, from: number, round: number) => void> = {
  armed: arm,
  "put off": putOff,
  "brought forward": bringForward,
  cancelled: cancel,
};

function arm({ wheel, order, nowMs }: Ground, from: number, round: number): void {
  for (let i = from; i < from + perCall; i += 1) {
    wheel.arm(order[i] as number, nowMs + farMs + ((i + round) & spreadMask));
  }
}

function putOff({ wheel, order, nowMs }: Ground, from: number, round: number): void {
  for (let i = from; i < from + perCall; i += 1) {
    wheel.arm(order[i] as number, nowMs + farMs + spreadMask + ((i + round) & spreadMask));
  }
}

/** To what is a retransmission timeout: some hundred milliseconds. */
function bringForward({ wheel, order, nowMs }: Ground, from: number, round: number): void {
  for (let i = from; i < from + perCall; i += 1) {
    wheel.arm(order[i] as number, nowMs + 200 + ((i + round) & 1023));
  }
}

function cancel({ wheel, order }: Ground, from: number, _round: number): void {
  for (let i = from; i < from + perCall; i += 1) wheel.cancel(order[i] as number);
}

function advance(ground: Ground, byMs: number): number {
  ground.nowMs += byMs;
  return ground.wheel.advance(ground.nowMs, ignore);
}

function ignore(): void {}

/** Nanoseconds of a tick when nothing is due. */
function idleTick(ground: Ground): number {
  const ms = timed(() => {
    for (let tick = 0; tick < ticks; tick += 1) {
      if (advance(ground, 1) !== 0) throw new Error("something expired that was not due");
    }
  });
  return (ms * 1e6) / ticks;
}

/** Microseconds of a tick when so many expire; they are armed again outside of what is measured. */
function tickWithExpiries(ground: Ground, round: number): number {
  const { wheel, order, count } = ground;
  const total = expiriesPerTick * ticks;
  const from = round * total;
  for (let i = 0; i < total; i += 1) {
    wheel.arm(order[(from + i) % count] as number, ground.nowMs + 1 + (i % ticks));
  }
  let expired = 0;
  const ms = timed(() => {
    for (let tick = 0; tick < ticks; tick += 1) expired += advance(ground, 1);
  });
  if (expired !== total) throw new Error(`${expired} expired, not ${total}`);
  for (let i = 0; i < total; i += 1) {
    wheel.arm(order[(from + i) % count] as number, ground.nowMs + farMs);
  }
  return (ms * 1000) / ticks;
}
