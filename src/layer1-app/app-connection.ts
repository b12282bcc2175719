/**
 * A connection as the app endpoint knows it: whose handlers it has, and what of it is being handled.
 *
 * Layer 1. State only; `endpoint.ts` moves it.
 */

import type { Link, StreamBuffer } from "../layer2-transport/index.ts";
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
  /** Told when the last connection that was ours has ended. */
  readonly onEnded?: ((sockfd: Sockfd) => void) | undefined;
}

/** A message that came while `connected` had not settled. */
export interface HeldMessage {
  readonly kind: number;
  readonly frame: number;
  readonly offset: number;
  readonly length: number;
}

export class AppConnection {
  readonly sockfd: Sockfd;
  readonly sockfd24: number;
  readonly generation: number;
  readonly link: Link;
  readonly open: OpenRecord;
  /** `connected` returned a promise that has not settled. */
  connecting = false;
  held: HeldMessage | undefined;
  /** Bytes that wait for the framing function. */
  input: StreamBuffer | undefined;
  /** The frame of the chunk whose bytes `input` looks at. */
  chunkFrame = 0;
  /** Bytes that must be there before the framing function is asked again. */
  needed = 0;
  /** Why this side ended it. */
  failure: ApoError | undefined;
  ended = false;
  /** Called when it has ended. */
  readonly endWaiters: (() => void)[] = [];

  constructor(sockfd24: number, generation: number, link: Link, open: OpenRecord) {
    this.sockfd = generation * 2 ** 24 + sockfd24;
    this.sockfd24 = sockfd24;
    this.generation = generation;
    this.link = link;
    this.open = open;
  }
}

/** Who hears of alarms that no handler takes. */
export type AlarmSink = (open: OpenRecord | undefined, alarm: Alarm, error?: unknown) => void;
