/**
 * Bad wires, mirrors and whole prefixes, by real packets through native threads, with this thread as the worker:
 * a line in real time does what `impairment.ts` decides, and every packet is accounted for. The wire without threads
 * is held in native/rawsock/test/mem_wire_test.cc.
 */

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test } from "vitest";
import { Impairment, packetFate } from "../../../src/layer3-ip/impairment.ts";
import {
  type Impairments,
  impair,
  seedWords,
  unimpaired,
} from "../../../src/layer3-ip/impairment-options.ts";
import { createWire, openWire, type Wire, type WireOptions } from "../../../src/layer3-ip/links/mem.ts";
import { checksumFault } from "../packets.ts";
import { Station, until } from "../station.ts";

const stations: Station[] = [];

function station(wire: Wire, address: string, prefixes: string[] = []): Station {
  const made = new Station(wire, address, 1024, undefined, prefixes);
  made.port.openUdpPort(7);
  stations.push(made);
  return made;
}

function pair(options: WireOptions): { wire: Wire; a: Station; b: Station } {
  const wire = createWire(options);
  return { wire, a: station(wire, "10.0.0.1/24, fd00::1/64"), b: station(wire, "10.0.0.2/24, fd00::2/64") };
}

// After every test every frame is back in its pool.
afterEach(() => {
  for (const made of stations.splice(0)) expect(made.close()).toBe(0);
});

/** Sends numbered datagrams of 8 bytes, 64 at a time, and waits until the native thread has dealt with them. */
async function send(from: Station, to: Station | string, count: number, first = 0): Promise<void> {
  const address = typeof to === "string" ? to : to.address;
  const before = from.counter("tx.packets");
  for (let i = 0; i < count; i += 1) {
    const payload = Buffer.alloc(8);
    payload.writeUInt32BE(first + i, 0);
    expect(from.push(address, 7, 7, payload)).toBe(true);
    if (i % 64 !== 63 && i < count - 1) continue;
    from.port.flush();
    await until(() => from.counter("tx.packets") === before + i + 1, "they are sent");
  }
}

const numberOf = (payload: Buffer): number => payload.readUInt32BE(0);
const drops = (at: Station): number => Object.values(at.drops("rx")).reduce((sum, count) => sum + count, 0);

