/** Addresses of a link as text: what is taken, what is refused, and what they contain. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressRecords, addressWords, parsePrefix, prefixContains } from "../../src/layer3-ip/ip-prefix.ts";
import { addressBytes } from "./packets.ts";

/** Words as the bytes that they stand for. */
function bytesOf(words: Int32Array, version6: boolean): Buffer {
  const bytes = Buffer.alloc(16);
  words.forEach((word, i) => {
    bytes.writeInt32BE(word, 4 * i);
  });
  return bytes.subarray(0, version6 ? 16 : 4);
}

describe("addresses", () => {
  test("are read as an independent reader reads them", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
        const parsed = addressWords(text);
        expect(bytesOf(parsed?.words as Int32Array, text.includes(":"))).toEqual(addressBytes(text));
      }),
      { numRuns: 500 },
    );
  });

  test.each(["", "10.0.0", "10.0.0.1.2", "010.0.0.1", "1:2", ":::", "fe80::1%eth0", "host", " 10.0.0.1"])(
    "%j is none",
    (text) => {
      expect(addressWords(text)).toBeUndefined();
    },
  );
});

describe("prefixes", () => {
  test.each([
    ["10.0.0.1/24", 24, false],
    ["10.0.0.1", 32, false],
    ["fd00::1/64", 64, true],
    ["fd00::1", 128, true],
    ["0.0.0.0/0", 0, false],
  ])("%s", (text, bits, version6) => {
    expect(parsePrefix(text)).toMatchObject({ prefixBits: bits, version6 });
  });

  test.each([
    "10.0.0.1/",
    "10.0.0.1/33",
    "10.0.0.1/-1",
    "10.0.0.1/8/8",
    "fd00::1/129",
    "x/8",
    "10.0.0.1/1e1",
  ])("%j is refused with EINVAL", (text) => {
    expect(() => parsePrefix(text)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  });

  test.each([
    ["10.0.0.1/24", "10.0.0.255", true],
    ["10.0.0.1/24", "10.0.1.0", false],
    ["128.0.0.0/1", "255.1.2.3", true],
    ["0.0.0.0/0", "1.2.3.4", true],
    ["10.0.0.1", "10.0.0.2", false],
    ["fd00::1/64", "fd00::ffff:1:2:3", true],
    ["fd00::1/64", "fd00:0:0:1::", false],
    ["fd00::1/33", "fd00:0:8000::", false],
    ["fd00::1/128", "fd00::1", true],
  ])("%s and %s: %s", (prefix, address, contained) => {
    expect(prefixContains(parsePrefix(prefix), addressWords(address)?.words as Int32Array)).toBe(contained);
  });

  test("their records are version, bits, whole, 0 and sixteen bytes each", () => {
    const records = addressRecords([parsePrefix("10.1.2.3/8"), parsePrefix("fd00::7/64")]);
    expect([...records.subarray(0, 9)]).toEqual([4, 8, 0, 0, 10, 1, 2, 3, 0]);
    expect([...records.subarray(20, 22), records[24], records[39]]).toEqual([6, 64, 0xfd, 7]);
  });
});
