/**
 * Between the rings and a transport: gives connections their numbers, sees to their ends, and keeps objects for those
 * with which something is going on.
 *
 * Layer 2. `receiver.ts` and `sender.ts` are its halves, `endings.ts` ends many at once. It knows nothing of kernel
 * sockets or packets (a `Transport` does) and nothing of handlers (layer 1 does).
 */

import { type ErrorCode, errorCodes } from "../layer1-app/errors.ts";
import { ClosingWatch } from "./closing-watch.ts";
import { Connection } from "./connection.ts";
import type { Container } from "./container.ts";
import type { Counters, WorkerCounter } from "./counters.ts";
import { type CloseCode, closeBits, closeCodes, errorWord, kind } from "./descriptor.ts";
import { Endings } from "./endings.ts";
import { type FramePool, type LinkEnd, noLink } from "./link.ts";
import type { NodeTable } from "./nodes/node-table.ts";
import {
  type Ends,
  node as fields,
  numberOf,
  protocols,
  nodeState as states,
  tagMask,
  tagShift,
} from "./nodes/v-node.ts";
import { OpenEntry } from "./open-entry.ts";
import { Receiver } from "./receiver.ts";
import { Sender } from "./sender.ts";
import type { ConnectRequest, ListenerRecord, Transport, TransportEvents } from "./transport.ts";

const node = fields;
const nodeState = states;
/** What a v-node's flags say of its protocol and of the worker that opened it. */
const protocolMask = 3;
const ownerMask = tagMask << tagShift;
const tcpBits = protocols.indexOf("tcp");

/** What a dispatcher is given by its worker. */
export interface DispatcherContext {
  readonly index: number;
  readonly pool: FramePool;
  readonly table: NodeTable;
  readonly counters: Counters<WorkerCounter>;
  /** The app endpoints, by party. */
  readonly links: Map<number, LinkEnd>;
  alarm(open: number, code: "backlog" | "frames" | "udp-overflow", text: string): void;
  clientConnected(request: ConnectRequest, sockfd: number): void;
  clientFailed(request: ConnectRequest, code: ErrorCode, text: string): void;
  clientEnded(request: ConnectRequest): void;
}

export class Dispatcher implements TransportEvents {
  /** Connections that have not ended. */
  unended = 0;
  /** Of these, those that are to end in order. */
  endingCount = 0;
  private transport!: Transport;
  private sender!: Sender;
  private receiver!: Receiver;
  private readonly endings: Endings;
  private readonly watch: ClosingWatch;
  private readonly context: DispatcherContext;
  private readonly words: Int32Array;
  private readonly entries = new Map<number, OpenEntry>();
  /** Connections whose objects stay with them, by the `active` word of their v-nodes; 0 is nobody's. */
  private readonly kept: (Connection | undefined)[] = [undefined];
  private readonly keptFree: number[] = [];
  /** Connections that are over for the transport, while the app handles what had come of them. */
  private readonly left = new Map<number, Connection>();
  private nextEndpoint = 0;
  private readonly ownTag: number;

  constructor(context: DispatcherContext) {
    this.context = context;
    this.ownTag = context.table.tag << tagShift;
    this.words = context.table.words;
    this.endings = new Endings(context.table, this);
    this.watch = new ClosingWatch((connection) => this.abort(connection, "reset", true));
  }

  /** Must be called once, before anything else: the transport needs the dispatcher first. */
  attach(transport: Transport): void {
    this.transport = transport;
    this.sender = new Sender(this.context, transport, this);
    this.receiver = new Receiver(this.context, transport, this);
  }

  // --- from the transport: connections come ---------------------------------------------------------------------

  accepted(listener: ListenerRecord, ends: Ends, handle: unknown, shard?: number): Connection | undefined {
    const entry = this.entryOf(listener);
    const link = this.welcome(listener, entry);
    const sockfd24 = link ? this.allocate(shard) : -1;
    if (!link || sockfd24 < 0) {
      if (link) this.context.counters.add("layer2.connections.refused-table");
      return undefined;
    }
    this.context.table.setTextEnds(this.context.table.baseOf(sockfd24), ends);
    this.openNode(entry, sockfd24, link);
    this.context.counters.add("layer2.connections.accepted");
    return this.keep(entry, sockfd24, link, handle);
  }

