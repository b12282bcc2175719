/**
 * The control messages between the main thread and an app worker.
 *
 * Layer 1. Plain data by `postMessage`: they carry shared memory and ports, which only a structured clone can.
 */

import type { MessagePort } from "node:worker_threads";
import type { LinkMemory } from "../layer2-transport/index.ts";
import type { ErrorCode } from "./errors.ts";
import type { Estate } from "./shard-moves.ts";
import type { Alarm } from "./types.ts";

/** What an app worker is started with. */
export interface AppWorkerStart {
  readonly party: number;
  /** The kernel has the connections. */
  readonly isHost: boolean;
  readonly pool: SharedArrayBuffer;
  /** The v-node table, and which worker owns which shard of it. */
  readonly nodes: SharedArrayBuffer;
  readonly owners: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  readonly port: MessagePort;
}

/** One `opens` with a handler module. */
export interface ModuleOpen {
  readonly id: number;
  readonly url: string;
  readonly name: string;
  readonly recvlen: number;
  readonly msgpack: boolean;
  readonly news: Uint8Array | string | undefined;
  /** A listener's or a group's: many connections, of which nobody hears by other means. */
  readonly many: boolean;
}

/** What loading told about the module. */
export interface ModuleFacts {
  readonly framing: boolean;
  readonly alarm: boolean;
  /** Nothing is to be told of its connections but their messages. */
  readonly quiet: boolean;
}

export type ToAppWorker =
  | { readonly type: "link"; readonly index: number; readonly memory: LinkMemory; readonly port: MessagePort }
  | {
      readonly type: "unlink";
      readonly call: number;
      readonly index: number;
      readonly dead: Estate;
    }
  | { readonly type: "load"; readonly call: number; readonly open: ModuleOpen }
  | { readonly type: "unload"; readonly open: number }
  | { readonly type: "alarm"; readonly open: number; readonly alarm: Alarm }
  | { readonly type: "stop" };

export type FromAppWorker =
  | {
      readonly type: "loaded";
      readonly call: number;
      readonly facts?: ModuleFacts;
      readonly error?: { readonly code: ErrorCode; readonly message: string };
    }
  | { readonly type: "unlinked"; readonly call: number }
  | { readonly type: "warning"; readonly alarm: Alarm; readonly detail: string };
