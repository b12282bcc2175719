/**
 * The sending half of a worker's connections: containers, shared containers, files and flushes, in order.
 *
 * Layer 2. Every `sendto` is one submission; the transport takes them one after another. Bytes go to the transport at
 * once unless a file stands before them.
 */

import type { ErrorCode } from "../layer1-app/errors.ts";
import type { Connection } from "./connection.ts";
import { type Container, Containers } from "./container.ts";
import { errorWord, kind } from "./descriptor.ts";
import type { DispatcherContext } from "./dispatcher.ts";
import { Fifo } from "./fifo.ts";
import { type FileHost, FileSender } from "./file-sender.ts";
import { type FramePool, type LinkEnd, smallFrameBytes } from "./link.ts";
import { node as fields } from "./nodes/v-node.ts";
import { tcpOptionNames } from "./tcp/options.ts";
import type { Transport } from "./transport.ts";

const node = fields;

/** What the sender asks of the dispatcher. */
export interface SenderHost {
  /** The object of an open connection, if the number is one's. */
  find(sockfd24: number, generation: number): Connection | undefined;
  /** Everything has been handed to the transport. */
  handedOver(connection: Connection): void;
  /** Everything that was submitted is out. */
  allSent(connection: Connection): void;
  /** Something has been done with the connection: it may be idle now. */
  settle(connection: Connection): void;
  abort(connection: Connection): void;
}

export class Sender implements FileHost {
  readonly pool: FramePool;
  readonly containers: Containers;
  private readonly context: DispatcherContext;
  private readonly transport: Transport;
  private readonly host: SenderHost;
  private readonly words: Int32Array;
  private readonly messagesAt: number;
  private readonly bytesAt: number;

  constructor(context: DispatcherContext, transport: Transport, host: SenderHost) {
    this.context = context;
    this.pool = context.pool;
    this.containers = new Containers(context.pool);
    this.transport = transport;
    this.host = host;
    this.words = context.table.words;
    this.messagesAt = context.counters.placeOf("layer2.send.messages");
    this.bytesAt = context.counters.placeOf("layer2.send.bytes");
  }

  /** What an app sends on, or asks of, a connection that is there. */
  receive(link: LinkEnd, connection: Connection, words: Int32Array, at: number): void {
    const what = words[at];
    if (what === kind.send) {
      const length = words[at + 5] as number;
      if (connection.shut) {
        this.refuse(link, words, at);
        return;
      }
      const container = this.containers.take(words[at + 3] as number, words[at + 4] as number, length);
      this.submit(connection, container);
    } else if (what === kind.file) {
      if (connection.shut) this.refuse(link, words, at);
      else this.file(link, connection, words, at);
    } else if (what === kind.flush) {
      const token = words[at + 6] as number;
      if (connection.completed === connection.submitted) this.answer(link, connection, token, undefined);
      else this.flushLater(link, connection, token);
    } else if (what === kind.option) {
      this.tune(connection, words[at + 6] as number, words[at + 7] as number);
    } else if (what === kind.info) {
      this.inform(link, connection, words[at + 6] as number);
    }
  }

  /** One container for many connections: pairs of (sockfd24, generation) stand in a frame. */
  sendMany(words: Int32Array, at: number): void {
    const length = words[at + 5] as number;
    const count = words[at + 6] as number;
    const list = words[at + 7] as number;
    const container = this.containers.take(words[at + 3] as number, words[at + 4] as number, length);
    const pairs = new Int32Array(this.pool.buffer, list * smallFrameBytes, count * 2);
    for (let i = 0; i < count; i += 1) {
      const sockfd24 = pairs[2 * i] as number;
      const generation = pairs[2 * i + 1] as number;
      const connection = this.host.find(sockfd24, generation);
      if (connection && !connection.shut) {
        container.use();
        this.submit(connection, container);
        this.host.settle(connection);
      } else {
        this.dropUnsent(sockfd24, generation, length);
      }
    }
    container.done();
    this.pool.drop(list, this.pool.partition);
  }

  /** A descriptor that comes too late for its connection: frees what it carries and answers what it asks. */
  refuse(link: LinkEnd, words: Int32Array, at: number): void {
    const what = words[at];
    if (what === kind.send || what === kind.file)
      this.pool.drop(words[at + 3] as number, this.pool.partition);
    if (what === kind.send)
      this.dropUnsent(words[at + 1] as number, words[at + 2] as number, words[at + 5] as number);
    if (what === kind.file || what === kind.flush || what === kind.info) {
      const error = what === kind.flush ? 0 : errorWord("ESTALE");
      const token = words[at + 6] as number;
      link.post(kind.answered, words[at + 1] as number, words[at + 2] as number, 0, 0, 0, token, error);
    }
  }

  /** The transport has taken a container, or thrown it away. */
  sent(connection: Connection, container: Container): void {
    const at = connection.base + node.written;
    Atomics.store(this.words, at, ((this.words[at] as number) + container.length) | 0);
    const part = container.part;
    container.done();
    if (part) connection.file?.partSent();
    else this.completed(connection);
  }