describe("a bad line", () => {
  test("loses and doubles those packets that the twin in TypeScript says", async () => {
    const bad: Impairments = { loss: 0.2, gilbertElliott: { p: 0.05, r: 0.4 }, duplicate: 0.1 };
    const { a, b } = pair({ ...bad, seed: 2 ** 40 + 7 });
    const words = seedWords("test", 2 ** 40 + 7);
    // The first two plugs of the wire.
    const model = new Impairment({ ...impair("test", bad, unimpaired), ...words }, 1, 2);
    const expected: number[] = [];
    const fates = [0, 0, 0, 0, 0];
    for (let i = 0; i < 500; i += 1) {
      const fate = model.decide(0, 36);
      fates[fate] = (fates[fate] as number) + 1;
      if (fate === packetFate.delivered) expected.push(i);
      if (model.copyAtUs >= 0) expected.push(i);
    }
    await send(a, b, 500);
    expect(b.receive(expected.length).map(({ payload }) => numberOf(payload))).toEqual(expected);
    expect(a.counter("wire.lost")).toBe(fates[packetFate.lost]);
    expect(a.counter("wire.lostInBurst")).toBe(fates[packetFate.lostInBurst]);
    expect(a.counter("wire.duplicated")).toBe(expected.length - (fates[packetFate.delivered] as number));
    expect(b.counter("rx.packets")).toBe(expected.length);
    expect([b.counter("wire.lost"), b.drops("rx")]).toEqual([0, {}]);
  });

  test("a flipped bit is found by the receiver's checks, and counted", async () => {
    const { a, b } = pair({ corrupt: 1 });
    await send(a, b, 300);
    expect(a.counter("wire.corrupted")).toBe(300);
    await until(() => drops(b) === 300, "all are dropped");
    expect(Object.keys(b.drops("rx"))).toEqual(expect.arrayContaining(["headerChecksum", "udpChecksum"]));
    expect(b.counter("rx.delivered")).toBe(0);
  });

  test("delayed packets come late, in order, and all of them", async () => {
    const { a, b } = pair({ delayMs: 20 });
    const before = process.hrtime.bigint();
    await send(a, b, 200);
    expect(b.receive(200).map(({ payload }) => numberOf(payload))).toEqual(
      Array.from({ length: 200 }, (_, i) => i),
    );
    expect(Number(process.hrtime.bigint() - before)).toBeGreaterThanOrEqual(20e6);
    // They waited in the inbox, and the native thread slept meanwhile.
    expect(b.counter("poll.sleeps")).toBeGreaterThan(0);
  });

  test("jitter and held packets change the order and lose nothing", async () => {
    const { a, b } = pair({ jitterMs: 60, jitterShape: "normal", reorder: 0.1, reorderMs: 100 });
    await send(a, b, 300);
    const got = b.receive(300).map(({ payload }) => numberOf(payload));
    const inOrder = Array.from({ length: 300 }, (_, i) => i);
    expect(got).not.toEqual(inOrder);
    expect(got.sort((x, y) => x - y)).toEqual(inOrder);
    expect(a.counter("wire.reordered")).toBeGreaterThan(10);
  });

  test("a rate lets through what its queue takes, and the rest is counted", async () => {
    // 36 bytes of IP a packet: 35 fit the queue at once, and nothing leaves it soon.
    const { a, b } = pair({ rateBitsPerSecond: 1000, queueBytes: 1280 });
    await send(a, b, 64);
    expect(a.counter("wire.queueFull")).toBe(29);
    expect(b.counter("rx.packets")).toBe(0);
  });

  test("its settings change while it runs: a cable is pulled and put back", async () => {
    const { wire, a, b } = pair({});
    await send(a, b, 10, 0);
    wire.set({ loss: 1 });
    await send(a, b, 10, 10);
    openWire(wire.id).set({ loss: 0, duplicate: 1 });
    await send(a, b, 10, 20);
    wire.set({ duplicate: 0 });
    await send(a, b, 10, 30);
    const twice = (first: number): number[] => Array.from({ length: 20 }, (_, i) => first + (i >> 1));
    const once = (first: number): number[] => Array.from({ length: 10 }, (_, i) => first + i);
    expect(b.receive(40).map(({ payload }) => numberOf(payload))).toEqual([
      ...once(0),
      ...twice(20),
      ...once(30),
    ]);
    expect(a.counter("wire.lost")).toBe(10);
  });

  test("what was on its way when a runtime is closed is counted there", async () => {
    const { wire, a, b } = pair({ delayMs: 60_000 });
    await send(a, b, 50);
    wire.set({ delayMs: 0 });
    await send(a, b, 5, 50);
    expect(b.receive(5).map(({ payload }) => numberOf(payload))).toEqual([50, 51, 52, 53, 54]);
    b.link.close();
    expect(b.counter("rx.packets")).toBe(55);
    expect(b.drops("rx")).toEqual({ closing: 50 });
  });

  test("another thread can change it, too", async () => {
    const { wire, a, b } = pair({});
    const module = new URL("../../../src/layer3-ip/links/mem.ts", import.meta.url).href;
    const worker = new Worker(
      `import(${JSON.stringify(module)}).then(({ openWire }) => openWire(${wire.id}).set({ loss: 1 }))`,
      { eval: true },
    );
    await once(worker, "exit");
    await send(a, b, 5);
    expect(a.counter("wire.lost")).toBe(5);
  });
});

