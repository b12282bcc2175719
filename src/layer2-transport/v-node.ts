/**
 * The v-node table: one 128-byte record a connection, in memory that every thread of the runtime sees.
 *
 * Layer 2. A shard is one SharedArrayBuffer of 2^20 records, touched lazily; its slots are given out and taken back by
 * the worker that owns the shard, and by nobody else. Any thread may read a record. A record's 32 words:
 *
 * | word  | written by | meaning |
 * | ----- | ---------- | ------- |
 * | 0     | worker     | state: 0 free, 1 open, 2 ended (the app has not been told yet, or not said so) |
 * | 1     | worker     | generation, 1 to 2^28 - 1; steps on when the slot becomes free |
 * | 2     | both       | flags: bits 0-1 protocol, bit 2 IPv6, bit 3 gone (the app closed it or knows of its end), bits 8-11 framing |
 * | 3     | worker     | the app endpoint that has its messages |
 * | 4     | apps       | bytes handed to `sendto`, and read from files (uint32, wraps) |
 * | 5     | worker     | bytes taken by the transport, or thrown away at the end (uint32, wraps) |
 * | 6     | worker     | bytes received (uint32, wraps) |
 * | 7     | worker     | messages received (uint32, wraps) |
 * | 8     | worker     | peer port << 16, local port |
 * | 9     | worker     | `sendlen`: how far word 4 may run ahead of word 5 |
 * | 10    | worker     | datagrams dropped because too many waited (uint32, wraps) |
 * | 11    | worker     | the listener or client connection (`opens`) that it came from |
 * | 12-15 | worker     | peer address, network order (IPv4: word 12) |
 * | 16-19 | worker     | local address likewise |
 * | 20-31 | worker     | the transport's own |
 *
 * An app's number for a connection is generation * 2^24 + sockfd24, sockfd24 being shard << 20 | slot.
 */

import { formatAddress, parseAddress } from "../layer3-ip/address.ts";

export const slotsPerShard = 2 ** 20;
export const nodeWords = 32;
const lastGeneration = 2 ** 28 - 1;

/** Words of a record. */
export const node = {
  state: 0,
  generation: 1,
  flags: 2,
  endpoint: 3,
  enqueued: 4,
  written: 5,
  receivedBytes: 6,
  receivedMessages: 7,
  ports: 8,
  sendlen: 9,
  dropped: 10,
  open: 11,
  peerAddress: 12,
  localAddress: 16,
  transport: 20,
} as const;

export const nodeState = { free: 0, open: 1, ended: 2 } as const;
export const goneFlag = 8;
const sixFlag = 4;
const framingShift = 8;

export const protocols = ["tcp", "udp", "icmp"] as const;
export type Protocol = (typeof protocols)[number];

/** The framings that a worker knows; a function's place is taken by `chunks`. */
export const framingKinds = ["raw", "line", "length16", "length32", "msgpack", "chunks"] as const;
export type FramingKind = (typeof framingKinds)[number];

/** The two ends of a connection as text; IPv4-mapped IPv6 is written as IPv4. */
export interface Ends {
  readonly address: string;
  readonly port: number;
  readonly localAddress: string;
  readonly localPort: number;
}

/** The app's number of a connection. */
export function numberOf(sockfd24: number, generation: number): number {
  return generation * 2 ** 24 + sockfd24;
}

/** The low 24 bits of an app's number. */
export function sockfd24Of(sockfd: number): number {
  return sockfd & 0xffffff;
}

/** The generation in an app's number. */
export function generationOf(sockfd: number): number {
  return Math.floor(sockfd / 2 ** 24);
}

/** Memory of one shard's table: 128 MiB of address space, of which only the records in use cost anything. */
export function createShard(slots = slotsPerShard): SharedArrayBuffer {
  return new SharedArrayBuffer(slots * nodeWords * 4);
}

/** What a fresh record is filled with. */
export interface NewNode extends Ends {
  readonly protocol: Protocol;
  readonly framing: FramingKind;
  readonly endpoint: number;
  readonly open: number;
  readonly sendlen: number;
}

/** A shard as any thread sees it. `base` arguments are the record's first word. */
export class VNodeTable {
  readonly words: Int32Array;
  readonly shard: number;
  readonly slots: number;

