/**
 * An app endpoint: the end of the rings in a thread that runs handlers (the main thread, or an app worker).
 *
 * Layer 1. It takes descriptors from the layer-2 workers, calls handlers one message a connection at a time, and is
 * what stands behind the verbs. A connection has an object here only while something of it is pending; whose it is and
 * whether it stands is in its v-node (`app-nodes.ts`). It knows nothing of transports or of how workers are started.
 */

import type { MessagePort } from "node:worker_threads";
import {
  type AppCounter,
  type CloseCode,
  type Counters,
  closeBits,
  closeCodes,
  errorOfWord,
  type FramePool,
  kind,
  Link,
  type LinkMemory,
  Mailbox,
  numberOf,
  shards,
  VNodeTable,
} from "../layer2-transport/index.ts";
import { type AlarmSink, AppConnection, type OpenRecord } from "./app-connection.ts";
import { AppNodes } from "./app-nodes.ts";
import { ChunkCutter, isPromise } from "./chunk-cutter.ts";
import { closeReason } from "./close-reason.ts";
import { ApoError, type ErrorCode, errorCodes } from "./errors.ts";
import { AppMessage, containerBytes, decodeValue } from "./message.ts";
import { type AppLink, Sending, type SendingContext, type Settle } from "./sending.ts";
import type { Estate } from "./shard-moves.ts";
import { Streams } from "./streams.ts";
import type { AppVerbs, CloseReason, Sockfd } from "./types.ts";
import { Verbs } from "./verbs.ts";

export interface EndpointOptions {
  /** Its partition is the endpoint's party. */
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
  readonly link: AppLink | undefined;
  readonly settle: Settle;
}

export class Endpoint implements SendingContext {
  readonly pool: FramePool;
  readonly nodes: VNodeTable;
  readonly owners: Int32Array;
  readonly links: (AppLink | undefined)[] = [];
  readonly counters: Counters<AppCounter>;
  readonly opens = new Map<number, OpenRecord>();
  readonly sending: Sending;
  readonly streams: Streams;
  /** What handlers get as their last argument; the main thread puts its runtime here. */
  verbs: AppVerbs;
  private readonly own: AppNodes;
  private readonly cutter: ChunkCutter;
  /** Connections with something pending, by sockfd24. */
  private readonly pending = new Map<number, AppConnection>();
  private readonly tokens = new Map<number, Token>();
  private readonly mailbox: Mailbox;
  private readonly alarm: AlarmSink;
  /** The place of its counter. */
  private readonly messages: number;
  private count = 0;
  private nextToken = 1;
  /** The `opens` of the last message: the next one is mostly of the same. */
  private lastOpen: OpenRecord | undefined;

  constructor(options: EndpointOptions) {
    this.pool = options.pool;
    this.counters = options.counters;
    this.messages = this.counters.placeOf("layer1.receive.messages");
    this.alarm = options.alarm;
    this.nodes = new VNodeTable(options.nodes);
    this.own = new AppNodes(this.nodes, options.pool.partition);
    this.owners = new Int32Array(options.owners);
    this.sending = new Sending(this);
    this.streams = new Streams({
      sending: this.sending,
      fail: (sockfd, error) => this.failStream(sockfd, error),
      isOpen: (sockfd) => this.nodes.find(sockfd) >= 0,
    });
    this.verbs = new Verbs(this.sending, this.streams, options.isHost);
    this.cutter = new ChunkCutter(this.cutterContext());
    this.mailbox = new Mailbox(
      (link, words, at) => this.receive(link, words, at),
      options.later ?? queueMicrotask,
    );
  }

  /** Makes an `opens` known whose connections come here. */
  addOpen(open: Omit<OpenRecord, "connections">): OpenRecord {
    const record = { ...open, connections: 0 };
    this.opens.set(open.id, record);
    return record;
  }

  /** Forgets an `opens`, once its last connection here has ended. */
  removeOpen(id: number): void {
    const open = this.opens.get(id);
    if (!open) return;
    open.leaving = true;
    if (open.connections === 0) this.forgetOpen(open);
  }

