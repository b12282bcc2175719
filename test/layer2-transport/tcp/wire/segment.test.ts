/** Segments: golden bytes read and written on poisoned memory, round trips, and bytes that mean no good. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  flag,
  maxSacks,
  parseSegment,
  Segment,
  type SynOptions,
  writeHeader,
  writeSacks,
  writeSynOptions,
  writeTimestamps,
} from "../../../../src/layer2-transport/tcp/wire/segment.ts";
import { RandomStream, SeedMixer } from "../../../../src/layer3-ip/random-stream.ts";

const poison = 0xa5;

function poisoned(length: number): Uint8Array {
  return new Uint8Array(length).fill(poison);
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ""), "hex"));
}

/** Parses `bytes` as a segment in the midst of poison, into a record that has been used before. */
function parse(bytes: Uint8Array, into = dirtySegment()): Segment | undefined {
  const memory = poisoned(bytes.length + 64);
  memory.set(bytes, 32);
  return parseSegment(memory, 32, bytes.length, into) ? into : undefined;
}

function dirtySegment(): Segment {
  const segment = new Segment();
  Object.assign(segment, {
    mss: 9,
    scale: 9,
    sackPermitted: true,
    hasTimestamp: true,
    tsValue: 9,
    tsEcho: 9,
  });
  Object.assign(segment, {
    sackCount: 3,
    fastOpenAt: 9,
    fastOpenLength: 9,
    urgent: 9,
    window: 9,
    flags: 255,
  });
  return segment;
}

const none = {
  mss: 0,
  scale: -1,
  sackPermitted: false,
  hasTimestamp: false,
  tsValue: 0,
  tsEcho: 0,
  sackCount: 0,
  fastOpenAt: 0,
  fastOpenLength: -1,
};

const base = "3039 0050 deadbeef 01020304";

