/**
 * The network in virtual time: the same seed gives the same trace byte for byte, no packet is unaccounted for, events
 * come in one order only, addresses and prefixes are found, and what is bounded stays within its bounds.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EventQueue } from "../../src/layer3-ip/event-queue.ts";
import { virtualFates } from "../../src/layer3-ip/virtual-trace.ts";
import {
  createVirtualWire,
  type VirtualWire,
  type VirtualWireOptions,
} from "../../src/layer3-ip/virtual-wire.ts";
import { udpPacket } from "./packets.ts";

const addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

function packet(from: number, to: number, payload: number): Buffer {
  const ends = { from: addresses[from] ?? "10.9.9.9", to: addresses[to] ?? "10.9.9.9" };
  return udpPacket(ends, 1000, 2000, Buffer.alloc(payload, payload & 0xff));
}

/** Every packet sent, and every copy, is somewhere. */
function expectAccounted(wire: VirtualWire): void {
  const counts = wire.counts();
  const ended = virtualFates.reduce((sum, fate) => sum + counts[fate], 0);
  expect(counts.sent + counts.duplicated).toBe(ended + counts.inFlight);
  expect(wire.trace.length + wire.traceMissed).toBe(ended);
}

const probability = fc.double({ min: 0, max: 0.3, noNaN: true });
const options: fc.Arbitrary<VirtualWireOptions> = fc.record(
  {
    seed: fc.maxSafeNat(),
    delayMs: fc.integer({ min: 0, max: 20 }),
    jitterMs: fc.integer({ min: 0, max: 20 }),
    jitterShape: fc.constantFrom("uniform", "normal"),
    keepOrder: fc.boolean(),
    loss: probability,
    gilbertElliott: fc.record({ p: probability, r: fc.double({ min: 0.1, max: 1, noNaN: true }) }),
    reorder: probability,
    duplicate: probability,
    corrupt: probability,
    rateBitsPerSecond: fc.constantFrom(0, 1_000_000, 50_000_000),
    queueBytes: fc.integer({ min: 1280, max: 20_000 }),
    inboxBytes: fc.integer({ min: 3000, max: 40_000 }),
    traceBytesMax: fc.constantFrom(0, 20_000, 2 ** 26),
  },
  { requiredKeys: ["seed"] },
);
const sends = fc.array(
  fc.record({
    pauseUs: fc.integer({ min: 0, max: 3000 }),
    from: fc.integer({ min: 0, max: 2 }),
    to: fc.integer({ min: 0, max: 3 }),
    payload: fc.integer({ min: 0, max: 1600 }),
  }),
  { minLength: 1, maxLength: 80 },
);

/** Three plugs; whoever gets a packet with an odd last byte answers the first plug. */
function play(
  given: VirtualWireOptions,
  script: { pauseUs: number; from: number; to: number; payload: number }[],
) {
  const wire = createVirtualWire(given);
  const arrived: string[] = [];
  const plugs = addresses.map((address, i) =>
    wire.plug(address, (bytes, nowUs) => {
      arrived.push(`${nowUs} ${i} ${bytes.length}`);
      if (i !== 0 && (bytes.at(-1) as number) % 2 === 1) wire.send(plugs[i] as number, packet(i, 0, 2));
    }),
  );
  for (const { pauseUs, from, to, payload } of script) {
    wire.advance(wire.nowUs + pauseUs);
    wire.send(plugs[from] as number, packet(from, to, payload));
    expectAccounted(wire);
  }
  while (wire.step());
  return { wire, arrived };
}

