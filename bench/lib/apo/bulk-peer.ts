/**
 * One end of a bulk transfer that is ours, told what to do like `tools/bulk_peer.c`; or, with a wire in memory, both.
 *
 *   bulk-peer.ts '{"runtime":{"link":"tun",…},"placement":"worker","port":5001}'           listens
 *   bulk-peer.ts '{"runtime":{"link":"tun",…},"placement":"worker","to":"10.0.0.2:5001"}'  connects
 *   bulk-peer.ts '{"wire":{"loss":0.01},"placement":"worker","port":5001}'                 two runtimes on `mem`
 *
 * Lines on stdin: "up N", "down N" (once), "read", "counters".
 */
import { createInterface } from "node:readline";
import { createRuntime } from "../../../src/layer1-app/runtime.ts";
import type { Apo, RuntimeOptions } from "../../../src/layer1-app/types.ts";
import { createWire, type WireOptions } from "../../../src/layer3-ip/links/mem.ts";
import { cell, shareCounts } from "./bulk-counts.ts";
import { handlersAt, type Placement } from "./placement.ts";

export interface BulkPeerOptions {
  readonly runtime?: RuntimeOptions;
  readonly wire?: WireOptions;
  readonly placement: Placement;
  readonly port?: number;
  readonly to?: string;
}

/** What a peer answers: bytes read at this end (of `mem`: at either), connections that stand, microseconds. */
export interface BulkReading {
  readonly bytes: number;
  readonly streams: number;
  readonly us: number;
}

const recvlen = 2 ** 20;

class BulkPeer {
  private readonly options: BulkPeerOptions;
  private readonly listened = shareCounts("listener");
  private readonly called = shareCounts("caller");
  private readonly runtimes: Apo[] = [];
  private to = "";

  constructor(options: BulkPeerOptions) {
    this.options = options;
  }

  async start(): Promise<void> {
    const { runtime, wire, port, to, placement } = this.options;
    const made = wire && createWire({ inboxBytes: 2 ** 28, ...wire });
    const first = await this.runtime(
      made ? { link: "mem", wire: made, address: "10.0.0.1/24" } : (runtime ?? {}),
    );
    if (made) await this.runtime({ link: "mem", wire: made, address: "10.0.0.2/24" });
    this.to = to ?? `10.0.0.1:${port}`;
    if (port === undefined) return;
    const handlers = await handlersAt(placement, new URL("./bulk-listener.ts", import.meta.url));
    await first.opens({ protocol: "tcp", port, recvlen, ...handlers });
  }

  async obey(line: string): Promise<object> {
    const [word, number = "1"] = line.split(" ");
    if (word === "counters") return this.counters();
    if (word === "up" || word === "down") await this.open(Number(number), word === "up");
    return this.read();
  }

  async stop(): Promise<void> {
    for (const apo of this.runtimes) await apo.close();
  }

  private async runtime(options: RuntimeOptions): Promise<Apo> {
    const apo = await createRuntime({ workers: 1, ...options });
    this.runtimes.push(apo);
    return apo;
  }

  private async open(streams: number, sends: boolean): Promise<void> {
    this.called[cell.sends] = sends ? 1 : 0;
    const apo = this.runtimes.at(-1) as Apo;
    const handlers = await handlersAt(this.options.placement, new URL("./bulk-caller.ts", import.meta.url));
    const opening = Array.from({ length: streams }, () =>
      apo.opens({ protocol: "tcp", to: this.to, recvlen, ...handlers }),
    );
    await Promise.all(opening);
  }

  private read(): BulkReading {
    const sum = (place: number) => (this.listened[place] as number) + (this.called[place] as number);
    const us = Number(process.hrtime.bigint() / 1000n);
    return { bytes: sum(cell.bytes), streams: sum(cell.streams), us };
  }

  private counters(): Record<string, number> {
    const all: Record<string, number> = {};
    for (const apo of this.runtimes) {
      for (const [name, count] of Object.entries(apo.counters())) {
        if (count > 0) all[name] = (all[name] ?? 0) + count;
      }
    }
    return all;
  }
}

async function main(options: BulkPeerOptions): Promise<void> {
  const peer = new BulkPeer(options);
  await peer.start();
  process.stdout.write('{"ready":true}\n');
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await peer.obey(line))}\n`);
  }
  await peer.stop();
}

if (process.argv[1] === import.meta.filename)
  await main(JSON.parse(process.argv[2] ?? "{}") as BulkPeerOptions);
