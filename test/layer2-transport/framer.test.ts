/** Framings: any split of a byte stream gives the same messages; malformed and overlong ones are told. */
import fc from "fast-check";
import { pack } from "msgpackr";
import { describe, expect, test } from "vitest";
import { createFramer, framerResult } from "../../src/layer2-transport/framer.ts";
import type { FramingKind } from "../../src/layer2-transport/nodes/v-node.ts";
import { StreamBuffer } from "../../src/layer2-transport/stream-buffer.ts";

/** Feeds a stream in pieces; the messages, and the error that ended it. */
function cut(
  kind: FramingKind,
  recvlen: number,
  pieces: Uint8Array[],
): { messages: Buffer[]; error: number } {
  const framer = createFramer(kind, recvlen);
  const input = new StreamBuffer();
  const messages: Buffer[] = [];
  for (const piece of pieces) {
    input.append(piece);
    while (input.length > 0) {
      const taken = framer.next(input.bytes, input.start, input.end);
      if (taken < 0) return { messages, error: taken };
      if (taken === 0) break;
      messages.push(Buffer.from(input.bytes.subarray(framer.at, framer.at + framer.length)));
      input.consume(taken);
    }
  }
  return { messages, error: 0 };
}

/** The bytes in pieces whose ends are at the given fractions. */
function split(bytes: Uint8Array, fractions: readonly number[]): Uint8Array[] {
  const ends = [...fractions.map((part) => Math.floor(part * bytes.length)), bytes.length].sort(
    (a, b) => a - b,
  );
  let from = 0;
  return ends.map((end) => {
    const piece = new Uint8Array(bytes.subarray(from, end));
    from = end;
    return piece;
  });
}

const fractions = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 30 });
const bytes = fc.uint8Array({ maxLength: 300 });

const encoders: Record<string, (message: Uint8Array) => Uint8Array> = {
  line: (message) => Buffer.concat([message, Buffer.from("\n")]),
  length16: (message) => {
    const header = Buffer.alloc(2);
    header.writeUInt16BE(message.length);
    return Buffer.concat([header, message]);
  },
  length32: (message) => {
    const header = Buffer.alloc(4);
    header.writeUInt32BE(message.length);
    return Buffer.concat([header, message]);
  },
};

describe.each(["length16", "length32", "line"] as const)("%s", (kind) => {
  const encode = encoders[kind] as (message: Uint8Array) => Uint8Array;
  const clean = (message: Uint8Array): Uint8Array =>
    kind === "line" ? message.map((byte) => (byte === 10 || byte === 13 ? 32 : byte)) : message;

  test("any split of the stream gives the messages", () => {
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 12 }), fractions, (parts, cuts) => {
        const messages = parts.map(clean);
        const stream = Buffer.concat(messages.map(encode));
        const found = cut(kind, 300, split(stream, cuts));
        expect(found.error).toBe(0);
        expect(found.messages).toEqual(messages.map((message) => Buffer.from(message)));
      }),
    );
  });

  test("a message of recvlen bytes passes, one more does not", () => {
    const stream = (length: number): Uint8Array => encode(new Uint8Array(length).fill(65));
    expect(cut(kind, 10, [stream(10)]).messages).toHaveLength(1);
    expect(cut(kind, 10, [stream(11)]).error).toBe(framerResult.tooLong);
  });
});

describe("line", () => {
  test("a carriage return before the line's end is taken off, one elsewhere is not", () => {
    const found = cut("line", 10, [Buffer.from("a\r\nb\rc\n\n\r\n")]);
    expect(found.messages.map(String)).toEqual(["a", "b\rc", "", ""]);
  });

  test("an unfinished line longer than recvlen is refused before its end has come", () => {
    expect(cut("line", 4, [Buffer.from("abcd")]).error).toBe(0);
    expect(cut("line", 4, [Buffer.from("abcd\r")]).error).toBe(0);
    expect(cut("line", 4, [Buffer.from("abcde")]).error).toBe(framerResult.tooLong);
  });
});