describe("a segment's bytes", () => {
  test("a header without options", () => {
    const bytes = fromHex(`${base} 5018 fffe 1234 4321 6869`);
    expect(parse(bytes)).toMatchObject({
      ...none,
      sourcePort: 12345,
      destinationPort: 80,
      seq: 0xdeadbeef | 0,
      ack: 0x01020304,
      flags: flag.psh | flag.ack,
      window: 0xfffe,
      urgent: 0x4321,
      headerBytes: 20,
      payloadAt: 52,
      payloadLength: 2,
    });
  });

  test("the header is written whole, with checksum and urgent pointer 0, and nothing beside it", () => {
    const bytes = poisoned(24);
    writeHeader(bytes, 2, 12345, 80, 0xdeadbeef, 0x01020304, 0xff, 0xfffe, 60);
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "a5a5" + "30390050deadbeef01020304" + "f0fffffe00000000" + "a5a5",
    );
    writeHeader(bytes, 2, 65535, 65535, -1, -1, flag.syn, 0, 20);
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "a5a5" + "ffffffffffffffffffffffff" + "5002000000000000" + "a5a5",
    );
  });

  test("timestamps, in the usual place and in others", () => {
    const expected = { ...none, hasTimestamp: true, tsValue: 0x80000001 | 0, tsEcho: 0x7fffffff };
    const pair = "080a 80000001 7fffffff";
    for (const options of [`0101 ${pair}`, `${pair} 0101`, `01 ${pair} 00`, `${pair} 00ff`]) {
      expect(parse(fromHex(`${base} 8010 0001 0000 0000 ${options}`))).toMatchObject(expected);
    }
    const bytes = poisoned(14);
    expect(writeTimestamps(bytes, 1, 0x80000001, 0x7fffffff)).toBe(12);
    expect(Buffer.from(bytes).toString("hex")).toBe("a5" + "0101080a800000017fffffff" + "a5");
  });

  test("SACK blocks behind timestamps", () => {
    const bytes = poisoned(30);
    const blocks = Int32Array.of(1, 2, 0xfffffff0, 16, 77, 78);
    expect(writeSacks(bytes, 1, blocks, 2)).toBe(20);
    expect(Buffer.from(bytes.subarray(0, 22)).toString("hex")).toBe(
      "a5" + "01010512" + "0000000100000002" + "fffffff000000010" + "a5",
    );
    expect(writeSacks(bytes, 25, blocks, 0)).toBe(0);
    const segment = parse(
      fromHex(`${base} d010 0001 0000 0000 0101080a 00000001 00000002
        01010512 00000001 00000002 fffffff0 00000010`),
    );
    expect(segment).toMatchObject({ hasTimestamp: true, tsValue: 1, tsEcho: 2, sackCount: 2 });
    expect([...(segment?.sacks.subarray(0, 4) ?? [])]).toEqual([1, 2, -16, 16]);
  });

  test("what Linux sends with a SYN", () => {
    const syn = fromHex(`d431 0050 11223344 00000000 a002 faf0 0000 0000
      0204 05b4 0402 080a 0badcafe 00000000 01 030307`);
    expect(parse(syn)).toMatchObject({
      ...none,
      mss: 1460,
      sackPermitted: true,
      scale: 7,
      hasTimestamp: true,
      tsValue: 0x0badcafe,
      payloadLength: 0,
    });
    const options = { mss: 1460, scale: 7, sack: true, timestamps: true, tsValue: 0x0badcafe, tsEcho: 0 };
    const bytes = poisoned(41);
    writeHeader(bytes, 1, 0xd431, 80, 0x11223344, 0, flag.syn, 0xfaf0, 40);
    expect(writeSynOptions(bytes, 21, { ...options, fastOpen: undefined })).toBe(20);
    expect(bytes.subarray(1)).toEqual(syn);
    expect(bytes[0]).toBe(poison);
  });

  test("a Fast Open cookie, a request for one, and lengths that no cookie has", () => {
    const syn = `${base} 8002 0001 0000 0000`;
    const cookie = parse(fromHex(`${syn} 220a 0102030405060708 0101`));
    expect(cookie).toMatchObject({ fastOpenLength: 8, fastOpenAt: 32 + 22 });
    expect(parse(fromHex(`${syn} 2202 0101 0101 0101 0101 0101`))).toMatchObject({
      fastOpenLength: 0,
      fastOpenAt: 0,
    });
    expect(parse(fromHex(`${syn} 2207 0102030405 0101010101`))).toMatchObject(none);
    expect(parse(fromHex(`${syn} 2204 0102 0101 0101 0101 0101`))).toMatchObject(none);
    expect(parse(fromHex(`${base} 8010 0001 0000 0000 220a 0102030405060708 0101`))).toMatchObject(none);
  });

  test("options of the handshake count in a SYN only, and a shift beyond 14 is 14", () => {
    const options = "0204 05b4 0101 0402 01 03030f";
    expect(parse(fromHex(`${base} 8010 0001 0000 0000 ${options}`))).toMatchObject(none);
    expect(parse(fromHex(`${base} 8012 0001 0000 0000 ${options}`))).toMatchObject({
      mss: 1460,
      sackPermitted: true,
      scale: 14,
    });
  });

  test("options that are unknown, or of a wrong length, are passed over", () => {
    const tail = "0101080a 00000001 00000002";
    for (const options of [
      "fd0801020304 0506", // experimental
      "1e04 0000 01010101", // Multipath TCP
      "0203 05 01 01010101", // MSS of 3 bytes
      "080901020304050607 010101", // timestamps of 9
      "0509 00000001000000 010101", // SACK that is no multiple of 8
      "0502 0101 01010101", // SACK without a block
    ]) {
      const text = options.replaceAll(/\s/g, "");
      const nibble = (5 + (text.length + tail.length - 2) / 8).toString(16);
      const segment = parse(fromHex(`${base} ${nibble}002 0001 0000 0000 ${text} ${tail}`));
      expect(segment).toMatchObject({ ...none, hasTimestamp: true, tsValue: 1, tsEcho: 2 });
    }
  });

  test.each([
    ["shorter than a header", `${base} 5010 0001 0000 00`],
    ["a header of 16 bytes", `${base} 4010 0001 0000 0000`],
    ["a header of 0 bytes", `${base} 0010 0001 0000 0000`],
    ["a header longer than the segment", `${base} 6010 0001 0000 0000 010101`],
    ["an option of length 0", `${base} 6010 0001 0000 0000 0800 0101`],
    ["an option of length 1", `${base} 6010 0001 0000 0000 0801 0101`],
    ["an option that runs out of the header", `${base} 6010 0001 0000 0000 080a 0000 00000000 00000000`],
    ["an option without its length", `${base} 6010 0001 0000 0000 010101 08`],
  ])("malformed: %s", (_name, text) => {
    expect(parse(fromHex(text))).toBeUndefined();
  });
});

