/**
 * The sending half of a worker's connections: containers, shared containers, files and flushes, in order.
 *
 * Layer 2. Every `sendto` is one submission; the transport takes them one after another. Bytes go to the transport at
 * once unless a file stands before them.
 */

import type { ErrorCode } from "../layer1-app/errors.ts";
import type { Connection } from "./connection.ts";
import { Container } from "./container.ts";
import { errorWord, kind } from "./descriptor.ts";
import type { DispatcherContext } from "./dispatcher.ts";
import { type FileHost, FileSender } from "./file-sender.ts";
import type { FramePool, Link } from "./link.ts";
import { node } from "./nodes/v-node.ts";
import type { Transport } from "./transport.ts";

export class Sender implements FileHost {
  readonly pool: FramePool;
  private readonly context: DispatcherContext;
  private readonly transport: Transport;
  private readonly allSent: (connection: Connection) => void;

  constructor(context: DispatcherContext, transport: Transport, allSent: (connection: Connection) => void) {
    this.context = context;
    this.pool = context.pool;
    this.transport = transport;
    this.allSent = allSent;
  }

  /** A send, a file or a flush for a connection that is there. */
  receive(link: Link, connection: Connection, words: Int32Array, at: number): void {
    const frame = words[at + 3] as number;
    const offset = words[at + 4] as number;
    const length = words[at + 5] as number;
    if (words[at] === kind.send) {
      this.submit(connection, new Container(this.pool, frame, offset, length));
    } else if (words[at] === kind.file) {
      const view = this.pool.view(frame, offset, length);
      const path = view.toString("utf8", 16);
      const token = words[at + 6] as number;
      const request = { path, offset: view.readDoubleLE(0), length: view.readDoubleLE(8), token, link };
      this.pool.drop(frame, this.pool.partition);
      this.submit(connection, new FileSender(this, connection, request));
    } else if (words[at] === kind.flush) {
      const token = words[at + 6] as number;
      if (connection.completed === connection.submitted) this.answer(link, connection, token, undefined);
      else connection.flushes.push({ token, after: connection.submitted, link });
    }
  }

  /** One container for many connections: pairs of (sockfd24, generation) stand in a frame. */
  sendMany(connections: ReadonlyMap<number, Connection>, words: Int32Array, at: number): void {
    const length = words[at + 5] as number;
    const count = words[at + 6] as number;
    const list = words[at + 7] as number;
    const container = new Container(this.pool, words[at + 3] as number, words[at + 4] as number, length);
    const pairs = new Int32Array(this.pool.buffer, list * 2048, count * 2);
    for (let i = 0; i < count; i += 1) {
      const sockfd = pairs[2 * i] as number;
      const connection = connections.get(sockfd);
      if (connection && connection.generation === pairs[2 * i + 1] && !connection.ended) {
        container.use();
        this.submit(connection, container);
      } else {
        this.dropUnsent(sockfd, pairs[2 * i + 1] as number, length);
      }
    }
    container.done();
    this.pool.drop(list, this.pool.partition);
  }

  /** A descriptor whose connection has ended: frees what it carries and answers what it asks. */
  refuse(link: Link, words: Int32Array, at: number): void {
    const what = words[at];
    if (what === kind.send || what === kind.file)
      this.pool.drop(words[at + 3] as number, this.pool.partition);
    if (what === kind.send) {
      this.dropUnsent(words[at + 1] as number, words[at + 2] as number, words[at + 5] as number);
    }
    if (what === kind.file || what === kind.flush || what === kind.info) {
      const error = what === kind.flush ? 0 : errorWord("ESTALE");
      link.post(
        kind.answered,
        words[at + 1] as number,
        words[at + 2] as number,
        0,
        0,
        0,
        words[at + 6] as number,
        error,
      );
    }
  }

  /** The transport has taken a container, or thrown it away. */
  sent(connection: Connection, container: Container): void {
    const { words } = this.context.table;
    const at = connection.base + node.written;
    Atomics.store(words, at, ((words[at] as number) + container.length) | 0);
    const part = container.part;
    container.done();
    if (part) {
      connection.file?.partSent();
      return;
    }
    this.completed(connection);
  }

  /** Throws away what is left of a connection that has ended. */
  ended(connection: Connection): void {
    const { counters } = this.context;
    connection.file?.abort();
    connection.file = undefined;
    const unsent = connection.outgoing.length;
    for (let item = connection.outgoing.shift(); item; item = connection.outgoing.shift()) {
      if (item instanceof Container) item.done();
      else this.answer(item.request.link, connection, item.request.token, "ESTALE");
    }
    if (unsent > 0) counters.add("layer2.drop.send-unsent", unsent);
    connection.completed = connection.submitted;
    this.answerFlushes(connection);
    const { words } = this.context.table;
    Atomics.store(words, connection.base + node.written, words[connection.base + node.enqueued] as number);
  }

  /** Calls back at once when nothing is queued; otherwise when the last of it is out. */
  whenIdle(connection: Connection): void {
    if (connection.completed === connection.submitted) this.allSent(connection);
  }

  sendPart(connection: Connection, container: Container): void {
    const { counters, table } = this.context;
    container.part = true;
    Atomics.add(table.words, connection.base + node.enqueued, container.length);
    counters.add("layer2.send.file-bytes", container.length);
    if (connection.ended) container.done();
    else this.transport.send(connection, container);
  }

  fileDone(connection: Connection, sender: FileSender, error: ErrorCode | undefined, started: boolean): void {
    this.answer(sender.request.link, connection, sender.request.token, error);
    if (connection.ended) return;
    connection.file = undefined;
    if (error && started) {
      // The peer has part of what it was promised; only a reset tells it so.
      connection.closing ??= "closed";
      connection.endAsked = true;
      this.transport.destroy(connection, true);
      return;
    }
    this.completed(connection);
    while (!connection.file && !connection.ended) {
      const next = connection.outgoing.shift();
      if (!next) return;
      this.start(connection, next);
    }
  }

  private submit(connection: Connection, item: Container | FileSender): void {
    connection.submitted += 1;
    if (connection.file) connection.outgoing.push(item);
    else this.start(connection, item);
  }

  private start(connection: Connection, item: Container | FileSender): void {
    const { counters } = this.context;
    counters.add("layer2.send.messages");
    if (item instanceof FileSender) {
      connection.file = item;
      item.start();
    } else {
      counters.add("layer2.send.bytes", item.length);
      this.transport.send(connection, item);
    }
  }

  private completed(connection: Connection): void {
    connection.completed += 1;
    if (connection.flushes.length > 0) this.answerFlushes(connection);
    if (connection.completed === connection.submitted) this.allSent(connection);
  }

  private answerFlushes(connection: Connection): void {
    for (let next = connection.flushes.peek(); next; next = connection.flushes.peek()) {
      if (next.after > connection.completed) return;
      connection.flushes.shift();
      this.answer(next.link, connection, next.token, undefined);
    }
  }

  private answer(link: Link, connection: Connection, token: number, error: ErrorCode | undefined): void {
    const { sockfd, generation } = connection;
    link.post(kind.answered, sockfd, generation, 0, 0, 0, token, errorWord(error));
  }

  /** Counts a send that came too late, so that `queued` of a connection about to be retired stays true. */
  private dropUnsent(sockfd: number, generation: number, length: number): void {
    const { counters, table } = this.context;
    counters.add("layer2.drop.send-after-end");
    const base = table.baseOf(sockfd);
    if (table.words[base + node.generation] === generation)
      Atomics.add(table.words, base + node.written, length);
  }
}
