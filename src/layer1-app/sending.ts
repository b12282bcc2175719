/**
 * The way of a message out of an app endpoint: checks, framing, the one copy into the pool, the descriptor.
 *
 * Layer 1. What cannot leave at once (no memory) waits here in order, and its sender is given a promise. Files are
 * read by the worker; streams are pumped by `streams.ts`.
 */

import {
  type AppCounter,
  type Counters,
  closeBits,
  Fifo,
  type FramePool,
  type FramingKind,
  generationOf,
  kind,
  largeFrameBytes,
  maxWorkers,
  node,
  smallFrameBytes,
  sockfd24Of,
  type TcpInfo,
  type VNodeTable,
} from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import { checkLength, encodeValue, headerBytes, wantsLineEnd } from "./framing.ts";
import { SmallSending } from "./small-sending.ts";
import type { FileSlice, Sockfd } from "./types.ts";

/** How long a lack of pool frames is waited out before it is tried again. */
const retryMs = 2;
const longestDatagram = 65_507;

/** Something that waits for memory. `run` returns false when there is still too little. */
interface Waiting {
  run(): boolean;
  /** It will not be tried again: the runtime has been closed. */
  cancel?(): void;
}

/** The receivers of one message that one worker owns: pairs of (sockfd24, generation). */
interface Group {
  pairs: Int32Array;
  count: number;
}

/** Who waits for an answer; it may come with a text. */
export type Settle = (error: ApoError | undefined, text?: string) => void;

/** A way to a layer-2 worker: by rings, or within the worker's own thread. */
export interface AppLink {
  /** The worker's party. */
  readonly peer: number;
  post(
    kindWord: number,
    sockfd: number,
    generation: number,
    frame: number,
    offset: number,
    length: number,
    arg0: number,
    arg1: number,
  ): void;
  /** Resolves when no descriptor of this link waits in this thread; undefined: none does. */
  drained(): Promise<void> | undefined;
}

/** What sending needs of its endpoint. */
export interface SendingContext {
  readonly pool: FramePool;
  readonly nodes: VNodeTable;
  /** Which worker owns each shard: its index + 1; 0 is nobody. */
  readonly owners: Int32Array;
  /** By worker index. */
  readonly links: readonly (AppLink | undefined)[];
  readonly counters: Counters<AppCounter>;
  /** A number under which the worker will answer. */
  token(sockfd: Sockfd, settle: Settle): number;
}

export function staleError(sockfd: Sockfd): ApoError {
  return new ApoError("ESTALE", `sockfd ${sockfd} is stale: its connection has ended`);
}

export class Sending {
  private readonly context: SendingContext;
  private readonly small: SmallSending;
  private readonly waiting = new Fifo<Waiting>();
  private readonly groups: Group[];
  private timer: NodeJS.Timeout | undefined;

  constructor(context: SendingContext) {
    this.context = context;
    this.small = new SmallSending(context);
    this.groups = Array.from({ length: maxWorkers }, () => ({ pairs: new Int32Array(64), count: 0 }));
  }

  /** The v-node's first word; throws `ESTALE`. */
  find(sockfd: Sockfd): number {
    const base = this.context.nodes.find(sockfd);
    if (base < 0) throw staleError(sockfd);
    return base;
  }

  /** Likewise for a connection whose sending side is open; throws `EPIPE` when it is not. */
  findToSend(sockfd: Sockfd): number {
    const base = this.find(sockfd);
    if (!this.nodes.isShutAt(base)) return base;
    throw new ApoError(
      "EPIPE",
      `sockfd ${sockfd} was closed with { shutdown: "write" }: nothing more is sent on it`,
    );
  }

  get nodes(): VNodeTable {
    return this.context.nodes;
  }

  /** The index of the worker that owns the connection; -1 when nobody does. */
  worker(sockfd: Sockfd): number {
    return Atomics.load(this.context.owners, (sockfd & 0xffffff) >>> 20) - 1;
  }

  /** The way to the worker that owns the connection. */
  link(sockfd: Sockfd): AppLink | undefined {
    const worker = this.worker(sockfd);
    return worker < 0 ? undefined : this.context.links[worker];
  }