  /** Throws away what is left of a connection that has ended. */
  ended(connection: Connection): void {
    connection.file?.abort();
    connection.file = undefined;
    const { outgoing } = connection;
    if (outgoing !== undefined && outgoing.length > 0) {
      this.context.counters.add("layer2.drop.send-unsent", outgoing.length);
      for (let item = outgoing.shift(); item; item = outgoing.shift()) {
        if (item instanceof FileSender)
          this.answer(item.request.link, connection, item.request.token, "ESTALE");
        else item.done();
      }
    }
    connection.completed = connection.submitted;
    this.answerFlushes(connection);
    const { base } = connection;
    Atomics.store(this.words, base + node.written, this.words[base + node.enqueued] as number);
  }

  sendPart(connection: Connection, container: Container): void {
    Atomics.add(this.words, connection.base + node.enqueued, container.length);
    this.context.counters.add("layer2.send.file-bytes", container.length);
    if (connection.ended) container.done();
    else this.transport.send(connection, container);
  }

  fileDone(connection: Connection, sender: FileSender, error: ErrorCode | undefined, started: boolean): void {
    this.answer(sender.request.link, connection, sender.request.token, error);
    if (connection.ended) return;
    connection.file = undefined;
    if (error && started) {
      // The peer has part of what it was promised; only a reset tells it so.
      this.host.abort(connection);
      return;
    }
    this.completed(connection);
    while (connection.file === undefined && !connection.ended) {
      const next = connection.outgoing?.shift();
      if (next === undefined) break;
      this.start(connection, next);
    }
    if (!connection.ended && connection.isHandedOver) this.host.handedOver(connection);
    this.host.settle(connection);
  }

  private file(link: LinkEnd, connection: Connection, words: Int32Array, at: number): void {
    const frame = words[at + 3] as number;
    const view = this.pool.view(frame, words[at + 4] as number, words[at + 5] as number);
    const path = view.toString("utf8", 16);
    const token = words[at + 6] as number;
    const request = { path, offset: view.readDoubleLE(0), length: view.readDoubleLE(8), token, link };
    this.pool.drop(frame, this.pool.partition);
    this.submit(connection, new FileSender(this, connection, request));
  }

  private flushLater(link: LinkEnd, connection: Connection, token: number): void {
    connection.flushes ??= new Fifo();
    connection.flushes.push({ token, after: connection.submitted, link });
  }

  private tune(connection: Connection, place: number, word: number): void {
    if (place === tcpOptionNames.length) this.words[connection.base + node.sendlen] = word;
    else this.transport.tune?.(connection, place, word);
  }

  private inform(link: LinkEnd, connection: Connection, token: number): void {
    const facts = this.transport.info?.(connection);
    if (facts === undefined) {
      this.answer(link, connection, token, "ENOTSUP");
      return;
    }
    // What waits here, for the app or behind a file, the transport does not see.
    const unreadBytes = facts.unreadBytes + connection.input.length + (connection.pieces?.bytes ?? 0);
    const queued = this.context.table.queuedAt(connection.base);
    const unsentBytes = Math.max(facts.unsentBytes, queued - facts.unackedBytes);
    const bytes = Buffer.from(JSON.stringify({ ...facts, unreadBytes, unsentBytes }));
    const frame = this.pool.allocate(bytes.length);
    if (frame === 0) {
      this.answer(link, connection, token, "ENOBUFS");
      return;
    }
    this.pool.write(frame, 0, bytes);
    this.pool.hold(frame, link.peer);
    link.post(kind.answered, connection.sockfd, connection.generation, frame, 0, bytes.length, token, 0);
  }

  private submit(connection: Connection, item: Container | FileSender): void {
    connection.submitted += 1;
    if (connection.file === undefined) {
      this.start(connection, item);
      return;
    }
    connection.outgoing ??= new Fifo();
    connection.outgoing.push(item);
  }

  private start(connection: Connection, item: Container | FileSender): void {
    const { counters } = this.context;
    counters.addAt(this.messagesAt, 1);
    if (item instanceof FileSender) {
      connection.file = item;
      item.start();
    } else {
      counters.addAt(this.bytesAt, item.length);
      this.transport.send(connection, item);
    }
  }

  private completed(connection: Connection): void {
    connection.completed += 1;
    if (connection.flushes !== undefined && connection.flushes.length > 0) this.answerFlushes(connection);
    if (connection.completed === connection.submitted) this.host.allSent(connection);
  }

  private answerFlushes(connection: Connection): void {
    const { flushes } = connection;
    if (flushes === undefined) return;
    for (let next = flushes.peek(); next; next = flushes.peek()) {
      if (next.after > connection.completed) return;
      flushes.shift();
      this.answer(next.link, connection, next.token, undefined);
    }
  }

  private answer(link: LinkEnd, connection: Connection, token: number, error: ErrorCode | undefined): void {
    const { sockfd, generation } = connection;
    link.post(kind.answered, sockfd, generation, 0, 0, 0, token, errorWord(error));
  }

  /** Counts a send that came too late, so that `queued` of a connection about to be retired stays true. */
  private dropUnsent(sockfd24: number, generation: number, length: number): void {
    this.context.counters.add("layer2.drop.send-after-end");
    const base = this.context.table.baseOf(sockfd24);
    if (this.words[base + node.generation] === generation)
      Atomics.add(this.words, base + node.written, length);
  }
}
