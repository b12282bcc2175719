/**
 * An app endpoint: the end of the rings in a thread that runs handlers (the main thread, or an app worker).
 *
 * Layer 1. It takes descriptors from the layer-2 workers, calls handlers one message a connection at a time, and is
 * what stands behind the verbs. It knows nothing of transports or of how workers are started.
 */

import type { MessagePort } from "node:worker_threads";
import {
  type AppCounter,
  type Counters,
  closeBits,
  closeCodes,
  errorOfWord,
  type FramePool,
  kind,
  Link,
  type LinkMemory,
  Mailbox,
  StreamBuffer,
  VNodeTable,
} from "../layer2-transport/index.ts";
import { type AlarmSink, AppConnection, type OpenRecord } from "./app-connection.ts";
import { closeReason } from "./close-reason.ts";
import { ApoError, errorCodes } from "./errors.ts";
import { AppMessage, decodeValue } from "./message.ts";
import { Sending, type SendingContext, type Settle } from "./sending.ts";
import { Streams } from "./streams.ts";
import type { AppVerbs, CloseReason, Sockfd } from "./types.ts";
import { Verbs } from "./verbs.ts";

export interface EndpointOptions {
  readonly pool: FramePool;
  /** The v-node table, and which worker owns which shard of it. */
  readonly nodes: SharedArrayBuffer;
  readonly owners: SharedArrayBuffer;
  readonly counters: Counters<AppCounter>;
  readonly alarm: AlarmSink;
  /** The kernel has the connections. */
  readonly isHost: boolean;
  /** Microtasks suit a thread that runs apps: what one turn sends leaves as one batch. */
  readonly later?: (run: () => void) => void;
}

interface Token {
  /** Who will answer. */
  readonly link: Link | undefined;
  readonly settle: Settle;
}

export class Endpoint implements SendingContext {
  readonly pool: FramePool;
  readonly nodes: VNodeTable;
  readonly owners: Int32Array;
  readonly links: (Link | undefined)[] = [];
  readonly counters: Counters<AppCounter>;
  readonly opens = new Map<number, OpenRecord>();
  readonly sending: Sending;
  readonly streams: Streams;
  /** What handlers get as their last argument; the main thread puts its runtime here. */
  verbs: AppVerbs;
  private readonly connections = new Map<number, AppConnection>();
  private readonly tokens = new Map<number, Token>();
  private readonly mailbox: Mailbox;
  private readonly alarm: AlarmSink;
  private nextToken = 1;

  constructor(options: EndpointOptions) {
    this.pool = options.pool;
    this.counters = options.counters;
    this.alarm = options.alarm;
    this.nodes = new VNodeTable(options.nodes);
    this.owners = new Int32Array(options.owners);
    this.sending = new Sending(this);
    this.streams = new Streams({
      sending: this.sending,
      fail: (sockfd, error) => this.failStream(sockfd, error),
      isOpen: (sockfd) => this.nodes.find(sockfd) >= 0,
    });
    this.verbs = new Verbs(this.sending, this.streams, options.isHost);
    this.mailbox = new Mailbox(
      (link, words, at) => this.receive(link, words, at),
      options.later ?? queueMicrotask,
    );
  }

  /** Connects this endpoint with worker `index`. */
  addLink(index: number, memory: LinkMemory, port: MessagePort): void {
    const link = new Link(this.mailbox, "app", index, memory, port);
    this.links[index] = link;
    this.mailbox.add(link);
  }

  /** Worker `index` has died: its connections are over, and what it would have answered is answered here. */
  removeLink(index: number): void {
    const link = this.links[index];
    if (!link) return;
    this.discard(link);
    this.links[index] = undefined;
    this.mailbox.remove(link);
    for (const connection of [...this.connections.values()]) {
      if (connection.link === link) this.end(connection, closeReason(connection, "worker", "EWORKER", 0));
    }
    for (const [number, token] of [...this.tokens]) {
      if (token.link !== link) continue;
      this.tokens.delete(number);
      token.settle(new ApoError("EWORKER", "the worker thread that owned the connection died"));
    }
  }

  token(sockfd: Sockfd, settle: Settle): number {
    const token = this.nextToken;
    this.nextToken = token >= 0x7fff_ffff ? 1 : token + 1;
    this.tokens.set(token, { link: this.sending.link(sockfd), settle });
    return token;
  }

