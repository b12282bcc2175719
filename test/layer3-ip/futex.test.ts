/** Sleeping and waking across threads by the addon's futex, and by the doorbell that is built on it. */

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test } from "vitest";
import { loadNative } from "../../src/layer3-ip/native.ts";

const { futexWait, futexWake } = loadNative();
const workers: Worker[] = [];

afterEach(async () => {
  for (const worker of workers.splice(0)) await worker.terminate();
});

const words = (): Uint32Array => new Uint32Array(new SharedArrayBuffer(64));

/** A thread that sleeps on word 3 while it is 7, and posts what woke it. */
function sleeper(shared: Uint32Array): Worker {
  const native = JSON.stringify(new URL("../../src/layer3-ip/native.ts", import.meta.url).href);
  const program = `
    import { parentPort, workerData } from "node:worker_threads";
    import { loadNative } from ${native};
    const words = new Uint32Array(workerData);
    Atomics.store(words, 0, 1);
    parentPort.postMessage(loadNative().futexWait(words, 3, 7, 9_000_000));
  `;
  const url = new URL(`data:text/javascript,${encodeURIComponent(program)}`);
  const worker = new Worker(url, { workerData: shared.buffer });
  workers.push(worker);
  return worker;
}

describe("futexWait", () => {
  test("returns at once when the word has another value", () => {
    expect(futexWait(words(), 3, 7, 9_000_000)).toBe(1);
  });

  test("returns when its time is up", () => {
    expect(futexWait(words(), 3, 0, 1000)).toBe(2);
    expect(futexWait(words(), 3, 0, 0)).toBe(2);
  });

  test("is woken by another thread, and by nobody else's word", async () => {
    const shared = words();
    shared[3] = 7;
    const told = once(sleeper(shared), "message");
    let woken = 0;
    const deadline = performance.now() + 8000;
    // It may not be asleep yet: it is woken as soon as it is.
    while (woken === 0 && performance.now() < deadline) {
      expect(futexWake(shared, 4, 1)).toBe(0);
      woken = futexWake(shared, 3, 1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(woken).toBe(1);
    expect(await told).toEqual([0]);
  });

  test.each([
    [words(), 16, 0, 0],
    [words(), 0, 0, -1],
    [words(), 0, 0, 20_000_000],
    [words(), 0, 0, Number.NaN],
    [words(), -1, 0, 0],
    [new Uint8Array(64) as unknown as Uint32Array, 0, 0, 0],
  ])("refuses what it cannot wait for (%#)", (array, index, expected, timeout) => {
    expect(() => futexWait(array, index, expected, timeout)).toThrow();
  });

  test("futexWake refuses a word outside the array", () => {
    expect(() => futexWake(words(), 16, 1)).toThrow();
    expect(() => futexWake(words(), 0, -1)).toThrow();
  });
});