describe("any network, any packets", () => {
  test("the same seed gives the same trace byte for byte, and nothing is unaccounted for", () => {
    fc.assert(
      fc.property(options, sends, (given, script) => {
        const one = play(given, script);
        const two = play(given, script);
        expect(Buffer.from(two.wire.traceBytes()).equals(Buffer.from(one.wire.traceBytes()))).toBe(true);
        expect(two.arrived).toEqual(one.arrived);
        expectAccounted(one.wire);
        const counts = one.wire.counts();
        expect(counts.inFlight).toBe(0);
        expect(counts.delivered).toBe(one.arrived.length);
        expect(two.wire.counts()).toEqual(counts);
        const times = one.wire.trace.map(({ atUs }) => atUs);
        expect(times).toEqual([...times].sort((a, b) => a - b));
      }),
      { numRuns: 150 },
    );
  });

  test("what arrives is what was sent, but for the one bit that the trace names", () => {
    const wire = createVirtualWire({ corrupt: 0.5, delayMs: 1 });
    const sent = packet(0, 1, 100);
    const got: Buffer[] = [];
    const a = wire.plug("10.0.0.1", () => {});
    wire.plug("10.0.0.2", (bytes) => got.push(Buffer.from(bytes)));
    for (let i = 0; i < 200; i += 1) wire.send(a, sent);
    wire.advance(1000);
    expect(got.length).toBe(200);
    got.forEach((bytes, i) => {
      const bit = wire.trace[i]?.corruptBit as number;
      if (bit >= 0) bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(bytes.equals(sent)).toBe(true);
    });
    const { corrupted } = wire.counts();
    expect(corrupted).toBe(wire.trace.filter(({ corruptBit }) => corruptBit >= 0).length);
    expect(corrupted).toBeGreaterThan(70);
    expect(corrupted).toBeLessThan(130);
  });

  test("another seed gives another trace", () => {
    const script = Array.from({ length: 50 }, () => ({ pauseUs: 10, from: 0, to: 1, payload: 8 }));
    const bytes = [1, 2, 1 + 2 ** 32].map((seed) =>
      Buffer.from(play({ seed, loss: 0.3, jitterMs: 5 }, script).wire.traceBytes()).toString("base64"),
    );
    expect(new Set(bytes).size).toBe(3);
  });

  test("a receiver may do with the bytes what it likes: the trace and the copy keep theirs", () => {
    const wire = createVirtualWire({ duplicate: 1 });
    const a = wire.plug("10.0.0.1", () => {});
    const got: string[] = [];
    wire.plug("10.0.0.2", (bytes) => {
      got.push(Buffer.from(bytes).toString("hex"));
      bytes.fill(0);
    });
    const sent = packet(0, 1, 10);
    wire.send(a, sent);
    sent.fill(0xff);
    wire.advance(0);
    const expected = packet(0, 1, 10).toString("hex");
    expect(got).toEqual([expected, expected]);
    expect(wire.trace.map((entry) => Buffer.from(entry.packet).toString("hex"))).toEqual(got);
    expect(wire.trace.map(({ copy }) => copy)).toEqual([false, true]);
    expect(wire.counts()).toMatchObject({ sent: 1, duplicated: 1, delivered: 2 });
  });
});

/** How many of `count` packets of 100 bytes, one a millisecond, end as what. */
function tally(given: VirtualWireOptions, count: number): VirtualWire {
  const wire = createVirtualWire({ traceBytesMax: 2 ** 32, ...given });
  const a = wire.plug("10.0.0.1", () => {});
  wire.plug("10.0.0.2", () => {});
  const bytes = packet(0, 1, 72);
  for (let i = 0; i < count; i += 1) {
    wire.advance(1000 * i);
    wire.send(a, bytes);
  }
  while (wire.step());
  return wire;
}