describe("raw and chunks", () => {
  test("raw gives what has come, in pieces of at most recvlen", () => {
    const found = cut("raw", 4, [Buffer.from("abcdefghij"), Buffer.from("k")]);
    expect(found.messages.map(String)).toEqual(["abcd", "efgh", "ij", "k"]);
  });

  test("chunks are not bound by recvlen", () => {
    expect(cut("chunks", 1, [Buffer.from("abcdef")]).messages.map(String)).toEqual(["abcdef"]);
  });
});

describe("msgpack", () => {
  const value = fc.anything({
    withNullPrototype: false,
    withTypedArray: false,
    values: [
      fc.string(),
      fc.double(),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.uint8Array({ maxLength: 40 }),
    ],
    maxDepth: 4,
  });

  test("any split of the stream gives the values' bytes", () => {
    fc.assert(
      fc.property(fc.array(value, { maxLength: 8 }), fractions, (values, cuts) => {
        const messages = values.map((item) => Buffer.from(pack(item)));
        const found = cut("msgpack", 1_000_000, split(Buffer.concat(messages), cuts));
        expect(found.error).toBe(0);
        expect(found.messages).toEqual(messages);
      }),
    );
  });

  // One of each format of the specification, with its bytes.
  test.each([
    ["nil", "c0"],
    ["bin 8", "c4020102"],
    ["bin 16", "c500020102"],
    ["bin 32", "c6000000020102"],
    ["ext 8", "c702050102"],
    ["ext 16", "c80002050102"],
    ["ext 32", "c900000002050102"],
    ["float 32", "ca01020304"],
    ["float 64", "cb0102030405060708"],
    ["uint 64", "cf0102030405060708"],
    ["int 8", "d001"],
    ["fixext 1", "d40501"],
    ["fixext 16", "d805000102030405060708090a0b0c0d0e0f"],
    ["str 8", "d9026162"],
    ["str 16", "da00026162"],
    ["str 32", "db000000026162"],
    ["array 16", "dc0002c0c0"],
    ["array 32", "dd00000002c0c0"],
    ["map 16", "de0001c0c0"],
    ["map 32", "df00000001c0c0"],
    ["fixmap of fixarray", "8101920102"],
    ["empty array", "90"],
  ])("%s", (_name, hex) => {
    const one = Buffer.from(hex, "hex");
    const found = cut(
      "msgpack",
      100,
      [...one].map((byte) => Buffer.from([byte])),
    );
    expect(found).toEqual({ messages: [one], error: 0 });
    expect(cut("msgpack", 100, [Buffer.concat([one, one])]).messages).toHaveLength(2);
  });

  test("the byte that nothing starts with is malformed", () => {
    expect(cut("msgpack", 100, [Buffer.from("c1", "hex")]).error).toBe(framerResult.malformed);
    expect(cut("msgpack", 100, [Buffer.from("92c0c1", "hex")]).error).toBe(framerResult.malformed);
  });

  test("a value that must become longer than recvlen is refused at once", () => {
    expect(cut("msgpack", 100, [Buffer.from("ddffffffff", "hex")]).error).toBe(framerResult.tooLong);
    expect(cut("msgpack", 100, [Buffer.from("dbffffffff", "hex")]).error).toBe(framerResult.tooLong);
    expect(cut("msgpack", 100, [Buffer.from("dfffffffff", "hex")]).error).toBe(framerResult.tooLong);
  });
});

describe("a stream buffer", () => {
  test("gives back what it was given, however it is appended and consumed", () => {
    const move = fc.record({
      add: bytes,
      copy: fc.boolean(),
      take: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(fc.array(move, { maxLength: 40 }), (moves) => {
        const buffer = new StreamBuffer();
        let model = Buffer.alloc(0);
        for (const { add, copy, take } of moves) {
          const piece = new Uint8Array(add);
          if (copy) {
            buffer.appendCopy(piece);
            piece.fill(0xaa);
          } else {
            buffer.append(piece);
          }
          model = Buffer.concat([model, add]);
          const count = Math.floor(take * model.length);
          buffer.consume(count);
          model = model.subarray(count);
          expect(buffer.length).toBe(model.length);
          expect(model.equals(buffer.bytes.subarray(buffer.start, buffer.end))).toBe(true);
        }
      }),
    );
  });
});
