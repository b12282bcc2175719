/**
 * The path of packets with nothing beneath it: native thread in, a worker that reads the header, native thread out, on
 * a wire in memory whose mirror sends each packet back from within the native thread.
 *
 * So nobody else takes part: the packets circle, and each is counted once a turn, in and out.
 */

import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { type Row, row } from "../lib/bench.ts";
import { cpuBetween, snapshotCpu } from "../lib/cpu-time.ts";
import { median } from "../lib/stats.ts";
import type { Effort, Part } from "./part.ts";
import { sleep } from "./path.ts";
import { Station } from "./station.ts";

const bytes = 64;
const own = "10.79.0.1";
const peer = "10.79.0.2";
/** Packets that circle: enough that both threads have a batch at hand, few enough that they stay in the cache. */
const circulating = 1024;
/** The worker has a processor of its own: it looks for some hundred microseconds before it sleeps. */
const idleLooks = 5000;
const settleMs = 300;
const mark = { op: ">=", target: 3 } as const;

export const memPart: Part = {
  name: "mem",
  async measure({ rounds, windowMs, say }: Effort): Promise<Row[]> {
    const wire = createWire();
    wire.mirror(peer);
    const station = new Station({
      kind: "mem",
      options: { wire, address: `${own}/24` },
      own,
      peer,
      circulating,
      idleLooks,
    });
    try {
      await station.ready();
      station.set("through", bytes);
      await sleep(settleMs);
      const rates: number[] = [];
      const costs: number[] = [];
      for (let round = 0; round <= rounds; round += 1) {
        const cpuBefore = snapshotCpu(process.pid);
        const before = station.read();
        await sleep(windowMs);
        const after = station.read();
        const { cpuNs, threads } = cpuBetween(cpuBefore, snapshotCpu(process.pid));
        const packets = after.packets - before.packets;
        if (round === 0) continue;
        rates.push(packets / (after.us - before.us));
        costs.push(cpuNs / packets);
        const busiest = threads.slice(0, 3).map((thread) => {
          return `${thread.name} ${(thread.cpuNs / (after.us - before.us) / 10).toFixed(0)} %`;
        });
        say(`mem, round ${round}: ${rates.at(-1)?.toFixed(2)} M packets/s (${busiest.join(", ")})`);
      }
      return [
        row("mem, in, read by a worker, and out, 64 bytes", median(rates), "M packets/s", mark),
        row("mem, in, read by a worker, and out, 64 bytes: CPU", median(costs), "ns/packet"),
      ];
    } finally {
      await station.close();
    }
  },
};