const word = fc.integer();
const synOptions = fc.record({
  mss: fc.integer({ min: 0, max: 65_535 }),
  scale: fc.integer({ min: -1, max: 14 }),
  sack: fc.boolean(),
  timestamps: fc.boolean(),
  tsValue: word,
  tsEcho: word,
  fastOpen: fc.option(
    fc
      .constantFrom(0, 4, 6, 8, 16)
      .chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
    { nil: undefined },
  ),
});

describe("a round trip", () => {
  test("of every set of a SYN's options, in whole words and never more than 40 bytes", () => {
    fc.assert(
      fc.property(synOptions, (options: SynOptions) => {
        const bytes = poisoned(80);
        const written = writeSynOptions(bytes, 28, options);
        expect(written % 4).toBe(0);
        expect(written).toBeLessThanOrEqual(40);
        expect(bytes.subarray(28 + written).every((byte) => byte === poison)).toBe(true);
        writeHeader(bytes, 8, 1, 2, 3, 4, flag.syn, 5, 20 + written);
        const segment = dirtySegment();
        expect(parseSegment(bytes, 8, 20 + written, segment)).toBe(true);
        const { fastOpen } = options;
        expect(segment).toMatchObject({
          mss: options.mss,
          scale: options.scale,
          sackPermitted: options.sack,
          hasTimestamp: options.timestamps,
          tsValue: options.timestamps ? options.tsValue : 0,
          tsEcho: options.timestamps ? options.tsEcho : 0,
          fastOpenLength: fastOpen === undefined ? -1 : fastOpen.length,
        });
        if (fastOpen !== undefined && fastOpen.length > 0) {
          const at = segment.fastOpenAt;
          expect(bytes.slice(at, at + fastOpen.length)).toEqual(Uint8Array.from(fastOpen));
        }
      }),
    );
  });

  test("of every header with timestamps and SACK blocks", () => {
    const port = fc.integer({ min: 0, max: 65_535 });
    const header = fc.record({ sourcePort: port, destinationPort: port, seq: word, ack: word, window: port });
    const blocks = fc.array(word, { maxLength: 6 }).filter((edges) => edges.length % 2 === 0);
    fc.assert(
      fc.property(
        header,
        fc.integer({ min: 0, max: 255 }),
        fc.boolean(),
        blocks,
        (fields, flags, stamped, edges) => {
          const bytes = poisoned(90);
          let at = 24;
          if (stamped) at += writeTimestamps(bytes, at, fields.ack, fields.seq);
          at += writeSacks(bytes, at, Int32Array.from(edges), edges.length / 2);
          const { sourcePort, destinationPort, seq, ack, window } = fields;
          writeHeader(bytes, 4, sourcePort, destinationPort, seq, ack, flags, window, at - 4);
          const segment = dirtySegment();
          expect(parseSegment(bytes, 4, at - 4 + 11, segment)).toBe(true);
          expect(segment).toMatchObject({ ...fields, flags, urgent: 0, payloadLength: 11, payloadAt: at });
          expect(segment).toMatchObject({ hasTimestamp: stamped, sackCount: edges.length / 2 });
          expect([...segment.sacks.subarray(0, edges.length)]).toEqual(edges);
          expect(bytes.subarray(at).every((byte) => byte === poison)).toBe(true);
        },
      ),
    );
  });
});