  /** Sends one message to one connection. */
  one(sockfd: Sockfd, data: Uint8Array | string | unknown): Promise<void> | undefined {
    const base = this.findToSend(sockfd);
    if (this.waiting.length === 0 && (typeof data === "string" || data instanceof Uint8Array)) {
      const link = this.small.send(sockfd, base, data);
      if (link !== undefined) return link.drained();
    }
    const table = this.nodes;
    const framingKind = table.framingAt(base);
    const asIs = data instanceof Uint8Array || (typeof data === "string" && framingKind !== "msgpack");
    const payload = asIs ? data : encodeValue(data);
    const bytes = typeof payload === "string" ? Buffer.byteLength(payload) : payload.length;
    checkLength(framingKind, bytes);
    const length = headerBytes(framingKind) + bytes + (wantsLineEnd(framingKind, payload) ? 1 : 0);
    if (table.protocolAt(base) !== "tcp") checkDatagram(table.words[base + node.longest] as number, length);
    this.reserve(table, base, sockfd, length);
    if (this.waiting.length === 0) {
      if (this.post(sockfd, framingKind, payload, bytes, length)) return this.link(sockfd)?.drained();
    }
    // The caller may reuse its buffer at once, so what waits is a copy.
    const copy = typeof payload === "string" ? payload : new Uint8Array(payload);
    return this.defer(() => this.post(sockfd, framingKind, copy, bytes, length));
  }

  /** Sends the same bytes, as they are, to many connections from one shared copy. */
  many(sockfds: readonly Sockfd[], data: Uint8Array | string): Promise<void> | undefined {
    const bytes = typeof data === "string" ? Buffer.from(data) : data;
    const { counters } = this.context;
    for (const group of this.groups) group.count = 0;
    let receivers = 0;
    for (let i = 0; i < sockfds.length; i += 1) {
      if (this.addReceiver(sockfds[i] as Sockfd, bytes.length)) receivers += 1;
    }
    if (receivers === 0) return undefined;
    counters.add("layer1.send.messages", receivers);
    counters.add("layer1.send.bytes", receivers * bytes.length);
    if (this.waiting.length === 0 && this.postMany(this.groups, bytes)) return undefined;
    const copy = new Uint8Array(bytes);
    const groups = this.groups.map((group) => ({
      pairs: group.pairs.slice(0, group.count * 2),
      count: group.count,
    }));
    return this.defer(() => this.postMany(groups, copy));
  }

  /** Has the worker send a part of a file. The promise settles when it is out, or has failed. */
  file(sockfd: Sockfd, slice: FileSlice): Promise<void> {
    this.findToSend(sockfd);
    const path = typeof slice.file === "string" ? slice.file : fileUrlPath(slice.file);
    const { offset = 0, length = -1 } = slice;
    if (!isCount(offset))
      throw new ApoError("EINVAL", `offset must be a whole number of bytes, not ${offset}`);
    if (length !== -1 && !isCount(length)) {
      throw new ApoError("EINVAL", `length must be a whole number of bytes, not ${length}`);
    }
    const { pool } = this.context;
    const header = Buffer.alloc(16 + Buffer.byteLength(path));
    header.writeDoubleLE(offset, 0);
    header.writeDoubleLE(length, 8);
    header.write(path, 16);
    if (header.length > largeFrameBytes) throw new ApoError("EINVAL", "the file's path is too long");
    return new Promise<void>((resolve, reject) => {
      const token = this.context.token(sockfd, (error) => (error ? reject(named(error, path)) : resolve()));
      this.whenRoom(() => {
        const frame = pool.allocate(header.length);
        if (frame === 0) return false;
        pool.write(frame, 0, header);
        this.postTo(sockfd, kind.file, frame, header.length, token, 0);
        return true;
      });
    });
  }

  /** Resolves when everything sent so far is through. */
  flushed(sockfd: Sockfd): Promise<void> {
    if (this.nodes.find(sockfd) === -1) return Promise.resolve();
    return new Promise((resolve) => {
      const token = this.context.token(sockfd, () => resolve());
      this.whenRoom(() => {
        this.postTo(sockfd, kind.flush, 0, 0, token, 0);
        return true;
      });
    });
  }

  /** Bytes that `sendlen` still allows, or allows at all when `empty`. */
  room(sockfd: Sockfd, empty = false): number {
    const table = this.nodes;
    const base = table.find(sockfd);
    if (base < 0) return Number.MAX_SAFE_INTEGER;
    const limit = table.words[base + node.sendlen] as number;
    return empty ? limit : limit - table.queuedAt(base);
  }