describe("what the impairments promise, with a fixed seed", () => {
  test("independent loss is as often as asked for, and has no memory", () => {
    const { trace } = tally({ seed: 3, loss: 0.1 }, 50_000);
    const lost = trace.map(({ what }) => what === "lost");
    const share = (of: boolean[]): number => of.filter(Boolean).length / of.length;
    expect(share(lost)).toBeCloseTo(0.1, 2);
    expect(share(lost.filter((_, i) => i > 0 && lost[i - 1]))).toBeCloseTo(0.1, 1);
  });

  test("Gilbert-Elliott bursts are geometric, with a mean of 1/r", () => {
    const { trace } = tally({ seed: 3, gilbertElliott: { p: 0.02, r: 0.25 } }, 50_000);
    const runs = trace
      .map(({ what }) => (what === "lostInBurst" ? "x" : " "))
      .join("")
      .split(/ +/)
      .filter((run) => run !== "")
      .map((run) => run.length);
    const mean = runs.reduce((sum, length) => sum + length, 0) / runs.length;
    expect(mean).toBeGreaterThan(3.7);
    expect(mean).toBeLessThan(4.3);
    expect(runs.filter((length) => length === 1).length / runs.length).toBeCloseTo(0.25, 1);
    expect(Math.max(...runs)).toBeGreaterThan(15);
  });

  test("a rate spaces packets out, and the queue drops the tail", () => {
    const wire = createVirtualWire({ rateBitsPerSecond: 8_000_000, queueBytes: 1500, delayMs: 2 });
    const times: number[] = [];
    const a = wire.plug("10.0.0.1", () => {});
    wire.plug("10.0.0.2", (_, nowUs) => times.push(nowUs));
    for (let i = 0; i < 5; i += 1) wire.send(a, packet(0, 1, 472)); // 500 bytes: 500 us each
    while (wire.step());
    expect(times).toEqual([2500, 3000, 3500]);
    expect(wire.counts().queueFull).toBe(2);
  });

  test("order is kept when asked for, and not when not", () => {
    const order = (given: VirtualWireOptions): boolean => {
      const { trace } = tally({ ...given, delayMs: 1, jitterMs: 10 }, 300);
      const sorted = [...trace].sort((x, y) => x.atUs - y.atUs);
      return sorted.every((entry, i) => entry === trace[i]);
    };
    expect(order({})).toBe(true); // the trace is in order of time, always
    const numbers = (keepOrder: boolean): number[] => {
      const wire = createVirtualWire({ jitterMs: 10, keepOrder });
      const got: number[] = [];
      const a = wire.plug("10.0.0.1", () => {});
      wire.plug("10.0.0.2", (bytes) => got.push(bytes.length));
      for (let i = 0; i < 100; i += 1) wire.send(a, packet(0, 1, i));
      while (wire.step());
      return got;
    };
    const inOrder = Array.from({ length: 100 }, (_, i) => 28 + i);
    expect(numbers(true)).toEqual(inOrder);
    expect(numbers(false)).not.toEqual(inOrder);
    expect(numbers(false).sort((x, y) => x - y)).toEqual(inOrder);
  });

  test("a cable is pulled and put back: nothing in between arrives, what was under way does", () => {
    const wire = createVirtualWire({ delayMs: 10, jitterMs: 0 });
    const a = wire.plug("10.0.0.1", () => {});
    wire.plug("10.0.0.2", () => {});
    wire.send(a, packet(0, 1, 1));
    wire.set({ loss: 1 });
    wire.send(a, packet(0, 1, 2));
    wire.set({ loss: 0 });
    wire.send(a, packet(0, 1, 3));
    wire.advance(10_000);
    expect(wire.trace.map(({ what, bytes }) => [what, bytes])).toEqual([
      ["lost", 30],
      ["delivered", 29],
      ["delivered", 31],
    ]);
  });
});

