/**
 * The echo bench: requests of 64 bytes a CPU second of the server, ours on `mem`, `tun` and `xdp` beside node:net on
 * the kernel, with 1, 100 and 10,000 connections.
 *
 * See docs/benchmarks.md for the method.
 */
import { type Bench, type BenchContext, type Row, row } from "../lib/bench.ts";
import { compileTools, openWorkshop } from "../lib/compile.ts";
import { median } from "../lib/stats.ts";
import { type EchoFigures, type Effort, measureEcho, measureMem } from "./measure.ts";
import { EchoGround, type LinkName, type ServerName } from "./servers.ts";

export const bench: Bench = {
  name: "echo",
  summary: "requests a CPU second of an echo server over our TCP, beside node:net on the kernel's",
  run,
};

const counts = [1, 100, 10_000] as const;
const ours = ["worker", "app"] as const;
const marks = { mem: 10, xdp: 3, tun: 2 } as const;
type Medium = keyof typeof marks;

/** The rounds' figures of all servers on one medium with so many connections. */
type Rounds = Map<string, EchoFigures[]>;

async function run({ quick, say }: BenchContext): Promise<Row[]> {
  if (process.getuid?.() !== 0)
    throw new Error("this bench makes network namespaces and devices: run it as root");
  const effort: Effort = {
    rounds: quick ? 1 : 3,
    warmMs: quick ? 400 : 1000,
    runMs: quick ? 600 : 1500,
    say,
  };
  const workshop = await openWorkshop();
  const ground = await EchoGround.open();
  try {
    const { echo_client } = await compileTools(workshop, ["echo_client"]);
    const rows: Row[] = [];
    for (const connections of counts) {
      const all: Rounds = new Map();
      const many = connections > 1000 ? 3 : 1;
      const longer = { ...effort, warmMs: many * effort.warmMs, runMs: many * effort.runMs };
      for (let round = 0; round < effort.rounds; round += 1) {
        await oneRound({ ground, program: echo_client, connections, effort: longer, all });
      }
      for (const medium of ["mem", "xdp", "tun"] as const) rows.push(...rowsOf(medium, connections, all));
    }
    return rows;
  } finally {
    await ground.close();
    workshop.close();
  }
}

interface Round {
  readonly ground: EchoGround;
  readonly program: string;
  readonly connections: number;
  readonly effort: Effort;
  readonly all: Rounds;
}

async function oneRound({ ground, program, connections, effort, all }: Round): Promise<void> {
  const note = (key: string, figures: EchoFigures) => {
    all.set(key, [...(all.get(key) ?? []), figures]);
    effort.say(`${key}, ${connections} connections: ${shown(figures)}`);
  };
  const kernel = async (link: LinkName, name: ServerName) => {
    const server = await ground.start(link, name);
    try {
      return await measureEcho(program, server, connections, effort);
    } finally {
      await server.child.stop();
    }
  };
  note("node:net", await kernel("tun", "node:net"));
  for (const placement of ours) {
    const { warmMs, runMs } = effort;
    note(`mem, ${placement}`, await measureMem({ connections, placement, warmMs, runMs }));
    for (const link of ["xdp", "tun"] as const) note(`${link}, ${placement}`, await kernel(link, placement));
  }
}

function shown({ perCpuSecond, perSecond, p50, p99, threads }: EchoFigures): string {
  const rates = `${Math.round(perCpuSecond)} a CPU second, ${Math.round(perSecond)} a second`;
  return `${rates}, p50 ${p50.toFixed(0)} us, p99 ${p99.toFixed(0)} us (${threads})`;
}

function rowsOf(medium: Medium, connections: number, all: Rounds): Row[] {
  const reference = all.get("node:net") ?? [];
  const title = `${medium}, ${connections} connection${connections === 1 ? "" : "s"}`;
  const rows: Row[] = [];
  for (const placement of ours) {
    const rounds = all.get(`${medium}, ${placement}`) ?? [];
    const ratios = rounds.map((own, i) => own.perCpuSecond / (reference[i] as EchoFigures).perCpuSecond);
    const mark = placement === "worker" ? ({ op: ">=", target: marks[medium] } as const) : undefined;
    const name = `${title}, handlers ${placement === "worker" ? "in the worker" : "in the app's thread"}`;
    rows.push(row(`${name}: ours / node:net`, median(ratios), "x", mark), ...figureRows(name, rounds));
  }
  if (medium === "mem") rows.push(...figureRows(`node:net, ${connections} connections`, reference));
  return rows;
}

function figureRows(name: string, rounds: readonly EchoFigures[]): Row[] {
  return [
    row(`${name}: requests a CPU second`, median(rounds.map((one) => one.perCpuSecond)), "1/s"),
    row(`${name}: requests a second`, median(rounds.map((one) => one.perSecond)), "1/s"),
    row(`${name}: round trip p50`, median(rounds.map((one) => one.p50)), "us"),
    row(`${name}: round trip p99`, median(rounds.map((one) => one.p99)), "us"),
  ];
}
