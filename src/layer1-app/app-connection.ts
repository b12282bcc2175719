/**
 * What an app endpoint must remember of a connection while something of it is pending, and of an `opens` always.
 *
 * Layer 1. State only; `endpoint.ts` moves it. A connection with which nothing is pending has no object here: all else
 * is in its v-node.
 */

import type { StreamBuffer } from "../layer2-transport/index.ts";
import type { ApoError } from "./errors.ts";
import type { Alarm, FramingFunction, Handlers, Sockfd } from "./types.ts";

/** One `opens`, as an endpoint that has its connections knows it. */
export interface OpenRecord {
  readonly id: number;
  readonly handlers: Handlers;
  /** "tcp port 7": for texts. */
  readonly name: string;
  readonly recvlen: number;
  readonly msgpack: boolean;
  /** A framing of the app's own: the worker sends chunks, and this cuts them. */
  readonly framingFunction?: FramingFunction | undefined;
  /** Client: the first message, and who waits for the connection. */
  readonly news?: Uint8Array | string | undefined;
  connected?: ((sockfd: Sockfd) => void) | undefined;
  /** Nothing is to be told of its connections but their messages: no descriptor says that one stands. */
  readonly quiet: boolean;
  /** Connections here whose `closed` has not been told; of a quiet one they are not counted. */
  connections: number;
  /** Forget it when the last of them has ended. */
  leaving: boolean;
}

/** A message that came while `connected` had not settled. */
export interface HeldMessage {
  readonly kind: number;
  readonly frame: number;
  readonly offset: number;
  readonly length: number;
}

/** A connection with something pending. */
export class AppConnection {
  readonly sockfd: Sockfd;
  readonly sockfd24: number;
  readonly generation: number;
  readonly open: OpenRecord;
  /** `connected` returned a promise that has not settled. */
  connecting = false;
  held: HeldMessage | undefined;
  /** Bytes that wait for the framing function. */
  input: StreamBuffer | undefined;
  /** They are being cut, perhaps by a handler that takes its time. */
  cutting = false;
  /** The frame of the chunk whose bytes `input` looks at. */
  chunkFrame = 0;
  /** Bytes that must be there before the framing function is asked again. */
  needed = 0;
  /** Why this side ended it. */
  failure: ApoError | undefined;
  ended = false;
  /** Called when it has ended. */
  readonly endWaiters: (() => void)[] = [];

  constructor(sockfd24: number, generation: number, open: OpenRecord) {
    this.sockfd = generation * 2 ** 24 + sockfd24;
    this.sockfd24 = sockfd24;
    this.generation = generation;
    this.open = open;
  }

  /** Whether nothing is pending any more. */
  get isIdle(): boolean {
    if (this.connecting || this.held || this.cutting || this.failure) return false;
    return this.endWaiters.length === 0 && (this.input?.length ?? 0) === 0;
  }
}

/** Who hears of alarms that no handler takes. */
export type AlarmSink = (open: OpenRecord | undefined, alarm: Alarm, error?: unknown) => void;
