/**
 * The guard at work: packets with chosen sources on a wire, to a runtime whose lists and limits change while they flow.
 */

import { afterEach, describe, expect, test } from "vitest";
import { createRuntime } from "../../src/layer1-app/runtime.ts";
import type { Apo, RuntimeOptions } from "../../src/layer1-app/types.ts";
import { createWire, type Wire } from "../../src/layer3-ip/links/mem.ts";
import { ipPacket, slowChecksum, udpPacket, upperChecksum } from "./packets.ts";

const own = { four: "10.0.0.1", other: "10.0.0.9", six: "fd00::1" };
const runtimes: Apo[] = [];

afterEach(async () => {
  for (const apo of runtimes.splice(0)) {
    await until("every frame is back", () => apo.counters()["layer3.pool.frames-in-use"] === 0);
    await apo.close();
  }
});

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

interface Server {
  readonly apo: Apo;
  readonly port: number;
  /** How many messages came from each address. */
  readonly heard: Map<string, number>;
  /** Puts a datagram from `source` on the wire. */
  send(source: string, text?: string): void;
  inject(packet: Buffer): void;
  counter(name: string): number;
}

async function serve(
  guard: NonNullable<RuntimeOptions["guard"]> = {},
  wire: Wire = createWire(),
): Promise<Server> {
  const apo = await createRuntime({
    link: "mem",
    wire,
    address: `${own.four}/8, ${own.other}/8, ${own.six}/64`,
    workers: 1,
    guard,
  });
  runtimes.push(apo);
  const heard = new Map<string, number>();
  const listener = await apo.opens({
    protocol: "udp",
    port: 0,
    request: (sockfd) => {
      const { address } = apo.peer(sockfd);
      heard.set(address, (heard.get(address) ?? 0) + 1);
    },
  });
  const inject = (packet: Buffer): void => {
    expect(wire.inject(packet[0] === 0x60 ? own.six : own.four, packet)).toBe("tx.packets");
  };
  return {
    apo,
    port: listener.port,
    heard,
    inject,
    send: (source, text = "x") => {
      const to = source.includes(":") ? own.six : own.four;
      inject(udpPacket({ from: source, to }, 4000, listener.port, Buffer.from(text)));
    },
    counter: (name) => apo.counters()[`layer3.${name}`] as number,
  };
}

/** With this TTL, and the checksum made right. */
function withTtl(packet: Buffer, ttl: number): Buffer {
  const copy = Buffer.from(packet);
  copy[8] = ttl;
  copy.writeUInt16BE(0, 10);
  copy.writeUInt16BE(slowChecksum(copy.subarray(0, 20)), 10);
  return copy;
}

/** Every packet that came is accounted for once. */
function expectAccounted({ apo }: Server): void {
  const counters = apo.counters();
  const dropped = Object.entries(counters)
    .filter(([name]) => name.startsWith("layer3.rx.dropped."))
    .reduce((sum, [, count]) => sum + count, 0);
  const { "layer3.rx.delivered": delivered = 0, "layer3.rx.answered": answered = 0 } = counters;
  expect(counters["layer3.rx.packets"]).toBe(delivered + answered + dropped);
}

describe("lists", () => {
  test("a blocked source is dropped and counted, the others pass", async () => {
    const server = await serve({ block: ["10.1.0.0/16", "fd00::b:0/112"], allow: ["10.1.0.7"] });
    for (const source of ["10.1.0.1", "10.1.0.7", "10.2.0.1", "fd00::b:5", "fd00::c:5"]) server.send(source);
    await until("the last has come", () => server.heard.has("fd00::c:5"));
    expect([...server.heard.keys()].sort()).toEqual(["10.1.0.7", "10.2.0.1", "fd00::c:5"]);
    expect(server.counter("rx.dropped.blacklist")).toBe(2);
    expectAccounted(server);
  });

  test("changes hold for the packets that come after", async () => {
    const server = await serve();
    const { guard } = server.apo;
    for (let round = 1; round <= 20; round += 1) {
      expect(await guard.block("10.1.0.0/16")).toBe(1);
      server.send("10.1.2.3");
      await until("it is dropped", () => server.counter("rx.dropped.blacklist") === round);
      expect(await guard.unblock("10.1.0.0/16")).toBe(1);
      server.send("10.1.2.3");
      await until("it is heard", () => server.heard.get("10.1.2.3") === round);
    }
    expectAccounted(server);
  });

  test("a million prefixes are taken while packets flow, and none of the others is lost", async () => {
    const server = await serve();
    let sent = 0;
    let loading = true;
    const flow = async (): Promise<void> => {
      while (loading || sent < 200) {
        server.send("10.9.9.9");
        sent += 1;
        await until("it is heard", () => server.heard.get("10.9.9.9") === sent);
      }
    };
    const flowing = flow();
    const count = 1_000_000;
    const prefix = (i: number): string => `11.${i >>> 16}.${(i >>> 8) & 255}.${i & 255}`;
    const blocked = await server.apo.guard.block(Array.from({ length: count }, (_, i) => prefix(i)));
    loading = false;
    await flowing;
    expect(blocked).toBe(count);
    expect(sent).toBeGreaterThanOrEqual(200);
    server.send(prefix(count - 1));
    await until("it is dropped", () => server.counter("rx.dropped.blacklist") === 1);
    expect(server.apo.guard.entries().blocked).toBe(count);
    expectAccounted(server);
  }, 60_000);
});

