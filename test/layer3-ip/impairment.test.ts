/**
 * The impairment in both languages: the same decisions about the same packets, whatever the options; the generator
 * against published numbers; and options that make no sense. What each impairment promises is held in C++
 * (native/rawsock/test/impairment_test.cc), and so holds here, too.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Impairment, type ImpairmentSettings, settingsToNumbers } from "../../src/layer3-ip/impairment.ts";
import {
  checkOptionNames,
  type Impairments,
  impair,
  impairmentNames,
  seedWords,
  unimpaired,
} from "../../src/layer3-ip/impairment-options.ts";
import { loadNative } from "../../src/layer3-ip/native.ts";
import { RandomStream, SeedMixer } from "../../src/layer3-ip/random-stream.ts";

describe("the generator", () => {
  test("is xoshiro128**, seeded by SplitMix64", () => {
    const mixer = new SeedMixer(1234567n);
    expect([mixer.next(), mixer.next(), mixer.next()]).toEqual([
      6457827717110365317n,
      3203168211198807973n,
      9817491932198370423n,
    ]);
    const words = [1n | (2n << 32n), 3n | (4n << 32n)];
    const stream = new RandomStream({ next: () => words.shift() as bigint });
    expect(Array.from({ length: 6 }, () => stream.next())).toEqual([
      11520, 0, 5927040, 70819200, 2031721883, 1637235492,
    ]);
  });
});

/** Probabilities with the ends among them. */
const probability = fc.oneof(
  fc.constantFrom(0, 1, 2 ** -32, 0.5),
  fc.double({ min: 0, max: 1, noNaN: true }),
);
const ms = fc.oneof(fc.constantFrom(0, 0.001, 60_000), fc.double({ min: 0, max: 100, noNaN: true }));
const options: fc.Arbitrary<Impairments> = fc.record(
  {
    delayMs: ms,
    jitterMs: ms,
    jitterShape: fc.constantFrom("uniform", "normal"),
    keepOrder: fc.boolean(),
    loss: probability,
    gilbertElliott: fc.record(
      { p: probability, r: probability, lossGood: probability, lossBad: probability },
      { requiredKeys: ["p", "r"] },
    ),
    reorder: probability,
    reorderMs: ms,
    duplicate: probability,
    corrupt: probability,
    rateBitsPerSecond: fc.oneof(fc.constantFrom(0, 1000, 1e12), fc.integer({ min: 1000, max: 2 ** 31 - 1 })),
    queueBytes: fc.oneof(fc.constantFrom(1280, 2 ** 28), fc.integer({ min: 1280, max: 100_000 })),
  },
  { requiredKeys: [] },
);
const seed = fc.oneof(fc.constantFrom(0, 1, Number.MAX_SAFE_INTEGER), fc.maxSafeNat());
const mtu = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 65_535 }));
const settings: fc.Arbitrary<ImpairmentSettings> = fc
  .tuple(options, seed, mtu)
  .map(([given, number, most]) => ({
    ...impair("test", given, unimpaired),
    ...seedWords("test", number),
    mtu: most,
  }));
const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
// Time mostly goes on, by little or by much; and back now and then.
const packets = fc.array(
  fc.record({
    pause: fc.oneof(fc.integer({ min: -50, max: 500 }), fc.constantFrom(0, 0, 1, 10 ** 9)),
    length: fc.oneof(fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 0, max: 65_535 })),
  }),
  { maxLength: 300 },
);

type Sequence = { readonly pause: number; readonly length: number }[];

function decideHere(line: Impairment, times: Float64Array, lengths: Uint32Array): Float64Array {
  const answers = new Float64Array(times.length * 5);
  times.forEach((at, i) => {
    const fate = line.decide(at, lengths[i] as number);
    answers.set([fate, line.corruptBit, line.atUs, line.copyAtUs, line.reordered ? 1 : 0], i * 5);
  });
  return answers;
}

describe("both languages decide alike", () => {
  test("for any options and any packets, also when the options change on the way", () => {
    const { NativeImpairment } = loadNative();
    fc.assert(
      fc.property(
        settings,
        settings,
        uint32,
        uint32,
        packets,
        packets,
        (one, two, from, to, first, second) => {
          const there = new NativeImpairment(settingsToNumbers(one), from, to);
          const here = new Impairment(one, from, to);
          let now = 1_000_000;
          const run = (sequence: Sequence): void => {
            const times = Float64Array.from(sequence, ({ pause }) => {
              now += pause;
              return now;
            });
            const lengths = Uint32Array.from(sequence, ({ length }) => length);
            const answers = new Float64Array(times.length * 5);
            there.decide(times, lengths, answers);
            expect(decideHere(here, times, lengths)).toEqual(answers);
          };
          run(first);
          // A seed is for life.
          const changed = { ...two, seedLow: one.seedLow, seedHigh: one.seedHigh };
          there.change(settingsToNumbers(changed));
          here.change(changed);
          run(second);
        },
      ),
      { numRuns: 1000 },
    );
  });

  test("over a long way, where an error in the last bit would add up", () => {
    const { NativeImpairment } = loadNative();
    const bad = impair(
      "test",
      {
        delayMs: 3,
        jitterMs: 2,
        jitterShape: "normal",
        loss: 0.01,
        gilbertElliott: { p: 0.01, r: 0.3, lossGood: 0.001, lossBad: 0.7 },
        reorder: 0.02,
        duplicate: 0.01,
        corrupt: 0.01,
        rateBitsPerSecond: 7_777_777,
        queueBytes: 50_000,
      },
      unimpaired,
    );
    const times = Float64Array.from({ length: 200_000 }, (_, i) => i * 331);
    const lengths = Uint32Array.from(times, (_, i) => 40 + ((i * 7919) % 1460));
    const answers = new Float64Array(times.length * 5);
    new NativeImpairment(settingsToNumbers(bad), 1, 2).decide(times, lengths, answers);
    const here = decideHere(new Impairment(bad, 1, 2), times, lengths);
    expect(Buffer.from(here.buffer).equals(Buffer.from(answers.buffer))).toBe(true);
    // And it was no dull way: every fate but "too big" was met.
    const fates = new Set(Array.from(times, (_, i) => answers[i * 5]));
    expect([...fates].sort()).toEqual([0, 2, 3, 4]);
  });
});