  acceptedNode(listener: ListenerRecord, sockfd24: number): boolean {
    const entry = this.entryOf(listener);
    const link = this.welcome(listener, entry);
    if (!link) return false;
    this.openNode(entry, sockfd24, link);
    this.context.counters.add("layer2.connections.accepted");
    return true;
  }

  acceptFailed(listener: ListenerRecord, error: ErrorCode): void {
    this.context.counters.add("layer2.connections.refused-system");
    const text = `listener on port ${listener.port}: a connection was refused: ${errorCodes[error]} (${error})`;
    this.context.alarm(listener.id, "backlog", text);
  }

  connected(request: ConnectRequest, ends: Ends, handle: unknown, shard?: number): Connection | undefined {
    const { table } = this.context;
    const link = this.context.links.get(request.endpoint);
    const sockfd24 = link ? this.allocate(shard) : -1;
    if (!link || sockfd24 < 0) {
      this.connectFailed(request, "ENFILE", "no connection number is left");
      return undefined;
    }
    table.setTextEnds(table.baseOf(sockfd24), ends);
    const entry = this.entryOf(undefined, request);
    this.openNode(entry, sockfd24, link);
    const connection = this.keep(entry, sockfd24, link, handle);
    this.clientStands(request, sockfd24);
    return connection;
  }

  connectedNode(request: ConnectRequest, sockfd24: number): boolean {
    const link = this.context.links.get(request.endpoint);
    if (!link) {
      this.connectFailed(request, "EWORKER", "the app's thread has died");
      return false;
    }
    this.openNode(this.entryOf(undefined, request), sockfd24, link);
    this.clientStands(request, sockfd24);
    return true;
  }

  connectFailed(request: ConnectRequest, code: ErrorCode, text: string): void {
    this.context.counters.add("layer2.connections.failed");
    this.context.clientFailed(request, code, text);
  }

  connection(sockfd24: number, handle: unknown): Connection {
    const { table, links } = this.context;
    const base = table.baseOf(sockfd24);
    const entry = this.entries.get(this.words[base + node.open] as number);
    if (!entry) throw new Error(`sockfd24 ${sockfd24}: its opens is not known here`);
    const link = links.get(table.endpointAt(base)) ?? noLink;
    const connection = entry.takeSpare() ?? new Connection(entry, link, true);
    connection.begin(sockfd24, this.words[base + node.generation] as number, base, link, handle);
    connection.orphaned = link === noLink;
    return connection;
  }

  // --- from the transport: what happens to them -----------------------------------------------------------------

  received(connection: Connection, bytes: Uint8Array): void {
    this.receiver.received(connection, bytes);
  }

  receivedFrame(connection: Connection, frame: number, offset: number, length: number): void {
    this.receiver.receivedFrame(connection, frame, offset, length);
    if (!connection.withApp) this.settle(connection);
  }

  datagram(connection: Connection, frame: number, offset: number, length: number): void {
    this.receiver.datagram(connection, frame, offset, length);
  }

  longestDatagram(connection: Connection, bytes: number): void {
    this.context.table.words[connection.base + node.longest] = bytes;
  }

  peerEnded(connection: Connection): void {
    this.receiver.peerEnded(connection);
  }

  sent(connection: Connection, container: Container, taken = true): void {
    if (!taken) this.context.counters.add("layer2.drop.send-unsent");
    this.sender.sent(connection, container);
    this.settle(connection);
  }

