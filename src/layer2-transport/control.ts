/**
 * The control messages between the main thread and a layer-2 worker: rare, and plain data.
 *
 * Layer 2, read by layer 1. They travel by `postMessage` and not as msgpackr because they carry shared memory and
 * message ports, which only a structured clone can. Packets and messages never go this way.
 */

import type { MessagePort } from "node:worker_threads";
import type { ErrorCode } from "../layer1-app/errors.ts";
import type { LinkDescription } from "../layer3-ip/packet-port.ts";
import type { GuardReport } from "./guard/report.ts";
import type { TcpGuardStart } from "./guard/tcp-guard.ts";
import type { LinkMemory } from "./link.ts";
import type { PlaceStart } from "./placement.ts";
import type { ConnectRequest, ListenerRecord } from "./transport.ts";

/** What a worker is started with. */
export interface WorkerStart {
  /** The worker's index: its party and its pool partition. */
  readonly index: number;
  readonly pool: SharedArrayBuffer;
  /** The v-node table, and the shards of it that are this worker's. */
  readonly nodes: SharedArrayBuffer;
  readonly shards: readonly number[];
  /** Who owns each shard: a worker's index + 1, or 0. A worker writes there that it has taken a shard over. */
  readonly owners: SharedArrayBuffer;
  /** Of the records that it opens: see nodes/v-node.ts. */
  readonly tag: number;
  readonly counters: SharedArrayBuffer;
  /** On every link but `host`: the worker's end of it. */
  readonly rawLink?: LinkDescription | undefined;
  /** What TCP on that link is held to. */
  readonly guard: TcpGuardStart;
}

/** From the main thread. Those with `call` are answered by a `reply`. */
export type ToWorker =
  | { readonly type: "link"; readonly party: number; readonly memory: LinkMemory; readonly port: MessagePort }
  | { readonly type: "unlink"; readonly call: number; readonly party: number }
  | {
      readonly type: "listen";
      readonly call: number;
      readonly listener: ListenerRecord;
      readonly first: boolean;
    }
  | { readonly type: "unlisten"; readonly call: number; readonly listener: number }
  | { readonly type: "finish"; readonly listener: number }
  | { readonly type: "endpoint"; readonly listener: number; readonly party: number }
  | { readonly type: "connect"; readonly request: ConnectRequest }
  /** Shards of a worker that has died, or given them up, are this one's now. `untold`: see `NodeTable.adopt`. */
  | { readonly type: "adopt"; readonly shards: readonly number[]; readonly untold: number }
  /** The apps know of the end of all connections in these shards whose records have the tag. */
  | { readonly type: "bury"; readonly shards: readonly number[]; readonly tag: number }
  /** Gives up those of these shards that nobody uses: the answer is which. */
  | { readonly type: "disown"; readonly call: number; readonly shards: readonly number[] }
  /** Makes an app endpoint in the worker's own thread. */
  | { readonly type: "place"; readonly call: number; readonly place: PlaceStart }
  /** Layer 1's own words to that endpoint. */
  | { readonly type: "app"; readonly message: unknown }
  | { readonly type: "stop"; readonly call: number; readonly graceMs: number };

/** From a worker. */
export type FromWorker =
  | { readonly type: "guard"; readonly report: GuardReport }
  | { readonly type: "ready" }
  /** Layer 1's own words from the app endpoint in the worker's thread. */
  | { readonly type: "app"; readonly message: unknown }
  /** All of a group's connections here have been tried; or all that stood have ended as well. */
  | { readonly type: "group"; readonly open: number; readonly over: boolean }
  | {
      readonly type: "reply";
      readonly call: number;
      readonly value?: unknown;
      readonly error?: { readonly code: ErrorCode; readonly message: string } | undefined;
    }
  | { readonly type: "connected"; readonly open: number; readonly sockfd: number }
  | { readonly type: "failed"; readonly open: number; readonly code: ErrorCode; readonly text: string }
  | {
      readonly type: "alarm";
      readonly open: number;
      readonly code: "backlog" | "frames" | "udp-overflow";
      readonly text: string;
      readonly count: number;
    };
