/**
 * The native checksums, fragmentation, segmentation and reassembly against slow twins written from the RFCs: the same
 * answer to whatever comes. What each rule is for is held in C++ (`native/rawsock/test/`).
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { loadNative } from "../../src/layer3-ip/native.ts";
import { type Ends, ipPacket, slowChecksum } from "./packets.ts";
import { type SlowLimits, SlowReassembler } from "./slow/reassembly.ts";
import { slowFragments, slowSegments, slowUpperChecksum } from "./slow/segmentation.ts";

const { ip } = loadNative();

/** Bytes of any length, with long runs of ones and zeros (where carries hide) among them. */
const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc
    .tuple(
      fc.uint8Array({ minLength: 1, maxLength: 64 }),
      fc.nat({ max: maxLength }),
      fc.constantFrom(0, 0xff, -1),
    )
    .map(([seed, length, fill]) => {
      const all = Buffer.alloc(length, fill === -1 ? seed : fill);
      all.set(seed.subarray(0, length), Math.floor((length - Math.min(length, seed.length)) / 2));
      return all;
    });

describe("checksums", () => {
  test("whole and in two parts", () => {
    fc.assert(
      fc.property(
        fc.oneof(bytes(300), bytes(70_000)),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.nat({ max: 33 }),
        (data, where, shift) => {
          const unaligned = Buffer.concat([Buffer.alloc(shift), data]).subarray(shift);
          const cut = Math.floor((where * data.length) / 2) * 2;
          expect(ip.checksum(unaligned, cut)).toBe(slowChecksum(data));
        },
      ),
      { numRuns: 500 },
    );
  });

  test("after a word has changed", () => {
    fc.assert(
      fc.property(bytes(200), fc.nat(), fc.nat({ max: 0xffff }), (data, where, word) => {
        fc.pre(data.length >= 2);
        const at = (where % Math.floor(data.length / 2)) * 2;
        const before = slowChecksum(data);
        const from = data.readUInt16BE(at);
        const changed = Buffer.from(data);
        changed.writeUInt16BE(word, at);
        // The two zeros of one's complement are one number.
        expect(ip.updateChecksum(before, from, word) % 0xffff).toBe(slowChecksum(changed) % 0xffff);
      }),
      { numRuns: 500 },
    );
  });

  test("partial ones completed", () => {
    fc.assert(
      fc.property(fc.boolean(), fc.constantFrom(6, 17), bytes(3000), (six, protocol, data) => {
        const header = Buffer.alloc(protocol === 6 ? 20 : 8);
        if (protocol === 6) header[12] = 0x50;
        const packet = ipPacket(six ? ends6 : ends4, protocol, Buffer.concat([header, data]));
        const field = (six ? 40 : 20) + (protocol === 6 ? 16 : 6);
        const whole = slowUpperChecksum(packet) || (protocol === 17 ? 0xffff : 0);
        const zeros = Buffer.from(packet).fill(0, six ? 40 : 20);
        packet.writeUInt16BE(~slowUpperChecksum(zeros) & 0xffff, field);
        expect(ip.completeChecksum(packet)).toBe(true);
        expect(packet.readUInt16BE(field)).toBe(whole);
      }),
    );
  });
});

const ends4: Ends = { from: "10.0.0.2", to: "10.0.0.1" };
const ends6: Ends = { from: "fd00::2", to: "fd00::1" };

describe("fragments and segments", () => {
  test("fragments", () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        bytes(60_000),
        fc.integer({ min: 68, max: 9000 }),
        fc.nat({ max: 2 ** 32 - 1 }),
        (six, data, mtu, identification) => {
          const upper = Buffer.concat([Buffer.alloc(8), data]);
          const packet = ipPacket(six ? ends6 : ends4, 17, upper);
          const expected = slowFragments(packet, mtu, identification);
          const fragments = ip.fragment(packet, mtu, identification) ?? [];
          expect(fragments.length).toBe(expected.length);
          expect(Buffer.concat(fragments).equals(Buffer.concat(expected))).toBe(true);
        },
      ),
    );
  });

  test("segments", () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.boolean(),
        bytes(60_000),
        fc.integer({ min: 48, max: 9000 }),
        fc.uint8Array({ minLength: 20, maxLength: 20 }),
        (six, tcp, data, segmentBytes, header) => {
          header[12] = 0x50;
          const upper = Buffer.concat([header.subarray(0, tcp ? 20 : 8), data]);
          const packet = ipPacket(six ? ends6 : ends4, tcp ? 6 : 17, upper);
          const expected = slowSegments(packet, segmentBytes);
          const segments = ip.segment(packet, tcp ? (six ? 3 : 2) : 1, segmentBytes) ?? [];
          expect(segments.length).toBe(expected.length);
          expect(Buffer.concat(segments).equals(Buffer.concat(expected))).toBe(true);
        },
      ),
    );
  });
});

