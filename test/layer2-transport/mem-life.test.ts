/**
 * Runtimes on a wire come and go in a process of their own: what they leave behind, and whether the process ends.
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

const source = (path: string): string => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);

/** Runs a program in a process of its own; how it ended, and what it printed. */
function run(program: string): {
  status: number | null;
  signal: string | null;
  lines: string[];
  errors: string;
} {
  const prelude = `
    import { readdirSync, readFileSync } from "node:fs";
    import { createRuntime, createWire } from ${source("index.ts")};
    const workerSource = ${JSON.stringify(source("index.ts"))};
    const echo = async (wire) => {
      const a = await createRuntime({ link: "mem", wire, address: "10.0.0.1/24", workers: 1 });
      const b = await createRuntime({ link: "mem", wire, address: "10.0.0.2/24", workers: 1 });
      await a.opens({ protocol: "udp", port: 7, request: (fd, message, apo) => apo.sendto(fd, message.bytes) });
      const text = await new Promise((resolve, reject) => {
        const request = (_, message) => resolve(message.text());
        b.opens({ protocol: "udp", to: "10.0.0.1:7", news: "hello", request }).catch(reject);
      });
      await a.close();
      await b.close();
      return text;
    };
  `;
  const folder = mkdtempSync(join(tmpdir(), "apo-mem-life-"));
  const script = join(folder, "program.mts");
  writeFileSync(script, prelude + program);
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ["--expose-gc", "--no-warnings", script],
    {
      encoding: "utf8",
      timeout: 55_000,
      killSignal: "SIGKILL",
    },
  );
  rmSync(folder, { recursive: true });
  return { status, signal, lines: stdout.trim().split("\n"), errors: stderr };
}

test("a process ends by itself when its runtimes are closed", () => {
  const ended = run(`console.log(await echo(createWire()));`);
  expect(ended).toEqual({ status: 0, signal: null, lines: ["hello"], errors: "" });
});

test("a runtime in another thread joins the wire by its number, and leaves it when the thread is terminated", () => {
  const ended = run(`
    const { Worker } = await import("node:worker_threads");
    const wire = createWire();
    const a = await createRuntime({ link: "mem", wire, address: "10.0.0.1/24", workers: 1 });
    await a.opens({ protocol: "udp", port: 7, request: (fd, message, apo) => apo.sendto(fd, message.bytes) });
    const program = \`
      import { parentPort, workerData } from "node:worker_threads";
      import { createRuntime, openWire } from \${workerSource};
      const b = await createRuntime({ link: "mem", wire: openWire(workerData), address: "10.0.0.2/24", workers: 1 });
      const request = (_, message) => parentPort.postMessage(message.text());
      await b.opens({ protocol: "udp", to: "10.0.0.1:7", news: "from another thread", request });
    \`;
    const url = new URL("data:text/javascript," + encodeURIComponent(program));
    const worker = new Worker(url, { workerData: wire.id });
    const text = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    console.log(text, wire.endpoints);
    await worker.terminate();
    console.log(wire.endpoints);
    await a.close();
  `);
  expect(ended).toEqual({ status: 0, signal: null, lines: ["from another thread 2", "1"], errors: "" });
});

test("50 runtimes, two by two, leave no thread, no descriptor and no mapping behind", () => {
  const ended = run(`
    const tasks = () => readdirSync("/proc/self/task").length;
    const fds = () => readdirSync("/proc/self/fd").length;
    const maps = () => readFileSync("/proc/self/maps", "utf8").split("\\n").length;
    const settle = async () => {
      for (let i = 0; i < 10; i += 1) { gc(); await new Promise((resolve) => setTimeout(resolve, 10)); }
    };
    const wire = createWire();
    for (let i = 0; i < 5; i += 1) await echo(wire);
    await settle();
    const before = { tasks: tasks(), fds: fds(), maps: maps() };
    for (let i = 0; i < 25; i += 1) await echo(wire);
    await settle();
    // Counted before anything is printed: the first line opens a descriptor of its own.
    const more = { tasks: tasks() - before.tasks, fds: fds() - before.fds, maps: maps() - before.maps };
    console.log(wire.endpoints, more.tasks, more.fds, more.maps < 50 ? "no mappings" : \`\${more.maps} mappings\`);
  `);
  expect(ended).toEqual({ status: 0, signal: null, lines: ["0 0 0 no mappings"], errors: "" });
});
