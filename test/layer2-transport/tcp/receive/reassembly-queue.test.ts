/** The out-of-order queue: against an array of bytes, at its limits, and under senders who mean it no good. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  createPool,
  FramePool,
  largeFrameBytes,
  smallFrameBytes,
} from "../../../../src/layer2-transport/link.ts";
import { inserted, ReassemblyQueue } from "../../../../src/layer2-transport/tcp/receive/reassembly-queue.ts";

function makePool(small = 4096, large = 64): FramePool {
  return new FramePool(createPool({ partitions: 1, small, large }), 0);
}

/** A frame with `length` bytes at `offset`, byte i being `value + i`. */
function frameOf(pool: FramePool, value: number, offset: number, length: number, isLarge = false): number {
  const frame = pool.allocateFrame(isLarge);
  expect(frame).not.toBe(0);
  const at = frame * smallFrameBytes + offset;
  for (let i = 0; i < length; i += 1) pool.bytes[at + i] = value + i;
  return frame;
}

function insert(queue: ReassemblyQueue, pool: FramePool, seq: number, length: number, next: number): number {
  return queue.insert(seq, frameOf(pool, 7, 100, length), 100, length, next);
}

function blocksOf(queue: ReassemblyQueue): number[][] {
  const out = new Int32Array(8);
  const count = queue.sackBlocks(out);
  return Array.from({ length: count }, (_, i) => [out[2 * i] as number, out[2 * i + 1] as number]);
}

/** Takes what is in order from `next` on. Returns its bytes. */
function takeAll(queue: ReassemblyQueue, pool: FramePool, next: number): number[] {
  const taken: number[] = [];
  while (queue.takeNext((next + taken.length) | 0)) {
    const at = queue.frame * smallFrameBytes + queue.offset;
    taken.push(...pool.bytes.subarray(at, at + queue.length));
    pool.release(queue.frame);
  }
  return taken;
}

/** The stream as an array: what is known of each byte from `next` on. */
class Model {
  readonly bytes: (number | undefined)[] = [];
  next = 0;

  get count(): number {
    return this.bytes.filter((byte) => byte !== undefined).length;
  }

  /** Runs of known bytes, as offsets from `next`. */
  get runs(): [number, number][] {
    const runs: [number, number][] = [];
    this.bytes.forEach((byte, i) => {
      if (byte === undefined) return;
      const last = runs.at(-1);
      if (last && last[1] === i) last[1] = i + 1;
      else runs.push([i, i + 1]);
    });
    return runs;
  }
}

const insertion = fc.record({
  at: fc.integer({ min: -60, max: 400 }),
  length: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 150 })),
  value: fc.integer({ min: 0, max: 255 }),
  isLarge: fc.boolean(),
});
const moves = fc.array(fc.oneof({ weight: 8, arbitrary: insertion }, fc.constant("take" as const)), {
  maxLength: 80,
});
const places = fc.constantFrom(0, 5, -1, 0x7fff_fff0, -0x7fff_fff0, 0x8000_0000 - 200);

