/**
 * What the descriptors between an app endpoint (layer 1) and a layer-2 worker mean.
 *
 * Layer 2, read by layer 1. `sockfd` and `generation` name the connection in every kind. Words not named are 0.
 *
 * | kind      | way | frame, offset, length      | arg0             | arg1 |
 * | --------- | --- | -------------------------- | ---------------- | ---- |
 * | send      | ↓   | a container, handed over   |                  | |
 * | sendMany  | ↓   | likewise                   | receivers        | frame of (sockfd24, generation) pairs, handed over |
 * | file      | ↓   | frame: offset and length as two doubles, then the path | token | |
 * | done      | ↓   |                            |                  | |
 * | close     | ↓   |                            | close code       | bits of `closeBits` |
 * | flush     | ↓   |                            | token            | |
 * | retire    | ↓   |                            |                  | |
 * | option    | ↓   |                            | its place        | its value as a word |
 * | info      | ↓   |                            | token            | |
 * | connected | ↑   |                            | the `opens` id   | |
 * | message   | ↑   | a container, handed over   |                  | |
 * | chunk     | ↑   | likewise: unframed bytes   |                  | |
 * | closed    | ↑   | length: a detail           | close code       | error code + 1, or 0 |
 * | answered  | ↑   | info: JSON, handed over    | token            | error code + 1, or 0 |
 *
 * `done`: the message or chunk has been handled, the next may come. `retire`: the app knows of the end, the slot is
 * free. `option`: `arg0` is the option's place in `tcpOptionNames`, or their number for `sendlen`.
 * `answered`: a flush or a file is through, or this is the answer to `info`. "Handed over": the receiver of the
 * descriptor must `drop` it.
 */

import { type ErrorCode, errorCodes } from "../layer1-app/errors.ts";

export const kind = {
  send: 1,
  sendMany: 2,
  file: 3,
  done: 4,
  close: 5,
  flush: 6,
  retire: 7,
  option: 8,
  info: 9,
  connected: 16,
  message: 17,
  chunk: 18,
  closed: 19,
  answered: 20,
} as const;

/**
 * What a `close` asks for. None: an end in order once all is sent. `reset` throws away what is queued. The other two
 * are a shutdown of one direction, after which the connection goes on: nothing more is sent (a FIN follows what is
 * queued), or whatever still comes is dropped.
 */
export const closeBits = { reset: 1, write: 2, read: 4 } as const;

/** Why a connection ended; a descriptor carries the index. The same words as layer 1's `CloseReason`. */
export const closeCodes = [
  "end",
  "closed",
  "reset",
  "recvlen",
  "framing",
  "idle",
  "refused",
  "timeout",
  "handler",
  "worker",
  "shutdown",
] as const;
export type CloseCode = (typeof closeCodes)[number];

const errorNames = Object.keys(errorCodes) as ErrorCode[];

/** An error code as a descriptor's word: 0 is none. */
export function errorWord(code: ErrorCode | undefined): number {
  return code === undefined ? 0 : errorNames.indexOf(code) + 1;
}

/** The error code of a descriptor's word. */
export function errorOfWord(word: number): ErrorCode | undefined {
  return word === 0 ? undefined : errorNames[word - 1];
}

/**
 * Threads that share the pool are numbered: a party is a pool partition, a holder bit and a link's `peer`. Layer-2
 * workers come first, then the main thread and the app workers, 31 at most; the native threads after them hold no
 * frames for others, so they are partitions alone and their number is not limited by the bits.
 */
export const maxWorkers = 16;
export const maxAppWorkers = 14;

export interface Parties {
  readonly workers: number;
  readonly appWorkers: number;
}

export function mainParty(parties: Parties): number {
  return parties.workers;
}

export function appParty(parties: Parties, appWorker: number): number {
  return parties.workers + 1 + appWorker;
}

export function nativeParty(parties: Parties): number {
  return parties.workers + 1 + parties.appWorkers;
}
