/**
 * The native thread by real packets, with this thread in the worker's place: rings and pool from both languages,
 * checksums against a slow implementation, steering, malformed packets, and everything accounted for.
 */

import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import * as descriptor from "../../src/layer3-ip/descriptor.ts";
import { addressWords } from "../../src/layer3-ip/ip-prefix.ts";
import { createWire, openWire, type Wire } from "../../src/layer3-ip/links/mem.ts";
import { createPool } from "../../src/layer3-ip/pool.ts";
import { SteerHash, shardOfHash } from "../../src/layer3-ip/steer.ts";
import { checksumFault, ipPacket, udpPacket } from "./packets.ts";
import { startMemLink } from "./start-mem-link.ts";
import { Station, until } from "./station.ts";

const families = [
  { name: "IPv4", a: "10.0.0.1/24", b: "10.0.0.2/24" },
  { name: "IPv6", a: "fd00::1/64", b: "fd00::2/64" },
];
const stations: Station[] = [];

function station(wire: Wire, address: string, small?: number): Station {
  const made = new Station(wire, address, small);
  stations.push(made);
  return made;
}

// After every test every frame is back in its pool.
afterEach(() => {
  for (const made of stations.splice(0)) expect(made.close()).toBe(0);
});

/** A property of pairs of stations, one pair for all runs of it. */
function pair(addresses: { a: string; b: string }): { wire: Wire; a: Station; b: Station } {
  const wire = createWire();
  return { wire, a: station(wire, addresses.a), b: station(wire, addresses.b) };
}

