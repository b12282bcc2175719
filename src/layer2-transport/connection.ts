/**
 * A connection as the worker that owns it knows it.
 *
 * Layer 2. State only; `dispatcher.ts` moves it. The transport keeps its own object in `handle`. What other threads
 * must see stands in the v-node, not here.
 */

import type { Container } from "./container.ts";
import type { CloseCode } from "./descriptor.ts";
import { Fifo } from "./fifo.ts";
import type { FileSender } from "./file-sender.ts";
import { createFramer, type Framer } from "./framer.ts";
import type { Link } from "./link.ts";
import { StreamBuffer } from "./stream-buffer.ts";
import type { ConnectionRules, ListenerRecord } from "./transport.ts";

/** A datagram in a pool container, waiting for its turn with the app. */
export interface HeldDatagram {
  readonly frame: number;
  readonly offset: number;
  readonly length: number;
}

/** A flush that is answered when `after` submissions are through. */
export interface PendingFlush {
  readonly token: number;
  readonly after: number;
  /** Who asked. */
  readonly link: Link;
}

export class Connection {
  /** The 24-bit number. */
  readonly sockfd: number;
  readonly generation: number;
  /** The v-node's first word. */
  readonly base: number;
  readonly rules: ConnectionRules;
  readonly listener: ListenerRecord | undefined;
  readonly link: Link;
  /** The transport's own. */
  handle: unknown;

  readonly input = new StreamBuffer();
  readonly framer: Framer;
  readonly datagrams = new Fifo<HeldDatagram>();
  /** Bytes of `input` that make up a message which the framer has found and the app has not got. */
  found = 0;
  withApp = false;
  paused = false;
  starved = false;
  peerEnded = false;

  /** Containers and files that wait behind `file`. */
  readonly outgoing = new Fifo<Container | FileSender>();
  file: FileSender | undefined;
  readonly flushes = new Fifo<PendingFlush>();
  submitted = 0;
  completed = 0;

  /** Set when our side has decided on the end; what is queued still goes out. */
  closing: CloseCode | undefined;
  endAsked = false;
  /** The app sends nothing more: the transport is told once all is out, and was. */
  shutting = false;
  shutAsked = false;
  /** The app reads nothing more: what comes is dropped. */
  deaf = false;
  ended = false;
  /** The app endpoint has died: nobody is to be told. */
  orphaned = false;

  constructor(
    place: { sockfd: number; generation: number; base: number },
    rules: ConnectionRules,
    listener: ListenerRecord | undefined,
    link: Link,
    handle: unknown,
  ) {
    this.sockfd = place.sockfd;
    this.generation = place.generation;
    this.base = place.base;
    this.rules = rules;
    this.listener = listener;
    this.link = link;
    this.handle = handle;
    this.framer = createFramer(rules.framing, rules.recvlen);
  }
}
