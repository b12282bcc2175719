/**
 * The layer-3 bench's parts: its C loops compile and count truly, a station passes packets on, rows carry the marks.
 * Nothing is timed.
 */
import { constants } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Cell, cellRows } from "../../bench/l3/devices.ts";
import { compilePrograms, type Ground, ip, macOf, start } from "../../bench/l3/ground.ts";
import { CannotRun } from "../../bench/l3/part.ts";
import type { PathFigures } from "../../bench/l3/path.ts";
import { type Reading, Station } from "../../bench/l3/station.ts";
import { superBytes } from "../../bench/l3/worker.ts";
import type { Child } from "../../bench/lib/children.ts";
import { openWorkshop, type Workshop } from "../../bench/lib/compile.ts";
import { createNetwork } from "../../bench/lib/netns.ts";
import { frameOf, receivedUsLowOf } from "../../src/layer3-ip/descriptor.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { loadNative } from "../../src/layer3-ip/native.ts";
import { createPool, FramePool } from "../../src/layer3-ip/pool.ts";
import { createRing, RingConsumer } from "../../src/layer3-ip/ring.ts";
import { describeInNamespaces, eventually } from "../support/netns.ts";

describe("rows", () => {
  const figures = (packetsPerSecond: number): PathFigures => ({
    packetsPerSecond,
    bytesPerSecond: 1000 * packetsPerSecond,
    cpuNsPerPacket: 500,
    threads: "",
  });
  const cell = (bytes: number, ours: number[], loop: number[]): Cell => ({
    mode: "in",
    bytes,
    rounds: { ours: ours.map(figures), "C loop": loop.map(figures) },
  });

  test("a ratio is the median of the rounds' own, and carries the mark", () => {
    const [ratio, own, cost] = cellRows("tun", cell(64, [8e5, 1e6, 2e5], [1e6, 1e6, 1e6]));
    expect(ratio).toEqual({
      name: "tun, in, 64 bytes: ours / C loop",
      value: 0.8,
      unit: "x",
      op: ">=",
      target: 0.8,
      pass: true,
    });
    expect(own).toMatchObject({
      name: "tun, in, 64 bytes: ours",
      value: 0.8,
      unit: "M packets/s",
      pass: null,
    });
    expect(cost).toMatchObject({ value: 500, unit: "ns/packet" });
  });

  test("super-packets are compared by their bytes", () => {
    const rows = cellRows("tun", cell(65_536, [1e6], [2e6]));
    expect(rows[0]).toMatchObject({
      name: "tun, in, 64 KB super-packets: ours / C loop",
      value: 0.5,
      pass: false,
    });
    expect(rows[3]).toMatchObject({ value: 2, unit: "GB/s" });
  });
});

describe("the native thread of the ring bench", () => {
  const pool = createPool({ partitions: 2, small: 1024, large: 1 });
  const native = loadNative();

  test("fills a ring in order with frames of the pool, and gives them back", () => {
    const memory = createRing(64);
    const bells = new Uint32Array(new SharedArrayBuffer(4 * 32));
    const thread = new native.NativeBenchThread(new Uint32Array(memory), bells, new Uint32Array(pool), 1);
    expect(thread.start(0, 1000, 16)).toBe(0);
    expect(thread.start(0, 1000, 16)).toBe(constants.errno.EBUSY);
    const ring = new RingConsumer(memory);
    const deadline = performance.now() + 10_000;
    let taken = 0;
    while (taken < 1000 && performance.now() < deadline) {
      for (let at = ring.take(); at >= 0; at = ring.take()) {
        expect(receivedUsLowOf(ring.words, at)).toBe(taken);
        expect(frameOf(ring.words, at)).toBeGreaterThan(0);
        taken += 1;
      }
      ring.release();
    }
    expect(thread.join()).toBe(1000);
    thread.close();
    expect(new FramePool(pool, 0).framesInUse()).toBe(0);
  });

  test("ends in the middle of a job when it is closed", () => {
    const bells = new Uint32Array(new SharedArrayBuffer(4 * 32));
    for (const job of [0, 1, 2]) {
      const ring = new Uint32Array(createRing(64));
      const thread = new native.NativeBenchThread(ring, bells, new Uint32Array(pool), 1);
      expect(thread.start(job, 1e9, 16)).toBe(0);
      thread.close();
    }
    expect(new FramePool(pool, 0).framesInUse()).toBe(0);
  });

  test("refuses what is no ring, no pool and no job", () => {
    const bells = new Uint32Array(new SharedArrayBuffer(4 * 32));
    const ring = new Uint32Array(createRing(64));
    const make = native.NativeBenchThread;
    expect(() => new make(bells.subarray(0, 3), bells, new Uint32Array(pool), 1)).toThrow(/are needed/);
    expect(() => new make(ring, bells, ring, 1)).toThrow(/are needed/);
    const thread = new make(ring, bells, new Uint32Array(pool), 1);
    expect(() => thread.start(3, 1, 1)).toThrow(/no such job/);
    expect(() => thread.start(0, 1, 0)).toThrow(/no such job/);
    thread.close();
  });
});