  /** Posts a close behind what waits; a reset, and an end of receiving, go first. `bits`: of `closeBits`. */
  close(sockfd: Sockfd, code: number, bits: number): void {
    if (this.waiting.length === 0 || (bits & ~closeBits.write) !== 0) {
      this.postTo(sockfd, kind.close, 0, 0, code, bits);
      return;
    }
    this.whenRoom(() => {
      this.postTo(sockfd, kind.close, 0, 0, code, bits);
      return true;
    });
  }

  /** Changes options of a connection, behind what was sent: pairs of place and word. */
  tune(sockfd: Sockfd, pairs: readonly [number, number][]): undefined {
    this.whenRoom(() => {
      for (const [place, word] of pairs) this.postTo(sockfd, kind.option, 0, 0, place, word);
      return true;
    });
  }

  /** Asks the worker for a snapshot of the connection. */
  info(sockfd: Sockfd): Promise<TcpInfo> {
    return new Promise((resolve, reject) => {
      const token = this.context.token(sockfd, (error, answer) => {
        if (error) reject(error);
        else resolve(JSON.parse(answer ?? "{}") as TcpInfo);
      });
      this.postTo(sockfd, kind.info, 0, 0, token, 0);
    });
  }

  stop(): void {
    clearTimeout(this.timer);
    for (let left = this.waiting.shift(); left; left = this.waiting.shift()) left.cancel?.();
  }

  /** Counts bytes as queued; throws `ENOBUFS` beyond the limit. */
  private reserve(table: VNodeTable, base: number, sockfd: Sockfd, length: number): void {
    const limit = table.words[base + node.sendlen] as number;
    const queued = table.queuedAt(base);
    if (queued + length > limit) {
      this.context.counters.add("layer1.drop.over-sendlen");
      throw new ApoError(
        "ENOBUFS",
        `sockfd ${sockfd} has ${queued} bytes queued and takes no ${length} more (sendlen is ${limit}): ` +
          "await flushed(sockfd), or send less",
      );
    }
    Atomics.add(table.words, base + node.enqueued, length);
    this.context.counters.add("layer1.send.messages");
    this.context.counters.add("layer1.send.bytes", length);
  }

  /** Copies one message into the pool and posts it. False: the pool is empty. */
  private post(
    sockfd: Sockfd,
    framingKind: FramingKind,
    payload: Uint8Array | string,
    bytes: number,
    length: number,
  ): boolean {
    const { pool } = this.context;
    const frame = pool.allocate(length);
    if (frame === 0) return false;
    const header = headerBytes(framingKind);
    const start = frame * smallFrameBytes;
    if (header === 2) pool.bytes.writeUInt16BE(bytes, start);
    else if (header === 4) pool.bytes.writeUInt32BE(bytes, start);
    if (typeof payload !== "string") pool.write(frame, header, payload);
    else if (length <= pool.frameBytes(frame)) pool.bytes.write(payload, start + header, bytes, "utf8");
    else pool.write(frame, header, Buffer.from(payload));
    if (length > header + bytes) pool.write(frame, length - 1, lineEnd);
    this.postTo(sockfd, kind.send, frame, length, 0, 0);
    return true;
  }

  private postTo(
    sockfd: Sockfd,
    what: number,
    frame: number,
    length: number,
    arg0: number,
    arg1: number,
  ): void {
    const link = this.link(sockfd);
    if (!link) {
      if (frame !== 0) this.context.pool.release(frame);
      return;
    }
    if (frame !== 0) this.context.pool.hold(frame, link.peer);
    link.post(what, sockfd24Of(sockfd), generationOf(sockfd), frame, 0, length, arg0, arg1);
  }