  constructor(memory: SharedArrayBuffer, shard: number) {
    this.words = new Int32Array(memory);
    this.shard = shard;
    this.slots = this.words.length / nodeWords;
  }

  /** The first word of the record of an app's number; -1 when the number is stale or the app closed it. */
  find(sockfd: number): number {
    const base = (sockfd & 0xfffff) * nodeWords;
    const words = this.words;
    if (words[base + node.generation] !== generationOf(sockfd)) return -1;
    if (((words[base + node.flags] as number) & goneFlag) !== 0) return -1;
    return words[base + node.state] === nodeState.free ? -1 : base;
  }

  /** Whether the number's connection is there still, even if the app closed it. */
  has(sockfd: number): boolean {
    const base = (sockfd & 0xfffff) * nodeWords;
    return this.words[base + node.generation] === generationOf(sockfd);
  }

  /** Marks a record so that `find` refuses it from now on. False: it was so already, or is another's. */
  markGone(sockfd: number): boolean {
    const base = this.find(sockfd);
    if (base < 0) return false;
    return (Atomics.or(this.words, base + node.flags, goneFlag) & goneFlag) === 0;
  }

  protocolAt(base: number): Protocol {
    return protocols[(this.words[base + node.flags] as number) & 3] as Protocol;
  }

  framingAt(base: number): FramingKind {
    return framingKinds[((this.words[base + node.flags] as number) >>> framingShift) & 15] as FramingKind;
  }

  /** Bytes handed to `sendto` and not yet taken by the transport. */
  queuedAt(base: number): number {
    const queued =
      (Atomics.load(this.words, base + node.enqueued) - Atomics.load(this.words, base + node.written)) | 0;
    // A worker that ends a connection takes all that is enqueued for written, also what is still on its way to
    // it; that is then counted once more as it comes. Nothing waits any more by then.
    return queued > 0 ? queued : 0;
  }

  endsAt(base: number): Ends {
    const words = this.words;
    const six = ((words[base + node.flags] as number) & sixFlag) !== 0;
    const ports = words[base + node.ports] as number;
    return {
      address: formatAddress(words, base + node.peerAddress, six),
      port: ports >>> 16,
      localAddress: formatAddress(words, base + node.localAddress, six),
      localPort: ports & 0xffff,
    };
  }
}

/** A shard as its owner sees it: it gives slots out and takes them back. */
export class OwnedVNodeTable extends VNodeTable {
  private readonly free: number[] = [];
  private used = 0;

  /** Takes a table over, freeing what a dead owner left in it. */
  constructor(memory: SharedArrayBuffer, shard: number) {
    super(memory, shard);
    while (this.used < this.slots && this.words[this.used * nodeWords + node.generation] !== 0) {
      if (this.words[this.used * nodeWords + node.state] !== nodeState.free) this.release(this.used);
      else this.free.push(this.used);
      this.used += 1;
    }
  }

  /** A slot with its record filled; -1 when the table is full. */
  allocate(fresh: NewNode): number {
    const slot = this.free.pop() ?? (this.used < this.slots ? this.used++ : -1);
    if (slot < 0) return -1;
    const base = slot * nodeWords;
    const words = this.words;
    const generation = (words[base + node.generation] as number) || 1;
    words.fill(0, base + node.endpoint, base + nodeWords);
    const six = parseAddress(fresh.address, words, base + node.peerAddress);
    parseAddress(fresh.localAddress, words, base + node.localAddress);
    words[base + node.generation] = generation;
    words[base + node.endpoint] = fresh.endpoint;
    words[base + node.open] = fresh.open;
    words[base + node.sendlen] = fresh.sendlen;
    words[base + node.ports] = (fresh.port << 16) | fresh.localPort;
    const framing = framingKinds.indexOf(fresh.framing) << framingShift;
    words[base + node.flags] = protocols.indexOf(fresh.protocol) | (six ? sixFlag : 0) | framing;
    Atomics.store(words, base + node.state, nodeState.open);
    return slot;
  }

  /** Takes a slot back; numbers of its old generation are stale from here on. */
  release(slot: number): void {
    const base = slot * nodeWords;
    const generation = this.words[base + node.generation] as number;
    Atomics.store(this.words, base + node.state, nodeState.free);
    Atomics.store(this.words, base + node.generation, generation >= lastGeneration ? 1 : generation + 1);
    this.free.push(slot);
  }
}
