/**
 * The v-node table: one 128-byte record a connection, in memory that every thread of the runtime sees.
 *
 * Layer 2. One SharedArrayBuffer holds the records of all 16 shards, touched lazily. A shard's slots are given out and
 * taken back by the worker that owns it (`node-table.ts`), and by nobody else; any thread may read. The 32 words:
 *
 * | word  | written by | meaning |
 * | ----- | ---------- | ------- |
 * | 0     | worker     | state: 0 free, 1 open, 2 ended (the app has not been told, or not said so), 3 the transport's alone |
 * | 1     | worker     | generation, 1 to 2^28 - 1; steps on when the slot becomes free |
 * | 2     | both       | flags: bits 0-1 protocol, 2 IPv6, 3 gone (the app closed it or knows of its end), 4 shut (the app sends nothing more), 5 known and 6 told (to the app: the connection, its end), 8-11 framing, 12-16 endpoint, 17-21 tag, 22 stray, 23-26 its home |
 * | 3     | worker     | the listener or client connection (`opens`) that it came from |
 * | 4     | apps       | bytes handed to `sendto`, and read from files (uint32, wraps) |
 * | 5     | worker     | bytes taken by the transport, or thrown away at the end (uint32, wraps) |
 * | 6     | worker     | bytes received (uint32, wraps) |
 * | 7     | worker     | messages received (uint32, wraps) |
 * | 8     | worker     | peer port << 16, local port |
 * | 9     | worker     | `sendlen`: how far word 4 may run ahead of word 5 |
 * | 10    | worker     | index of the transport's active record; 0: at rest; less (TCP): at rest, ~ the allowance of challenge ACKs |
 * | 11    | worker     | the flow's steering hash, by which the flow index has it |
 * | 12-15 | worker     | peer address, network order (IPv4: word 12) |
 * | 16-19 | worker     | local address likewise |
 * | 20    | worker     | timing wheel: next. A free slot: the next free one |
 * | 21    | worker     | timing wheel: previous |
 * | 22    | worker     | timing wheel: the deadline in milliseconds, int32 that wraps |
 * | 23    | worker     | TCP at rest: SND.UNA, which is SND.NXT |
 * | 24    | worker     | TCP at rest: RCV.NXT |
 * | 25    | worker     | TCP at rest: SND.WND as on the wire << 16, our last window as on the wire. UDP: the longest datagram (0: any) |
 * | 26    | worker     | TCP: TS.Recent. UDP: datagrams dropped because too many waited (uint32, wraps) |
 * | 27    | worker     | TCP: what the handshake settled (MSS, scales, options) |
 * | 28    | worker     | TCP at rest: srtt << 16, rttvar, in units of 64 us, saturated |
 * | 29    | worker     | TCP at rest: cwnd << 16, ssthresh, in segments, saturated |
 * | 30    | worker     | when the peer was last heard, in milliseconds, int32 that wraps |
 * | 31    | worker     | TCP: state, timestamp clocks, keepalive probes, flags of the transport |
 *
 * A stray is a connection whose flow belongs to another shard (its home), which was full.
 * The tag names the worker that opened the record, and its life: 4 bits of index, and one that differs between a worker
 * and its successor. So a dead worker's connections can be told from those that came after them in the same shard.
 * An app's number for a connection is generation * 2^24 + sockfd24, sockfd24 being shard << 20 | slot.
 */

import { ApoError } from "../../layer1-app/errors.ts";
import { formatAddress } from "../../layer3-ip/address.ts";
import { preferHugePages } from "../../layer3-ip/huge-pages.ts";

export const shards = 16;
export const slotsPerShard = 2 ** 20;
/** Fewer than these are not worth running with: 8 MiB of table in all. */
const fewestSlots = 2 ** 12;
/** Words of a shard that stay in small pages: one huge page. */
const smallWords = 2 ** 19;
export const nodeWords = 32;
const shardMask = 0xf00000;

// What is exported is loaded and checked at every use, in its own module too; what is not is compiled in (V8). So hot
// code has names of its own for these: `import { node as fields }`, `const node = fields`.
const shift = 5;
const slotBits = 0xfffff;
/** A record's place in the table is its first word >>> this. */
export const nodeShift = shift;
export const slotMask = slotBits;

const fields = {
  state: 0,
  generation: 1,
  flags: 2,
  open: 3,
  enqueued: 4,
  written: 5,
  receivedBytes: 6,
  receivedMessages: 7,
  ports: 8,
  sendlen: 9,
  active: 10,
  hash: 11,
  peerAddress: 12,
  localAddress: 16,
  timerNext: 20,
  timerPrev: 21,
  deadline: 22,
  sendUna: 23,
  receiveNext: 24,
  windows: 25,
  longest: 25,
  tsRecent: 26,
  dropped: 26,
  terms: 27,
  rtt: 28,
  cwnd: 29,
  lastHeard: 30,
  tcp: 31,
} as const;
const states = { free: 0, open: 1, ended: 2, transport: 3 } as const;
/** Words of a record. */
export const node = fields;
export const nodeState = states;
export const goneFlag = 8;
/** The app has closed its sending side. */
export const shutFlag = 16;
/** The endpoint has told its app of the connection, and of its end. */
export const knownFlag = 32;
export const toldFlag = 64;
export const sixFlag = 4;
export const framingShift = 8;
export const endpointShift = 12;
export const tagShift = 17;
export const tagMask = 31;
export const strayFlag = 1 << 22;
export const homeShift = 23;

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

