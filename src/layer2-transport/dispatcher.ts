/**
 * Between the rings and a transport: gives connections their slots and hands their messages to the app, one at a time.
 *
 * Layer 2. This is the receiving half and the life of a connection; `sender.ts` is the sending half. It knows nothing
 * of kernel sockets or packets (a `Transport` does) and nothing of handlers (layer 1 does).
 */

import { type ErrorCode, errorCodes } from "../layer1-app/errors.ts";
import { Connection } from "./connection.ts";
import type { Container } from "./container.ts";
import type { Counters, WorkerCounter } from "./counters.ts";
import { type CloseCode, closeBits, closeCodes, errorWord, kind } from "./descriptor.ts";
import { framerResult } from "./framer.ts";
import type { FramePool, Link } from "./link.ts";
import type { NodeTable } from "./nodes/node-table.ts";
import { type Ends, node, nodeState, numberOf } from "./nodes/v-node.ts";
import { Sender } from "./sender.ts";
import { tcpOptionNames } from "./tcp/options.ts";
import type {
  ConnectionRules,
  ConnectRequest,
  ListenerRecord,
  Transport,
  TransportEvents,
} from "./transport.ts";

/** Bytes that may wait behind a message before the sender is held off. */
const holdBytes = 65_536;
/** How long a connection that is to end may go without a container taken before it is cut off. */
const stalledMs = 30_000;
/** How long a lack of pool frames is waited out before it is tried again. */
const retryMs = 2;

/** What a dispatcher is given by its worker. */
export interface DispatcherContext {
  readonly index: number;
  readonly pool: FramePool;
  readonly table: NodeTable;
  readonly counters: Counters<WorkerCounter>;
  readonly links: Map<number, Link>;
  alarm(open: number, code: "backlog" | "frames" | "udp-overflow", text: string): void;
  clientConnected(request: ConnectRequest, sockfd: number): void;
  clientFailed(request: ConnectRequest, code: ErrorCode, text: string): void;
}

export class Dispatcher implements TransportEvents {
  /** By sockfd24. */
  readonly connections = new Map<number, Connection>();
  private transport!: Transport;
  private sender!: Sender;
  private readonly context: DispatcherContext;
  private readonly starved: Connection[] = [];
  private starvedTimer: NodeJS.Timeout | undefined;
  private nextEndpoint = 0;

  constructor(context: DispatcherContext) {
    this.context = context;
  }

  /** Must be called once, before anything else: the transport needs the dispatcher first. */
  attach(transport: Transport): void {
    this.transport = transport;
    this.sender = new Sender(this.context, transport, (connection) => this.allSent(connection));
  }

  // --- from the transport -------------------------------------------------------------------------------------

  accepted(listener: ListenerRecord, ends: Ends, handle: unknown): Connection | undefined {
    const { context } = this;
    const counts = new Int32Array(listener.counts);
    if (counts.reduce((sum, count) => sum + count, 0) >= listener.limit) {
      context.counters.add("layer2.connections.refused-backlog");
      const text = `listener on port ${ends.localPort}: ${listener.limit} connections are open, more are refused`;
      context.alarm(listener.id, "backlog", text);
      return undefined;
    }
    const link = this.pickLink(listener.endpoints);
    const connection = link && this.open(listener, listener.id, link, ends, handle, listener);
    if (!connection) {
      context.counters.add("layer2.connections.refused-table");
      return undefined;
    }
    Atomics.add(counts, context.index, 1);
    context.counters.add("layer2.connections.accepted");
    return connection;
  }

  acceptFailed(listener: ListenerRecord, error: ErrorCode): void {
    this.context.counters.add("layer2.connections.refused-system");
    const text = `listener on port ${listener.port}: a connection was refused: ${errorCodes[error]} (${error})`;
    this.context.alarm(listener.id, "backlog", text);
  }

  connected(request: ConnectRequest, ends: Ends, handle: unknown): Connection | undefined {
    const link = this.context.links.get(request.endpoint);
    const connection = link && this.open(request, request.id, link, ends, handle, undefined);
    if (!connection) {
      this.connectFailed(request, "ENFILE", "no connection number is left");
      return undefined;
    }
    this.context.counters.add("layer2.connections.connected");
    this.context.clientConnected(request, numberOf(connection.sockfd, connection.generation));
    return connection;
  }

  connectFailed(request: ConnectRequest, code: ErrorCode, text: string): void {
    this.context.counters.add("layer2.connections.failed");
    this.context.clientFailed(request, code, text);
  }

