/**
 * `apo sim`: TCP stacks, a bad wire and scripted apps in virtual time, from seeds.
 *
 * The command line's own: it runs layer 2's simulation and prints what it says.
 */

import { writeFileSync } from "node:fs";
import { drawScenario, type ScenarioSize, smallSize } from "../layer2-transport/simulation/scenario.ts";
import { describeScenario, shrink } from "../layer2-transport/simulation/shrink.ts";
import { type RunResult, runScenario } from "../layer2-transport/simulation/simulation.ts";
import type { Command } from "./apo.ts";
import { readNumber, readOptions, UsageError } from "./usage.ts";

const help = `Usage: apo sim [OPTIONS]

Runs our TCP against itself in virtual time: clients, servers and a wire that delays, loses, reorders, doubles and
corrupts packets, all drawn from a seed. Every byte is checked where it arrives, every segment where it is sent, and
nothing may be left at the end. A seed that fails is made as small as it gets, and shown.

Options:
  --seeds COUNT   seeds to run, one after the other (1000)
  --from N        the first of them (1)
  --seed N        this one alone
  --clients N     clients at most (2)
  --servers N     servers at most (2)
  --pcap FILE     write the packets of the first failure, made small, to FILE as pcapng; with --seed, of its run
  --json          the result as JSON
  --help          this text

Examples:
  apo sim --seeds 10000
  apo sim --seed 4711 --pcap 4711.pcapng

Exit codes: 0 every seed passed, 1 one failed, 2 a wrong option.
`;

const options = {
  seeds: { type: "string" },
  from: { type: "string" },
  seed: { type: "string" },
  clients: { type: "string" },
  servers: { type: "string" },
  pcap: { type: "string" },
  json: { type: "boolean" },
} as const;

const seedMost = 2 ** 48;
const traceBytes = 64 * 2 ** 20;
const linesShown = 30;
const progressMs = 2000;

/** The command line, understood. */
export interface SimArguments {
  readonly from: number;
  readonly count: number;
  readonly size: ScenarioSize;
  readonly pcap: string | undefined;
  readonly json: boolean;
  readonly single: boolean;
}

/** Reads `apo sim`'s arguments. Throws UsageError. */
export function readSimArguments(args: readonly string[]): SimArguments {
  const { seeds, from, seed, clients, servers, pcap, json } = readOptions("sim", options, args);
  if (seed !== undefined && (seeds !== undefined || from !== undefined)) {
    throw new UsageError("--seed is one seed; --seeds and --from are many: not both", "sim");
  }
  if (pcap === "") throw new UsageError("--pcap takes a file", "sim");
  const number = (name: string, text: string | undefined, fallback: number, least: number, most: number) =>
    text === undefined ? fallback : readNumber("sim", name, text, least, most);
  const first = number("from", from, 1, 0, seedMost);
  return {
    from: number("seed", seed, first, 0, seedMost),
    count: seed === undefined ? number("seeds", seeds, 1000, 1, 1_000_000_000) : 1,
    size: {
      ...smallSize,
      clients: number("clients", clients, smallSize.clients, 1, 100),
      servers: number("servers", servers, smallSize.servers, 1, 100),
    },
    pcap,
    json: json ?? false,
    single: seed !== undefined,
  };
}

interface Tally {
  seeds: number;
  connections: number;
  failedConnections: number;
  packets: number;
  bytes: number;
  virtualSeconds: number;
}

/** A failure as `--json` has it. */
interface Failure {
  readonly seed: number;
  readonly faults: readonly string[];
  readonly atUs: number;
  readonly smallest: {
    readonly scenario: object;
    readonly faults: readonly string[];
    readonly trace: string[];
  };
}

async function run(args: readonly string[]): Promise<number> {
  const given = readSimArguments(args);
  const tally: Tally = {
    seeds: 0,
    connections: 0,
    failedConnections: 0,
    packets: 0,
    bytes: 0,
    virtualSeconds: 0,
  };
  const failures: Failure[] = [];
  const started = Date.now();
  let told = started;
  for (let seed = given.from; seed < given.from + given.count; seed += 1) {
    const keeps = given.single && given.pcap !== undefined;
    const result = runScenario(drawScenario(seed, given.size), { traceBytes: keeps ? traceBytes : 0 });
    add(tally, result);
    if (result.faults.length > 0) failures.push(fail(seed, result, given, failures.length === 0));
    else if (keeps && given.pcap !== undefined) writeFileSync(given.pcap, result.pcapng());
    if (process.stderr.isTTY && Date.now() - told > progressMs) {
      told = Date.now();
      process.stderr.write(`\r${tally.seeds} of ${given.count} seeds, ${failures.length} failed`);
    }
  }
  if (told !== started) process.stderr.write("\n");
  const seconds = (Date.now() - started) / 1000;
  if (given.json) process.stdout.write(`${JSON.stringify({ ...tally, seconds, failures }, null, 2)}\n`);
  else process.stdout.write(sumOf(tally, seconds, failures.length));
  return failures.length === 0 ? 0 : 1;
}

function add(tally: Tally, result: RunResult): void {
  tally.seeds += 1;
  tally.connections += result.connections;
  tally.failedConnections += result.failed;
  tally.packets += result.packets;
  tally.bytes += result.bytes;
  tally.virtualSeconds += result.atUs / 1e6;
}

/** Makes the failure small, and tells it as it comes. */
function fail(seed: number, result: RunResult, given: SimArguments, isFirst: boolean): Failure {
  const { result: least, runs } = shrink(result);
  const traced = runScenario(least.scenario, { traceBytes });
  const trace = traced.lines(linesShown);
  if (isFirst && given.pcap !== undefined) writeFileSync(given.pcap, traced.pcapng());
  if (!given.json) {
    const at = (result.atUs / 1e6).toFixed(6);
    const lines = [
      `seed ${seed} failed at ${at} s of virtual time:`,
      ...result.faults.slice(0, 5).map(indented),
    ];
    lines.push(
      `the smallest scenario that fails (${runs} runs):`,
      ...describeScenario(least.scenario).map(indented),
    );
    lines.push(...traced.faults.slice(0, 5).map(indented), `its last packets:`, ...trace.map(indented), "");
    process.stdout.write(`${lines.join("\n")}\n`);
  }
  const smallest = { scenario: least.scenario, faults: least.faults, trace };
  return { seed, faults: result.faults, atUs: result.atUs, smallest };
}

function indented(line: string): string {
  return `  ${line}`;
}

function sumOf(tally: Tally, seconds: number, failed: number): string {
  const megabytes = (tally.bytes / 1e6).toFixed(1);
  const hours = (tally.virtualSeconds / 3600).toFixed(1);
  return (
    `${tally.connections} connections, ${tally.failedConnections} of them lost to bad lines; ` +
    `${tally.packets} packets, ${megabytes} MB, ${hours} hours of virtual time in ${seconds.toFixed(1)} s\n` +
    `${tally.seeds - failed} passed, ${failed} failed\n`
  );
}

export const simCommand: Command = {
  name: "sim",
  summary: "our TCP against itself on bad lines, in virtual time, from seeds",
  help,
  run,
};