/** Bytes that tell of every look outside of one segment. */
function fenced(bytes: Uint8Array, at: number, length: number): Uint8Array {
  return new Proxy(bytes, {
    get(target, name) {
      const index = typeof name === "string" ? Number(name) : Number.NaN;
      if (Number.isInteger(index) && (index < at || index >= at + length)) {
        throw new RangeError(`byte ${index} is outside of ${at} to ${at + length}`);
      }
      return Reflect.get(target, name) as unknown;
    },
  });
}

function expectSane(segment: Segment, at: number, length: number): void {
  expect(segment.headerBytes).toBeGreaterThanOrEqual(20);
  expect(segment.payloadAt).toBe(at + segment.headerBytes);
  expect(segment.payloadLength).toBe(length - segment.headerBytes);
  expect(segment.payloadLength).toBeGreaterThanOrEqual(0);
  expect(segment.sackCount).toBeLessThanOrEqual(maxSacks);
  expect(segment.scale).toBeLessThanOrEqual(14);
  expect(segment.fastOpenLength).toBeLessThanOrEqual(16);
  if (segment.fastOpenLength > 0) {
    expect(segment.fastOpenAt).toBeGreaterThanOrEqual(at + 22);
    expect(segment.fastOpenAt + segment.fastOpenLength).toBeLessThanOrEqual(segment.payloadAt);
  }
}

describe("hostile bytes", () => {
  const seed = 0x5e6_3e47n;

  test("random ones never make it throw or look outside of the segment", () => {
    const random = new RandomStream(new SeedMixer(seed));
    const segment = new Segment();
    let accepted = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const length = random.below(90);
      const at = random.below(16);
      const bytes = new Uint8Array(at + length + 8);
      for (let i = 0; i < bytes.length; i += 1) bytes[i] = random.next() & 255;
      // Half of the time what is known of options comes more often than by chance.
      if ((round & 1) === 1 && length >= 40) bytes[at + 12] = (5 + random.below(10)) << 4;
      if ((round & 1) === 1) {
        for (let i = at + 20; i + 1 < at + length; i += 1 + random.below(6)) {
          bytes[i] = [0, 1, 2, 3, 4, 5, 8, 34][random.below(8)] as number;
          bytes[i + 1] = random.below(20);
        }
      }
      if (!parseSegment(fenced(bytes, at, length), at, length, segment)) continue;
      accepted += 1;
      expectSane(segment, at, length);
    }
    expect(accepted).toBeGreaterThan(1000);
  });

  test("valid segments with a few bytes changed", () => {
    const random = new RandomStream(new SeedMixer(seed + 1n));
    const segment = new Segment();
    let accepted = 0;
    let refused = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const bytes = poisoned(120);
      const at = 4;
      let to = at + 20;
      const isSyn = random.chance(2 ** 31);
      if (isSyn) {
        to += writeSynOptions(bytes, to, {
          mss: random.below(65_536),
          scale: random.below(16) - 1,
          sack: random.chance(2 ** 31),
          timestamps: random.chance(2 ** 31),
          tsValue: random.next(),
          tsEcho: random.next(),
          fastOpen: random.chance(2 ** 31) ? new Uint8Array(4 + 2 * random.below(7)) : undefined,
        });
      } else {
        to += writeTimestamps(bytes, to, random.next(), random.next());
        to += writeSacks(bytes, to, new Int32Array(6).fill(random.next()), random.below(4));
      }
      writeHeader(bytes, at, 1, 2, random.next(), 0, isSyn ? flag.syn : flag.ack, 9, to - at);
      let length = to - at + random.below(40);
      for (let changes = random.below(4); changes > 0; changes -= 1) {
        bytes[at + 12 + random.below(to - at - 12)] = random.next() & 255;
      }
      if (random.chance(2 ** 30)) length = random.below(length);
      if (parseSegment(fenced(bytes, at, length), at, length, segment)) {
        accepted += 1;
        expectSane(segment, at, length);
      } else {
        refused += 1;
      }
    }
    expect(accepted).toBeGreaterThan(1000);
    expect(refused).toBeGreaterThan(1000);
  });
});