  received(connection: Connection, bytes: Uint8Array): void {
    this.countReceived(connection, bytes.length);
    if (connection.closing || connection.ended) {
      this.context.counters.add("layer2.drop.closing", bytes.length);
      return;
    }
    if (connection.deaf) {
      this.context.counters.add("layer2.drop.read-shutdown", bytes.length);
      return;
    }
    connection.input.append(bytes);
    if (!connection.withApp && !connection.starved) this.deliver(connection);
    const held = connection.withApp || connection.starved;
    if (held && connection.input.length > holdBytes && !connection.paused) {
      connection.paused = true;
      this.context.counters.add("layer2.receive.pauses");
      this.transport.pause(connection);
    }
  }

  datagram(connection: Connection, frame: number, offset: number, length: number): void {
    const { counters, pool } = this.context;
    const { rules } = connection;
    this.countReceived(connection, length);
    const full = connection.withApp && connection.datagrams.length >= rules.waiting;
    if (connection.closing || connection.ended || length > rules.recvlen || full) {
      pool.release(frame);
      const long = length > rules.recvlen;
      counters.add(full ? "layer2.drop.waiting" : long ? "layer2.drop.recvlen" : "layer2.drop.closing");
      if (full) this.overflowed(connection);
      return;
    }
    // While it waits here it is this worker's: should the worker die, it is found again.
    pool.hold(frame, pool.partition);
    connection.datagrams.push({ frame, offset, length });
    if (!connection.withApp) this.deliver(connection);
  }

  peerEnded(connection: Connection): void {
    if (connection.peerEnded) return;
    connection.peerEnded = true;
    if (!connection.withApp && !connection.starved && !connection.closing) this.deliver(connection);
  }

  sent(connection: Connection, container: Container, taken = true): void {
    if (!taken) this.context.counters.add("layer2.drop.send-unsent");
    this.sender.sent(connection, container);
  }

  ended(connection: Connection, code: CloseCode, error?: ErrorCode): void {
    if (connection.ended) return;
    connection.ended = true;
    const { context } = this;
    this.sender.ended(connection);
    context.counters.add("layer2.connections.ended");
    if (connection.listener) Atomics.sub(new Int32Array(connection.listener.counts), context.index, 1);
    const unfinished = connection.input.length;
    connection.input.clear();
    for (let held = connection.datagrams.shift(); held; held = connection.datagrams.shift()) {
      context.pool.drop(held.frame, context.pool.partition);
    }
    if (connection.orphaned) {
      this.retire(connection);
      return;
    }
    Atomics.store(context.table.words, connection.base + node.state, nodeState.ended);
    const planned = connection.closing;
    const cut = planned === "end" && unfinished > 0 ? "EPROTO" : undefined;
    if (cut) context.counters.add("layer2.drop.unfinished-bytes", unfinished);
    connection.link.post(
      kind.closed,
      connection.sockfd,
      connection.generation,
      0,
      0,
      unfinished,
      closeCodes.indexOf(planned ?? code),
      errorWord(planned ? cut : error),
    );
  }

  // --- from the app's side ------------------------------------------------------------------------------------

  /** Handles one descriptor from an app endpoint. */
  receive(link: Link, words: Int32Array, at: number): void {
    const what = words[at];
    if (what === kind.sendMany) {
      this.sender.sendMany(this.connections, words, at);
      return;
    }
    const connection = this.connections.get(words[at + 1] as number);
    if (!connection || connection.generation !== words[at + 2]) {
      this.sender.refuse(link, words, at);
      return;
    }
    if (what === kind.done) this.done(connection);
    else if (what === kind.retire) this.retire(connection);
    else if (what === kind.close) {
      const code = closeCodes[words[at + 6] as number] as CloseCode;
      const bits = words[at + 7] as number;
      if (bits === closeBits.reset) this.abort(connection, code, true);
      else if (bits === 0) this.finish(connection, code);
      else this.shutdown(connection, bits);
    } else if (connection.ended) this.sender.refuse(link, words, at);
    else if (what === kind.option) this.tune(connection, words[at + 6] as number, words[at + 7] as number);
    else if (what === kind.info) this.tellInfo(link, connection, words[at + 6] as number);
    else this.sender.receive(link, connection, words, at);
  }

  /** The app endpoint has died: its connections end, and nobody is told. */
  dropEndpoint(link: Link): void {
    for (const connection of this.connections.values()) {
      if (connection.link !== link) continue;
      connection.orphaned = true;
      if (connection.ended) this.retire(connection);
      else this.abort(connection, "worker", true);
    }
  }

