/**
 * Two runtimes of ours on a wire in memory, in one process: an echo server and its clients. Tells what the server's
 * threads have used.
 *
 *   mem-pair.ts '{"connections":100,"placement":"worker","warmMs":500,"runMs":1000}'
 *
 * The server's threads are those that its `createRuntime` and `opens` have started; the main thread is nobody's unless
 * the handlers run there, and V8's own helpers (compiler, collector) are counted for the server.
 */
import { setEnvironmentData } from "node:worker_threads";
import { createRuntime } from "../../src/layer1-app/runtime.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { callerBytes, callerKey, cell, shareUs } from "../lib/apo/echo-caller.ts";
import { echoPort } from "../lib/apo/echo-server.ts";
import { handlersAt, type Placement } from "../lib/apo/placement.ts";
import { cpuBetween, snapshotCpu } from "../lib/cpu-time.ts";

export interface MemPairOptions {
  readonly connections: number;
  readonly placement: Placement;
  readonly warmMs: number;
  readonly runMs: number;
}

export interface MemPairFigures {
  readonly requests: number;
  readonly seconds: number;
  readonly serverCpuNs: number;
  readonly p50: number;
  readonly p99: number;
  /** The busiest threads, with whose they are. */
  readonly threads: string;
}

/** Each of 10,000 answers that are not acknowledged yet has a frame of its own. */
const poolBytes = 2 ** 28;
const mainThread = `${process.pid}/${process.pid}`;

async function main({ connections, placement, warmMs, runMs }: MemPairOptions): Promise<void> {
  const memory = new Float64Array(new SharedArrayBuffer(callerBytes));
  memory[cell.requestBytes] = 64;
  setEnvironmentData(callerKey, memory.buffer as unknown as never);
  const wire = createWire();
  const server = await createRuntime({ link: "mem", wire, address: "10.0.0.1/8", workers: 1, poolBytes });
  const echo = new URL("../lib/apo/echo-handlers.ts", import.meta.url);
  await server.opens({
    protocol: "tcp",
    port: echoPort,
    backlog: 256,
    ...(await handlersAt(placement, echo)),
  });
  const before = new Set(snapshotCpu(process.pid).threads.keys());
  const client = await createRuntime({ link: "mem", wire, address: "10.0.0.2/8", workers: 1, poolBytes });
  const caller = new URL("../lib/apo/echo-caller.ts", import.meta.url);
  const to = `10.0.0.1:${echoPort}`;
  const group = { connections, connectMs: 100_000, ...(await handlersAt("worker", caller)) };
  await client.opens({ protocol: "tcp", to, ...group });
  while ((memory[cell.connected] as number) < connections) await sleep(5);
  await sleep(warmMs);
  const ofServer = (id: string) => before.has(id) && (id !== mainThread || placement === "app");
  const used = snapshotCpu(process.pid);
  memory[cell.running] = 1;
  const begun = performance.now();
  await sleep(runMs);
  memory[cell.running] = 0;
  const seconds = (performance.now() - begun) / 1000;
  const { threads } = cpuBetween(used, snapshotCpu(process.pid));
  const figures: MemPairFigures = {
    requests: memory[cell.requests] as number,
    seconds,
    serverCpuNs: threads.reduce((sum, { id, cpuNs }) => sum + (ofServer(id) ? cpuNs : 0), 0),
    p50: shareUs(memory, 0.5),
    p99: shareUs(memory, 0.99),
    threads: threads
      .slice(0, 5)
      .map(
        ({ id, name, cpuNs }) =>
          `${ofServer(id) ? "server" : "client"} ${name} ${(cpuNs / seconds / 1e7).toFixed(0)} %`,
      )
      .join(", "),
  };
  if (memory[cell.closed] !== 0) throw new Error(`${memory[cell.closed]} connections ended by themselves`);
  process.stdout.write(`${JSON.stringify(figures)}\n`);
  process.exit();
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

if (process.argv[1] === import.meta.filename)
  await main(JSON.parse(process.argv[2] ?? "{}") as MemPairOptions);
