/**
 * The benches' own tools: statistics, rows and marks, tables, the command line. No bench is run and nothing is timed.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Report, row } from "../../bench/lib/bench.ts";
import { runCommandLine } from "../../bench/lib/command-line.ts";
import { cpuBetween, listensOn, snapshotCpu } from "../../bench/lib/cpu-time.ts";
import { median, percentile, rounded } from "../../bench/lib/stats.ts";
import { rowsTable } from "../../bench/lib/table.ts";

describe("statistics", () => {
  test("the median is the middle, or the mean of the two middle ones", () => {
    expect(median([5, 1, 9])).toBe(5);
    expect(median([4, 1, 2, 9])).toBe(3);
    expect(median([])).toBeNaN();
  });

  test("a percentile is one of the values, with that share of them at or below it", () => {
    expect(percentile([10, 20, 30, 40], 0.5)).toBe(20);
    expect(percentile([10, 20, 30, 40], 0.99)).toBe(40);
    expect(percentile([], 0.5)).toBeNaN();
    const values = fc.array(fc.integer(), { minLength: 1, maxLength: 300 });
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (all, share) => {
        const found = percentile(all, share);
        const atOrBelow = all.filter((value) => value <= found).length;
        const below = all.filter((value) => value < found).length;
        return all.includes(found) && atOrBelow >= share * all.length && below <= share * all.length;
      }),
    );
  });

  test("figures are rounded to three digits and never to nothing", () => {
    expect([12_345.6, 123.45, 1.2345, 0.012345, 0, -2.3456].map(rounded)).toEqual([
      12_346, 123, 1.23, 0.0123, 0, -2.35,
    ]);
  });
});

describe("rows", () => {
  test("a mark is judged inclusively, both ways", () => {
    expect(row("a", 8, "ms", { op: "<=", target: 8 }).pass).toBe(true);
    expect(row("a", 8.01, "ms", { op: "<=", target: 8 }).pass).toBe(false);
    expect(row("a", 7.99, "x", { op: ">=", target: 8 }).pass).toBe(false);
    expect(row("a", 8, "x")).toEqual({ name: "a", value: 8, unit: "x", op: null, target: null, pass: null });
  });

  test("what could not be measured never passes", () => {
    expect(row("a", Number.NaN, "ms", { op: "<=", target: 8 }).pass).toBe(false);
    expect(row("a", Number.NaN, "ms", { op: ">=", target: 8 }).pass).toBe(false);
  });

  test("the table is aligned and says which mark was missed", () => {
    const rows = [row("short", 1, "ms"), row("a longer one", 1234.5, "ns", { op: "<=", target: 1000 })];
    expect(rowsTable(rows).split("\n")).toEqual([
      "measure       value  unit  mark",
      "short             1  ms",
      "a longer one   1235  ns    <= 1000  MISSED",
    ]);
  });
});

test("a process's CPU time grows while it computes, and its threads add up to it", () => {
  const before = snapshotCpu(process.pid);
  let sum = 0;
  for (let i = 0; i < 50_000_000; i++) sum = (sum + i) | 0;
  const used = cpuBetween(before, snapshotCpu(process.pid));
  expect(sum).not.toBe(0.5);
  expect(used.cpuNs).toBeGreaterThan(0);
  expect(used.threads.reduce((all, thread) => all + thread.cpuNs, 0)).toBe(used.cpuNs);
});

test("a port counts as listened on only by the process that listens", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const other = spawn("sleep", ["60"]);
  try {
    expect(listensOn(process.pid, port)).toBe(true);
    expect(listensOn(other.pid!, port)).toBe(false);
  } finally {
    other.kill();
    server.close();
  }
  await once(server, "close");
  expect(listensOn(process.pid, port)).toBe(false);
});

describe("the command line", () => {
  let folder = "";
  let out = "";
  let err = "";

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "apo-benches-"));
    out = "";
    err = "";
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  function addBench(name: string, rows: unknown[]): void {
    mkdirSync(join(folder, name));
    const run = `async run(context) { context.say("quick: " + context.quick); return ${JSON.stringify(rows)}; }`;
    const source = `export const bench = { name: "${name}", summary: "measures ${name}", ${run} };`;
    writeFileSync(join(folder, name, "index.ts"), source);
  }

  const run = (...args: string[]) => runIn(folder, ...args);

  const runIn = (benches: string, ...args: string[]) =>
    runCommandLine(args, {
      folder: benches,
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    });

  test("--list names every folder that holds a bench, one line each", async () => {
    addBench("two", []);
    addBench("three", []);
    mkdirSync(join(folder, "lib"));
    expect(await run("--list")).toBe(0);
    expect(out).toBe("three  measures three\ntwo    measures two\n");
  });

  test("--list of this repository names the fan-out bench", async () => {
    expect(await runIn(fileURLToPath(new URL("../../bench", import.meta.url)), "--list")).toBe(0);
    expect(out).toMatch(/^fanout {2,}\S/m);
  });

  test("--json prints one object and nothing else; progress goes to the other stream", async () => {
    const rows = [row("speed", 3, "m/s", { op: ">=", target: 4 })];
    addBench("one", rows);
    expect(await run("one", "--json", "--quick")).toBe(0);
    const report = JSON.parse(out) as Report;
    expect(Object.keys(report)).toEqual(["bench", "machine", "date", "rows"]);
    expect(report).toMatchObject({ bench: "one", rows });
    expect(report.machine).toContain("Linux");
    expect(new Date(report.date).toISOString()).toBe(report.date);
    expect(err).toMatch(/^(this machine is busy .*\n)?quick: true\n$/);
  });

  test("a missed mark is told, and fails the run only with --strict", async () => {
    addBench("one", [row("speed", 3, "m/s", { op: ">=", target: 4 })]);
    expect(await run("one")).toBe(0);
    expect(out).toContain("0 of 1 marks reached; missed: speed");
    expect(await run("one", "--strict")).toBe(1);
  });

  test.each([
    [["nope"], 'there is no bench "nope"; there are: one'],
    [[], "name one bench to run: one"],
    [["one", "two"], "name one bench to run: one"],
    [["one", "--nope"], "--nope"],
  ])("%j is used wrongly: a clear error and status 2", async (args, message) => {
    addBench("one", []);
    expect(await run(...args)).toBe(2);
    expect(err).toContain(message);
    expect(out).toBe("");
  });

  test("a bench that throws is status 1, with its message", async () => {
    mkdirSync(join(folder, "bad"));
    const source =
      'export const bench = { name: "bad", summary: "", run() { throw new Error("no luck"); } };';
    writeFileSync(join(folder, "bad", "index.ts"), source);
    expect(await run("bad", "--json")).toBe(1);
    expect(err).toMatch(/^(this machine is busy .*\n)?bench: no luck\n$/);
    expect(out).toBe("");
  });
});