describe("a mirror", () => {
  test.each([
    { name: "IPv4", mirror: "10.0.0.9", own: "10.0.0.1" },
    { name: "IPv6", mirror: "fd00::9", own: "fd00::1" },
  ])("sends every packet of $name back, with right checksums", ({ mirror, own }) => {
    const wire = createWire();
    const a = station(wire, `${own}/64`.replace(/(\..*)64/, "$124"));
    const made = wire.mirror("10.0.0.9, fd00::9");
    expect([made.address, wire.endpoints]).toEqual(["10.0.0.9, fd00::9", 1]);
    a.port.openUdpPort(2000);
    for (const length of [0, 1, 999, 1400]) {
      expect(a.push(mirror, 2000, 3000, Buffer.alloc(length, length & 255))).toBe(true);
      a.port.flush();
      const [back] = a.receive(1);
      expect(back?.payload.equals(Buffer.alloc(length, length & 255))).toBe(true);
      expect(checksumFault(back?.packet as Buffer, { from: mirror, to: own })).toBeUndefined();
      const upper = (back?.packet.length as number) - length - 8;
      expect([back?.packet.readUInt16BE(upper), back?.packet.readUInt16BE(upper + 2)]).toEqual([3000, 2000]);
    }
    made.close();
    made.close();
    a.push(mirror, 2000, 3000, Buffer.alloc(1));
    a.port.flush();
    return until(() => a.drops("tx").noRoute === 1, "nobody is there any more");
  });

  test("is behind two bad lines, one there and one back", async () => {
    const wire = createWire({ loss: 0.3, delayMs: 5 });
    const a = station(wire, "10.0.0.1/24");
    wire.mirror("10.0.0.9");
    const before = process.hrtime.bigint();
    await send(a, "10.0.0.9", 400);
    const lost = a.counter("wire.lost");
    // 51 % of 400, and seeded: it is the same in every run.
    expect(lost).toBeGreaterThan(170);
    expect(lost).toBeLessThan(240);
    expect(a.receive(400 - lost).length).toBe(400 - lost);
    expect(Number(process.hrtime.bigint() - before)).toBeGreaterThanOrEqual(10e6);
  });

  test("has an address of its own", () => {
    const wire = createWire();
    station(wire, "10.0.0.1/24");
    const taken = expect.objectContaining({ code: "EADDRINUSE" });
    expect(() => wire.mirror("10.0.0.1")).toThrow(taken);
    const made = wire.mirror("10.0.0.9");
    expect(() => wire.mirror("10.0.0.9")).toThrow(
      /another runtime or mirror on this wire has .* 10\.0\.0\.9/,
    );
    expect(() => new Station(wire, "10.0.0.9/24")).toThrow(taken);
    made.close();
    wire.mirror("10.0.0.9").close();
  });
});

describe("the switch", () => {
  test("joins many, and finds whole prefixes after addresses", async () => {
    const wire = createWire();
    const a = station(wire, "10.0.0.1/24, fd00::1/64");
    const b = station(wire, "10.0.0.2/24", ["10.1.0.0/16", "fd01::/16"]);
    const c = station(wire, "10.1.0.7/24", ["10.1.128.0/17"]);
    const ways: [string, Station][] = [
      ["10.0.0.2", b],
      ["10.1.0.6", b],
      ["10.1.0.7", c],
      ["10.1.200.1", c],
      ["10.1.127.255", b],
    ];
    for (const [to, station] of ways) {
      await send(a, to, 1);
      expect(station.receive(1).length).toBe(1);
    }
    a.push("10.2.0.1", 7, 7, Buffer.alloc(1));
    a.port.flush();
    await until(() => a.drops("tx").noRoute === 1, "nobody has that address");
    expect([b.drops("rx"), c.drops("rx")]).toEqual([{}, {}]);
    expect(() => new Station(wire, "10.3.0.1/24", 64, undefined, ["10.1.0.0/16"])).toThrow(
      expect.objectContaining({ code: "EADDRINUSE" }),
    );
  });
});

describe("refused with a sentence", () => {
  test.each([
    [{ mtu: 1279 }, /mtu must be a whole number from 1280 to 65000, not 1279/],
    [{ inboxBytes: 1 }, /inboxBytes must be/],
    [{ seed: 0.5 }, /^createWire: seed must be a whole number from 0 to 2\^53 - 1, not 0\.5$/],
    [{ loss: 1.5 }, /^createWire: loss must be a number from 0 to 1, not 1\.5$/],
    [{ delay: 5 }, /^createWire: unknown option "delay": there are mtu, inboxBytes, seed, delayMs, /],
    [
      { gilbertElliott: { r: 1 } },
      /^createWire: gilbertElliott\.p must be a number from 0 to 1, not undefined$/,
    ],
  ])("createWire(%j)", (options, words) => {
    expect(() => createWire(options as WireOptions)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    expect(() => createWire(options as WireOptions)).toThrow(words);
  });

  test("what cannot be changed, and addresses that are none", () => {
    const wire = createWire();
    expect(() => wire.set({ seed: 2 } as Impairments)).toThrow(/^wire\.set: unknown option "seed"/);
    expect(() => wire.set({ mtu: 1500 } as Impairments)).toThrow(/^wire\.set: unknown option "mtu"/);
    expect(() => wire.set({ loss: -1 })).toThrow(/^wire\.set: loss must be/);
    for (const address of ["", "10.0.0", "10.0.0.1,", "localhost"]) {
      expect(() => wire.mirror(address)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    }
    const many = Array.from({ length: 65 }, (_, i) => `10.0.1.${i}`).join();
    expect(() => wire.mirror(many)).toThrow(/^wire\.mirror: 64 addresses at most, not 65$/);
  });
});