  /** The connection, if its messages come here. */
  connection(sockfd: Sockfd): AppConnection | undefined {
    const connection = this.connections.get(sockfd & 0xffffff);
    return connection?.sockfd === sockfd ? connection : undefined;
  }

  /** Connections whose messages come here: of one `opens`, or all. */
  connectionCount(openId?: number): number {
    if (openId === undefined) return this.connections.size;
    let count = 0;
    for (const connection of this.connections.values()) if (connection.open.id === openId) count += 1;
    return count;
  }

  /** Resolves when the connection has ended and `closed` has been called; at once when it is not ours. */
  ended(sockfd: Sockfd): Promise<void> {
    const connection = this.connection(sockfd);
    if (!connection) return Promise.resolve();
    return new Promise((resolve) => {
      connection.endWaiters.push(resolve);
    });
  }

  /** Publishes now what has been sent. */
  flush(): void {
    this.mailbox.flush();
  }

  /** Handles at once whatever has come. */
  exhaust(): void {
    this.mailbox.exhaust();
  }

  /** Tells everyone who still waits that it is over, and lets go of the rings. */
  close(): void {
    this.sending.stop();
    for (const connection of [...this.connections.values()]) {
      this.end(connection, closeReason(connection, "shutdown", undefined, 0));
    }
    for (const token of this.tokens.values()) {
      token.settle(new ApoError("ECLOSED", "the runtime has been closed"));
    }
    this.tokens.clear();
    for (const link of this.links) if (link) this.discard(link);
    this.mailbox.close();
    this.links.length = 0;
  }

  // --- descriptors --------------------------------------------------------------------------------------------

  private receive(link: Link, words: Int32Array, at: number): boolean {
    const what = words[at] as number;
    const sockfd24 = words[at + 1] as number;
    const generation = words[at + 2] as number;
    if (what === kind.answered) {
      this.answered(words, at);
      return false;
    }
    if (what === kind.connected) return this.connected(link, sockfd24, generation, words[at + 6] as number);
    const connection = this.connections.get(sockfd24);
    const known = connection?.generation === generation ? connection : undefined;
    const frame = words[at + 3] as number;
    const offset = words[at + 4] as number;
    const length = words[at + 5] as number;
    if (what === kind.closed) {
      const code = closeCodes[words[at + 6] as number] ?? "reset";
      if (!known) return false;
      const cut = code === "end" ? length + (known.input?.length ?? 0) : length;
      this.end(known, closeReason(known, code, errorOfWord(words[at + 7] as number), cut));
    } else if (!known || known.ended) {
      this.pool.drop(frame, this.pool.partition);
    } else if (known.connecting) {
      known.held = { kind: what, frame, offset, length };
    } else {
      this.handle(known, what, frame, offset, length);
    }
    return false;
  }

  private connected(link: Link, sockfd24: number, generation: number, openId: number): boolean {
    const open = this.opens.get(openId);
    if (!open) {
      link.post(kind.close, sockfd24, generation, 0, 0, 0, closeCodes.indexOf("closed"), closeBits.reset);
      return false;
    }
    const connection = new AppConnection(sockfd24, generation, link, open);
    this.connections.set(sockfd24, connection);
    const { handlers } = open;
    try {
      if (open.news !== undefined) this.sending.one(connection.sockfd, open.news)?.catch(() => {});
      const result = handlers.connected?.(connection.sockfd, this.verbs.peer(connection.sockfd), this.verbs);
      if (isPromise(result)) {
        connection.connecting = true;
        result.then(
          () => this.ready(connection),
          (error: unknown) => this.failed(connection, error),
        );
      }
    } catch (error) {
      this.failed(connection, error);
    }
    if (!open.connected) return false;
    open.connected(connection.sockfd);
    // The app's own `await opens` goes on before the connection's first message is handled.
    return true;
  }

  private ready(connection: AppConnection): void {
    connection.connecting = false;
    const { held } = connection;
    connection.held = undefined;
    if (!held) return;
    if (connection.ended) this.pool.drop(held.frame, this.pool.partition);
    else this.handle(connection, held.kind, held.frame, held.offset, held.length);
  }

