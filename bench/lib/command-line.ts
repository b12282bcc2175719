/**
 * The command line of the benches: arguments, the list, the report, exit statuses.
 *
 * Knows benches only as folders with an index.ts. Stdout carries the report and nothing else; progress and errors
 * go to stderr.
 */
import { existsSync, readdirSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type { Bench, Report, Row } from "./bench.ts";
import { describeMachine } from "./machine.ts";
import { aligned, rowsTable } from "./table.ts";

const usage = `Usage: npm run bench -- NAME [options]

Measures, and says which marks were reached. As root it makes network namespaces of its own; as an ordinary user
it runs on loopback. Close other programs first.

Options:
  --list     name all benches
  --quick    stay under 60 s: fewer rounds, shorter windows
  --json     print one JSON object on stdout ("npm run --silent", or npm adds lines of its own)
  --strict   exit with 1 when a mark is missed
  --help     show this

Exit status: 0 measured, 1 failed (or, with --strict, a mark was missed), 2 used wrongly.

Examples:
  npm run bench -- fanout
  npm run --silent bench -- fanout --quick --json
`;

/** Load average from which delays are no longer the server's alone. */
const busyLoad = 0.5;

class UsageError extends Error {}

/** Where output goes, and where the benches are. */
export interface CommandLine {
  /** The folder whose folders with an index.ts are the benches. */
  readonly folder: string;
  out(text: string): void;
  err(text: string): void;
}

/** Runs what the arguments ask for; returns the exit status. Throws nothing. */
export async function runCommandLine(args: readonly string[], line: CommandLine): Promise<number> {
  try {
    return await obey(args, line);
  } catch (error) {
    const wrongly = error instanceof UsageError;
    line.err(`bench: ${(error as Error).message}\n`);
    if (wrongly) line.err("See: npm run bench -- --help\n");
    return wrongly ? 2 : 1;
  }
}

async function obey(args: readonly string[], line: CommandLine): Promise<number> {
  const { values, positionals } = readArguments(args);
  if (values.help) {
    line.out(usage);
    return 0;
  }
  if (values.list) {
    const names = benchNames(line.folder);
    const benches = await Promise.all(names.map((name) => loadBench(line.folder, name)));
    line.out(`${aligned(benches.map((bench) => [bench.name, bench.summary]))}\n`);
    return 0;
  }
  const [name, ...rest] = positionals;
  if (!name || rest.length > 0) {
    throw new UsageError(`name one bench to run: ${benchNames(line.folder).join(", ")}`);
  }
  const bench = await loadBench(line.folder, name);
  const say = (text: string) => line.err(`${text}\n`);
  warnOfLoad(say);
  const rows = await bench.run({ quick: values.quick, say });
  const report: Report = { bench: name, machine: describeMachine(), date: new Date().toISOString(), rows };
  line.out(values.json ? `${JSON.stringify(report)}\n` : textOf(report));
  return values.strict && rows.some((row) => row.pass === false) ? 1 : 0;
}

/** Whatever else runs shows in the delays first. The report does not hide it, and this says why. */
function warnOfLoad(say: (text: string) => void): void {
  const load = loadavg()[0]!;
  if (load < busyLoad) return;
  say(
    `this machine is busy (load ${load.toFixed(1)} on ${availableParallelism()} CPUs): delays will show it`,
  );
}

function readArguments(args: readonly string[]) {
  const options = {
    list: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    strict: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** The names of the folders that hold a bench, sorted. */
function benchNames(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== "lib")
    .map((entry) => entry.name)
    .filter((name) => existsSync(join(folder, name, "index.ts")))
    .sort();
}

async function loadBench(folder: string, name: string): Promise<Bench> {
  const names = benchNames(folder);
  if (!names.includes(name)) {
    throw new UsageError(`there is no bench "${name}"; there are: ${names.join(", ")}`);
  }
  const module = (await import(pathToFileURL(join(folder, name, "index.ts")).href)) as { bench: Bench };
  return module.bench;
}

function textOf({ bench, machine, date, rows }: Report): string {
  const head = `${bench} on ${machine}, ${date}`;
  return `${head}\n\n${rowsTable(rows)}\n\n${verdict(rows)}\n`;
}

function verdict(rows: readonly Row[]): string {
  const judged = rows.filter((row) => row.pass !== null);
  const missed = judged.filter((row) => !row.pass).map((row) => row.name);
  const reached = `${judged.length - missed.length} of ${judged.length} marks reached`;
  return missed.length > 0 ? `${reached}; missed: ${missed.join("; ")}` : reached;
}