describe("a reassembly queue", () => {
  test("behaves as an array of bytes in which the first that came stays", () => {
    const pool = makePool();
    fc.assert(
      fc.property(places, moves, (base, steps) => {
        const queue = new ReassemblyQueue(pool);
        const model = new Model();
        queue.reset(base);
        queue.maxBytes = 300;
        queue.maxGaps = 6;
        for (const step of steps) {
          const next = (base + model.next) | 0;
          if (step === "take") {
            const expected = model.bytes.slice(
              0,
              model.bytes.includes(undefined) ? model.bytes.indexOf(undefined) : undefined,
            );
            expect(takeAll(queue, pool, next)).toEqual(expected);
            model.bytes.splice(0, expected.length);
            model.next += expected.length;
          } else {
            checkInsert(queue, pool, model, next, step);
          }
          expect(queue.checkInvariants()).toEqual([]);
          expect(queue.bytes).toBe(model.count);
          const runs = model.runs.map((run) => run.map((edge) => (base + model.next + edge) | 0));
          expect(queue.gaps).toBe(runs.length);
          const blocks = blocksOf(queue);
          expect(blocks.length).toBe(Math.min(4, runs.length));
          for (const block of blocks) expect(runs).toContainEqual(block);
          expect(new Set(blocks.map(String)).size).toBe(blocks.length);
        }
        queue.clear();
        expect(pool.framesInUse()).toBe(0);
      }),
      { numRuns: 400 },
    );
  });

  function checkInsert(
    queue: ReassemblyQueue,
    pool: FramePool,
    model: Model,
    next: number,
    step: { at: number; length: number; value: number; isLarge: boolean },
  ): void {
    const frame = frameOf(pool, step.value, 10, step.length, step.isLarge);
    const pieces = queue.pieces;
    const answer = queue.insert((next + step.at) | 0, frame, 10, step.length, next);
    const wanted: number[] = [];
    let duplicate: [number, number] | undefined;
    for (let i = step.at; i < step.at + step.length; i += 1) {
      const isOld = i < 0 || model.bytes[i] !== undefined;
      if (!isOld) wanted.push(i);
      else if (!duplicate) duplicate = [i, i + 1];
      // Bytes that were taken and bytes that wait are told of apart: they never touch in a stream that is drained.
      else if (duplicate[1] === i && (i !== 0 || duplicate[0] >= 0)) duplicate[1] = i + 1;
    }
    const found = [(queue.duplicateStart - next) | 0, (queue.duplicateEnd - next) | 0];
    if (duplicate) expect(found).toEqual(duplicate);
    else expect(found[0]).toBe(found[1]);
    if (wanted.length === 0) {
      expect(answer).toBe(inserted.duplicate);
      return;
    }
    const before = model.runs.length;
    const trial = new Model();
    trial.bytes.push(...model.bytes);
    for (const i of wanted) {
      while (trial.bytes.length < i) trial.bytes.push(undefined);
      trial.bytes[i] = (step.value + i - step.at) & 255;
    }
    const inOrder = Math.max(0, step.at) === 0;
    const tooMany = trial.count > queue.maxBytes || (trial.runs.length > before && before >= queue.maxGaps);
    if (tooMany && !inOrder) {
      expect(answer).toBe(inserted.refused);
      return;
    }
    // Nearly as many pieces as the limit allows for so few bytes: then it may refuse.
    if (answer === inserted.refused && !inOrder && pieces + 7 > 64) return;
    expect(answer).toBe(inserted.kept);
    model.bytes.splice(0, model.bytes.length, ...trial.bytes);
  }

  test("reports the island that changed last first, then those before it", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (const seq of [100, 300, 500, 700, 900]) insert(queue, pool, seq, 50, 0);
    expect(blocksOf(queue)).toEqual([
      [900, 950],
      [700, 750],
      [500, 550],
      [300, 350],
    ]);
    insert(queue, pool, 150, 10, 0);
    expect(blocksOf(queue)[0]).toEqual([100, 160]);
    // A duplicate counts: the island that holds it comes right behind its D-SACK (RFC 2883 4).
    expect(insert(queue, pool, 510, 10, 0)).toBe(inserted.duplicate);
    expect([queue.duplicateStart, queue.duplicateEnd]).toEqual([510, 520]);
    expect(blocksOf(queue).slice(0, 2)).toEqual([
      [500, 550],
      [100, 160],
    ]);
  });

  test("data before what is expected is a duplicate, in whole or in part", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(1000);
    expect(insert(queue, pool, 800, 200, 1000)).toBe(inserted.duplicate);
    expect([queue.duplicateStart, queue.duplicateEnd]).toEqual([800, 1000]);
    expect(insert(queue, pool, 900, 200, 1000)).toBe(inserted.kept);
    expect([queue.duplicateStart, queue.duplicateEnd]).toEqual([900, 1000]);
    expect(takeAll(queue, pool, 1000).length).toBe(100);
    expect(pool.framesInUse()).toBe(0);
  });

  test("one frame that fills several holes is shared by its pieces, and freed with the last", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (const seq of [600, 1200, 1800]) insert(queue, pool, seq, 100, 0);
    const frame = frameOf(pool, 0, 0, 2048);
    expect(queue.insert(10, frame, 0, 2048, 0)).toBe(inserted.kept);
    expect([queue.gaps, queue.bytes, queue.pieces]).toEqual([1, 2048, 7]);
    expect(pool.framesInUse()).toBe(4);
    expect(queue.checkInvariants()).toEqual([]);
    const taken = takeAll(queue, pool, 10);
    expect(taken.length).toBe(2048);
    expect(taken[0]).toBe(0);
    expect(taken[590]).toBe(7); // came first
    expect(taken[700]).toBe(700 & 255);
    expect(pool.framesInUse()).toBe(0);
  });

  test("what is delivered past it is let go of", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (const seq of [100, 700, 1500]) insert(queue, pool, seq, 600, 0);
    // Somebody delivered 0 to 1600 from elsewhere.
    expect(takeAll(queue, pool, 1600).length).toBe(500);
    expect([queue.bytes, queue.gaps]).toEqual([0, 0]);
    expect(pool.framesInUse()).toBe(0);
  });

  test("is used again after clear and reset", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    for (let round = 0; round < 3; round += 1) {
      queue.reset(round * 1000);
      for (let i = 1; i < 100; i += 1) insert(queue, pool, round * 1000 + i * 600, 560, round * 1000);
      expect(queue.gaps).toBe(99);
      queue.clear();
      expect([queue.bytes, queue.gaps, queue.pieces, queue.heldBytes]).toEqual([0, 0, 0, 0]);
      expect(pool.framesInUse()).toBe(0);
      expect(blocksOf(queue)).toEqual([]);
      expect(queue.takeNext(round * 1000)).toBe(false);
    }
  });
});

