/** SipHash-2-4 against its authors' vectors and against a second implementation in 64-bit integers. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeKey, SipHash } from "../../../../src/layer2-transport/tcp/security/siphash.ts";
import { seededWords } from "../support.ts";

const mask = 2n ** 64n - 1n;
const rotate = (x: bigint, bits: bigint): bigint => ((x << bits) | (x >> (64n - bits))) & mask;

/** Straight from the paper, on bytes. */
function reference(key: Uint32Array, bytes: Uint8Array): bigint {
  const [k0 = 0n, k1 = 0n] = new BigUint64Array(key.slice().buffer);
  let [v0, v1] = [k0 ^ 0x736f6d6570736575n, k1 ^ 0x646f72616e646f6dn];
  let [v2, v3] = [k0 ^ 0x6c7967656e657261n, k1 ^ 0x7465646279746573n];
  const rounds = (count: number): void => {
    for (let i = 0; i < count; i += 1) {
      v0 = (v0 + v1) & mask;
      v1 = rotate(v1, 13n) ^ v0;
      v0 = rotate(v0, 32n);
      v2 = (v2 + v3) & mask;
      v3 = rotate(v3, 16n) ^ v2;
      v0 = (v0 + v3) & mask;
      v3 = rotate(v3, 21n) ^ v0;
      v2 = (v2 + v1) & mask;
      v1 = rotate(v1, 17n) ^ v2;
      v2 = rotate(v2, 32n);
    }
  };
  const padded = new Uint8Array(8 * (Math.floor(bytes.length / 8) + 1));
  padded.set(bytes);
  padded[padded.length - 1] = bytes.length;
  for (const block of new BigUint64Array(padded.buffer)) {
    v3 ^= block;
    rounds(2);
    v0 ^= block;
  }
  v2 ^= 0xffn;
  rounds(4);
  return v0 ^ v1 ^ v2 ^ v3;
}

function hashOf(key: Uint32Array, words: number[]): bigint {
  const hash = new SipHash(key);
  return again(hash, words);
}

function again(hash: SipHash, words: number[]): bigint {
  hash.begin();
  for (const word of words) hash.add(word);
  hash.finish();
  return (BigInt(hash.high >>> 0) << 32n) | BigInt(hash.low >>> 0);
}

const countingKey = Uint32Array.of(0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c);

describe("SipHash-2-4", () => {
  // The bytes 0, 1, 2, ... under the key 0 to 15; from the authors' vectors, written lowest byte first there.
  test.each([
    [0, "310e0edd47db6f72"],
    [4, "b7877127e09427cf"],
    [8, "6224939a79f5f593"],
    [12, "fbe50e86bc8f1e75"],
    [16, "db9bc2577fcc2a3f"],
    [20, "98eea21af25cd6be"],
    [36, "b4a31508beff4d31"],
    [60, "e1915f5cb1eca46c"],
  ])("of the first %d bytes", (length, expected) => {
    const bytes = Uint8Array.from({ length }, (_, i) => i);
    const found = hashOf(countingKey, [...new Int32Array(bytes.buffer)]);
    const swapped = Buffer.from(expected, "hex").readBigUInt64LE();
    expect(found.toString(16)).toBe(swapped.toString(16));
    expect(reference(countingKey, bytes)).toBe(found);
  });

  test("of any words under any key, one hash after another", () => {
    const keys = fc.array(fc.integer(), { minLength: 4, maxLength: 4 });
    const messages = fc.array(fc.array(fc.integer(), { maxLength: 16 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(keys, messages, (words, inputs) => {
        const key = Uint32Array.from(words);
        const hash = new SipHash(key);
        for (const input of inputs) {
          expect(again(hash, input)).toBe(reference(key, new Uint8Array(Int32Array.from(input).buffer)));
        }
      }),
    );
  });

  test("the results are signed words", () => {
    const hash = new SipHash(countingKey);
    for (let i = 0; i < 50; i += 1) {
      again(hash, [i]);
      expect(hash.low).toBe(hash.low | 0);
      expect(hash.high).toBe(hash.high | 0);
    }
  });

  test("a key of another length, and more words than it takes, are refused", () => {
    expect(() => new SipHash(new Uint32Array(3))).toThrow(/4 words, not 3/);
    expect(() => hashOf(countingKey, new Array<number>(17).fill(1))).toThrow(/at most 16/);
  });

  test("changing the caller's key later changes nothing", () => {
    const key = countingKey.slice();
    const hash = new SipHash(key);
    key.fill(0);
    expect(again(hash, [1, 2])).toBe(hashOf(countingKey, [1, 2]));
  });

  test("a key is made of 4 random words", () => {
    const source = seededWords(1);
    const [first, second] = [makeKey(source), makeKey(source)];
    expect(first.length).toBe(4);
    expect(first).not.toEqual(second);
    expect(first).toEqual(makeKey(seededWords(1)));
  });
});