describe.each(families)("$name", (addresses) => {
  test("descriptors pushed in any batches come out in order, by way of two native threads", async () => {
    const { a, b } = pair(addresses);
    b.port.openUdpPort(7);
    let sent = 0;
    let got = 0;
    const batch = fc.record({
      count: fc.integer({ min: 1, max: 200 }),
      bytes: fc.integer({ min: 4, max: 1400 }),
    });
    fc.assert(
      fc.property(fc.array(batch, { maxLength: 12 }), (batches) => {
        for (const { count, bytes } of batches) {
          const payload = Buffer.alloc(bytes, sent & 0xff);
          for (let i = 0; i < count; i += 1) {
            payload.writeUInt32BE(sent, 0);
            expect(a.push(b.address, 1000, 7, payload)).toBe(true);
            sent += 1;
          }
          a.port.flush();
          for (const { payload: found } of b.receive(count)) {
            expect(found.readUInt32BE(0)).toBe(got);
            expect(found.length).toBe(bytes);
            expect(found.subarray(4).every((byte) => byte === found[4])).toBe(true);
            got += 1;
          }
        }
      }),
      { numRuns: 40 },
    );
    expect(b.counter("rx.delivered")).toBe(sent);
    // The sender counts a batch when the link has taken it: by then the other end may have read it.
    await until(() => a.counter("tx.packets") === sent, "all are counted as sent");
  });

  test("checksums that the native thread writes hold for the slow implementation, and the other way round", () => {
    const { wire, a, b } = pair(addresses);
    a.port.openUdpPort(2000);
    b.port.openUdpPort(2000);
    const ends = { from: a.address, to: b.address };
    const port = fc.integer({ min: 1, max: 65_535 });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1400 }), port, (payload, fromPort) => {
        a.push(b.address, fromPort, 2000, payload);
        a.port.flush();
        const [received] = b.receive(1);
        expect(checksumFault(received?.packet as Buffer, ends)).toBeUndefined();
        // From the outside in: accepted, with the same bytes.
        const packet = udpPacket({ from: ends.to, to: ends.from }, fromPort, 2000, payload);
        expect(wire.inject(a.address, packet)).toBe("tx.packets");
        const [accepted] = a.receive(1);
        expect(accepted?.packet.equals(packet)).toBe(true);
        expect(descriptor.checksumStateOf(accepted?.words as Int32Array, 0)).toBe(1);
      }),
      { numRuns: 300 },
    );
    expect(a.drops("rx")).toEqual({});
  });

  test("one changed bit is never taken for the packet that was sent", async () => {
    const { wire, a, b } = pair(addresses);
    a.port.openUdpPort(2000);
    const ends = { from: b.address, to: a.address };
    let injected = 0;
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.nat(), (payload, bit) => {
        const packet = udpPacket(ends, 1000, 2000, payload);
        const at = bit % (packet.length * 8);
        packet[at >> 3] = (packet[at >> 3] as number) ^ (1 << (at & 7));
        // A checksum of one bit that is now 0 says "none", and that is not a fault.
        fc.pre(packet.readUInt16BE(addresses.name === "IPv4" ? 26 : 46) !== 0);
        wire.inject(a.address, packet);
        injected += 1;
      }),
      { numRuns: 2000 },
    );
    const drops = (): number => Object.values(a.drops("rx")).reduce((sum, count) => sum + count, 0);
    await until(() => a.counter("rx.packets") === injected, "all have come");
    await until(() => a.counter("rx.delivered") + drops() === injected, "all have been looked at");
    const passed = a.take(4096);
    if (addresses.name === "IPv4") expect(passed).toEqual([]);
    // IPv6 has no header checksum: traffic class, label and hop limit are open, and nothing else is.
    const openBits = [0x0f, 0xff, 0xff, 0xff, 0, 0, 0, 0xff];
    const plain = [0x60, 0, 0, 0, undefined, undefined, 17, 64];
    for (const { packet } of passed) {
      plain.forEach((byte, at) => {
        const open = openBits[at] as number;
        if (byte !== undefined) expect((packet[at] as number) & ~open).toBe(byte & ~open);
      });
    }
  });

  test("TypeScript and C++ steer alike, and equally in both directions", () => {
    const { a, b } = pair(addresses);
    const hash = new SteerHash(a.description.steerKey);
    const own = addressWords(a.address);
    const far = addressWords(b.address);
    const words = Int32Array.from([...(far?.words ?? []), ...(own?.words ?? [])]);
    const count = own?.version6 ? 4 : 1;
    const ports = fc.integer({ min: 1, max: 65_535 });
    const seen = new Set<number>();
    fc.assert(
      fc.property(ports, ports, (fromPort, toPort) => {
        a.port.openUdpPort(toPort);
        b.push(a.address, fromPort, toPort, Buffer.from("x"));
        b.port.flush();
        const [received] = a.receive(1);
        a.port.closeUdpPort(toPort);
        const whole = hash.hash(words, 0, fromPort, words, 4, toPort, count, 17);
        const here = shardOfHash(whole);
        expect(descriptor.hashOf(received?.words as Int32Array, 0)).toBe(whole);
        expect(descriptor.shardOf(received?.words as Int32Array, 0)).toBe(here);
        expect(shardOfHash(hash.hash(words, 4, toPort, words, 0, fromPort, count, 17))).toBe(here);
        seen.add(here);
      }),
      { numRuns: 300 },
    );
    expect(seen.size).toBe(16);
  });

  test("a datagram to a port that nobody has opened is answered by an ICMP error, within a budget", async () => {
    const { a, b } = pair(addresses);
    a.push(b.address, 1234, 99, Buffer.from("is anybody there"));
    a.port.flush();
    const [error] = a.receive(1);
    const words = error?.words as Int32Array;
    expect(descriptor.packetKindOf(words, 0)).toBe(descriptor.packetKind.icmpError);
    expect(descriptor.labelOf(words, 0)).toBe(addresses.name === "IPv6" ? 0x104 : 0x303);
    const ends = Int32Array.from([a, b].flatMap(({ address }) => [...(addressWords(address)?.words ?? [])]));
    const asked = new SteerHash(a.description.steerKey);
    expect(descriptor.hashOf(words, 0)).toBe(
      asked.hash(ends, 0, 1234, ends, 4, 99, addresses.name === "IPv6" ? 4 : 1, 17),
    );
    expect(error?.payload.includes("is anybody there")).toBe(true);
    expect(checksumFault(error?.packet as Buffer, { from: b.address, to: a.address })).toBeUndefined();
    for (let i = 0; i < 500; i += 1) a.push(b.address, 1234, 99, Buffer.from("again"));
    a.port.flush();
    const answered = (): number => b.counter("icmp.unreachables") + b.counter("icmp.limited");
    await until(() => answered() === 501, "all have been dealt with");
    expect(b.drops("rx")).toEqual({ unopened: 501 });
    expect(b.counter("icmp.limited")).toBeGreaterThan(0);
    await until(() => a.counter("rx.delivered") === b.counter("icmp.unreachables"), "every error has come");
    a.take(4096);
  });

  test("what is too long for the wire goes in pieces, and comes whole", async () => {
    const { a, b } = pair(addresses);
    b.port.openUdpPort(7);
    const most = addresses.name === "IPv6" ? 1452 : 1472;
    const sizes = [most + 1, most, 4000, 60_000, 65_507 - (addresses.name === "IPv6" ? 20 : 0)];
    for (const size of sizes) {
      const payload = Buffer.from(Array.from({ length: size }, (_, i) => i & 0xff));
      a.push(b.address, 1000, 7, payload);
      a.port.flush();
      expect(b.receive(1)[0]?.payload.equals(payload)).toBe(true);
    }
    expect([a.drops("tx"), b.drops("rx")]).toEqual([{}, {}]);
    // The sender counts when the wire has taken it, which the receiver may be quicker than.
    await until(() => a.counter("tx.packets") === sizes.length, "all are counted as sent");
    expect(b.counter("rx.reassembled")).toBe(sizes.length - 1);
    expect(b.counter("rx.packets")).toBe(b.counter("rx.merged") + b.counter("rx.delivered"));
    const pieces = b.counter("rx.merged") + b.counter("rx.reassembled");
    await until(() => a.counter("tx.fragments") === pieces, "all pieces are counted");
  });

  test("what a runtime sends to itself comes back without the wire", async () => {
    const { a, b } = pair(addresses);
    a.port.openUdpPort(7);
    a.push(a.address, 1000, 7, Buffer.from("to myself"));
    a.port.flush();
    expect(String(a.receive(1)[0]?.payload)).toBe("to myself");
    expect([a.counter("tx.looped"), a.counter("rx.packets"), b.counter("rx.packets")]).toEqual([1, 0, 0]);
  });

  test("sent = delivered + dropped by reason, when the receiver does not keep up", async () => {
    const { a, b } = pair(addresses);
    b.port.openUdpPort(7);
    let sent = 0;
    const deadline = performance.now() + 30_000;
    while (sent < 20_000 && performance.now() < deadline) {
      if (a.push(b.address, 1000, 7, Buffer.alloc(64))) sent += 1;
      if (sent % 64 === 0) a.port.flush();
    }
    a.port.flush();
    const drops = (way: Record<string, number>): number => Object.values(way).reduce((x, y) => x + y, 0);
    await until(() => a.counter("tx.packets") + drops(a.drops("tx")) === sent, "all have been sent");
    await until(() => b.counter("rx.packets") === a.counter("tx.packets"), "all have come");
    await until(
      () => b.counter("rx.delivered") + drops(b.drops("rx")) === b.counter("rx.packets"),
      "all are counted",
    );
    expect(drops(b.drops("rx"))).toBeGreaterThan(0);
    expect(b.take(10_000).length).toBe(b.counter("rx.delivered"));
  });
});

