/**
 * A UDP or echo flow on a raw link, and the table that finds it by its 5-tuple.
 *
 * Layer 2, used by one worker. Knows nothing of packets or frames. The table is open addressing with linear probing
 * over a keyed hash (nobody outside can choose his neighbours), holds at most half its slots and doubles.
 */

import { wholeFlag } from "../../layer3-ip/descriptor.ts";
import type { SteerHash } from "../../layer3-ip/steer.ts";
import type { Connection } from "../connection.ts";
import type { Container } from "../container.ts";
import { Fifo } from "../fifo.ts";
import type { ConnectionRules } from "../transport.ts";

/** The 5-tuple of a packet or flow: words 0-3 the far address, 4-7 our own (IPv4: 0 and 4). */
export class FlowKey {
  readonly words = new Int32Array(8);
  wordCount: 1 | 4 = 1;
  remotePort = 0;
  localPort = 0;
  /** The IP protocol number: 17, 1 or 58. */
  protocol = 0;

  copyFrom(other: FlowKey): void {
    this.words.set(other.words);
    this.wordCount = other.wordCount;
    this.remotePort = other.remotePort;
    this.localPort = other.localPort;
    this.protocol = other.protocol;
  }

  equals(other: FlowKey): boolean {
    if (this.remotePort !== other.remotePort || this.localPort !== other.localPort) return false;
    if (this.protocol !== other.protocol || this.wordCount !== other.wordCount) return false;
    for (let i = 0; i < this.wordCount; i += 1) {
      if (this.words[i] !== other.words[i] || this.words[4 + i] !== other.words[4 + i]) return false;
    }
    return true;
  }

  hash(steer: SteerHash): number {
    return steer.hash(
      this.words,
      0,
      this.remotePort,
      this.words,
      4,
      this.localPort,
      this.wordCount,
      this.protocol,
    );
  }
}

/** The last packet that a flow has put into the ring, to which its next datagrams may be added: see `packets.ts`. */
export class DatagramRun {
  /** The ring's `publishes` when it was put there: it is ours until that changes. */
  turn = -1;
  slot = 0;
  frame = 0;
  /** Payload bytes of a datagram, and of all. */
  segmentBytes = 0;
  bytes = 0;
}

/** Whether an address of one word or four is a multicast group. */
export function isGroup(words: Int32Array, at: number, wordCount: 1 | 4): boolean {
  const first = (words[at] as number) >>> 24;
  return wordCount === 1 ? first >= 224 && first < 240 : first === 0xff;
}

/** One connection's flow: the `handle` of its connection. */
export class Flow {
  readonly key = new FlowKey();
  readonly rules: ConnectionRules;
  /** True: it was opened from here. */
  readonly isClient: boolean;
  /** Undefined before the connection is made and after it has ended. */
  connection: Connection | undefined;
  lastHeardMs = 0;
  /** Containers that found no room in the ring or the pool, in order. */
  readonly waiting = new Fifo<Container>();
  isWaiting = false;
  /** What every packet has in its descriptor: word 3 beside its kind, and word 5 (TTL, traffic class). */
  readonly kindWord: number;
  readonly segmentsWord: number;
  /** The longest packet that the path takes in one piece, and until when that is believed. */
  pathMtu: number;
  pathMtuUntilMs = Number.POSITIVE_INFINITY;
  readonly run = new DatagramRun();
  /** The address of ours that it sends from: the key's, but where that is a multicast group. */
  readonly from = new Int32Array(4);
  /** Of the next echo request. */
  sequence = 0;
  hash = 0;

  constructor(rules: ConnectionRules, isClient: boolean, key: FlowKey, mtu: number) {
    const { ttl, dscp, fragment } = rules.udp;
    this.rules = rules;
    this.isClient = isClient;
    this.key.copyFrom(key);
    this.from.set(key.words.subarray(4));
    this.pathMtu = mtu;
    this.kindWord = fragment ? 0 : wholeFlag;
    // Datagrams to a group stay on the link, if nobody has said otherwise (RFC 1112 6.1).
    const hopLimit = ttl === 0 && isGroup(this.key.words, 0, this.key.wordCount) ? 1 : ttl;
    this.segmentsWord = (hopLimit << 16) | (dscp << 26);
  }
}

const firstSlots = 64;

export class FlowTable {
  private slots: (Flow | undefined)[] = new Array<Flow | undefined>(firstSlots).fill(undefined);
  private count = 0;
  private readonly steer: SteerHash;

  constructor(steer: SteerHash) {
    this.steer = steer;
  }

  get size(): number {
    return this.count;
  }

  /** `hash` is the key's steering hash, which a received packet's descriptor has. */
  find(key: FlowKey, hash = key.hash(this.steer)): Flow | undefined {
    const mask = this.slots.length - 1;
    for (let at = hash & mask; ; at = (at + 1) & mask) {
      const flow = this.slots[at];
      if (flow === undefined || flow.key.equals(key)) return flow;
    }
  }

  /** The flow must not be in the table. */
  add(flow: Flow): void {
    if (2 * (this.count + 1) > this.slots.length) this.grow();
    flow.hash = flow.key.hash(this.steer);
    this.place(flow);
    this.count += 1;
  }

  /** Takes a flow out and closes the gap, so that no marks are left behind. False: it was not there. */
  remove(flow: Flow): boolean {
    const { slots } = this;
    const mask = slots.length - 1;
    let gap = flow.hash & mask;
    while (slots[gap] !== flow) {
      if (slots[gap] === undefined) return false;
      gap = (gap + 1) & mask;
    }
    for (let at = (gap + 1) & mask; ; at = (at + 1) & mask) {
      const next = slots[at];
      if (next === undefined) break;
      const home = next.hash & mask;
      if (((at - home) & mask) >= ((at - gap) & mask)) {
        slots[gap] = next;
        gap = at;
      }
    }
    slots[gap] = undefined;
    this.count -= 1;
    return true;
  }

  /** All flows, as they are now: the table may change while they are looked at. */
  all(): Flow[] {
    return this.slots.filter((flow) => flow !== undefined);
  }

  private grow(): void {
    const old = this.slots;
    this.slots = new Array<Flow | undefined>(2 * old.length).fill(undefined);
    for (const flow of old) if (flow) this.place(flow);
  }

  private place(flow: Flow): void {
    const mask = this.slots.length - 1;
    let at = flow.hash & mask;
    while (this.slots[at] !== undefined) at = (at + 1) & mask;
    this.slots[at] = flow;
  }
}
