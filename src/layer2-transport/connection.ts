/**
 * A connection as the worker that owns it knows it, while there is something to know.
 *
 * Layer 2. State only; `dispatcher.ts` moves it. The transport keeps its own object in `handle`. What other threads
 * must see stands in the v-node, and so does all that an idle connection of a transport of millions consists of: such
 * a connection's object is used for another one meanwhile. Kernel sockets and flows of UDP keep theirs.
 */

import type { Container } from "./container.ts";
import { type CloseCode, kind } from "./descriptor.ts";
import type { Fifo } from "./fifo.ts";
import type { FileSender } from "./file-sender.ts";
import { createFramer, type Framer } from "./framer.ts";
import type { LinkEnd } from "./link.ts";
import type { OpenEntry } from "./open-entry.ts";
import type { PieceQueue } from "./piece-queue.ts";
import { StreamBuffer } from "./stream-buffer.ts";
import type { ConnectionRules, ListenerRecord } from "./transport.ts";

/** A flush that is answered when `after` submissions are through. */
export interface PendingFlush {
  readonly token: number;
  readonly after: number;
  /** Who asked. */
  readonly link: LinkEnd;
}

export class Connection {
  /** The 24-bit number. */
  sockfd = 0;
  generation = 0;
  /** The v-node's first word. */
  base = 0;
  link: LinkEnd;
  /** The transport's own. */
  handle: unknown;
  readonly entry: OpenEntry;
  readonly rules: ConnectionRules;
  readonly listener: ListenerRecord | undefined;
  /** Its messages' kind of descriptor. */
  readonly what: number;
  readonly isStream: boolean;
  /** It may go back to the pool when it is idle. */
  readonly isPooled: boolean;
  /** Steps on when the object is given to a connection, so that who remembers it for long can tell. */
  epoch = 0;
  /** It is in the pool. */
  isSpare = false;

  /** Bytes of a stream that wait for a framer to find a message in them; those of `pieces` come after them. */
  readonly input = new StreamBuffer();
  readonly framer: Framer;
  /** Frames that wait, each with a count and this worker's mark: datagrams, or what came of a stream meanwhile. */
  pieces: PieceQueue | undefined;
  /** Bytes of `input` that make up a message which the framer has found and the app has not got. */
  found = 0;
  withApp = false;
  paused = false;
  starved = false;
  peerEnded = false;
  /** The app wants to hear no more of it. */
  deaf = false;

  /** Containers and files that wait behind `file`. */
  outgoing: Fifo<Container | FileSender> | undefined;
  file: FileSender | undefined;
  flushes: Fifo<PendingFlush> | undefined;
  submitted = 0;
  completed = 0;
  /** Nothing more is to be sent: what is queued still goes out, then the transport is told. */
  shut = false;
  shutAsked = false;

  /** Set when our side has decided on the end; what is queued still goes out. */
  closing: CloseCode | undefined;
  endAsked = false;
  ended = false;
  /** The transport is through with it; what has come is delivered still. */
  isLeft = false;
  /** The app endpoint has died: nobody is to be told. */
  orphaned = false;

  constructor(entry: OpenEntry, link: LinkEnd, isPooled: boolean) {
    const { rules, listener } = entry;
    this.entry = entry;
    this.rules = rules;
    this.listener = listener;
    this.link = link;
    this.isPooled = isPooled;
    this.isStream = rules.protocol === "tcp";
    this.what = rules.framing === "chunks" ? kind.chunk : kind.message;
    this.framer = createFramer(rules.framing, rules.recvlen);
  }

  /** The object is this connection's from here on, and as fresh. Queues were empty when it went to the pool. */
  begin(sockfd: number, generation: number, base: number, link: LinkEnd, handle: unknown): void {
    this.sockfd = sockfd;
    this.generation = generation;
    this.base = base;
    this.link = link;
    this.handle = handle;
    this.epoch += 1;
    this.isSpare = false;
    this.framer.reset();
    this.found = 0;
    this.withApp = false;
    this.paused = false;
    this.starved = false;
    this.peerEnded = false;
    this.deaf = false;
    this.file = undefined;
    this.submitted = 0;
    this.completed = 0;
    this.shut = false;
    this.shutAsked = false;
    this.closing = undefined;
    this.endAsked = false;
    this.ended = false;
    this.isLeft = false;
    this.orphaned = false;
  }

  /** Bytes that have come and wait. */
  get waitingBytes(): number {
    return this.input.length + (this.pieces === undefined ? 0 : this.pieces.bytes);
  }

  /** Whether something waits in `pieces`. */
  get hasPieces(): boolean {
    return this.pieces !== undefined && this.pieces.length > 0;
  }

  /** Whether everything that was handed over to be sent is with the transport. */
  get isHandedOver(): boolean {
    return this.file === undefined && (this.outgoing === undefined || this.outgoing.length === 0);
  }

  /** Whether all that is to be known of it stands in its v-node. */
  get isIdle(): boolean {
    return (
      !this.withApp &&
      this.submitted === this.completed &&
      this.closing === undefined &&
      this.input.length === 0 &&
      !this.hasPieces &&
      !this.paused &&
      !this.starved &&
      !this.peerEnded &&
      !this.deaf &&
      !this.shut &&
      !this.orphaned &&
      !this.ended &&
      !this.isLeft &&
      this.file === undefined
    );
  }
}
