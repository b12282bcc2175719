/**
 * The worker's side of the rings and the doorbells: a thread that touches descriptors, makes them, or is woken.
 *
 * Started by memory.ts; each message is a job, each job is answered by its figures. As a program (`memory-worker.ts
 * ROUND_TRIPS`) it prints those of round trips: so it can be held to one CPU. It uses the runtime's own ring, pool and
 * addon, and nothing above them.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { frameOf, lengthOf, upperOffsetOf, writeOutgoing } from "../../src/layer3-ip/descriptor.ts";
import { loadNative } from "../../src/layer3-ip/native.ts";
import { createPool, FramePool } from "../../src/layer3-ip/pool.ts";
import { createRing, RingConsumer, RingProducer } from "../../src/layer3-ip/ring.ts";
import { percentile } from "../lib/stats.ts";

/** One measurement. */
export interface MemoryJob {
  readonly kind: "in" | "out" | "wake";
  /** Descriptors, or round trips. */
  readonly count: number;
}

/** Its figures: nanoseconds in all; of round trips, each one's microseconds. */
export interface MemoryResult {
  readonly ns: number;
  readonly roundTripsUs: readonly number[];
}

/** The ring's size between the native thread and a worker. */
const ringCapacity = 4096;
/** Descriptors a publication, as the native thread takes packets from its link. */
const batch = 64;
/** For so long the worker computes between two round trips, so that the other thread is asleep when it rings. */
const pauseUs = 30;

/** How long it waits when the ring is full. */
const fullWaitUs = 20;
/** Empty looks before it sleeps: some ten microseconds, as in the runtime. */
const idleLooks = 500;

const jobNumber = { in: 0, out: 1, wake: 2 } as const;
const workerBellWord = 16;

const native = loadNative();
const pool = createPool({ partitions: 2, small: 1024, large: 1 });
const frames = new FramePool(pool, 0);

function measure({ kind, count }: MemoryJob): MemoryResult {
  const ring = createRing(ringCapacity);
  const bells = new Uint32Array(new SharedArrayBuffer(4 * 32));
  const thread = new native.NativeBenchThread(new Uint32Array(ring), bells, new Uint32Array(pool), 1);
  try {
    const begun = process.hrtime.bigint();
    const error = thread.start(jobNumber[kind], count, batch);
    if (error !== 0) throw new Error(`the native thread could not be started (errno ${error})`);
    const roundTripsUs: number[] = [];
    if (kind === "in") touchAll(new RingConsumer(ring), bells, count);
    else if (kind === "out") makeAll(new RingProducer(ring), bells, count);
    else for (let i = 0; i < count; i += 1) roundTripsUs.push(roundTrip(bells));
    const done = thread.join();
    const ns = Number(process.hrtime.bigint() - begun);
    if (done !== count) throw new Error(`the native thread did ${done} of ${count}`);
    return { ns, roundTripsUs };
  } finally {
    thread.close();
  }
}

function touchAll(ring: RingConsumer, bells: Uint32Array, count: number): void {
  const { words } = ring;
  let sum = 0;
  for (let done = 0, idle = 0; done < count; ) {
    let taken = 0;
    for (let at = ring.take(); at >= 0; at = ring.take()) {
      sum = (sum + frameOf(words, at) + upperOffsetOf(words, at) + lengthOf(words, at)) | 0;
      taken += 1;
      if (taken === batch) break;
    }
    ring.release();
    done += taken;
    idle = taken === 0 ? idle + 1 : 0;
    if (idle > idleLooks) waitForMore(ring, bells);
  }
  if (sum === 0) throw new Error("the descriptors were empty");
}

/** As a worker does that finds nothing: it says so, and sleeps until the producer rings. */
function waitForMore(ring: RingConsumer, bells: Uint32Array): void {
  const seen = Atomics.load(bells, workerBellWord);
  if (ring.sleep()) native.futexWait(bells, workerBellWord, seen, 1e6);
  ring.wake();
}

function makeAll(ring: RingProducer, bells: Uint32Array, count: number): void {
  const frame = frames.allocateFrame(false);
  for (let done = 0; done < count; ) {
    const at = ring.reserve();
    if (at >= 0) {
      writeOutgoing(ring.words, at, frame, 64, 84, 64, 17, false, 0);
      done += 1;
    }
    if (at >= 0 && done % batch !== 0 && done !== count) continue;
    if (ring.publish()) {
      Atomics.add(bells, 0, 1);
      native.futexWake(bells, 0, 1);
    }
    // Full: the native thread is behind, and may need this very processor.
    if (at < 0) native.futexWait(bells, workerBellWord, Atomics.load(bells, workerBellWord), fullWaitUs);
  }
  frames.release(frame);
}

/** Rings the native thread and sleeps until it has rung back: microseconds. */
function roundTrip(bells: Uint32Array): number {
  for (const until = performance.now() + pauseUs / 1000; performance.now() < until; ) {
    // The other thread goes to sleep meanwhile.
  }
  const seen = Atomics.load(bells, workerBellWord);
  const begun = process.hrtime.bigint();
  Atomics.add(bells, 0, 1);
  native.futexWake(bells, 0, 1);
  while (Atomics.load(bells, workerBellWord) === seen) native.futexWait(bells, workerBellWord, seen, 1e6);
  return Number(process.hrtime.bigint() - begun) / 1000;
}

if (workerData === "l3-memory") {
  parentPort?.on("message", (job: MemoryJob) => parentPort?.postMessage(measure(job)));
}
if (isMainThread) {
  const { roundTripsUs } = measure({ kind: "wake", count: Number(process.argv[2]) });
  const [p50, p99] = [percentile(roundTripsUs, 0.5), percentile(roundTripsUs, 0.99)];
  process.stdout.write(`${JSON.stringify({ p50, p99 })}\n`);
}