describe("the rate limit", () => {
  test("holds each source to its burst, and not the allowed", async () => {
    const server = await serve({ packetsPerSecond: 1, burst: 5, prefixBits4: 24, allow: ["10.3.0.0/16"] });
    for (let i = 0; i < 40; i += 1) {
      server.send(`10.1.0.${i}`);
      server.send("10.3.0.1");
    }
    server.send("10.2.0.1");
    await until("the allowed are heard", () => server.heard.get("10.3.0.1") === 40);
    await until("another network is", () => server.heard.has("10.2.0.1"));
    const limited = server.counter("rx.dropped.rateLimit");
    const passed = [...server.heard.keys()].filter((address) => address.startsWith("10.1.0.")).length;
    expect(limited + passed).toBe(40);
    expect(passed).toBeGreaterThanOrEqual(5);
    expect(limited).toBeGreaterThan(0);
    // Without a limit all pass again.
    server.apo.guard.limit({});
    for (let i = 100; i < 140; i += 1) server.send(`10.1.0.${i}`);
    await until("all have come", () => server.heard.size === passed + 2 + 40);
    expect(server.counter("rx.dropped.rateLimit")).toBe(limited);
    expectAccounted(server);
  });
});

describe("offenders", () => {
  test("have the address, the distance, the reason and the first bytes of their first packet", async () => {
    const startedMs = Date.now();
    const server = await serve({ block: ["10.1.0.0/16"] });
    const { guard } = server.apo;
    expect(guard.offenders()).toEqual([]);
    const ends = { from: "10.1.2.3", to: own.four };
    const first = withTtl(udpPacket(ends, 9, server.port, Buffer.alloc(100, 7)), 50);
    server.inject(first);
    for (let i = 0; i < 9; i += 1)
      server.inject(withTtl(udpPacket(ends, 9, server.port, Buffer.alloc(3)), 60));
    await until("ten are dropped", () => server.counter("rx.dropped.blacklist") === 10);
    const noPort = udpPacket({ from: "fd00::5", to: own.six }, 0, server.port, Buffer.from("x"));
    server.inject(noPort);
    await until("it is dropped", () => server.counter("rx.dropped.udpPort") === 1);
    const [six, four, ...others] = guard.offenders();
    expect(others).toEqual([]);
    expect(four).toMatchObject({ address: "10.1.2.3", distance: 14, reason: "blacklist", count: 10 });
    expect(four?.bytes).toEqual(new Uint8Array(first.subarray(0, 64)));
    expect(six).toMatchObject({ address: "fd00::5", distance: 0, reason: "udpPort", count: 1 });
    expect(six?.bytes).toEqual(new Uint8Array(noPort));
    for (const one of [six, four]) {
      expect(one?.firstSeen.getTime()).toBeGreaterThanOrEqual(startedMs - 1);
      expect(one?.lastSeen.getTime()).toBeGreaterThanOrEqual(one?.firstSeen.getTime() as number);
      expect(one?.lastSeen.getTime()).toBeLessThanOrEqual(Date.now() + 1);
    }
  });
});