/** One fragment, as numbers small enough to collide often. */
interface Step {
  readonly six: boolean;
  readonly sender: number;
  readonly identification: number;
  readonly protocol: number;
  readonly offset: number;
  readonly length: number;
  readonly more: boolean;
  readonly ecn: number;
  readonly options: boolean;
  /** Another content than other fragments have at the same place. */
  readonly forged: boolean;
  readonly afterUs: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  six: fc.boolean(),
  sender: fc.nat({ max: 2 }),
  identification: fc.nat({ max: 2 }),
  protocol: fc.constantFrom(17, 17, 17, 6, 58, 1, 60, 43, 59, 99),
  offset: fc.oneof(fc.nat({ max: 6 }), fc.nat({ max: 6 }), fc.constantFrom(8190, 8191)).map((n) => n * 8),
  length: fc.oneof(
    fc.nat({ max: 5 }).map((n) => n * 8),
    fc.nat({ max: 40 }),
  ),
  more: fc.boolean(),
  ecn: fc.constantFrom(0, 0, 0, 0, 1, 3),
  options: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  forged: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  // Never 0, so that it is beyond doubt which datagram is the oldest.
  afterUs: fc.oneof(
    fc.integer({ min: 1, max: 1000 }),
    fc.integer({ min: 1, max: 1000 }),
    fc.constantFrom(1, 1e6, 29_999_999, 30e6, 60e6),
  ),
});

/** Any fragments; or, as often, those of few datagrams that are honest about their ends. */
const steps: fc.Arbitrary<Step[]> = fc
  .tuple(fc.array(step, { minLength: 1, maxLength: 60 }), fc.boolean(), fc.boolean())
  .map(([all, honest, six]) => {
    if (!honest) return all;
    return all.map((one) => {
      const offset = one.offset % 48;
      const length = one.sender > 0 ? 8 : Math.min(8 + one.length - (one.length % 8), 48 - offset);
      const more = offset + length < 48;
      const fixed = { six, sender: 0, protocol: 17, ecn: 0, options: false, forged: false };
      return { ...one, ...fixed, offset, length, more, afterUs: Math.min(one.afterUs, 1000) };
    });
  });

/** What every honest fragment has at an offset: extension headers that end, TCP headers that are short. */
function content(length: number, offset: number, forged: boolean): Buffer {
  const pattern = [17, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0x50, 0, 0, 0];
  return Buffer.from(
    Array.from({ length }, (_, i) => (pattern[(offset + i) % 16] as number) + (forged ? 1 : 0)),
  );
}

function packetOf(step: Step): Buffer {
  const { six, sender, identification, protocol, offset, length, more, ecn, options, forged } = step;
  const data = content(length, offset, forged);
  if (!six) {
    const packet = ipPacket({ from: `10.0.1.${sender}`, to: "10.0.0.1" }, protocol, data);
    packet[1] = ecn;
    packet.writeUInt16BE(identification, 4);
    packet.writeUInt16BE(((offset / 8) % 8192) | (more ? 0x2000 : 0), 6);
    if (!options) return packet;
    const longer = Buffer.concat([packet.subarray(0, 20), Buffer.from([1, 1, 1, 0]), packet.subarray(20)]);
    longer[0] = 0x46;
    longer.writeUInt16BE(longer.length, 2);
    return longer;
  }
  const header = Buffer.from([protocol, 0, 0, 0, 0, 0, 0, identification]);
  header.writeUInt16BE(offset | (more ? 1 : 0), 2);
  const hopByHop = options ? Buffer.from([44, 0, 1, 4, 0, 0, 0, 0]) : Buffer.alloc(0);
  const upper = Buffer.concat([hopByHop, header, data]);
  const packet = ipPacket({ from: `fd00:0:0:${sender}::2`, to: "fd00::1" }, options ? 0 : 44, upper);
  packet[1] = ecn << 4;
  return packet;
}