test("a station sends, reads and sends back", async () => {
  const wire = createWire();
  const ends = { own: "10.79.0.1", peer: "10.79.0.2" };
  const back = { own: ends.peer, peer: ends.own };
  const a = new Station({
    kind: "mem",
    options: { wire, address: "10.79.0.1/24" },
    ...ends,
    circulating: 100,
  });
  const b = new Station({ kind: "mem", options: { wire, address: "10.79.0.2/24" }, ...back });
  await Promise.all([a.ready(), b.ready()]);
  b.set("through", 64);
  a.set("through", 64);
  await eventually("each packet has come round ten times", () => a.read().packets >= 1000);
  b.set("in");
  await eventually("b keeps what comes", () => b.link.counters()["layer3.rx.delivered"] === b.read().packets);
  expect(a.read().bytes).toBe(64 * a.read().packets);
  await a.close();
  await b.close();
});

describeInNamespaces("the C loops", () => {
  let workshop: Workshop;
  let ground: Ground;
  const children: Child[] = [];
  const keep = async (starting: Promise<Child>): Promise<Child> => {
    const child = await starting;
    children.push(child);
    return child;
  };

  beforeAll(async () => {
    workshop = await openWorkshop();
    const network = await createNetwork(() => {});
    ground = { network, programs: await compilePrograms(workshop) };
  });
  afterAll(async () => {
    await ground?.network.close();
    workshop?.close();
  });

  /** Puts a loop through all that it can be told, and counts at both ends. */
  async function exercise(
    loop: Child,
    where: "server" | "sink",
    meterOn: [string, string],
    ends: [string, string],
    sizes: readonly number[],
  ): Promise<void> {
    const { meter: meterProgram, generator: generatorProgram } = ground.programs;
    const meter = await keep(start(ground, where, [meterProgram, ...meterOn]));
    const generator = await keep(start(ground, where, [generatorProgram, ...ends]));
    for (const size of sizes) {
      const length = size > 1500 ? superBytes : size;
      for (const mode of ["in", "out", "through"] as const) {
        const from = mode === "in" ? loop : meter;
        const before = await from.ask<Reading>("read");
        await loop.ask(`${mode} ${size}`);
        if (mode !== "out") await generator.ask(`start ${size}`);
        // By bytes: a few packets of the size before may still be on their way.
        await eventually(`${mode} ${size}: a hundred packets' worth is counted`, async () => {
          const now = await from.ask<Reading>("read");
          return now.packets > before.packets && now.bytes - before.bytes >= 100 * length;
        });
        if (mode !== "out") await generator.ask("stop");
        await loop.ask("idle");
      }
    }
    for (const child of children.splice(0).reverse()) await child.stop();
  }

  test("tun: small packets and super-packets, in, out and through", async () => {
    const { tun_loop } = ground.programs;
    const loop = await keep(start(ground, "server", [tun_loop, "bench0", "10.78.0.2", "10.78.0.1"]));
    await ip(ground, "server", "addr", "add", "10.78.0.1/24", "dev", "bench0");
    await ip(ground, "server", "link", "set", "bench0", "up");
    await exercise(loop, "server", ["bench0", "0"], ["10.78.0.1", "10.78.0.2"], [64, 65_536]);
  });

  test("packet: likewise", async () => {
    const mac = "02:00:00:00:00:07";
    const peer = await macOf(ground, "sink", "sink0");
    await ip(ground, "sink", "neigh", "replace", "10.77.0.7", "lladdr", mac, "dev", "sink0");
    const command = [ground.programs.packet_loop, "server0", "10.77.0.7", mac, "10.77.0.2", peer] as const;
    const loop = await keep(start(ground, "server", command));
    await exercise(loop, "sink", ["sink0", "14"], ["10.77.0.2", "10.77.0.7"], [64, 65_536]);
  });

  test("xdp: small and full packets", async () => {
    const macs = [await macOf(ground, "server", "server0"), await macOf(ground, "sink", "sink0")] as const;
    const ends = ["10.77.0.1", macs[0], "10.77.0.2", macs[1]] as const;
    const command = [ground.programs.xdp_loop, "server0", ...ends, "copy"] as const;
    const loop = await keep(start(ground, "server", command));
    await exercise(loop, "sink", ["sink0", "14"], ["10.77.0.2", "10.77.0.1"], [64, 1500]);
  });

  test("one that cannot start says why in one line", async () => {
    const failed = start(ground, "server", [ground.programs.meter, "none0", "14"]);
    await expect(failed).rejects.toThrow(CannotRun);
    await expect(start(ground, "server", [ground.programs.meter, "none0", "14"])).rejects.toThrow(
      /no interface none0/,
    );
  });
});