test("the same seed decides alike, another seed or another pair of plugs does not", () => {
  const lossy = impair("test", { loss: 0.5 }, unimpaired);
  const fates = (given: ImpairmentSettings, from: number, to: number): string => {
    const line = new Impairment(given, from, to);
    return Array.from({ length: 200 }, (_, i) => line.decide(i, 100)).join("");
  };
  expect(fates(lossy, 1, 2)).toBe(fates(lossy, 1, 2));
  const others = [
    fates(lossy, 2, 1),
    fates(lossy, 1, 3),
    fates({ ...lossy, seedLow: 2 }, 1, 2),
    fates({ ...lossy, seedHigh: 1 }, 1, 2),
  ];
  expect(new Set([fates(lossy, 1, 2), ...others]).size).toBe(5);
});

test("turning one impairment on does not change what the others decide", () => {
  const line = (given: Impairments): Impairment => new Impairment(impair("test", given, unimpaired), 1, 2);
  const plain = line({ loss: 0.2 });
  const more = line({ loss: 0.2, jitterMs: 5, corrupt: 0.5, duplicate: 0.5, reorder: 0.3 });
  for (let i = 0; i < 1000; i += 1) expect(more.decide(i, 100)).toBe(plain.decide(i, 100));
});

describe("options that make no sense are refused with a sentence", () => {
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ loss: 1.1 }, /^lossy: loss must be a number from 0 to 1, not 1\.1$/],
    [{ loss: "0.1" }, /^lossy: loss must be a number from 0 to 1, not "0\.1"$/],
    [{ loss: Number.NaN }, /^lossy: loss must be/],
    [{ reorder: -0.1 }, /^lossy: reorder must be/],
    [{ duplicate: 2 }, /^lossy: duplicate must be/],
    [{ corrupt: null }, /^lossy: corrupt must be a number from 0 to 1, not null$/],
    [{ delayMs: -1 }, /^lossy: delayMs must be milliseconds from 0 to 60000, not -1$/],
    [{ jitterMs: 60_001 }, /^lossy: jitterMs must be/],
    [{ reorderMs: Number.POSITIVE_INFINITY }, /^lossy: reorderMs must be/],
    [{ jitterShape: "gauss" }, /^lossy: jitterShape must be "uniform" or "normal", not "gauss"$/],
    [{ keepOrder: 1 }, /^lossy: keepOrder must be false or true, not 1$/],
    [
      { rateBitsPerSecond: 999 },
      /^lossy: rateBitsPerSecond must be a whole number from 1000 to 10{12}, not 999$/,
    ],
    [{ queueBytes: 1 }, /^lossy: queueBytes must be a whole number from 1280 to 268435456, not 1$/],
    [{ gilbertElliott: 0.1 }, /^lossy: gilbertElliott must be \{ p, r, lossGood, lossBad \}, not 0\.1$/],
    [
      { gilbertElliott: { p: 0.1 } },
      /^lossy: gilbertElliott\.r must be a number from 0 to 1, not undefined$/,
    ],
    [{ gilbertElliott: { p: 0.1, r: 0.1, lossBad: 7 } }, /^lossy: gilbertElliott\.lossBad must be/],
  ];
  test.each(wrong)("%j", (given, words) => {
    const call = (): unknown => impair("lossy", given as Impairments, unimpaired);
    expect(call).toThrow(expect.objectContaining({ code: "EINVAL" }));
    expect(call).toThrow(words);
  });

  test("unknown names, seeds", () => {
    expect(() => checkOptionNames("lossy", { los: 1 }, impairmentNames)).toThrow(
      /^lossy: unknown option "los": there are delayMs, /,
    );
    for (const bad of [-1, 1.5, 2 ** 53, Number.NaN]) {
      expect(() => seedWords("lossy", bad)).toThrow(
        /^lossy: seed must be a whole number from 0 to 2\^53 - 1/,
      );
    }
  });
});

test("what is not named stays as it is", () => {
  const one = impair("test", { delayMs: 1.5, loss: 1 }, unimpaired);
  const two = impair("test", { loss: 0 }, one);
  expect(two).toEqual({ ...unimpaired, delayUs: 1500 });
  expect(impair("test", {}, two)).toEqual(two);
});