const readable = (answer: Buffer | string | undefined): string | undefined =>
  Buffer.isBuffer(answer) ? answer.toString("hex") : answer;

/** Gives both the same packets, and what each says must be the same at every step. */
function compare(packets: Iterable<readonly [Buffer, number]>, limits: SlowLimits): SlowReassembler {
  const { datagrams, datagramsPerSource, fragmentsPerDatagram } = limits;
  const native = new ip.Reassembler(1, 2, datagrams, datagramsPerSource, fragmentsPerDatagram);
  const slow = new SlowReassembler(limits);
  let nowUs = 0;
  const expireAll = (): void => {
    for (;;) {
      const expected = slow.expire(nowUs);
      expect(readable(native.expire(nowUs))).toBe(readable(expected));
      if (expected === undefined) return;
    }
  };
  for (const [packet, afterUs] of packets) {
    nowUs += afterUs;
    expireAll();
    expect(readable(native.add(packet, nowUs))).toBe(readable(slow.add(packet, nowUs)));
    expect(native.waiting().slice(0, 2)).toEqual(slow.waiting);
  }
  nowUs += 60e6;
  expireAll();
  expect(native.waiting()).toEqual([0, 0, 0, Number.POSITIVE_INFINITY]);
  expect(native.counters()).toEqual(slow.counters);
  return slow;
}

describe("reassembly", () => {
  const limits: fc.Arbitrary<SlowLimits> = fc.constantFrom(
    { datagrams: 256, datagramsPerSource: 64, fragmentsPerDatagram: 128 },
    { datagrams: 4, datagramsPerSource: 2, fragmentsPerDatagram: 3 },
    { datagrams: 1, datagramsPerSource: 1, fragmentsPerDatagram: 2 },
  );

  test("of any fragments", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(steps, limits, (all, bounds) => {
        const packets = all.map((one): [Buffer, number] => [packetOf(one), one.afterUs]);
        for (const name of Object.keys(compare(packets, bounds).counters)) seen.add(name);
      }),
      { numRuns: 1500 },
    );
    // Every outcome came about, so none was compared in vain.
    const names = "Length TooLong Tiny Duplicate Overlap Mismatch TooMany Memory Timeout".split(" ");
    expect([...seen].sort()).toEqual(
      ["rx.merged", "rx.reassembled", ...names.map((name) => `rx.dropped.fragment${name}`)].sort(),
    );
  });

  test("of datagrams in fragments, disordered, some twice, some lost, some forged", () => {
    let whole = 0;
    const datagram = fc.record({
      six: fc.boolean(),
      data: bytes(12_000),
      mtu: fc.integer({ min: 576, max: 1500 }),
      fate: fc.array(fc.record({ order: fc.nat(), twice: fc.boolean(), lost: fc.nat({ max: 30 }) }), {
        minLength: 25,
        maxLength: 25,
      }),
      forge: fc.nat({ max: 20 }),
    });
    fc.assert(
      fc.property(fc.array(datagram, { minLength: 1, maxLength: 6 }), (datagrams) => {
        const packets: [number, Buffer][] = [];
        for (const [identification, { six, data, mtu, fate, forge }] of datagrams.entries()) {
          const upper = Buffer.concat([Buffer.alloc(8), data]);
          const fragments = slowFragments(ipPacket(six ? ends6 : ends4, 17, upper), mtu, identification);
          for (const [i, fragment] of fragments.entries()) {
            const { order, twice, lost } = fate[i % fate.length] as (typeof fate)[number];
            if (lost > 0) packets.push([order, fragment]);
            if (twice) packets.push([order * 7 + 1, fragment]);
            if (forge === i) {
              const forged = Buffer.from(fragment);
              forged[forged.length - 1] = (forged[forged.length - 1] as number) ^ 1;
              packets.push([order * 3, forged]);
            }
          }
        }
        packets.sort(([a], [b]) => a - b);
        const slow = compare(
          packets.map(([, packet]) => [packet, 1000] as const),
          { datagrams: 256, datagramsPerSource: 64, fragmentsPerDatagram: 128 },
        );
        whole += slow.counters["rx.reassembled"] ?? 0;
      }),
      { numRuns: 300 },
    );
    expect(whole).toBeGreaterThan(100);
  });
});
