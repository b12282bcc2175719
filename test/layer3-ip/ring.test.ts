/** The descriptor ring: against a model, at the wrap of its indices, and between two real threads. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createRing, descriptorWords, RingConsumer, RingProducer } from "../../src/layer3-ip/ring.ts";

describe("a ring", () => {
  test.each([0, 1, 3, 12, 2 ** 25])("cannot have a capacity of %d", (capacity) => {
    expect(() => createRing(capacity)).toThrow(/power of two/);
  });

  test("memory of another size is not a ring", () => {
    expect(() => new RingProducer(new SharedArrayBuffer(4 * 50))).toThrow(/not a ring/);
  });

  // Each step is a number: how many to push (positive) or to take (negative).
  const steps = fc.array(fc.integer({ min: -9, max: 9 }), { maxLength: 200 });
  const starts = fc.constantFrom(0, 1, 0x7fff_fff0, -8);

  test("behaves as a bounded queue, whatever its indices are", () => {
    fc.assert(
      fc.property(fc.constantFrom(2, 4, 8), steps, starts, (capacity, moves, start) => {
        const memory = createRing(capacity);
        const words = new Int32Array(memory);
        words[0] = start;
        words[16] = start;
        const producer = new RingProducer(memory);
        const consumer = new RingConsumer(memory);
        const model: number[] = [];
        let next = 1;
        for (const move of moves) {
          for (let i = 0; i < move; i += 1) {
            const slot = producer.reserve();
            expect(slot >= 0).toBe(model.length < capacity);
            if (slot < 0) break;
            for (let word = 0; word < descriptorWords; word += 1) producer.words[slot + word] = next * word;
            model.push(next);
            next += 1;
          }
          producer.publish();
          for (let i = 0; i > move; i -= 1) {
            const slot = consumer.take();
            const expected = model.shift();
            expect(slot >= 0).toBe(expected !== undefined);
            if (slot < 0 || expected === undefined) break;
            for (let word = 0; word < descriptorWords; word += 1) {
              expect(consumer.words[slot + word]).toBe(expected * word);
            }
          }
          consumer.release();
          expect(producer.size).toBe(model.length);
        }
      }),
    );
  });

  test("nothing is seen before it is published, and no slot is reused before it is released", () => {
    const memory = createRing(2);
    const producer = new RingProducer(memory);
    const consumer = new RingConsumer(memory);
    producer.reserve();
    expect(consumer.take()).toBe(-1);
    producer.publish();
    expect(consumer.take()).toBeGreaterThanOrEqual(0);
    producer.reserve();
    expect(producer.reserve()).toBe(-1);
    consumer.release();
    expect(producer.reserve()).toBeGreaterThanOrEqual(0);
  });

  test("a sleeper is woken once a batch, and cannot sleep while something is there", () => {
    const memory = createRing(8);
    const producer = new RingProducer(memory);
    const consumer = new RingConsumer(memory);
    expect(consumer.sleep()).toBe(true);
    producer.reserve();
    producer.reserve();
    expect(producer.publish()).toBe(true);
    producer.reserve();
    expect(producer.publish()).toBe(false);
    expect(consumer.sleep()).toBe(false);
    while (consumer.take() >= 0);
    consumer.release();
    expect(consumer.sleep()).toBe(true);
    consumer.wake();
    producer.reserve();
    expect(producer.publish()).toBe(false);
  });
});

const ringModule = new URL("../../src/layer3-ip/ring.ts", import.meta.url).href;
const consumerThread = `
  import { workerData, parentPort } from "node:worker_threads";
  const { RingConsumer } = await import(${JSON.stringify(ringModule)});
  const ring = new RingConsumer(workerData.memory);
  let expected = 0;
  let wrong = 0;
  let sleeps = 0;
  function run() {
    ring.wake();
    for (;;) {
      const at = ring.take();
      if (at < 0) {
        ring.release();
        if (ring.sleep()) { sleeps += 1; return; }
        continue;
      }
      for (let i = 0; i < 8; i += 1) if (ring.words[at + i] !== ((expected * 31 + i) | 0)) wrong += 1;
      expected += 1;
      if (expected % 7 === 0) ring.release();
      if (expected === workerData.total) {
        ring.release();
        parentPort.postMessage({ wrong, sleeps });
        parentPort.close();
        return;
      }
    }
  }
  parentPort.on("message", run);
  parentPort.postMessage("ready");
  run();
`;

test("two threads pass 40,000 descriptors in order, with sleeping and waking", async () => {
  // On a busy machine a full ring of 64 can cost a whole time slice of the scheduler: not too many of them.
  const total = 40_000;
  const memory = createRing(64);
  const url = new URL(`data:text/javascript,${encodeURIComponent(consumerThread)}`);
  const worker = new Worker(url, { workerData: { memory, total } });
  await once(worker, "message");
  const done = once(worker, "message") as Promise<[{ wrong: number; sleeps: number }]>;
  // Asked for now: the last message and the exit may come in one turn of the event loop.
  const exited = once(worker, "exit");
  const producer = new RingProducer(memory);
  let sent = 0;
  while (sent < total) {
    const slot = producer.reserve();
    if (slot < 0) {
      if (producer.publish()) worker.postMessage(0);
      // Sometimes the other side is let go to sleep, so that waking is tried as well.
      if (sent % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
      continue;
    }
    for (let i = 0; i < descriptorWords; i += 1) producer.words[slot + i] = (sent * 31 + i) | 0;
    sent += 1;
    if (sent % 13 === 0 && producer.publish()) worker.postMessage(0);
  }
  if (producer.publish()) worker.postMessage(0);
  const [result] = await done;
  expect(result.wrong).toBe(0);
  await exited;
});
