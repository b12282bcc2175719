/**
 * What the two ends of a bulk transfer share with the bench: counts in memory that the process's threads inherit.
 */
import { getEnvironmentData, setEnvironmentData } from "node:worker_threads";

/** Places in a Float64Array. `sends`: a client's streams send (1) or read (0). */
export const cell = { bytes: 0, streams: 1, sends: 2 } as const;
const cells = 8;
const chunkBytes = 256 * 1024;

/** Makes the memory of one side; to be called before the runtime starts its threads. */
export function shareCounts(side: "listener" | "caller"): Float64Array {
  const memory = new Float64Array(new SharedArrayBuffer(8 * cells));
  setEnvironmentData(`apo-bench-${side}`, memory.buffer as unknown as never);
  return memory;
}

/** The memory of one side, in any thread. */
export function sharedCounts(side: "listener" | "caller"): Float64Array {
  const shared = getEnvironmentData(`apo-bench-${side}`) as unknown as SharedArrayBuffer | undefined;
  return new Float64Array(shared ?? new SharedArrayBuffer(8 * cells));
}

export function count(memory: Float64Array, place: number, more: number): void {
  memory[place] = (memory[place] as number) + more;
}

/** Bytes without an end, taken as the connection takes them. */
export async function* endless(): AsyncGenerator<Uint8Array> {
  const chunk = new Uint8Array(chunkBytes).fill(120);
  for (;;) yield chunk;
}