describe("malformed packets", () => {
  const ends = { from: "10.1.2.3", to: own.four };
  const flagBits = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32 };

  function tcp(flags: (keyof typeof flagBits)[], change: (segment: Buffer) => void = () => {}): Buffer {
    const segment = Buffer.alloc(24);
    segment.writeUInt16BE(40_000, 0);
    segment.writeUInt16BE(80, 2);
    segment[12] = 6 << 4;
    segment[13] = flags.reduce((bits, flag) => bits | flagBits[flag], 0);
    segment.set([2, 4, 5, 180], 20);
    change(segment);
    segment.writeUInt16BE(upperChecksum(ends, 6, segment), 16);
    return ipPacket(ends, 6, segment);
  }

  /** An IPv4 header with these words of identification and fragment, around `upper`. */
  function fragment(word: number, upper: Buffer, protocol = 17): Buffer {
    const packet = ipPacket(ends, protocol, upper);
    packet.writeUInt16BE(77, 4);
    packet.writeUInt16BE(word, 6);
    return withTtl(packet, 64);
  }

  function damaged(packet: Buffer): Buffer {
    packet.writeUInt8(packet.readUInt8(packet.length - 1) ^ 1, packet.length - 1);
    return packet;
  }

  const cases: [string, Buffer[]][] = [
    ["tcpNull", [tcp([])]],
    ["tcpXmas", [tcp(["fin", "psh", "urg"])]],
    ["tcpSynFin", [tcp(["syn", "fin"])]],
    ["tcpSynRst", [tcp(["syn", "rst"])]],
    ["tcpFin", [tcp(["fin"])]],
    ["tcpLength", [tcp(["syn"], (segment) => segment.fill(4 << 4, 12, 13))]],
    ["tcpOptions", [tcp(["syn"], (segment) => segment.fill(0, 21, 22))]],
    ["tcpPort", [tcp(["syn"], (segment) => segment.writeUInt16BE(0, 2))]],
    ["tcpChecksum", [damaged(tcp(["syn"]))]],
    ["udpChecksum", [damaged(udpPacket(ends, 9, 9, Buffer.from("x")))]],
    ["udpLength", [ipPacket(ends, 17, Buffer.from([0, 9, 0, 9, 0, 99, 0, 0]))]],
    ["headerChecksum", [withTtl(udpPacket(ends, 9, 9, Buffer.from("x")), 9).fill(8, 8, 9)]],
    ["fragmentTiny", [fragment(0x2000, Buffer.alloc(8), 6)]],
    ["fragmentOverlap", [fragment(0x2000, Buffer.alloc(64)), fragment(0x2001, Buffer.alloc(64))]],
  ];
  test.each(cases)("%s", async (reason, packets) => {
    const server = await serve();
    for (const packet of packets) server.inject(packet);
    await until("it is dropped", () => server.counter(`rx.dropped.${reason}`) > 0);
    expect(server.apo.guard.offenders()).toMatchObject([{ address: "10.1.2.3", reason, count: 1 }]);
  });

  test("land, and our own address from outside", async () => {
    const server = await serve();
    const us = { from: own.four, to: own.four };
    server.inject(udpPacket(us, server.port, server.port, Buffer.from("x")));
    await until("it is dropped", () => server.counter("rx.dropped.land") === 1);
    expect(server.apo.guard.offenders()).toMatchObject([{ address: own.four, reason: "land" }]);
    server.send(own.other);
    await until("it is dropped", () => server.counter("rx.dropped.spoofed") === 1);
    const reasons = server.apo.guard.offenders().map(({ address, reason }) => [address, reason]);
    expect(reasons).toEqual([
      [own.other, "spoofed"],
      [own.four, "land"],
    ]);
    expectAccounted(server);
  });
});

describe("the host link", () => {
  const refused = expect.objectContaining({
    code: "ENOTSUP",
    message: expect.stringMatching(/"host" has none.*nftables/),
  });

  test("has no guard, and says so", async () => {
    await expect(createRuntime({ guard: { block: [] } })).rejects.toEqual(refused);
    const apo = await createRuntime({ workers: 1 });
    runtimes.push(apo);
    expect(() => apo.guard).toThrow(refused);
  });

  test("options of the guard that are wrong are refused before anything is opened", async () => {
    const wire = createWire();
    await expect(serve({ block: ["10.0.0.0/33"] }, wire)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(serve({ blok: [] } as object, wire)).rejects.toMatchObject({ code: "EINVAL" });
    expect(wire.endpoints).toBe(0);
  });
});