  /** Ends the connections of one listener, or all of them, once what was sent is out. */
  finishAll(listenerId: number | undefined, code: CloseCode): void {
    for (const connection of this.connections.values()) {
      if (connection.ended) continue;
      if (listenerId === undefined || connection.listener?.id === listenerId) this.finish(connection, code);
    }
  }

  /** Connections that have not ended. */
  unendedCount(): number {
    let count = 0;
    for (const connection of this.connections.values()) if (!connection.ended) count += 1;
    return count;
  }

  /** Ends at once whatever `finishAll` has left. */
  abortAll(code: CloseCode): void {
    for (const connection of this.connections.values())
      if (!connection.ended) this.abort(connection, code, true);
  }

  // --- the life of a connection -------------------------------------------------------------------------------

  private pickLink(endpoints: readonly number[]): Link | undefined {
    for (let tries = endpoints.length; tries > 0; tries -= 1) {
      this.nextEndpoint = (this.nextEndpoint + 1) % endpoints.length;
      const link = this.context.links.get(endpoints[this.nextEndpoint] as number);
      if (link) return link;
    }
    return undefined;
  }

  private open(
    rules: ConnectionRules,
    openId: number,
    link: Link,
    ends: Ends,
    handle: unknown,
    listener: ListenerRecord | undefined,
  ): Connection | undefined {
    const { table } = this.context;
    const sockfd = table.allocateAnywhere();
    if (sockfd < 0) return undefined;
    const base = table.baseOf(sockfd);
    table.setTextEnds(base, ends);
    table.open(base, rules, link.peer, openId);
    const generation = table.words[base + node.generation] as number;
    const connection = new Connection({ sockfd, generation, base }, rules, listener, link, handle);
    this.connections.set(sockfd, connection);
    link.post(kind.connected, sockfd, generation, 0, 0, 0, openId, 0);
    return connection;
  }

  /** What was queued is out: an end that was decided on can go its way. */
  private allSent(connection: Connection): void {
    if (connection.endAsked || connection.ended) return;
    if (!connection.closing) {
      if (!connection.shutting || connection.shutAsked) return;
      connection.shutAsked = true;
      this.transport.shutdown?.(connection);
      return;
    }
    connection.endAsked = true;
    this.transport.end(connection);
  }

  /** One direction of a stream ends; the connection goes on. */
  private shutdown(connection: Connection, bits: number): void {
    if (connection.closing || connection.ended || connection.rules.protocol !== "tcp") return;
    if ((bits & closeBits.read) !== 0 && !connection.deaf) {
      connection.deaf = true;
      this.context.counters.add("layer2.drop.read-shutdown", connection.input.length);
      connection.input.clear();
      connection.found = 0;
      if (!connection.withApp && !connection.starved) this.wantMore(connection);
    }
    if ((bits & closeBits.write) === 0) return;
    connection.shutting = true;
    this.sender.whenIdle(connection);
  }

  /** An option of one connection; the place behind the last is `sendlen`. */
  private tune(connection: Connection, place: number, word: number): void {
    if (place === tcpOptionNames.length) this.context.table.words[connection.base + node.sendlen] = word;
    else if (connection.rules.protocol === "tcp") this.transport.tune?.(connection, place, word);
  }

  /** Answers with a snapshot of the connection, as JSON in a container. */
  private tellInfo(link: Link, connection: Connection, token: number): void {
    const { pool } = this.context;
    const { sockfd, generation } = connection;
    const info = this.transport.info?.(connection);
    const text = Buffer.from(info ? JSON.stringify(info) : "");
    const frame = info ? pool.allocate(text.length) : 0;
    if (frame !== 0) {
      pool.write(frame, 0, text);
      pool.hold(frame, link.peer);
    }
    const error = info ? (frame === 0 ? errorWord("ENOBUFS") : 0) : errorWord("ENOTSUP");
    link.post(kind.answered, sockfd, generation, frame, 0, text.length, token, error);
  }

  private finish(connection: Connection, code: CloseCode): void {
    if (connection.closing || connection.ended) return;
    connection.closing = code;
    this.sender.whenIdle(connection);
    if (!connection.endAsked) this.watch(connection, connection.completed);
  }