  ended(connection: Connection, code: CloseCode, error?: ErrorCode): void {
    if (connection.ended) return;
    if (connection.shut && code === "end" && connection.closing === undefined && !connection.isLeft) {
      // Both sides have ended in order, and what has come is the app's still.
      if (connection.withApp || connection.waitingBytes > 0) {
        this.leave(connection);
        return;
      }
    }
    connection.ended = true;
    const { context } = this;
    const { entry, closing } = connection;
    this.sender.ended(connection);
    context.counters.add("layer2.connections.ended");
    this.unended -= 1;
    if (closing !== undefined) this.endingCount -= 1;
    if (entry.listener) Atomics.sub(entry.counts, context.index, 1);
    if (entry.request) context.clientEnded(entry.request);
    const unfinished = this.receiver.ended(connection);
    Atomics.store(this.words, connection.base + node.state, nodeState.ended);
    if (!connection.orphaned) this.tellEnd(connection, code, error, unfinished);
    this.forget(connection);
    if (connection.orphaned) this.retire(connection.sockfd, connection.generation);
    entry.connections -= 1;
    if (entry.connections === 0 && entry.isLast) this.entries.delete(entry.id);
  }

  // --- from the app's side ----------------------------------------------------------------------------------------

  /** Handles one descriptor from an app endpoint. */
  receive(link: LinkEnd, words: Int32Array, at: number): void {
    const what = words[at];
    if (what === kind.sendMany) {
      this.sender.sendMany(words, at);
      return;
    }
    const sockfd24 = words[at + 1] as number;
    const generation = words[at + 2] as number;
    if (what === kind.retire) {
      this.retire(sockfd24, generation);
      return;
    }
    const connection = this.find(sockfd24, generation);
    if (!connection) {
      this.sender.refuse(link, words, at);
      return;
    }
    if (what === kind.done) this.receiver.done(connection);
    else if (what === kind.close) this.close(connection, words[at + 6] as number, words[at + 7] as number);
    else this.sender.receive(link, connection, words, at);
    this.settle(connection);
  }

  /** The object of an open connection; undefined when the number is nobody's, or its connection has ended. */
  find(sockfd24: number, generation: number): Connection | undefined {
    const { words } = this;
    const base = this.context.table.baseOf(sockfd24);
    if (words[base + node.generation] !== generation || words[base + node.state] !== nodeState.open)
      return undefined;
    const flags = words[base + node.flags] as number;
    if ((flags & ownerMask) !== this.ownTag || !this.context.table.owns(sockfd24 >>> 20)) return undefined;
    if (this.left.size > 0) {
      const left = this.left.get(sockfd24);
      if (left) return left;
    }
    if ((flags & protocolMask) === tcpBits && this.transport.find) {
      return this.transport.find(sockfd24, generation);
    }
    return this.kept[words[base + node.active] as number];
  }

  /** The app endpoint has died: its connections end, and nobody is told. Resolves when none is left. */
  dropEndpoint(link: LinkEnd): Promise<void> {
    return this.endings.orphan(link.peer);
  }

  /** Ends the connections of one `opens`, or all of them, once what was sent is out; very many in the background. */
  finishAll(openId: number | undefined, code: CloseCode): void {
    this.endings.finish(openId, code);
  }

  /** The listener takes no more connections, and what is known of it goes with the last that it has. */
  forgetListener(id: number): void {
    const entry = this.entries.get(id);
    if (!entry) return;
    entry.isLast = true;
    if (entry.connections === 0) this.entries.delete(id);
  }

  /** Ends at once whatever `finishAll` has left, for as long as there is time. */
  abortAll(code: CloseCode, deadlineMs: number): Promise<void> {
    return this.endings.abortAll(code, deadlineMs);
  }

  /** The worker is about to end. */
  stop(): void {
    this.watch.close();
  }

  // --- the ends of connections ------------------------------------------------------------------------------------

  finishNode(sockfd24: number, generation: number, code: CloseCode): void {
    const connection = this.find(sockfd24, generation);
    if (connection) this.finish(connection, code);
  }

  abortNode(sockfd24: number, generation: number, code: CloseCode): void {
    const connection = this.find(sockfd24, generation);
    if (connection) this.abort(connection, code, true);
  }