  private answered(words: Int32Array, at: number): void {
    const frame = words[at + 3] as number;
    const number = words[at + 6] as number;
    const code = errorOfWord(words[at + 7] as number);
    let text: string | undefined;
    if (frame !== 0) {
      text = Buffer.from(this.bytesOf(frame, words[at + 4] as number, words[at + 5] as number)).toString(
        "utf8",
      );
      this.pool.drop(frame, this.pool.partition);
    }
    const token = this.tokens.get(number);
    if (!token) return;
    this.tokens.delete(number);
    token.settle(code ? new ApoError(code, errorCodes[code]) : undefined, text);
  }

  // --- messages -----------------------------------------------------------------------------------------------

  private handle(
    connection: AppConnection,
    what: number,
    frame: number,
    offset: number,
    length: number,
  ): void {
    if (what === kind.chunk) {
      this.chunk(connection, frame, offset, length);
      return;
    }
    this.counters.add("layer1.receive.messages");
    const { open } = connection;
    const bytes = this.bytesOf(frame, offset, length);
    let value: unknown;
    let result: void | Promise<void>;
    try {
      if (open.msgpack) value = decodeValue(bytes);
    } catch (error) {
      this.pool.drop(frame, this.pool.partition);
      const text = `${open.name}: not msgpack: ${error instanceof Error ? error.message : String(error)}`;
      this.closeFor(connection, "framing", new ApoError("EPROTO", text, { cause: error }));
      return;
    }
    try {
      result = open.handlers.request?.(connection.sockfd, new AppMessage(bytes, value), this.verbs);
    } catch (error) {
      this.pool.drop(frame, this.pool.partition);
      this.failed(connection, error);
      return;
    }
    if (!isPromise(result)) {
      this.done(connection, frame);
      return;
    }
    result.then(
      () => this.done(connection, frame),
      (error: unknown) => {
        this.pool.drop(frame, this.pool.partition);
        this.failed(connection, error);
      },
    );
  }

  /** The container's bytes: a view when they are in one frame, a copy put together when not. */
  private bytesOf(frame: number, offset: number, length: number): Uint8Array {
    if (offset + length <= this.pool.frameBytes(frame)) {
      return new Uint8Array(this.pool.buffer, frame * 2048 + offset, length);
    }
    const whole = new Uint8Array(length);
    let at = 0;
    for (const view of this.pool.views(frame, offset, length)) {
      whole.set(view, at);
      at += view.length;
    }
    return whole;
  }

  /** The handler is done: the frame goes back, and the worker may send the next message. */
  private done(connection: AppConnection, frame: number): void {
    if (frame !== 0) this.pool.drop(frame, this.pool.partition);
    if (connection.ended) return;
    connection.link.post(kind.done, connection.sockfd24, connection.generation, 0, 0, 0, 0, 0);
  }

  private chunk(connection: AppConnection, frame: number, offset: number, length: number): void {
    this.counters.add("layer1.receive.chunks");
    connection.input ??= new StreamBuffer();
    const view = this.bytesOf(frame, offset, length);
    if (connection.input.length === 0) {
      connection.input.append(view);
      connection.chunkFrame = frame;
    } else {
      connection.input.appendCopy(view);
      this.pool.drop(frame, this.pool.partition);
    }
    this.cut(connection, connection.input);
  }

  /** Handles the whole messages of what has arrived, one after another, then asks for the next chunk. */
  private cut(connection: AppConnection, input: StreamBuffer): void {
    try {
      for (let size = this.nextSize(connection, input); size > 0; size = this.nextSize(connection, input)) {
        this.counters.add("layer1.receive.messages");
        const bytes = input.bytes.subarray(input.start, input.start + size);
        input.consume(size);
        const message = new AppMessage(bytes, undefined);
        const result = connection.open.handlers.request?.(connection.sockfd, message, this.verbs);
        if (!isPromise(result)) continue;
        result.then(
          () => this.cut(connection, input),
          (error: unknown) => {
            this.releaseChunk(connection);
            this.failed(connection, error);
          },
        );
        return;
      }
    } catch (error) {
      this.releaseChunk(connection);
      this.failed(connection, error);
      return;
    }
    this.releaseChunk(connection);
    this.done(connection, 0);
  }