  /** A peer that reads nothing must not keep a closed connection for ever. */
  private watch(connection: Connection, completed: number): void {
    const timer = setTimeout(() => {
      if (connection.ended || connection.endAsked) return;
      if (connection.completed === completed && !connection.file) this.abort(connection, "reset", true);
      else this.watch(connection, connection.completed);
    }, stalledMs);
    timer.unref();
  }

  private abort(connection: Connection, code: CloseCode, reset: boolean): void {
    if (connection.ended) return;
    connection.closing ??= code;
    connection.endAsked = true;
    this.transport.destroy(connection, reset);
  }

  private retire(connection: Connection): void {
    if (this.connections.get(connection.sockfd) !== connection) return;
    this.connections.delete(connection.sockfd);
    this.context.table.release(connection.sockfd);
  }

  // --- messages to the app ------------------------------------------------------------------------------------

  private done(connection: Connection): void {
    connection.withApp = false;
    if (!connection.closing && !connection.ended) this.deliver(connection);
  }

  /** Hands the connection's next message to the app, or sees to it that there will be one. */
  private deliver(connection: Connection): void {
    if (connection.rules.protocol !== "tcp") {
      this.deliverDatagram(connection);
      return;
    }
    const { input, framer } = connection;
    if (connection.found === 0) {
      // A framer never sees nothing at all: `raw` would take that for a message.
      const taken = input.length === 0 ? 0 : framer.next(input.bytes, input.start, input.end);
      if (taken === framerResult.incomplete) {
        this.wantMore(connection);
        return;
      }
      if (taken < 0) {
        this.finish(connection, taken === framerResult.tooLong ? "recvlen" : "framing");
        return;
      }
      connection.found = taken;
    }
    const { pool, counters } = this.context;
    const frame = pool.allocate(framer.length);
    if (frame === 0) {
      this.starve(connection);
      return;
    }
    pool.write(frame, 0, input.bytes.subarray(framer.at, framer.at + framer.length));
    input.consume(connection.found);
    connection.found = 0;
    counters.add("layer2.receive.messages");
    pool.hold(frame, connection.link.peer);
    this.hand(
      connection,
      connection.rules.framing === "chunks" ? kind.chunk : kind.message,
      frame,
      0,
      framer.length,
    );
  }

  private deliverDatagram(connection: Connection): void {
    const held = connection.datagrams.shift();
    if (!held) return;
    this.context.counters.add("layer2.receive.messages");
    this.context.pool.passOn(held.frame, this.context.pool.partition, connection.link.peer);
    this.hand(connection, kind.message, held.frame, held.offset, held.length);
  }

  private hand(connection: Connection, what: number, frame: number, offset: number, length: number): void {
    const { table } = this.context;
    const at = connection.base + node.receivedMessages;
    table.words[at] = ((table.words[at] as number) + 1) | 0;
    connection.withApp = true;
    connection.link.post(what, connection.sockfd, connection.generation, frame, offset, length, 0, 0);
  }

  /** No whole message is there: read on, or end after the peer's last. */
  private wantMore(connection: Connection): void {
    if (connection.peerEnded) {
      this.finish(connection, "end");
      return;
    }
    if (!connection.paused) return;
    connection.paused = false;
    this.transport.resume(connection);
  }

  /** The pool is empty: the message waits in the connection, and the sender is held off like behind any other. */
  private starve(connection: Connection): void {
    if (connection.starved) return;
    connection.starved = true;
    this.starved.push(connection);
    this.context.counters.add("layer2.receive.starved");
    this.context.alarm(connection.listener?.id ?? 0, "frames", "the frame pool is empty: messages wait");
    this.starvedTimer ??= setTimeout(() => this.feedStarved(), retryMs);
  }

  private feedStarved(): void {
    this.starvedTimer = undefined;
    for (const connection of this.starved.splice(0)) {
      connection.starved = false;
      if (!connection.closing && !connection.ended && !connection.withApp) this.deliver(connection);
    }
  }

  private countReceived(connection: Connection, bytes: number): void {
    const { words } = this.context.table;
    const at = connection.base + node.receivedBytes;
    words[at] = ((words[at] as number) + bytes) | 0;
    this.context.counters.add("layer2.receive.bytes", bytes);
  }

  private overflowed(connection: Connection): void {
    const { words } = this.context.table;
    const at = connection.base + node.dropped;
    words[at] = ((words[at] as number) + 1) | 0;
    const text = `UDP datagrams are dropped: ${connection.rules.waiting} of one peer wait for the handler`;
    this.context.alarm(connection.listener?.id ?? 0, "udp-overflow", text);
  }
}
