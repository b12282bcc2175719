/** The frame pool: against a model, with containers of any length, and with frames freed by other threads. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  createPool,
  FramePool,
  largeFrameBytes,
  shapeFor,
  smallFrameBytes,
} from "../../src/layer3-ip/pool.ts";

const shape = { partitions: 2, small: 32, large: 4 };

describe("a pool", () => {
  test("memory that is none is refused", () => {
    expect(() => new FramePool(new SharedArrayBuffer(4096), 0)).toThrow(/not a frame pool/);
    expect(() => new FramePool(createPool(shape), 2)).toThrow(/no partition 2/);
    expect(() => createPool({ ...shape, small: 33 })).toThrow(/multiple of 32/);
  });

  test("its shape keeps to the bytes it is given", () => {
    for (const bytes of [2 ** 20, 2 ** 24, 64 * 2 ** 20]) {
      const { small, large } = shapeFor(3, bytes);
      expect(small * smallFrameBytes + large * largeFrameBytes).toBeLessThanOrEqual(bytes);
      expect(small % 32).toBe(0);
    }
  });

  test("every frame can be had once, and all of them again after they are freed", () => {
    const pool = new FramePool(createPool(shape), 0);
    for (let round = 0; round < 3; round += 1) {
      const smalls = Array.from({ length: shape.small }, () => pool.allocateFrame(false));
      const larges = Array.from({ length: shape.large }, () => pool.allocateFrame(true));
      const all = [...smalls, ...larges];
      expect(new Set(all).size).toBe(all.length);
      expect(all).not.toContain(0);
      expect(pool.allocateFrame(false)).toBe(0);
      expect(pool.allocateFrame(true)).toBe(0);
      expect(pool.framesInUse()).toBe(all.length);
      for (const frame of all) pool.release(frame);
      expect(pool.framesInUse()).toBe(0);
    }
  });

  test("frames start on pages, two small ones to a page, and never overlap", () => {
    const pool = new FramePool(createPool(shape), 1);
    const first = pool.allocateFrame(true);
    expect((first * 2048) % 4096).toBe(0);
    const small = pool.allocateFrame(false);
    pool.view(first, 0, largeFrameBytes).fill(1);
    pool.view(small, 0, smallFrameBytes).fill(2);
    expect(pool.view(first, 0, largeFrameBytes).every((byte) => byte === 1)).toBe(true);
  });

  test("a container that does not fit leaves nothing behind", () => {
    const pool = new FramePool(createPool(shape), 0);
    expect(pool.allocate(shape.large * largeFrameBytes + shape.small * smallFrameBytes + 1)).toBe(0);
    expect(pool.framesInUse()).toBe(0);
  });

  test("what is written to a container of any length is read back", () => {
    const pool = new FramePool(createPool({ partitions: 1, small: 64, large: 8 }), 0);
    const lengths = fc.oneof(
      fc.integer({ min: 0, max: 300_000 }),
      fc.constantFrom(0, 1, 2047, 2048, 2049, 65_535, 65_536, 65_537),
    );
    fc.assert(
      fc.property(lengths, fc.nat(), (length, seed) => {
        const bytes = Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 255);
        const frame = pool.allocate(length);
        expect(frame).not.toBe(0);
        const cut = Math.floor(length / 3);
        pool.write(frame, 0, bytes.subarray(0, cut));
        pool.write(frame, cut, bytes.subarray(cut));
        expect(Buffer.concat(pool.views(frame, 0, length)).equals(bytes)).toBe(true);
        const tail = Buffer.concat(pool.views(frame, cut, length - cut));
        expect(tail.equals(bytes.subarray(cut))).toBe(true);
        pool.release(frame);
        expect(pool.framesInUse()).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  test("counts go down once a release, from any partition", () => {
    const memory = createPool(shape);
    const own = new FramePool(memory, 0);
    const other = new FramePool(memory, 1);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 20 }), fc.nat(), (counts, seed) => {
        const held = counts.map((count) => ({ frame: own.allocate(100), left: count }));
        for (const item of held) own.retain(item.frame, item.left - 1);
        let turn = seed;
        while (held.length > 0) {
          turn = (turn * 31 + 7) % 1_000_003;
          const at = turn % held.length;
          const item = held[at];
          if (!item) break;
          expect(own.framesInUse()).toBe(held.length);
          (turn % 2 === 0 ? own : other).release(item.frame);
          item.left -= 1;
          if (item.left === 0) held.splice(at, 1);
        }
        expect(own.framesInUse()).toBe(0);
      }),
    );
  });

  test("a dead thread's frames are found and dropped, and only those", () => {
    const pool = new FramePool(createPool(shape), 0);
    const theirs = pool.allocate(100_000);
    const shared = pool.allocate(10);
    const passed = pool.allocate(10);
    pool.hold(theirs, 5);
    pool.retain(shared);
    pool.hold(shared, 5);
    pool.hold(shared, 6);
    pool.hold(passed, 5);
    pool.passOn(passed, 5, 6);
    expect(pool.dropAll(5)).toBe(2);
    expect(pool.framesInUse()).toBe(2);
    pool.drop(shared, 6);
    pool.drop(passed, 6);
    expect(pool.framesInUse()).toBe(0);
    expect(pool.dropAll(5)).toBe(0);
  });
});

const poolModule = new URL("../../src/layer3-ip/pool.ts", import.meta.url).href;
const freeingThread = `
  import { workerData, parentPort } from "node:worker_threads";
  const { FramePool } = await import(${JSON.stringify(poolModule)});
  const pool = new FramePool(workerData.memory, workerData.partition);
  parentPort.on("message", (frames) => {
    if (!frames) { parentPort.close(); return; }
    for (const frame of frames) pool.release(frame);
  });
`;

test("two threads free at once what a third allocates, and nothing is lost or had twice", async () => {
  const memory = createPool({ partitions: 3, small: 256, large: 4 });
  const pool = new FramePool(memory, 0);
  const url = new URL(`data:text/javascript,${encodeURIComponent(freeingThread)}`);
  const workers = [1, 2].map((partition) => new Worker(url, { workerData: { memory, partition } }));
  const total = 100_000;
  let allocated = 0;
  let batch: number[] = [];
  while (allocated < total) {
    const frame = pool.allocateFrame(false);
    if (frame !== 0) {
      // Whoever has the frame writes to it: had it been given out twice, the mark would be there.
      const view = pool.view(frame, 0, 4);
      expect(pool.framesInUse() <= 256).toBe(true);
      view.writeUInt32LE(allocated, 0);
      allocated += 1;
      batch.push(frame);
    }
    if (frame === 0 || batch.length === 64) {
      workers[allocated % 2]?.postMessage(batch);
      batch = [];
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  for (const frame of batch) pool.release(frame);
  for (const worker of workers) {
    worker.postMessage(null);
    await once(worker, "exit");
  }
  expect(pool.framesInUse()).toBe(0);
  const all = new Set(Array.from({ length: 256 }, () => pool.allocateFrame(false)));
  expect(all.size).toBe(256);
  expect(all.has(0)).toBe(false);
});