describe("plugs", () => {
  test("an address is found before a prefix, and a longer prefix before a shorter one", () => {
    const wire = createVirtualWire();
    const got: string[] = [];
    const names = ["exact", "net8", "net16", "six", "six48"];
    const [exact] = [
      wire.plug("10.1.0.1/24", () => got.push("exact")),
      wire.plug("", () => got.push("net8"), "10.0.0.0/8"),
      wire.plug("", () => got.push("net16"), "10.1.0.0/16, 192.0.2.0/25"),
      wire.plug("fd00::1", () => got.push("six"), "fd00::/16"),
      wire.plug("", () => got.push("six48"), "fd00:1:2::/48"),
    ];
    for (const to of [
      "10.1.0.1",
      "10.2.0.1",
      "10.1.0.2",
      "192.0.2.127",
      "192.0.2.128",
      "fd00::1",
      "fd00:9::",
      "fd00:1:2::9",
      "fd01::",
    ]) {
      const from = to.includes(":") ? "fe80::1" : "172.16.0.1";
      wire.send(exact as number, udpPacket({ from, to }, 1, 2, Buffer.alloc(1)));
    }
    wire.advance(0);
    expect(got).toEqual(["exact", "net8", "net16", "net16", "six", "six", "six48"]);
    expect(wire.counts().noRoute).toBe(2);
    expect(new Set(got)).toEqual(new Set(names));
  });

  test("an address or a prefix belongs to one plug, until that is taken out", () => {
    const wire = createVirtualWire();
    const first = wire.plug("10.0.0.1, fd00::1", () => {}, "10.1.0.0/16");
    const taken = expect.objectContaining({ code: "EADDRINUSE" });
    expect(() => wire.plug("fd00:0::1", () => {})).toThrow(taken);
    expect(() => wire.plug("", () => {}, "10.1.2.3/16")).toThrow(taken);
    wire.plug("", () => {}, "10.1.0.0/17");
    wire.unplug(first);
    expect(wire.plug("10.0.0.1, fd00::1", () => {}, "10.1.0.0/16")).toBe(3);
    expect(() => wire.unplug(first)).toThrow(/unplug: this wire has no plug 1/);
    expect(() => wire.send(9, packet(0, 1, 0))).toThrow(/send: this wire has no plug 9/);
    expect(() => wire.plug(" ", () => {})).toThrow(/an address or a prefix is needed/);
    expect(() => wire.plug("10.0.0.256", () => {})).toThrow(expect.objectContaining({ code: "EINVAL" }));
  });

  test("what is under way to a plug that goes is lost and counted", () => {
    const wire = createVirtualWire({ delayMs: 1 });
    const a = wire.plug("10.0.0.1", () => {});
    const b = wire.plug("10.0.0.2", () => expect.unreachable());
    wire.send(a, packet(0, 1, 1));
    wire.unplug(b);
    wire.send(a, packet(0, 1, 1));
    wire.advance(1000);
    expect(wire.counts()).toMatchObject({ unplugged: 1, noRoute: 1, inFlight: 0 });
  });

  test("the wire is full at 1,024 plugs", () => {
    const wire = createVirtualWire();
    for (let i = 0; i < 1024; i += 1) wire.plug(`10.0.${i >> 8}.${i & 255}`, () => {});
    expect(() => wire.plug("10.9.9.9", () => {})).toThrow(expect.objectContaining({ code: "ENFILE" }));
  });
});

describe("time", () => {
  test("events come by time, and in the order they were put in when that is equal", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 200 }), (times) => {
        const queue = new EventQueue<number>();
        times.forEach((atUs, i) => {
          queue.add(atUs, i);
        });
        const taken = times.map(() => queue.take() as number);
        const expected = times
          .map((_, i) => i)
          .sort((x, y) => (times[x] as number) - (times[y] as number) || x - y);
        expect(taken).toEqual(expected);
        expect([queue.take(), queue.size, queue.nextAtUs]).toEqual([undefined, 0, undefined]);
      }),
    );
  });

  test("timers and packets share one clock", () => {
    const wire = createVirtualWire({ delayMs: 1 });
    const seen: string[] = [];
    const a = wire.plug("10.0.0.1", () => {});
    wire.plug("10.0.0.2", (_, nowUs) => seen.push(`packet ${nowUs}`));
    wire.at(1000, (nowUs) => seen.push(`first ${nowUs}`));
    wire.at(500, () => wire.send(a, packet(0, 1, 0)));
    const cancel = wire.at(700, () => expect.unreachable());
    cancel();
    expect(wire.nextAtUs).toBe(500);
    expect(wire.advance(1499)).toBe(3);
    expect(wire.nowUs).toBe(1499);
    wire.at(1500, (nowUs) => seen.push(`last ${nowUs}`));
    expect(wire.advance(1500)).toBe(2);
    expect(seen).toEqual(["first 1000", "packet 1500", "last 1500"]);
    expect([wire.step(), wire.nextAtUs]).toEqual([false, undefined]);
    expect(() => wire.advance(1499)).toThrow(/from 1500 \(now\), not 1499/);
    expect(() => wire.at(1499, () => {})).toThrow(/from 1500 \(now\), not 1499/);
  });

  test("a circle without delay is told, not walked for ever", () => {
    const wire = createVirtualWire({ traceBytesMax: 0 });
    const again = (): void => void wire.at(wire.nowUs, again);
    again();
    expect(() => wire.advance(1)).toThrow(/virtual time stands at 0 us/);
  });
});

