/**
 * The client of the connections bench: every connection asks once when it stands, and once more when it is told to.
 *
 * A module for `placement: "worker"`. What it remembers of its connections is in shared memory that the bench has made,
 * so that the bench knows what of the process's memory is not a server's.
 */
import { getEnvironmentData } from "node:worker_threads";
import type { AppVerbs, Message, Peer, Sockfd } from "../../../src/layer1-app/types.ts";

export const herdKey = "apo-bench-herd";
/** Places in the Float64Array at the memory's start. */
export const cell = {
  connected: 0,
  answered: 1,
  wrong: 2,
  closed: 3,
  again: 4,
  asked: 5,
  answeredAgain: 6,
} as const;
export const cells = 8;
/** Behind them the sockfds, in the order of connecting. */
export function herdBytes(connections: number): number {
  return 8 * (cells + connections);
}

const requestBytes = 64;
/** Requests of the second round that may be on their way. */
const outstandingMost = 1024;
const burst = 256;

const shared = getEnvironmentData(herdKey) as unknown as SharedArrayBuffer | undefined;
const memory = new Float64Array(shared ?? new SharedArrayBuffer(herdBytes(0)));
const text = new Uint8Array(requestBytes).fill(97);
let timed = false;

function step(place: number): void {
  memory[place] = (memory[place] as number) + 1;
}

export function connected(sockfd: Sockfd, _peer: Peer, apo: AppVerbs): void {
  memory[cells + (memory[cell.connected] as number)] = sockfd;
  step(cell.connected);
  void apo.sendto(sockfd, text);
  if (timed) return;
  timed = true;
  setInterval(() => askAgain(apo), 1);
}

export function request(_sockfd: Sockfd, message: Message): void {
  const again = memory[cell.again] === 1;
  step(message.bytes.length === requestBytes ? (again ? cell.answeredAgain : cell.answered) : cell.wrong);
}

export function closed(): void {
  step(cell.closed);
}

/** Asks the next connections again, once the bench has said so. */
function askAgain(apo: AppVerbs): void {
  if (memory[cell.again] !== 1) return;
  const last = Math.min(
    memory[cell.connected] as number,
    (memory[cell.asked] as number) + burst,
    (memory[cell.answeredAgain] as number) + outstandingMost,
  );
  for (let at = memory[cell.asked] as number; at < last; at += 1) {
    void apo.sendto(memory[cells + at] as Sockfd, text);
    step(cell.asked);
  }
}
