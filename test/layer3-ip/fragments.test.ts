/**
 * Fragments and path MTUs through a native thread: what comes in pieces arrives whole, what is longer than its path
 * goes in pieces, and every packet is counted once.
 */

import { afterEach, describe, expect, test } from "vitest";
import { createWire, type Wire } from "../../src/layer3-ip/links/mem.ts";
import { ipPacket, udpPacket, upperChecksum } from "./packets.ts";
import { slowFragments } from "./slow/segmentation.ts";
import { Station, until } from "./station.ts";

const families = [
  { name: "IPv4", a: "10.0.0.1", b: "10.0.0.2", nobody: "10.0.0.77", request: 8, reply: 0 },
  { name: "IPv6", a: "fd00::1", b: "fd00::2", nobody: "fd00::77", request: 128, reply: 129 },
];
const stations: Station[] = [];

function join(wire: Wire, address: string): Station {
  const station = new Station(wire, address);
  stations.push(station);
  return station;
}

// After every test all frames are back, and what came in is accounted for.
afterEach(() => {
  for (const station of stations.splice(0)) {
    expect(station.close()).toBe(0);
    const drops = Object.values(station.drops("rx")).reduce((sum, count) => sum + count, 0);
    const other = ["delivered", "answered", "merged"].reduce(
      (sum, name) => sum + station.counter(`rx.${name}`),
      0,
    );
    expect(station.counter("rx.packets")).toBe(drops + other);
  }
});

const counting = (length: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 7 + i / 256) & 255));

function icmpPacket(
  from: string,
  to: string,
  type: number,
  code: number,
  word: number,
  body: Buffer,
): Buffer {
  const protocol = from.includes(":") ? 58 : 1;
  const upper = Buffer.concat([Buffer.from([type, code, 0, 0, 0, 0, 0, 0]), body]);
  upper.writeUInt32BE(word, 4);
  upper.writeUInt16BE(upperChecksum({ from, to }, protocol, upper), 2);
  return ipPacket({ from, to }, protocol, upper);
}

