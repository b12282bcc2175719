/** Sequence arithmetic against plain numbers, at and around the wrap. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as sequence from "../../../../src/layer2-transport/tcp/wire/sequence.ts";

const anywhere = fc.oneof(fc.integer(), fc.constantFrom(0, -1, 1, 0x7fff_ffff, -0x8000_0000));
const steps = fc.oneof(
  fc.integer({ min: -0x7fff_ffff, max: 0x7fff_ffff }),
  fc.constantFrom(0, 1, -1, 0x7fff_ffff, -0x7fff_ffff),
);

describe("sequence numbers", () => {
  test("compare by how far apart they are, wherever they wrap", () => {
    fc.assert(
      fc.property(anywhere, steps, (from, step) => {
        const to = (from + step) | 0;
        expect(sequence.distance(to, from)).toBe(step);
        expect(sequence.before(from, to)).toBe(step > 0);
        expect(sequence.after(from, to)).toBe(step < 0);
        expect(sequence.atMost(from, to)).toBe(step >= 0);
        expect(sequence.atLeast(from, to)).toBe(step <= 0);
        expect(sequence.latest(from, to)).toBe(step > 0 ? to : from);
        expect(sequence.earliest(from, to)).toBe(step > 0 ? from : to);
      }),
    );
  });

  test("between is half open and holds for every window up to 2^31", () => {
    const sizes = fc.integer({ min: 0, max: 0x7fff_ffff });
    fc.assert(
      fc.property(anywhere, sizes, steps, (low, size, step) => {
        const high = (low + size) | 0;
        expect(sequence.between(low, (low + step) | 0, high)).toBe(step >= 0 && step < size);
      }),
    );
  });

  test("results are signed 32-bit integers", () => {
    expect(sequence.latest(0xffff_ffff, 0xffff_fffe)).toBe(-1);
    expect(sequence.earliest(0xffff_ffff, 1)).toBe(-1);
    expect(sequence.distance(1, 0xffff_ffff)).toBe(2);
  });
});