describe("bounds", () => {
  test("no more is on its way to one plug than its inbox takes", () => {
    const wire = createVirtualWire({ delayMs: 1, inboxBytes: 1000 });
    const a = wire.plug("10.0.0.1", () => {});
    wire.plug("10.0.0.2", () => {});
    for (let i = 0; i < 30; i += 1) wire.send(a, packet(0, 1, 72));
    expect(wire.counts()).toMatchObject({ inboxFull: 20, inFlight: 10 });
    wire.advance(1000);
    wire.send(a, packet(0, 1, 72));
    expect(wire.counts()).toMatchObject({ inboxFull: 20, inFlight: 1, delivered: 10 });
  });

  test("a trace that is full counts what it does not keep, and says so in its file", () => {
    const wire = createVirtualWire({ traceBytesMax: 450 });
    const a = wire.plug("10.0.0.1", () => {});
    for (let i = 0; i < 5; i += 1) wire.send(a, packet(0, 7, 72));
    expect([wire.trace.length, wire.traceMissed]).toEqual([2, 3]);
    expect(Buffer.from(wire.traceBytes()).includes("3 more packets were not kept")).toBe(true);
  });

  test.each([
    [{ mtu: 67 }, /^createVirtualWire: mtu must be a whole number from 68 to 65535, not 67$/],
    [{ seed: -1 }, /^createVirtualWire: seed must be/],
    [{ inboxBytes: 0 }, /^createVirtualWire: inboxBytes must be/],
    [{ traceBytesMax: -1 }, /^createVirtualWire: traceBytesMax must be/],
    [{ loss: 2 }, /^createVirtualWire: loss must be a number from 0 to 1, not 2$/],
    [{ delay: 2 }, /^createVirtualWire: unknown option "delay"/],
  ])("%j is refused", (given, words) => {
    expect(() => createVirtualWire(given as VirtualWireOptions)).toThrow(words);
  });
});

function hasTshark(): boolean {
  try {
    execFileSync("tshark", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

const tshark = hasTshark();
if (!tshark) console.warn("skipped: the trace is not opened by tshark, which is not installed");

test.skipIf(!tshark)("tshark opens the trace, and sees the packets, their times and their fates", () => {
  const wire = createVirtualWire({ delayMs: 1500 });
  const a = wire.plug("10.0.0.1", () => {});
  wire.plug("10.0.0.2", () => {});
  wire.send(a, packet(0, 1, 5));
  wire.send(a, packet(0, 7, 5));
  wire.advance(2_000_000);
  const folder = mkdtempSync(join(tmpdir(), "apo-trace-"));
  try {
    const path = join(folder, "trace.pcapng");
    writeFileSync(path, wire.traceBytes());
    const fields = ["frame.time_relative", "ip.dst", "udp.length", "frame.comment", "_ws.malformed"];
    const args = ["-r", path, "-T", "fields", "-E", "separator=|", ...fields.flatMap((name) => ["-e", name])];
    const lines = execFileSync("tshark", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    expect(lines.trimEnd().split("\n")).toEqual([
      "0.000000000|10.9.9.9|13|from 1: noRoute|",
      "1.500000000|10.0.0.2|13||",
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