  orphanNode(sockfd24: number, generation: number): void {
    const connection = this.find(sockfd24, generation);
    if (!connection) {
      this.retire(sockfd24, generation);
      return;
    }
    connection.orphaned = true;
    this.abort(connection, "worker", true);
  }

  finish(connection: Connection, code: CloseCode): void {
    if (connection.closing !== undefined || connection.ended) return;
    if (connection.isLeft) {
      this.leaveNow(connection, code);
      return;
    }
    const lingerMs = this.transport.lingerMs?.(connection) ?? connection.rules.tcp.lingerMs;
    if (lingerMs === 0 && code !== "end" && connection.isStream) {
      this.abort(connection, code, true);
      return;
    }
    this.setClosing(connection, code);
    this.handedOver(connection);
    if (connection.ended) return;
    // What is queued may take its time; with a linger time not even the peer's agreement is waited for longer.
    const isQueued = connection.completed !== connection.submitted;
    if (isQueued || (lingerMs > 0 && connection.isStream)) this.watch.add(connection, lingerMs);
  }

  abort(connection: Connection, code: CloseCode = "closed", reset = true): void {
    if (connection.ended) return;
    if (connection.isLeft) {
      this.leaveNow(connection, code);
      return;
    }
    if (connection.closing === undefined) this.setClosing(connection, code);
    connection.endAsked = true;
    this.transport.destroy(connection, reset);
  }

  /** All is with the transport: if it puts an end behind what it has, it can be told of one. */
  handedOver(connection: Connection): void {
    const follows = this.transport.endsInOrder === true && connection.isStream;
    if (follows ? connection.isHandedOver : connection.completed === connection.submitted)
      this.allSent(connection);
  }

  /** What was queued is out, or has its place before an end: one that was decided on can go its way. */
  allSent(connection: Connection): void {
    if (connection.endAsked || connection.ended) return;
    if (connection.closing !== undefined) {
      connection.endAsked = true;
      this.transport.end(connection);
    } else if (connection.shut && !connection.shutAsked) {
      connection.shutAsked = true;
      this.transport.shutdown?.(connection);
    }
  }

  /** Gives the object of a connection back with which nothing is going on. */
  settle(connection: Connection): void {
    if (!connection.isPooled || connection.isSpare || !connection.isIdle) return;
    this.transport.released?.(connection);
    this.giveBack(connection);
  }

  private close(connection: Connection, codeWord: number, bits: number): void {
    const code = closeCodes[codeWord] as CloseCode;
    if (bits === closeBits.reset) this.abort(connection, code, true);
    else if (bits === 0) this.finish(connection, code);
    else if (connection.closing === undefined && connection.isStream) {
      if ((bits & closeBits.read) !== 0) this.receiver.deafen(connection);
      if ((bits & closeBits.write) === 0) return;
      connection.shut = true;
      this.handedOver(connection);
    }
  }

  /** The transport is through with the connection, the app is not. */
  private leave(connection: Connection): void {
    connection.isLeft = true;
    this.left.set(connection.sockfd, connection);
    this.sender.ended(connection);
  }

  private leaveNow(connection: Connection, code: CloseCode): void {
    this.left.delete(connection.sockfd);
    this.setClosing(connection, code);
    this.ended(connection, code);
  }

  private setClosing(connection: Connection, code: CloseCode): void {
    connection.closing = code;
    this.endingCount += 1;
  }

  private tellEnd(connection: Connection, code: CloseCode, error: ErrorCode | undefined, left: number): void {
    const planned = connection.closing;
    const cut = planned === "end" && left > 0 ? "EPROTO" : undefined;
    if (cut) this.context.counters.add("layer2.drop.unfinished-bytes", left);
    connection.link.post(
      kind.closed,
      connection.sockfd,
      connection.generation,
      0,
      0,
      left,
      closeCodes.indexOf(planned ?? code),
      errorWord(planned ? cut : error),
    );
  }