  /** Puts a connection into its worker's group. False: it is passed over, and counted. */
  private addReceiver(sockfd: Sockfd, length: number): boolean {
    const { counters, nodes: table } = this.context;
    const worker = this.worker(sockfd);
    const base = worker < 0 ? -1 : table.find(sockfd);
    if (base < 0 || table.isShutAt(base)) {
      counters.add("layer1.drop.stale");
      return false;
    }
    if (table.queuedAt(base) + length > (table.words[base + node.sendlen] as number)) {
      counters.add("layer1.drop.over-sendlen");
      return false;
    }
    Atomics.add(table.words, base + node.enqueued, length);
    const group = this.groups[worker] as Group;
    if (group.count * 2 === group.pairs.length) {
      const grown = new Int32Array(group.pairs.length * 2);
      grown.set(group.pairs);
      group.pairs = grown;
    }
    group.pairs[group.count * 2] = sockfd & 0xffffff;
    group.pairs[group.count * 2 + 1] = table.words[base + node.generation] as number;
    group.count += 1;
    return true;
  }

  /** One container, and a list of receivers a worker. False: the pool is empty, nothing has been posted. */
  private postMany(groups: readonly Group[], bytes: Uint8Array): boolean {
    const { pool, links } = this.context;
    const frame = pool.allocate(bytes.length);
    if (frame === 0) return false;
    const lists: number[] = [];
    for (let worker = 0; worker < groups.length; worker += 1) {
      const { count } = groups[worker] as Group;
      for (let from = 0; from < count; from += pairsPerList) {
        const list = pool.allocateFrame(Math.min(count - from, pairsPerList) > pairsPerSmallList);
        if (list === 0) {
          for (const taken of lists) pool.release(taken);
          pool.release(frame);
          return false;
        }
        lists.push(list);
      }
    }
    pool.write(frame, 0, bytes);
    let at = 0;
    for (let worker = 0; worker < groups.length; worker += 1) {
      const { pairs, count } = groups[worker] as Group;
      const link = links[worker];
      for (let from = 0; from < count; from += pairsPerList) {
        const list = lists[at++] as number;
        const part = Math.min(count - from, pairsPerList);
        if (!link) {
          pool.release(list);
          continue;
        }
        new Int32Array(pool.buffer, list * smallFrameBytes, part * 2).set(
          pairs.subarray(from * 2, (from + part) * 2),
        );
        pool.retain(frame);
        pool.hold(frame, link.peer);
        pool.hold(list, link.peer);
        link.post(kind.sendMany, 0, 0, frame, 0, bytes.length, part, list);
      }
    }
    pool.release(frame);
    return true;
  }

  /** Runs at once when nothing waits; otherwise in its turn. */
  private whenRoom(run: () => boolean): void {
    if (this.waiting.length === 0 && run()) return;
    this.waiting.push({ run });
    this.retryLater();
  }

  private defer(run: () => boolean): Promise<void> {
    this.context.counters.add("layer1.send.deferred");
    const promise = new Promise<void>((resolve, reject) => {
      this.waiting.push({
        run: () => {
          if (!run()) return false;
          resolve();
          return true;
        },
        cancel: () => reject(new ApoError("ECLOSED", "the runtime was closed before this could be sent")),
      });
      this.retryLater();
    });
    // An app may forget the promise; only those who await it hear of a failure.
    promise.catch(() => {});
    return promise;
  }

  private retryLater(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      for (let next = this.waiting.peek(); next; next = this.waiting.peek()) {
        if (!next.run()) return this.retryLater();
        this.waiting.shift();
      }
    }, retryMs);
  }
}

const pairsPerList = largeFrameBytes / 8;
const pairsPerSmallList = smallFrameBytes / 8;
const lineEnd = Buffer.from("\n");

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function fileUrlPath(url: URL): string {
  if (url.protocol !== "file:") throw new ApoError("EINVAL", `not a file URL: ${url.href}`);
  return decodeURIComponent(url.pathname);
}

function named(error: ApoError, path: string): ApoError {
  return new ApoError(error.code, `cannot send the file ${path}: ${error.message}`, { cause: error });
}

/** Throws `EMSGSIZE`. `longest`: what the path takes of a connection whose datagrams stay whole; 0: whatever fits. */
function checkDatagram(longest: number, length: number): void {
  if (longest > 0 && length > longest) {
    throw new ApoError(
      "EMSGSIZE",
      `the path to the peer takes datagrams of ${longest} bytes at most, not ${length}, and this connection was ` +
        "opened with fragment: false",
    );
  }
  if (length > longestDatagram) {
    throw new ApoError("EMSGSIZE", `a datagram carries at most ${longestDatagram} bytes, not ${length}`);
  }
}