/** From a shard's first 16,384 records on: till then, small pages are what costs least. */
function adviseHugePages(memory: SharedArrayBuffer): void {
  const wordsPerShard = memory.byteLength / 4 / shards;
  for (let shard = 0; shard < shards; shard += 1) {
    const first = shard * wordsPerShard + smallWords;
    preferHugePages(memory, first, Math.max(0, wordsPerShard - smallWords));
  }
}

/**
 * Memory for the records of all shards, of `slots` (a power of two) each: 2 GiB of address space, of which only the
 * records in use cost anything. Where so much is not to be had, shards are made smaller. Throws `ENOMEM`.
 */
export function createNodes(slots = slotsPerShard): SharedArrayBuffer {
  for (let tried = slots; ; tried /= 2) {
    try {
      const memory = new SharedArrayBuffer(shards * tried * nodeWords * 4);
      adviseHugePages(memory);
      return memory;
    } catch (error) {
      if (tried / 2 >= fewestSlots) continue;
      const text = `no memory for a table of ${shards * tried} connections: raise the limit (ulimit -v)`;
      throw new ApoError("ENOMEM", text, { cause: error });
    }
  }
}

const noWords = new Int32Array(0);

/** The table as any thread sees it. `base` arguments are the record's first word. */
export class VNodeTable {
  // Fields that begin with a value of their kind are known to be of it: no check at each use.
  readonly words: Int32Array = noWords;
  /** Slots that each shard has: a power of two. */
  readonly slots: number = 0;
  /** How far a shard's number in a sockfd24 is from where a place in the table has it. */
  private readonly shardShift: number = 0;

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
    // Whole numbers all the way: a quotient would be kept as a double.
    this.slots = Math.trunc(this.words.length / nodeWords / shards) | 0;
    this.shardShift = Math.clz32(this.slots) - Math.clz32(slotsPerShard);
  }

  /** The first word of the record of a sockfd24, or of an app's number that has been checked already. */
  baseOf(sockfd: number): number {
    return (((sockfd & shardMask) >>> this.shardShift) | (sockfd & slotBits)) << shift;
  }

  /** The sockfd24 of a record. */
  sockfd24At(base: number): number {
    const place = base >>> shift;
    const slot = place & (this.slots - 1);
    return ((place - slot) << this.shardShift) | slot;
  }

  /** The app's number of a record that is in use. */
  numberAt(base: number): number {
    return numberOf(this.sockfd24At(base), this.words[base + fields.generation] as number);
  }

  /** The first word of the record of an app's number; -1 when the number is stale or the app closed it. */
  find(sockfd: number): number {
    const base = this.current(sockfd);
    return base >= 0 && ((this.words[base + fields.flags] as number) & goneFlag) === 0 ? base : -1;
  }

  /** Whether the number's connection is there still, even if the app closed it. */
  has(sockfd: number): boolean {
    return this.current(sockfd) >= 0;
  }

  /** Marks a record so that `find` refuses it from now on. False: it was so already, or is another's. */
  markGone(sockfd: number): boolean {
    const base = this.find(sockfd);
    if (base < 0) return false;
    return (Atomics.or(this.words, base + fields.flags, goneFlag) & goneFlag) === 0;
  }

  /** Marks a record's sending side as closed by the app. False: it was so already, or is another's. */
  markShut(sockfd: number): boolean {
    const base = this.find(sockfd);
    if (base < 0) return false;
    return (Atomics.or(this.words, base + fields.flags, shutFlag) & shutFlag) === 0;
  }

  /** Whether the app has closed the sending side. */
  isShutAt(base: number): boolean {
    return ((this.words[base + fields.flags] as number) & shutFlag) !== 0;
  }

  protocolAt(base: number): Protocol {
    return protocols[(this.words[base + fields.flags] as number) & 3] as Protocol;
  }

  framingAt(base: number): FramingKind {
    return framingKinds[((this.words[base + fields.flags] as number) >>> framingShift) & 15] as FramingKind;
  }

  /** The party that has the connection's messages. */
  endpointAt(base: number): number {
    return ((this.words[base + fields.flags] as number) >>> endpointShift) & 31;
  }

  /** The tag of the worker that opened the record. */
  tagAt(base: number): number {
    return ((this.words[base + fields.flags] as number) >>> tagShift) & tagMask;
  }

  /** Bytes handed to `sendto` and not yet taken by the transport. */
  queuedAt(base: number): number {
    const queued =
      (Atomics.load(this.words, base + fields.enqueued) - Atomics.load(this.words, base + fields.written)) |
      0;
    // A worker that ends a connection takes all that is enqueued for written, also what is still on its way to
    // it; that is then counted once more as it comes. Nothing waits any more by then.
    return queued > 0 ? queued : 0;
  }

  endsAt(base: number): Ends {
    const words = this.words;
    const six = ((words[base + fields.flags] as number) & sixFlag) !== 0;
    const ports = words[base + fields.ports] as number;
    return {
      address: formatAddress(words, base + fields.peerAddress, six),
      port: ports >>> 16,
      localAddress: formatAddress(words, base + fields.localAddress, six),
      localPort: ports & 0xffff,
    };
  }

  /** The record of an app's number, unless the number is stale or the record is the transport's alone. */
  private current(sockfd: number): number {
    if ((sockfd & slotBits) >= this.slots) return -1;
    const base = this.baseOf(sockfd);
    if (this.words[base + fields.generation] !== generationOf(sockfd)) return -1;
    const state = this.words[base + fields.state];
    return state === states.open || state === states.ended ? base : -1;
  }
}