describe.each(families)("$name", ({ a, b, nobody, request, reply }) => {
  const six = a.includes(":");

  test("a datagram in pieces, in any order, is delivered whole", () => {
    const wire = createWire();
    const station = join(wire, a);
    station.port.openUdpPort(2000);
    for (const [round, length] of [3000, 1, 60_000, 9000].entries()) {
      const packet = udpPacket({ from: nobody, to: a }, 1000, 2000, counting(length));
      const pieces = slowFragments(packet, 1280, round + 1);
      for (const piece of pieces.reverse()) expect(wire.inject(a, piece)).toBe("tx.packets");
      const [received] = station.receive(1);
      expect(received?.payload.equals(counting(length))).toBe(true);
    }
    expect(station.counter("rx.reassembled")).toBe(3);
    expect(station.drops("rx")).toEqual({});
  });

  test("a datagram longer than the link's MTU arrives in pieces", async () => {
    const wire = createWire({ mtu: 1400 });
    const [from, to] = [join(wire, a), join(wire, b)];
    to.port.openUdpPort(2000);
    for (const length of [1400, 30_000, 65_000]) {
      expect(from.push(b, 1000, 2000, counting(length))).toBe(true);
      from.port.flush();
      const [received] = to.receive(1);
      expect(received?.payload.equals(counting(length))).toBe(true);
    }
    expect(to.counter("rx.reassembled")).toBe(3);
    // The sender's thread counts when all of them are on their way.
    await until(() => from.counter("tx.fragments") === to.counter("rx.packets"), "all are counted");
  });

  test("an echo request of 60,000 bytes is answered, both in pieces", async () => {
    const wire = createWire({ mtu: 1400 });
    const [station, other] = [join(wire, a), join(wire, b)];
    const echo = icmpPacket(b, a, request, 0, 0x00070001, counting(60_000));
    for (const piece of slowFragments(echo, 1400, 5)) wire.inject(a, piece);
    await until(() => station.counter("rx.answered") === 1, "the request is answered");
    const [answer] = other.receive(1);
    expect(answer?.packet[six ? 40 : 20]).toBe(reply);
    expect(answer?.payload.equals(counting(60_000))).toBe(true);
    expect(other.counter("rx.reassembled")).toBe(1);
  });

  test("fragments that overlap are dropped with all of their datagram", async () => {
    const wire = createWire();
    const station = join(wire, a);
    station.port.openUdpPort(2000);
    const packet = udpPacket({ from: nobody, to: a }, 1000, 2000, counting(3000));
    const [first, second, third] = slowFragments(packet, 1280, 5) as [Buffer, Buffer, Buffer];
    const forged = Buffer.from(second);
    forged[forged.length - 1] = (forged[forged.length - 1] as number) ^ 1;
    for (const piece of [first, second, second, forged, third]) wire.inject(a, piece);
    await until(() => station.counter("rx.packets") === 5, "all have come");
    await until(() => station.counter("rx.dropped.fragmentOverlap") === 4, "they have been looked at");
    expect(station.drops("rx")).toEqual({ fragmentOverlap: 4, fragmentDuplicate: 1 });
  });

  test("a router's word about the path is believed when it quotes what an open port sent", async () => {
    const wire = createWire();
    const [from, to] = [join(wire, a), join(wire, b)];
    to.port.openUdpPort(2000);
    from.port.openUdpPort(1000);
    const tooBig = (quoted: Buffer): Buffer =>
      icmpPacket(nobody, a, six ? 2 : 3, six ? 0 : 4, 1300, quoted.subarray(0, 500));
    const whole = udpPacket({ from: a, to: b }, 1000, 2000, counting(1450 - 28));
    const stranger = udpPacket({ from: a, to: b }, 1001, 2000, counting(1450 - 28));
    const send = (): Buffer | undefined => {
      from.push(b, 1000, 2000, counting(1400));
      from.port.flush();
      return to.receive(1)[0]?.payload;
    };
    wire.inject(a, tooBig(stranger));
    await until(() => from.counter("rx.packets") === 1, "it has come");
    expect(send()?.equals(counting(1400))).toBe(true);
    expect([from.counter("path.mtuLowered"), from.counter("tx.fragments")]).toEqual([0, 0]);
    wire.inject(a, tooBig(whole));
    await until(() => from.counter("path.mtuLowered") === 1, "it is believed");
    expect(send()?.equals(counting(1400))).toBe(true);
    await until(() => from.counter("tx.fragments") === 2, "both pieces are counted");
    if (six) {
      // Of what has gone in pieces, the first has the ports, and only that.
      const [first, second] = slowFragments(whole, 1300, 9) as [Buffer, Buffer];
      const lower = (piece: Buffer): Buffer => icmpPacket(nobody, a, 2, 0, 1290, piece.subarray(0, 500));
      wire.inject(a, lower(second));
      await until(() => from.counter("rx.dropped.icmpQuote") === 1, "who knows whose that was");
      wire.inject(a, lower(first));
      await until(() => from.counter("path.mtuLowered") === 2, "it is believed");
    }
    from.take();
  });
});

test("packets that look like fragments or like nothing are dropped for their reasons", async () => {
  const wire = createWire();
  const station = join(wire, "fd00::1");
  const ends = { from: "fd00::77", to: "fd00::1" };
  const atomic = Buffer.from([44, 0, 0, 0, 0, 0, 0, 1]);
  const real = Buffer.from([17, 0, 0, 1, 0, 0, 0, 1]);
  const packets: [string, Buffer][] = [
    ["protocol", ipPacket(ends, 59, Buffer.alloc(8))],
    ["extensionHeader", ipPacket(ends, 44, Buffer.concat([atomic, real, Buffer.alloc(16)]))],
    ["fragmentLength", ipPacket(ends, 44, Buffer.concat([real, Buffer.alloc(15)]))],
    [
      "fragmentTiny",
      ipPacket(ends, 44, Buffer.concat([Buffer.from([6, 0, 0, 1, 0, 0, 0, 1]), Buffer.alloc(8)])),
    ],
  ];
  for (const [index, [, packet]] of packets.entries()) {
    wire.inject(station.address, packet);
    await until(() => station.counter("rx.packets") === index + 1, "it has come");
  }
  const expected = Object.fromEntries(packets.map(([reason]) => [reason, 1]));
  await until(
    () => Object.keys(station.drops("rx")).length === packets.length,
    `all are dropped: ${JSON.stringify(station.drops("rx"))}`,
  );
  expect(station.drops("rx")).toEqual(expected);
});

test("a datagram that is longer than a frame is dropped and counted", async () => {
  const wire = createWire();
  const station = join(wire, "fd00::1");
  const packet = udpPacket({ from: "fd00::77", to: "fd00::1" }, 1000, 2000, counting(65_500));
  const pieces = slowFragments(packet, 1280, 5);
  for (const piece of pieces) wire.inject(station.address, piece);
  await until(() => station.counter("rx.packets") === pieces.length, "all have come");
  await until(() => station.counter("rx.dropped.tooBig") === 1, "it is dropped");
});
