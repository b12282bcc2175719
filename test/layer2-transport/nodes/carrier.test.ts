/** Numbers on the wire and back, and the index of clients by their local end. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Carrier, Permutation } from "../../../src/layer2-transport/nodes/carrier.ts";
import { ClientIndex } from "../../../src/layer2-transport/nodes/client-index.ts";
import { addressWords, parsePrefix } from "../../../src/layer3-ip/ip-prefix.ts";

/** Keys from a seed. */
function keys(seed: number): { word(): number } {
  let state = seed | 1;
  return {
    word: () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
      return state ^ (state >>> 13);
    },
  };
}

const seeds = fc.integer();

describe("a permutation", () => {
  test.each([10, 12])("of 2 * %d bits takes every value to one of its own, and back", (halfBits) => {
    const count = 2 ** (2 * halfBits);
    const permutation = new Permutation(halfBits, keys(halfBits));
    const seen = new Uint8Array(count);
    let back = 0;
    for (let value = 0; value < count; value += 1) {
      const image = permutation.forward(value);
      seen[image] = 1;
      if (permutation.backward(image) === value) back += 1;
    }
    expect(back).toBe(count);
    expect(seen.indexOf(0)).toBe(-1);
  });

  test("whatever its key", () => {
    fc.assert(
      fc.property(seeds, fc.nat(2 ** 20 - 1), fc.nat(2 ** 24 - 1), (seed, short, long) => {
        const narrow = new Permutation(10, keys(seed));
        const wide = new Permutation(12, keys(seed));
        expect(narrow.backward(narrow.forward(short))).toBe(short);
        expect(narrow.forward(narrow.backward(short))).toBe(short);
        expect(wide.backward(wide.forward(long))).toBe(long);
        expect(wide.forward(wide.backward(long))).toBe(long);
      }),
      { numRuns: 3000 },
    );
  });

  test("hides what is close: neighbours differ in half of their bits on average, with any key", () => {
    for (let seed = 0; seed < 40; seed += 1) {
      const wide = new Permutation(12, keys(seed * 7919));
      let bits = 0;
      for (let value = 0; value < 4096; value += 1)
        bits += ones(wide.forward(value) ^ wide.forward(value + 1));
      expect(bits / 4096).toBeGreaterThan(9);
      expect(bits / 4096).toBeLessThan(15);
    }
  });

  test("another key is another permutation", () => {
    const [one, other] = [1, 2].map((seed) => new Permutation(12, keys(seed))) as [Permutation, Permutation];
    let same = 0;
    for (let value = 0; value < 4096; value += 1) if (one.forward(value) === other.forward(value)) same += 1;
    expect(same).toBeLessThan(8);
  });
});

function ones(value: number): number {
  let count = 0;
  for (let left = value; left !== 0; left &= left - 1) count += 1;
  return count;
}

describe("the carrier", () => {
  test("an id has 24 bits and leads back; a reserved one leads to none, whatever its low bits", () => {
    fc.assert(
      fc.property(seeds, fc.nat(2 ** 24 - 1), fc.nat(63), (seed, sockfd24, low) => {
        const carrier = new Carrier(keys(seed));
        const { reservedId } = carrier;
        expect(reservedId & 63).toBe(0);
        expect(carrier.sockfdOfWireId(reservedId | low)).toBe(-1);
        const id = carrier.wireId(sockfd24);
        expect(id).toBeGreaterThanOrEqual(0);
        expect(id).toBeLessThan(2 ** 24);
        expect(carrier.sockfdOfWireId(id)).toBe((id & ~63) === reservedId ? -1 : sockfd24);
      }),
    );
  });

  test("64 connections of all have none of their own", () => {
    const carrier = new Carrier(keys(3));
    let without = 0;
    for (let sockfd24 = 0; sockfd24 < 2 ** 24; sockfd24 += 1) {
      if (carrier.wireId(sockfd24) === carrier.reservedId) without += 1;
    }
    expect(without).toBe(64);
  });

  test("labels are of 20 bits and never 0, and all but one lead back", () => {
    const carrier = new Carrier(keys(5));
    let lost = 0;
    for (let slot = 0; slot < 2 ** 20; slot += 1) {
      const label = carrier.labelOf(slot);
      if (label < 1 || label > 0xfffff) throw new Error(`slot ${slot} has the label ${label}`);
      if (carrier.slotOfLabel(label) !== slot) lost += 1;
    }
    expect(lost).toBe(1);
    expect(carrier.slotOfLabel(0)).toBe(-1);
    expect(carrier.slotOfLabel(2 ** 20)).toBe(-1);
  });
});

describe("the client index", () => {
  const addresses = ["10.0.0.1/24", "fd00::1/64"].map(parsePrefix);
  const prefixes = ["10.64.0.0/15", "fd01::/64"].map(parsePrefix);
  const ends = [
    "10.0.0.1",
    "10.64.0.1",
    "10.65.1.0",
    "fd00::1",
    "fd01::1",
    "fd01::ffff",
    "10.0.0.2",
    "fd00::2",
  ];

  test("agrees with a map", () => {
    const ports = fc.constantFrom(0, 1, 1024, 65_535);
    const steps = fc.array(fc.tuple(fc.nat(ends.length - 1), ports, fc.nat(3), fc.boolean()), {
      maxLength: 60,
    });
    fc.assert(
      fc.property(steps, (moves) => {
        const index = new ClientIndex(addresses, prefixes);
        const map = new Map<string, number>();
        for (const [end, port, id, add] of moves) {
          const { words, version6 } = addressWords(ends[end] as string) ?? { words: new Int32Array(4) };
          const count = version6 ? 4 : 1;
          const place = `${end}:${port}`;
          const sockfd24 = id === 3 ? 0xffffff : id;
          const held = map.get(place);
          expect(index.find(words, 0, count, port)).toBe(held ?? -1);
          if (add) {
            // The last two are none of ours.
            const free = held === undefined && end < 6;
            expect(index.add(words, 0, count, port, sockfd24)).toBe(free);
            if (free) map.set(place, sockfd24);
          } else {
            index.remove(words, 0, count, port, sockfd24);
            if (held === sockfd24) map.delete(place);
          }
        }
      }),
    );
  });

  test("is one page smaller when the last connection of an address has gone", () => {
    const index = new ClientIndex(addresses, prefixes);
    const at = (text: string): Int32Array => addressWords(text)?.words as Int32Array;
    const [one, other] = [at("10.64.0.1"), at("10.64.0.2")] as const;
    expect(index.pageCount).toBe(0);
    index.add(one, 0, 1, 5000, 1);
    index.add(one, 0, 1, 5001, 2);
    index.add(other, 0, 1, 5000, 3);
    expect(index.pageCount).toBe(2);
    index.remove(one, 0, 1, 5000, 1);
    expect(index.pageCount).toBe(2);
    index.remove(one, 0, 1, 5001, 2);
    expect(index.pageCount).toBe(1);
    expect(index.find(one, 0, 1, 5001)).toBe(-1);
    expect(index.find(other, 0, 1, 5000)).toBe(3);
  });
});