  /** The app knows of the end (or nobody is to be told): the number is free, at once or when the transport says. */
  private retire(sockfd24: number, generation: number): void {
    const { words } = this;
    const { table } = this.context;
    const base = table.baseOf(sockfd24);
    if (words[base + node.generation] !== generation || words[base + node.state] !== nodeState.ended) return;
    if (!table.owns(sockfd24 >>> 20)) return;
    const flags = words[base + node.flags] as number;
    if ((flags & ownerMask) !== this.ownTag) {
      table.releaseForeign(sockfd24);
      return;
    }
    if ((flags & protocolMask) === tcpBits && this.transport.retired?.(sockfd24)) return;
    table.release(sockfd24);
  }

  // --- the objects of connections ---------------------------------------------------------------------------------

  private entryOf(listener: ListenerRecord | undefined, request?: ConnectRequest): OpenEntry {
    const rules = (listener ?? request) as ListenerRecord | ConnectRequest;
    let entry = this.entries.get(rules.id);
    if (!entry) {
      entry = new OpenEntry(rules.id, rules, listener, request);
      this.entries.set(rules.id, entry);
    }
    return entry;
  }

  /** The link to the endpoint that is to have the listener's next connection; undefined: it is refused. */
  private welcome(listener: ListenerRecord, entry: OpenEntry): LinkEnd | undefined {
    const { counters } = this.context;
    if (entry.isFull) {
      counters.add("layer2.connections.refused-backlog");
      const text = `listener on port ${listener.port}: ${listener.limit} connections are open, more are refused`;
      this.context.alarm(listener.id, "backlog", text);
      return undefined;
    }
    const { endpoints } = listener;
    for (let tries = endpoints.length; tries > 0; tries -= 1) {
      this.nextEndpoint = (this.nextEndpoint + 1) % endpoints.length;
      const link = this.context.links.get(endpoints[this.nextEndpoint] as number);
      if (link) return link;
    }
    counters.add("layer2.connections.refused-table");
    return undefined;
  }

  private allocate(shard: number | undefined): number {
    const { table } = this.context;
    return shard === undefined ? table.allocateAnywhere() : table.allocate(shard);
  }

  /** From here on the connection is the app's as well. */
  private openNode(entry: OpenEntry, sockfd24: number, link: LinkEnd): void {
    const { context } = this;
    const base = context.table.baseOf(sockfd24);
    context.table.open(base, entry.rules, link.peer, entry.id);
    entry.connections += 1;
    this.unended += 1;
    if (entry.listener) Atomics.add(entry.counts, context.index, 1);
    if (entry.quiet) return;
    const generation = this.words[base + node.generation] as number;
    link.post(kind.connected, sockfd24, generation, 0, 0, 0, entry.id, 0);
  }

  private clientStands(request: ConnectRequest, sockfd24: number): void {
    this.context.counters.add("layer2.connections.connected");
    const base = this.context.table.baseOf(sockfd24);
    this.context.clientConnected(request, numberOf(sockfd24, this.words[base + node.generation] as number));
  }

  /** An object that stays with its connection. */
  private keep(entry: OpenEntry, sockfd24: number, link: LinkEnd, handle: unknown): Connection {
    const base = this.context.table.baseOf(sockfd24);
    const connection = new Connection(entry, link, false);
    connection.begin(sockfd24, this.words[base + node.generation] as number, base, link, handle);
    const place = this.keptFree.pop() ?? this.kept.length;
    this.kept[place] = connection;
    this.words[base + node.active] = place;
    return connection;
  }

  /** The connection has ended: its object is nobody's. */
  private forget(connection: Connection): void {
    if (connection.isPooled) {
      this.giveBack(connection);
      return;
    }
    const place = this.words[connection.base + node.active] as number;
    if (this.kept[place] !== connection) return;
    this.kept[place] = undefined;
    this.keptFree.push(place);
  }

  private giveBack(connection: Connection): void {
    connection.isSpare = true;
    connection.handle = undefined;
    connection.entry.giveBack(connection);
  }
}