describe("limits", () => {
  test("bytes: what is beyond is refused, what is in order never", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    queue.maxBytes = 3000;
    for (const seq of [1000, 3000]) expect(insert(queue, pool, seq, 1500, 0)).toBe(inserted.kept);
    expect(insert(queue, pool, 6000, 1, 0)).toBe(inserted.refused);
    expect(pool.framesInUse()).toBe(2);
    expect(insert(queue, pool, 0, 1000, 0)).toBe(inserted.kept);
    expect(takeAll(queue, pool, 0).length).toBe(2500);
  });

  test("gaps: one more island is refused, while one that joins two is kept", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (let i = 1; i <= 128; i += 1) expect(insert(queue, pool, i * 2000, 1900, 0)).toBe(inserted.kept);
    expect(insert(queue, pool, 129 * 2000, 1900, 0)).toBe(inserted.refused);
    expect(insert(queue, pool, 3900, 100, 0)).toBe(inserted.kept);
    expect(queue.gaps).toBe(127);
    expect(insert(queue, pool, 129 * 2000, 1900, 0)).toBe(inserted.kept);
    expect(queue.checkInvariants()).toEqual([]);
  });

  test("frames: single bytes far apart tie up no more than 128 KiB", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    let refused = 0;
    for (let i = 1; i <= 128; i += 1) if (insert(queue, pool, i * 2, 1, 0) === inserted.refused) refused += 1;
    expect(refused).toBe(64);
    expect(pool.framesInUse()).toBe(64);
    expect(queue.heldBytes).toBe(128 * 1024);
  });

  test("frames: single bytes in falling order tie up no more either", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (let i = 1000; i > 0; i -= 1) insert(queue, pool, i, 1, 0);
    expect(queue.gaps).toBe(1);
    expect(pool.framesInUse()).toBeLessThanOrEqual(64);
    expect(queue.checkInvariants()).toEqual([]);
  });

  test("frames: a stream of small segments is copied together", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (let i = 0; i < 10_000; i += 1) {
      const frame = frameOf(pool, (10 + i * 100) & 255, 64, 100);
      expect(queue.insert(10 + i * 100, frame, 64, 100, 0)).toBe(inserted.kept);
    }
    expect(queue.bytes).toBe(1_000_000);
    expect(pool.framesInUse()).toBeLessThan(520);
    expect(queue.checkInvariants()).toEqual([]);
    const taken = takeAll(queue, pool, 10);
    expect(taken.length).toBe(1_000_000);
    expect(taken.every((byte, i) => byte === ((10 + i) & 255))).toBe(true);
    expect(pool.framesInUse()).toBe(0);
  });

  test("frames: a large frame is not kept for a byte, and several are not for a few thousand", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    const all = 60_000;
    expect(queue.insert(10, frameOf(pool, 0, 0, all, true), 0, all, 0)).toBe(inserted.kept);
    expect(queue.heldBytes).toBe(largeFrameBytes);
    expect(queue.insert(11, frameOf(pool, 1, 0, all, true), 0, all, 0)).toBe(inserted.kept);
    expect(queue.bytes).toBe(all + 1);
    expect(queue.heldBytes).toBe(largeFrameBytes + smallFrameBytes);
    expect(pool.framesInUse()).toBe(2);
    let at = all + 11;
    for (let i = 0; i < 60; i += 1) {
      at += 2100;
      queue.insert(at - all, frameOf(pool, 0, 0, all, true), 0, all, 0);
      expect(queue.heldBytes).toBeLessThanOrEqual(4 * queue.bytes + 2 * largeFrameBytes);
    }
    expect(queue.checkInvariants()).toEqual([]);
    queue.clear();
    expect(pool.framesInUse()).toBe(0);
  });

  test("without a frame to copy to, the frames that came are kept as they are", () => {
    const pool = makePool(32, 4);
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    const frames = Array.from({ length: 32 }, () => pool.allocateFrame(false));
    expect(queue.insert(10, frames[0] as number, 0, 100, 0)).toBe(inserted.kept);
    expect(queue.insert(110, frames[1] as number, 0, 100, 0)).toBe(inserted.kept);
    expect(queue.insert(500, pool.allocateFrame(true), 0, 100, 0)).toBe(inserted.kept);
    expect([queue.pieces, queue.gaps, queue.bytes]).toEqual([3, 2, 300]);
    expect(queue.heldBytes).toBe(2 * smallFrameBytes + largeFrameBytes);
    expect(queue.checkInvariants()).toEqual([]);
    queue.clear();
    for (const frame of frames.slice(2)) pool.release(frame);
    expect(pool.framesInUse()).toBe(0);
  });
});

