/**
 * `npm run bench -- NAME`: runs one bench and reports its rows.
 *
 * A bench is a folder beside this file with an index.ts; adding one is adding the folder. Stdout carries the
 * report and nothing else; progress and errors go to stderr.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Bench, Report } from "./lib/bench.ts";
import { killAllChildren, stopAllChildren } from "./lib/children.ts";
import { describeMachine } from "./lib/machine.ts";
import { aligned, rowsTable } from "./lib/table.ts";

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

class UsageError extends Error {}

/** The folders that hold a bench, sorted. */
function benchNames(): string[] {
  const folders = readdirSync(import.meta.dirname, { withFileTypes: true });
  return folders
    .filter((entry) => entry.isDirectory() && entry.name !== "lib")
    .map((entry) => entry.name)
    .filter((name) => existsSync(join(import.meta.dirname, name, "index.ts")))
    .sort();
}

async function loadBench(name: string): Promise<Bench> {
  const names = benchNames();
  if (!names.includes(name)) {
    throw new UsageError(`there is no bench "${name}"; there are: ${names.join(", ")}`);
  }
  const module = (await import(`./${name}/index.ts`)) as { bench: Bench };
  return module.bench;
}

async function list(): Promise<void> {
  const benches = await Promise.all(benchNames().map(loadBench));
  process.stdout.write(`${aligned(benches.map((bench) => [bench.name, bench.summary]))}\n`);
}

function readArguments() {
  const options = {
    list: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    strict: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

async function main(): Promise<number> {
  const { values, positionals } = readArguments();
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  if (values.list) {
    await list();
    return 0;
  }
  const [name, ...rest] = positionals;
  if (!name || rest.length > 0) {
    throw new UsageError(`name one bench to run: ${benchNames().join(", ")}`);
  }
  const bench = await loadBench(name);
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const rows = await bench.run({ quick: values.quick, say });
  const report: Report = { bench: name, machine: describeMachine(), date: new Date().toISOString(), rows };
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : textOf(report));
  const missed = rows.filter((row) => row.pass === false).length;
  return values.strict && missed > 0 ? 1 : 0;
}

function textOf({ bench, machine, date, rows }: Report): string {
  const judged = rows.filter((row) => row.pass !== null);
  const reached = judged.filter((row) => row.pass).length;
  const marks = `${reached} of ${judged.length} marks reached`;
  return `${bench} on ${machine}, ${date}\n\n${rowsTable(rows)}\n\n${marks}\n`;
}

for (const [signal, status] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.once(signal, () => {
    process.stderr.write(`${signal}: stopping\n`);
    void stopAllChildren().then(() => process.exit(status));
  });
}
process.on("exit", killAllChildren);

try {
  process.exitCode = await main();
} catch (error) {
  const wrongly = error instanceof UsageError;
  process.stderr.write(
    `bench: ${(error as Error).message}${wrongly ? "\nSee: npm run bench -- --help" : ""}\n`,
  );
  await stopAllChildren();
  process.exitCode = wrongly ? 2 : 1;
}
