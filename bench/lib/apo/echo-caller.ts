/**
 * The client of the echo benches where both ends are ours: one request outstanding on each connection, and the time
 * of every round trip, written into shared memory that the bench reads.
 *
 * A module for `placement: "worker"`; its memory is the environment data `callerKey` of the process.
 */
import { getEnvironmentData } from "node:worker_threads";
import type { AppVerbs, CloseReason, Message, Peer, Sockfd } from "../../../src/layer1-app/types.ts";

export const callerKey = "apo-bench-caller";
/** Places in the Float64Array at the memory's start. */
export const cell = { connected: 0, requests: 1, closed: 2, running: 3, requestBytes: 4 } as const;
export const cells = 8;
/** Behind them: round trips by their length, 0.25 % wide and a microsecond at the least (Float64). */
export const buckets = 8192;
export const callerBytes = 8 * (cells + buckets);

const perDecade = 926; // ln(10) / ln(1.0025)

/** The bucket of a round trip in milliseconds. */
function bucketOf(ms: number): number {
  const bucket = Math.trunc(Math.log10(ms * 1000 + 1) * perDecade);
  return bucket < buckets ? bucket : buckets - 1;
}

/** The microseconds that a share (0 to 1) of the round trips took at most. */
export function shareUs(memory: Float64Array, share: number): number {
  const wanted = share * (memory[cell.requests] as number);
  let seen = 0;
  for (let bucket = 0; bucket < buckets; bucket += 1) {
    seen += memory[cells + bucket] as number;
    if (seen > wanted) return 10 ** (bucket / perDecade) - 1;
  }
  return Number.NaN;
}

const shared = getEnvironmentData(callerKey) as SharedArrayBuffer | undefined;
const memory = new Float64Array(shared ?? new SharedArrayBuffer(callerBytes));
const text = new Uint8Array(memory[cell.requestBytes] || 64).fill(120);
const slotMask = 2 ** 24;
// By slot; what is not used takes no memory.
const askedAt = new Float64Array(slotMask);
const missing = new Int32Array(slotMask);

function ask(sockfd: Sockfd, slot: number, apo: AppVerbs): void {
  askedAt[slot] = performance.now();
  missing[slot] = text.length;
  void apo.sendto(sockfd, text);
}

export function connected(sockfd: Sockfd, _peer: Peer, apo: AppVerbs): void {
  memory[cell.connected] = (memory[cell.connected] as number) + 1;
  ask(sockfd, sockfd % slotMask, apo);
}

export function request(sockfd: Sockfd, message: Message, apo: AppVerbs): void {
  const slot = sockfd % slotMask;
  const left = (missing[slot] as number) - message.bytes.length;
  missing[slot] = left;
  if (left > 0) return;
  if (memory[cell.running] === 1) {
    const at = cells + bucketOf(performance.now() - (askedAt[slot] as number));
    memory[at] = (memory[at] as number) + 1;
    memory[cell.requests] = (memory[cell.requests] as number) + 1;
  }
  ask(sockfd, slot, apo);
}

export function closed(_sockfd: Sockfd, _reason: CloseReason): void {
  memory[cell.closed] = (memory[cell.closed] as number) + 1;
}