  /** Bytes of the first message of `input`; 0 when it is not whole, or the connection is over. */
  private nextSize(connection: AppConnection, input: StreamBuffer): number {
    if (connection.ended || connection.failure || input.length === 0 || input.length < connection.needed)
      return 0;
    const { framingFunction, recvlen, name } = connection.open;
    let size: number;
    try {
      size = framingFunction?.(input.bytes.subarray(input.start, input.end)) ?? input.length;
      if (!Number.isSafeInteger(size) || size < 0)
        throw new RangeError(`the framing function returned ${size}`);
    } catch (error) {
      const text = `${name}: ${error instanceof Error ? error.message : String(error)}`;
      this.closeFor(connection, "framing", new ApoError("EPROTO", text, { cause: error }));
      return 0;
    }
    const whole = size > 0 && size <= input.length;
    if (size > recvlen || (!whole && input.length >= recvlen)) {
      this.closeFor(
        connection,
        "recvlen",
        new ApoError("EMSGSIZE", `${name}: a message is over ${recvlen} bytes`),
      );
      return 0;
    }
    connection.needed = whole ? 0 : size;
    return whole ? size : 0;
  }

  /** Lets go of the chunk's frame; what is left of its bytes becomes ours. */
  private releaseChunk(connection: AppConnection): void {
    if (connection.chunkFrame === 0) return;
    const { input } = connection;
    if (input && input.length > 0) {
      const rest = input.bytes.subarray(input.start, input.end);
      input.clear();
      input.appendCopy(rest);
    }
    this.pool.drop(connection.chunkFrame, this.pool.partition);
    connection.chunkFrame = 0;
  }

  // --- ends ---------------------------------------------------------------------------------------------------

  /** A handler threw: its connection ends, the operator is told, the others go on. */
  private failed(connection: AppConnection, error: unknown): void {
    if (connection.held) this.pool.drop(connection.held.frame, this.pool.partition);
    connection.held = undefined;
    const late = error instanceof ApoError && error.code === "ESTALE";
    // Answering a peer that has gone meanwhile is no fault of the handler.
    if (late && (connection.ended || this.nodes.find(connection.sockfd) === -1)) return;
    const text = error instanceof Error ? error.message : String(error);
    this.counters.add("layer1.handler.errors");
    const told = new ApoError("EHANDLER", `${connection.open.name}: a handler threw: ${text}`, {
      cause: error,
    });
    this.closeFor(connection, "handler", told);
    this.alarm(connection.open, { code: "handler", text: told.message, count: 1 }, error);
  }

  private failStream(sockfd: Sockfd, error: ApoError): void {
    this.counters.add("layer1.handler.errors");
    const connection = this.connection(sockfd);
    if (connection) connection.failure ??= error;
    this.sending.close(sockfd, closeCodes.indexOf("handler"), closeBits.reset);
    this.nodes.markGone(sockfd);
    this.alarm(connection?.open, { code: "handler", text: error.message, count: 1 }, error.cause);
  }

  private closeFor(
    connection: AppConnection,
    code: "handler" | "recvlen" | "framing",
    error: ApoError,
  ): void {
    if (connection.ended) return;
    connection.failure ??= error;
    this.nodes.markGone(connection.sockfd);
    this.sending.close(connection.sockfd, closeCodes.indexOf(code), 0);
  }

  private end(connection: AppConnection, reason: CloseReason): void {
    connection.ended = true;
    this.connections.delete(connection.sockfd24);
    this.nodes.markGone(connection.sockfd);
    if (connection.held) this.pool.drop(connection.held.frame, this.pool.partition);
    connection.held = undefined;
    const { handlers, onEnded } = connection.open;
    try {
      const result = handlers.closed?.(connection.sockfd, reason, this.verbs);
      if (isPromise(result)) result.catch((error: unknown) => this.failed(connection, error));
    } catch (error) {
      this.failed(connection, error);
    }
    onEnded?.(connection.sockfd);
    for (const resolve of connection.endWaiters) resolve();
    connection.link.post(kind.retire, connection.sockfd24, connection.generation, 0, 0, 0, 0, 0);
  }

  /** Frees what a link still carries to us. */
  private discard(link: Link): void {
    const { incoming } = link;
    for (let at = incoming.take(); at >= 0; at = incoming.take()) {
      const what = incoming.words[at];
      if (
        what === kind.message ||
        what === kind.chunk ||
        (what === kind.answered && incoming.words[at + 3] !== 0)
      ) {
        this.pool.drop(incoming.words[at + 3] as number, this.pool.partition);
      }
    }
    incoming.release();
  }
}

function isPromise(value: unknown): value is Promise<void> {
  return typeof (value as Promise<void> | undefined)?.then === "function";
}