describe("the work that hostile segments cause (CVE-2018-5390)", () => {
  /** A bound for one insert: a binary search among 128 islands and a step for each of them. */
  const most = 8 + 128 + 2;

  function costOf(queue: ReassemblyQueue, work: () => void): number {
    const before = queue.steps;
    work();
    return queue.steps - before;
  }

  test("tiny segments, every other byte, in falling order", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (let i = 20_000; i > 0; i -= 1) {
      expect(costOf(queue, () => insert(queue, pool, 2 * i, 1, 0))).toBeLessThan(most);
    }
    expect(queue.gaps).toBeLessThanOrEqual(128);
  });

  test("a million bytes in 2,000 pieces: the next segment costs no more than the first", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (let i = 0; i < 2000; i += 1) insert(queue, pool, 1000 + i * 600, 600, 0);
    expect(queue.pieces).toBe(2000);
    expect(costOf(queue, () => insert(queue, pool, 1000 + 2000 * 600, 600, 0))).toBeLessThanOrEqual(4);
    expect(costOf(queue, () => insert(queue, pool, 900_000, 600, 0))).toBeLessThanOrEqual(4);
    expect(costOf(queue, () => blocksOf(queue))).toBeLessThanOrEqual(4);
  });

  test("one that covers all the islands pays for them once", () => {
    const pool = makePool();
    const queue = new ReassemblyQueue(pool);
    queue.reset(0);
    for (let i = 1; i <= 128; i += 1) insert(queue, pool, i * 1200, 700, 0);
    expect(queue.gaps).toBe(128);
    expect(costOf(queue, () => blocksOf(queue))).toBeLessThanOrEqual(4 * 128);
    const length = 65_000;
    const cover = (): number => queue.insert(1, frameOf(pool, 0, 0, length, true), 0, length, 0);
    expect(costOf(queue, cover)).toBeLessThan(most);
    expect(queue.gaps).toBe(75);
    expect(costOf(queue, cover)).toBeLessThan(12);
    expect(queue.checkInvariants()).toEqual([]);
  });
});
