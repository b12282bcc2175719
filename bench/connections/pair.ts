/**
 * Very many TCP connections between two runtimes of ours on a wire in memory, in one process.
 *
 *   pair.ts '{"connections":1000000,"version6":false}'
 *
 * Memory of the server's side is what the process has grown by, without what was made by and for the client alone: the
 * mappings that came with its runtime (its v-nodes, its frames, its threads' stacks), and the bench's own list. What
 * cannot be told apart (the heaps and tables that grow) counts as the server's, the client's half too.
 */
import { setEnvironmentData } from "node:worker_threads";
import { createRuntime } from "../../src/layer1-app/runtime.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { cell, herdBytes, herdKey } from "../lib/apo/herd-caller.ts";
import { grownSince, mappings, total } from "./memory.ts";

export interface PairOptions {
  readonly connections: number;
  /** IPv6, where flow labels carry the numbers. */
  readonly version6: boolean;
}

export interface PairFigures {
  readonly opened: number;
  readonly answered: number;
  readonly answeredAgain: number;
  /** Connections that ended, replies of a wrong length, and opens that failed. */
  readonly lost: number;
  readonly openSeconds: number;
  readonly againSeconds: number;
  /** Bytes of RSS a connection. */
  readonly serverBytes: number;
  readonly bothBytes: number;
  /** What was dropped, by reason. */
  readonly drops: Readonly<Record<string, number>>;
}

const port = 7;
const looksMs = 20;

async function main({ connections, version6 }: PairOptions): Promise<void> {
  const memory = new Float64Array(new SharedArrayBuffer(herdBytes(connections)));
  setEnvironmentData(herdKey, memory.buffer as unknown as never);
  const wire = createWire({ inboxBytes: 2 ** 26 });
  const address = version6 ? "fd00::1/16" : "10.0.0.1/8";
  const server = await createRuntime({ link: "mem", wire, address, workers: 1 });
  const module = new URL("../lib/apo/echo-handlers.ts", import.meta.url);
  const backlog = Math.ceil(connections / 256);
  const listener = await server.opens({ protocol: "tcp", port, backlog, module, placement: "worker" });
  const withServer = mappings();
  const client = await createRuntime({
    link: "mem",
    wire,
    address: version6 ? "fd00::2/16" : "10.0.0.2/8",
    prefixes: version6 ? "fd01::/32" : "10.128.0.0/9",
    workers: 1,
  });
  const withClient = mappings();
  const before = total(withClient);
  const begun = performance.now();
  const group = await client.opens({
    protocol: "tcp",
    to: version6 ? `[fd00::1]:${port}` : `10.0.0.1:${port}`,
    connections,
    connectMs: 120_000,
    module: new URL("../lib/apo/herd-caller.ts", import.meta.url),
    placement: "worker",
  });
  await stalled(() => memory[cell.connected] as number, connections);
  const openSeconds = (performance.now() - begun) / 1000;
  await stalled(() => memory[cell.answered] as number, connections);
  const again = performance.now();
  memory[cell.again] = 1;
  await stalled(() => memory[cell.answeredAgain] as number, connections);
  const againSeconds = (performance.now() - again) / 1000;
  const now = mappings();
  const both = total(now) - before - 8 * connections;
  const ofClient = grownSince(withServer, withClient, now);
  const opened = listener.connections;
  const failed = Object.values(group.failed).reduce((sum, count) => sum + count, 0);
  const figures: PairFigures = {
    opened,
    answered: memory[cell.answered] as number,
    answeredAgain: memory[cell.answeredAgain] as number,
    lost: (memory[cell.closed] as number) + (memory[cell.wrong] as number) + failed,
    openSeconds,
    againSeconds,
    serverBytes: (both - ofClient) / connections,
    bothBytes: both / connections,
    drops: dropsOf({ ...server.counters() }, { ...client.counters() }),
  };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
  process.exit();
}

/** Waits until `count` says `wanted`, or has not moved for 20 s. */
async function stalled(count: () => number, wanted: number): Promise<void> {
  let last = -1;
  for (let quietMs = 0; count() < wanted && quietMs < 20_000; quietMs += looksMs) {
    if (count() !== last) quietMs = 0;
    last = count();
    await new Promise((resolve) => setTimeout(resolve, looksMs));
  }
}

function dropsOf(...all: Record<string, number>[]): Record<string, number> {
  const drops: Record<string, number> = {};
  for (const counters of all) {
    for (const [name, count] of Object.entries(counters)) {
      if (count > 0 && /drop|refused|failed|retransmits|timeouts|guard|find\./.test(name))
        drops[name] = (drops[name] ?? 0) + count;
    }
  }
  return drops;
}

if (process.argv[1] === import.meta.filename) await main(JSON.parse(process.argv[2] ?? "{}") as PairOptions);
