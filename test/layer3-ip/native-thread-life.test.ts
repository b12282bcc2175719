/**
 * The native thread's life: it goes with its link, with its process and with the thread that made it, and leaves
 * nothing behind. Whole processes are run, since how a process ends is what is looked at.
 */

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const source = (path: string): string => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
const startMemLink = JSON.stringify(new URL("./start-mem-link.ts", import.meta.url).href);

const prelude = `
import { readdirSync, readFileSync } from "node:fs";
import { Worker, isMainThread } from "node:worker_threads";
import { createWire, openWire } from ${source("layer3-ip/links/mem.ts")};
import { startMemLink } from ${startMemLink};
import { createPool } from ${source("layer3-ip/pool.ts")};
const join = (wire, address) =>
  startMemLink({ wire, address, pool: createPool({ partitions: 2, small: 64, large: 1 }), partition: 1 });
const nativeThreads = () =>
  readdirSync("/proc/self/task").filter((task) =>
    readFileSync(\`/proc/self/task/\${task}/comm\`, "utf8").startsWith("apo-layer3")).length;
const until = async (condition) => { while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5)); };
`;

/** Runs a program in a process of its own; what it printed, and how it ended. */
function run(program: string): {
  status: number | null;
  signal: string | null;
  lines: string[];
  errors: string;
} {
  const args = [
    "--expose-gc",
    "--input-type=module-typescript",
    "--no-warnings",
    "--eval",
    prelude + program,
  ];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    timeout: 50_000,
    killSignal: "SIGKILL",
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
  });
  return { status, signal, lines: stdout.trim().split("\n"), errors: stderr };
}

describe("the native thread", () => {
  test("lets a process end that has not closed it", () => {
    const { status, signal, lines, errors } = run(`
      const wire = createWire();
      globalThis.kept = join(wire, "10.0.0.1/24");
      console.log(nativeThreads());
    `);
    expect({ status, signal, lines, errors }).toEqual({ status: 0, signal: null, lines: ["1"], errors: "" });
  });

  test("survives process.exit with packets under way", () => {
    const { status, lines } = run(`
      const wire = createWire();
      globalThis.kept = join(wire, "10.0.0.1/24");
      for (let i = 0; i < 1000; i += 1) wire.inject("10.0.0.1", new Uint8Array(1000));
      console.log("going");
      process.exit(7);
    `);
    expect({ status, lines }).toEqual({ status: 7, lines: ["going"] });
  });

  test("ends with close, which may be called again", () => {
    const { status, lines, errors } = run(`
      const wire = createWire();
      const link = join(wire, "10.0.0.1/24");
      console.log(nativeThreads());
      link.close();
      link.close();
      console.log(nativeThreads(), wire.endpoints);
      try { link.attachWorker(0, [0]); } catch (error) { console.log(error.code); }
    `);
    expect({ status, lines, errors }).toEqual({ status: 0, lines: ["1", "0 0", "ECLOSED"], errors: "" });
  });

  test("ends when nobody holds its link any more", () => {
    const { status, lines, errors } = run(`
      const wire = createWire();
      (() => join(wire, "10.0.0.1/24"))();
      await until(() => { gc(); return nativeThreads() === 0; });
      console.log(wire.endpoints);
    `);
    expect({ status, lines, errors }).toEqual({ status: 0, lines: ["0"], errors: "" });
  });

  test("ends with the worker thread that made it, closed or terminated", () => {
    const { status, lines, errors } = run(`
      const wire = createWire();
      const program = (tail) => \`
        import { openWire } from ${source("layer3-ip/links/mem.ts").replaceAll("\\", "\\\\")};
        import { startMemLink } from ${startMemLink.replaceAll("\\", "\\\\")};
        import { createPool } from ${source("layer3-ip/pool.ts").replaceAll("\\", "\\\\")};
        import { parentPort, workerData } from "node:worker_threads";
        const pool = createPool({ partitions: 2, small: 64, large: 1 });
        globalThis.kept = startMemLink({ wire: openWire(workerData), address: "10.0.0.2/24", pool, partition: 1 });
        parentPort.postMessage("up");
        \${tail}\`;
      for (const tail of ["", "for (;;);", "setInterval(() => {}, 1000);"]) {
        const url = new URL("data:text/javascript," + encodeURIComponent(program(tail)));
        const worker = new Worker(url, { workerData: wire.id });
        const ended = new Promise((resolve) => worker.once("exit", resolve));
        await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
        if (tail !== "") await worker.terminate();
        await ended;
        console.log(nativeThreads(), wire.endpoints);
      }
    `);
    expect({ status, lines, errors }).toEqual({ status: 0, lines: ["0 0", "0 0", "0 0"], errors: "" });
  });

  test("50 of them leave no thread, no descriptor and no mapping behind", () => {
    const { status, lines, errors } = run(`
      const count = (path) => readdirSync(path).length;
      const maps = () => readFileSync("/proc/self/maps", "utf8").split("\\n").length;
      const round = async () => {
        const wire = createWire();
        const a = join(wire, "10.0.0.1/24");
        const b = join(wire, "10.0.0.2/24");
        wire.inject("10.0.0.1", new Uint8Array(100));
        a.attachWorker(0, [0, 1]);
        b.close();
        a.close();
      };
      const settle = async () => {
        for (let i = 0; i < 10; i += 1) { gc(); await new Promise((resolve) => setTimeout(resolve, 10)); }
      };
      for (let i = 0; i < 10; i += 1) await round();
      await settle();
      const before = { fds: count("/proc/self/fd"), maps: maps() };
      for (let i = 0; i < 50; i += 1) await round();
      await settle();
      // Counted before anything is printed: the first line opens a descriptor of its own.
      const after = { threads: nativeThreads(), fds: count("/proc/self/fd") - before.fds, maps: maps() - before.maps };
      console.log(after.threads, after.fds, after.maps < 25 ? "no mappings" : \`\${after.maps} mappings\`);
    `);
    expect({ status, lines, errors }).toEqual({ status: 0, lines: ["0 0 no mappings"], errors: "" });
  });
});