describe("the wire", () => {
  test("malformed packets are dropped, each for its own reason", async () => {
    const wire = createWire();
    const a = station(wire, "10.0.0.1/24");
    a.port.openUdpPort(7);
    const ends = { from: "10.0.0.2", to: "10.0.0.1" };
    const good = udpPacket(ends, 1000, 7, Buffer.from("hello"));
    const changed = (at: number, value: number): Buffer => {
      const copy = Buffer.from(good);
      copy[at] = value;
      return copy;
    };
    const expected: [string, Buffer][] = [
      ["header", good.subarray(0, 19)],
      ["header", Buffer.from([0x99])],
      ["header", good.subarray(0, good.length - 1)],
      ["headerChecksum", changed(8, 63)],
      ["udpChecksum", changed(good.length - 1, 0)],
      ["udpLength", ipPacket(ends, 17, Buffer.from([0, 1, 0, 7, 0, 99, 0, 0]))],
      ["udpPort", udpPacket(ends, 0, 7, Buffer.from("x"))],
      ["protocol", ipPacket(ends, 200, Buffer.alloc(8))],
      ["icmpLength", ipPacket(ends, 1, Buffer.from([8, 0]))],
      ["icmpChecksum", ipPacket(ends, 1, Buffer.from([8, 0, 1, 2, 3, 4, 5, 6]))],
      ["source", udpPacket({ ...ends, from: "224.0.0.1" }, 1000, 7, Buffer.from("x"))],
      ["source", udpPacket({ ...ends, from: "127.0.0.1" }, 1000, 7, Buffer.from("x"))],
      ["notOurs", udpPacket({ ...ends, to: "10.0.0.77" }, 1000, 7, Buffer.from("x"))],
      ["land", udpPacket({ from: "10.0.0.1", to: "10.0.0.1" }, 7, 7, Buffer.from("x"))],
    ];
    const counts: Record<string, number> = {};
    for (const [reason, packet] of expected) {
      expect(wire.inject("10.0.0.1", packet)).toBe("tx.packets");
      counts[reason] = (counts[reason] ?? 0) + 1;
    }
    const dropped = (): number => Object.values(a.drops("rx")).reduce((sum, count) => sum + count, 0);
    await until(() => dropped() === expected.length, "all have been dropped");
    expect(a.drops("rx")).toEqual(counts);
    wire.inject("10.0.0.1", good);
    expect(a.receive(1)[0]?.payload.toString()).toBe("hello");
  });

  test("says where a packet cannot go", () => {
    const wire = createWire({ mtu: 1280 });
    station(wire, "10.0.0.1/24");
    expect(wire.inject("10.0.0.9", Buffer.alloc(20))).toBe("tx.dropped.noRoute");
    expect(wire.inject("10.0.0.1", Buffer.alloc(1281))).toBe("tx.dropped.tooBig");
    expect(() => wire.inject("10.0.0", Buffer.alloc(20))).toThrow(
      expect.objectContaining({ code: "EINVAL" }),
    );
    expect(() => openWire(4_000_000)).toThrow(expect.objectContaining({ code: "ENOENT" }));
  });

  test("an address is had by one runtime at a time", () => {
    const wire = createWire();
    const first = station(wire, "10.0.0.1/24");
    expect(() => new Station(wire, "10.0.0.1/24")).toThrow(expect.objectContaining({ code: "EADDRINUSE" }));
    expect(wire.endpoints).toBe(1);
    expect(first.close()).toBe(0);
    expect(wire.endpoints).toBe(0);
    station(wire, "10.0.0.1/24");
  });

  test.each([
    ["a wire that is none", { wire: {}, address: "10.0.0.1/24" }],
    ["no address", { address: undefined }],
    ["an address that is none", { address: "10.0.0.300/24" }],
    ["a prefix that is none", { address: "10.0.0.1/33" }],
    ["too many addresses", { address: Array.from({ length: 65 }, (_, i) => `10.0.0.${i + 1}/24`).join(",") }],
  ])("%s is refused with EINVAL", (_, options) => {
    const pool = createPool({ partitions: 1, small: 32, large: 1 });
    const all = Object.assign({ wire: createWire(), address: "10.0.0.1/24", pool, partition: 0 }, options);
    expect(() => startMemLink(all)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  });

  test.each([{ mtu: 1279 }, { mtu: 65_001 }, { mtu: 1500.5 }, { inboxBytes: 1 }])(
    "createWire refuses %o",
    (options) => {
      expect(() => createWire(options)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    },
  );

  test("large packets take large frames", () => {
    const wire = createWire({ mtu: 65_000 });
    const a = station(wire, "10.0.0.1/24");
    const b = station(wire, "10.0.0.2/24");
    b.port.openUdpPort(7);
    const payload = Buffer.alloc(60_000, 7);
    expect(a.push(b.address, 1, 7, payload)).toBe(true);
    a.port.flush();
    expect(b.receive(1)[0]?.payload.equals(payload)).toBe(true);
  });
});

describe("a worker", () => {
  test("that is gone loses its own packets alone, counted, and its successor gets what follows", async () => {
    const wire = createWire();
    const a = station(wire, "10.0.0.1/24");
    a.port.openUdpPort(7);
    const packet = udpPacket({ from: "10.0.0.2", to: "10.0.0.1" }, 1000, 7, Buffer.from("x"));
    for (let i = 0; i < 10; i += 1) wire.inject(a.address, packet);
    await until(() => a.counter("rx.delivered") === 10, "ten lie in the ring");
    a.link.detachWorker(0);
    expect(a.counter("rx.reclaimed")).toBe(10);
    expect(a.pool.framesInUse()).toBe(0);
    wire.inject(a.address, packet);
    await until(() => a.drops("rx").noWorker === 1, "the eleventh has been dropped");
    expect(a.drops("rx")).toEqual({ noWorker: 1 });
    a.link.attachWorker(0, [0]);
  });
});

describe("a received packet's descriptor", () => {
  test.each(families)("says in TypeScript what C++ wrote, over $name", ({ a: own, b: peer, name }) => {
    const { wire, a } = pair({ a: own, b: peer });
    a.port.openUdpPort(7);
    const six = name === "IPv6";
    const packet = udpPacket(
      { from: peer.split("/")[0] as string, to: a.address },
      1000,
      7,
      Buffer.from("hello"),
    );
    if (six) packet.writeUInt32BE(0x6ab12345, 0);
    const beforeUs = Number(process.hrtime.bigint() / 1000n);
    wire.inject(a.address, packet);
    const words = a.receive(1)[0]?.words as Int32Array;
    const afterUs = Number(process.hrtime.bigint() / 1000n);
    expect({
      offset: descriptor.packetOffsetOf(words, 0),
      upper: descriptor.upperOffsetOf(words, 0),
      length: descriptor.lengthOf(words, 0),
      protocol: descriptor.protocolOf(words, 0),
      six: descriptor.isVersion6(words, 0),
      kind: descriptor.packetKindOf(words, 0),
      checksum: descriptor.checksumStateOf(words, 0),
      label: descriptor.labelOf(words, 0),
      hopLimit: descriptor.hopLimitOf(words, 0),
      trafficClass: (words[5] as number) >>> 24,
    }).toEqual({
      offset: 64,
      upper: six ? 104 : 84,
      length: packet.length,
      protocol: 17,
      six,
      kind: descriptor.packetKind.data,
      checksum: 1,
      label: six ? 0x12345 : 0,
      hopLimit: 64,
      trafficClass: six ? 0xab : 0,
    });
    // Both clocks are CLOCK_MONOTONIC.
    const low = descriptor.receivedUsLowOf(words, 0);
    expect((low - Math.floor(beforeUs - 1)) | 0).toBeGreaterThanOrEqual(0);
    expect((Math.ceil(afterUs + 1) - low) | 0).toBeGreaterThanOrEqual(0);
  });
});