  /** Connects this endpoint with worker `index`. */
  addLink(index: number, memory: LinkMemory, port: MessagePort): void {
    const link = new Link(this.mailbox, "app", index, memory, port);
    this.links[index] = link;
    this.mailbox.add(link);
  }

  /** Connects this endpoint with the worker in whose thread it lives: descriptors come by `receive`. */
  addLocalLink(index: number, link: AppLink): void {
    this.links[index] = link;
  }

  /**
   * Worker `index` has died, and these shards were its own: what it would have answered is answered here, and its
   * connections, which its tag tells from newer ones there, are over. Resolves when `closed` of the last of them has
   * been called.
   */
  async removeLink(index: number, dead: Estate): Promise<void> {
    const link = this.links[index];
    if (!link) return;
    this.links[index] = undefined;
    if (link instanceof Link) {
      this.discard(link);
      this.mailbox.remove(link);
    }
    for (const [number, token] of [...this.tokens]) {
      if (token.link !== link) continue;
      this.tokens.delete(number);
      token.settle(new ApoError("EWORKER", "the worker thread that owned the connection died"));
    }
    const end = (base: number): void => this.endAt(base, "worker", "EWORKER");
    for (const shard of dead.shards) {
      for (let slot = 0; slot >= 0; ) {
        slot = this.own.visit(shard, slot, end, dead.tag);
        // Other connections must not wait for the end of a million.
        if (slot >= 0) await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  token(sockfd: Sockfd, settle: Settle): number {
    const token = this.nextToken;
    this.nextToken = token >= 0x7fff_ffff ? 1 : token + 1;
    this.tokens.set(token, { link: this.sending.link(sockfd), settle });
    return token;
  }

  /** Connections whose messages come here: of one `opens`, or all. */
  connectionCount(openId?: number): number {
    return openId === undefined ? this.count : (this.opens.get(openId)?.connections ?? 0);
  }

  /** Resolves when the connection has ended and `closed` has been called; at once when it is not ours. */
  ended(sockfd: Sockfd): Promise<void> {
    const sockfd24 = sockfd & 0xffffff;
    const generation = Math.floor(sockfd / 2 ** 24);
    const open = this.openOf(this.own.find(sockfd24, generation));
    if (!open) return Promise.resolve();
    const connection = this.remember(sockfd24, generation, open);
    return new Promise((resolve) => {
      connection.endWaiters.push(resolve);
    });
  }

  /** Handles what has come by the rings, a turn of it. */
  serve(): void {
    this.mailbox.wake();
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
    const left = this.count > 0 || this.pending.size > 0;
    for (let shard = 0; shard < shards && left; shard += 1) {
      for (let slot = 0; slot >= 0; ) {
        slot = this.own.visit(shard, slot, (base) => this.endAt(base, "shutdown", undefined));
      }
    }
    for (const token of this.tokens.values()) {
      token.settle(new ApoError("ECLOSED", "the runtime has been closed"));
    }
    this.tokens.clear();
    for (const link of this.links) if (link instanceof Link) this.discard(link);
    this.mailbox.close();
    this.links.length = 0;
  }

  // --- descriptors --------------------------------------------------------------------------------------------

  /** Handles one descriptor of a worker. True: the turn should end here. */
  receive(link: AppLink, words: Int32Array, at: number): boolean {
    const what = words[at] as number;
    const sockfd24 = words[at + 1] as number;
    const generation = words[at + 2] as number;
    if (what === kind.answered) {
      this.answered(words, at);
      return false;
    }
    if (what === kind.connected) return this.connected(link, sockfd24, generation, words[at + 6] as number);
    const base = this.own.find(sockfd24, generation);
    const open = this.openOf(base);
    const frame = words[at + 3] as number;
    const offset = words[at + 4] as number;
    const length = words[at + 5] as number;
    if (what === kind.closed) {
      const code = closeCodes[words[at + 6] as number] ?? "reset";
      if (open)
        this.end(base, sockfd24, generation, open, code, errorOfWord(words[at + 7] as number), length);
      if (base >= 0) this.retire(base, sockfd24, generation);
      return false;
    }
    if (!open) {
      this.pool.drop(frame, this.pool.partition);
      return false;
    }
    const waiting = this.pending.size === 0 ? undefined : this.pending.get(sockfd24);
    if (waiting?.connecting) waiting.held = { kind: what, frame, offset, length };
    else this.handle(sockfd24, generation, open, what, frame, offset, length);
    return false;
  }

  /** The `opens` of a record; undefined when there is none (-1), it is forgotten, or we have not told of it. */
  private openOf(base: number): OpenRecord | undefined {
    if (base < 0) return undefined;
    const id = this.own.openAt(base);
    if (this.lastOpen?.id !== id) this.lastOpen = this.opens.get(id);
    const open = this.lastOpen;
    return open === undefined || open.quiet || this.own.isKnown(base) ? open : undefined;
  }

  private connected(link: AppLink, sockfd24: number, generation: number, openId: number): boolean {
    const open = this.opens.get(openId);
    if (!open) {
      const code = closeCodes.indexOf("closed");
      link.post(kind.close, sockfd24, generation, 0, 0, 0, code, closeBits.reset);
      return false;
    }
    if (this.own.markKnown(sockfd24, generation) < 0) return false;
    this.count += 1;
    open.connections += 1;
    const { handlers } = open;
    const sockfd = numberOf(sockfd24, generation);
    try {
      if (open.news !== undefined) this.sending.one(sockfd, open.news)?.catch(() => {});
      const result = handlers.connected?.(sockfd, this.verbs.peer(sockfd), this.verbs);
      if (isPromise(result)) this.connectedLater(this.remember(sockfd24, generation, open), result);
    } catch (error) {
      this.failed(sockfd24, generation, open, error);
    }
    if (!open.connected) return false;
    open.connected(sockfd);
    // The app's own `await opens` goes on before the connection's first message is handled.
    return true;
  }

  /** `connected` takes its time: until it is through, the connection's first message is held. */
  private connectedLater(connection: AppConnection, result: Promise<void>): void {
    const { sockfd24, generation, open } = connection;
    connection.connecting = true;
    result.then(
      () => {
        connection.connecting = false;
        const { held } = connection;
        connection.held = undefined;
        this.settle(connection);
        if (!held) return;
        if (connection.ended) this.pool.drop(held.frame, this.pool.partition);
        else this.handle(sockfd24, generation, open, held.kind, held.frame, held.offset, held.length);
      },
      (error: unknown) => {
        connection.connecting = false;
        this.dropHeld(connection);
        this.failed(sockfd24, generation, open, error);
        this.settle(connection);
      },
    );
  }

  private answered(words: Int32Array, at: number): void {
    const frame = words[at + 3] as number;
    const number = words[at + 6] as number;
    const code = errorOfWord(words[at + 7] as number);
    let text: string | undefined;
    if (frame !== 0) {
      const bytes = this.bytesOf(frame, words[at + 4] as number, words[at + 5] as number);
      text = Buffer.from(bytes).toString("utf8");
      this.pool.drop(frame, this.pool.partition);
    }
    const token = this.tokens.get(number);
    if (!token) return;
    this.tokens.delete(number);
    token.settle(code ? new ApoError(code, errorCodes[code]) : undefined, text);
  }

  // --- messages -----------------------------------------------------------------------------------------------

  private handle(
    sockfd24: number,
    generation: number,
    open: OpenRecord,
    what: number,
    frame: number,
    offset: number,
    length: number,
  ): void {
    if (what === kind.chunk) {
      this.counters.add("layer1.receive.chunks");
      this.cutter.take(this.remember(sockfd24, generation, open), frame, this.bytesOf(frame, offset, length));
      return;
    }
    this.counters.addAt(this.messages, 1);
    const message = new AppMessage(this.pool, frame, offset, length);
    if (open.msgpack && !this.decode(sockfd24, generation, open, message, frame)) return;
    let result: void | Promise<void>;
    try {
      result = open.handlers.request?.(numberOf(sockfd24, generation), message, this.verbs);
    } catch (error) {
      message.spend();
      this.pool.drop(frame, this.pool.partition);
      this.failed(sockfd24, generation, open, error);
      return;
    }
    if (isPromise(result)) {
      this.doneLater(sockfd24, generation, open, message, frame, result);
      return;
    }
    message.spend();
    this.done(sockfd24, generation, frame);
  }

  /** Decodes the message's value. False: it was none, and the connection is ending. */
  private decode(
    sockfd24: number,
    generation: number,
    open: OpenRecord,
    message: AppMessage,
    frame: number,
  ): boolean {
    try {
      message.value = decodeValue(message.bytes);
      return true;
    } catch (error) {
      this.pool.drop(frame, this.pool.partition);
      const text = `${open.name}: not msgpack: ${error instanceof Error ? error.message : String(error)}`;
      this.closeFor(sockfd24, generation, open, "framing", new ApoError("EPROTO", text, { cause: error }));
      return false;
    }
  }

  private doneLater(
    sockfd24: number,
    generation: number,
    open: OpenRecord,
    message: AppMessage,
    frame: number,
    result: Promise<void>,
  ): void {
    result.then(
      () => {
        message.spend();
        this.done(sockfd24, generation, frame);
      },
      (error: unknown) => {
        message.spend();
        this.pool.drop(frame, this.pool.partition);
        this.failed(sockfd24, generation, open, error);
      },
    );
  }

  /** The container's bytes: a view when they are in one frame, a copy put together when not. */
  private bytesOf(frame: number, offset: number, length: number): Uint8Array {
    return containerBytes(this.pool, frame, offset, length);
  }

  /** The handler is done: the frame goes back, and the worker may send the next message. */
  private done(sockfd24: number, generation: number, frame: number): void {
    if (frame !== 0) this.pool.drop(frame, this.pool.partition);
    if (this.own.find(sockfd24, generation) < 0) return;
    this.linkOf(sockfd24)?.post(kind.done, sockfd24, generation, 0, 0, 0, 0, 0);
  }

  private linkOf(sockfd24: number): AppLink | undefined {
    return this.sending.link(sockfd24);
  }

  private cutterContext(): ConstructorParameters<typeof ChunkCutter>[0] {
    const endpoint = this;
    return {
      pool: this.pool,
      get verbs() {
        return endpoint.verbs;
      },
      counted: () => this.counters.add("layer1.receive.messages"),
      done: (connection) => {
        this.done(connection.sockfd24, connection.generation, 0);
        this.settle(connection);
      },
      failed: ({ sockfd24, generation, open }, error) => this.failed(sockfd24, generation, open, error),
      refused: ({ sockfd24, generation, open }, code, error) =>
        this.closeFor(sockfd24, generation, open, code, error),
    };
  }

  // --- what is pending ----------------------------------------------------------------------------------------

  /** The object of a connection with something pending. */
  private remember(sockfd24: number, generation: number, open: OpenRecord): AppConnection {
    const known = this.pending.get(sockfd24);
    if (known?.generation === generation) return known;
    const connection = new AppConnection(sockfd24, generation, open);
    this.pending.set(sockfd24, connection);
    return connection;
  }

  /** Forgets the object when nothing is pending any more. */
  private settle(connection: AppConnection): void {
    if (!connection.isIdle) return;
    if (this.pending.get(connection.sockfd24) === connection) this.pending.delete(connection.sockfd24);
  }

  private dropHeld(connection: AppConnection): void {
    if (connection.held) this.pool.drop(connection.held.frame, this.pool.partition);
    connection.held = undefined;
  }

  // --- ends ---------------------------------------------------------------------------------------------------

  /** A handler threw: its connection ends, the operator is told, the others go on. */
  private failed(sockfd24: number, generation: number, open: OpenRecord, error: unknown): void {
    const base = this.own.find(sockfd24, generation);
    const late = error instanceof ApoError && error.code === "ESTALE";
    // Answering a peer that has gone meanwhile is no fault of the handler.
    if (late && (base < 0 || this.own.isGone(base))) return;
    const text = error instanceof Error ? error.message : String(error);
    this.counters.add("layer1.handler.errors");
    const told = new ApoError("EHANDLER", `${open.name}: a handler threw: ${text}`, { cause: error });
    this.closeFor(sockfd24, generation, open, "handler", told);
    this.alarm(open, { code: "handler", text: told.message, count: 1 }, error);
  }

  private failStream(sockfd: Sockfd, error: ApoError): void {
    this.counters.add("layer1.handler.errors");
    const sockfd24 = sockfd & 0xffffff;
    const generation = Math.floor(sockfd / 2 ** 24);
    const open = this.openOf(this.own.find(sockfd24, generation));
    if (open) this.remember(sockfd24, generation, open).failure ??= error;
    this.sending.close(sockfd, closeCodes.indexOf("handler"), closeBits.reset);
    this.nodes.markGone(sockfd);
    this.alarm(open, { code: "handler", text: error.message, count: 1 }, error.cause);
  }

  private closeFor(
    sockfd24: number,
    generation: number,
    open: OpenRecord,
    code: "handler" | "recvlen" | "framing",
    error: ApoError,
  ): void {
    if (this.own.find(sockfd24, generation) < 0) return;
    const connection = this.remember(sockfd24, generation, open);
    connection.failure ??= error;
    this.nodes.markGone(connection.sockfd);
    this.sending.close(connection.sockfd, closeCodes.indexOf(code), 0);
  }

  /** Ends a connection whose worker says nothing of it any more, and is not to be told that we know. */
  private endAt(base: number, code: CloseCode, error: ErrorCode | undefined): void {
    const open = this.openOf(base);
    const sockfd = this.nodes.numberAt(base);
    if (open) this.end(base, sockfd & 0xffffff, Math.floor(sockfd / 2 ** 24), open, code, error, 0);
  }

  /** `detail`: bytes of a message that has not come whole. */
  private end(
    base: number,
    sockfd24: number,
    generation: number,
    open: OpenRecord,
    code: CloseCode,
    error: ErrorCode | undefined,
    detail: number,
  ): void {
    const found = this.pending.size === 0 ? undefined : this.pending.get(sockfd24);
    const connection = found?.generation === generation ? found : undefined;
    const cut = code === "end" ? detail + (connection?.input?.length ?? 0) : detail;
    this.own.markTold(base);
    if (!open.quiet) {
      this.count -= 1;
      open.connections -= 1;
    }
    if (connection) {
      connection.ended = true;
      this.pending.delete(sockfd24);
      this.dropHeld(connection);
    }
    if (open.handlers.closed) {
      this.tellClosed(sockfd24, generation, open, closeReason(open, connection?.failure, code, error, cut));
    }
    if (open.leaving && open.connections === 0) this.forgetOpen(open);
    if (connection) for (const resolve of connection.endWaiters) resolve();
  }

  /** The number is nobody's here any more. */
  private retire(base: number, sockfd24: number, generation: number): void {
    this.own.markTold(base);
    this.linkOf(sockfd24)?.post(kind.retire, sockfd24, generation, 0, 0, 0, 0, 0);
  }

  private tellClosed(sockfd24: number, generation: number, open: OpenRecord, reason: CloseReason): void {
    try {
      const result = open.handlers.closed?.(numberOf(sockfd24, generation), reason, this.verbs);
      if (isPromise(result)) {
        result.catch((error: unknown) => this.failed(sockfd24, generation, open, error));
      }
    } catch (error) {
      this.failed(sockfd24, generation, open, error);
    }
  }

  private forgetOpen(open: OpenRecord): void {
    this.opens.delete(open.id);
    if (this.lastOpen === open) this.lastOpen = undefined;
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
