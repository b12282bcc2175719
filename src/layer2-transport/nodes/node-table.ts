/**
 * The v-node table as a worker sees that owns some of its shards: slots are given out and taken back here.
 *
 * Layer 2. A free slot's word 20 names the next free one of its shard, and a mark a shard says which have never been
 * used, so giving out and taking back are O(1) and need no memory. It knows nothing of what connections do.
 */

import { parseAddress } from "../../layer3-ip/address.ts";
import {
  type Ends,
  endpointShift,
  type FramingKind,
  node as fields,
  framingKinds,
  framingShift,
  homeShift,
  nodeWords,
  type Protocol,
  protocols,
  shards,
  sixFlag,
  slotMask as slotBits,
  nodeState as states,
  strayFlag,
  tagShift,
  VNodeTable,
} from "./v-node.ts";

// Compiled in, as imported ones are not.
const node = fields;
const nodeState = states;
const slotMask = slotBits;
const lastGeneration = 2 ** 28 - 1;

/** What a record says about how its messages go. */
export interface NodeRules {
  readonly protocol: Protocol;
  readonly framing: FramingKind;
  readonly sendlen: number;
}

export class NodeTable extends VNodeTable {
  readonly tag: number;
  /** Bit s: shard s is ours. */
  private mine = 0;
  /** By shard: the first free slot that was in use before, plus 1; 0 is none. */
  private readonly firstFree = new Int32Array(shards);
  /** By shard: the first slot that was never in use. */
  private readonly fresh = new Int32Array(shards);
  private readonly usedOf = new Int32Array(shards);
  /** By shard: connections of its flows that have slots of other shards. */
  private readonly straysOf = new Int32Array(shards);

  /** `tag`: of the worker whose table this is, see v-node.ts. */
  constructor(memory: SharedArrayBuffer, tag = 0) {
    super(memory);
    this.tag = tag;
  }

  /**
   * Takes a shard over, freeing what dead owners left in it; but connections of those of whose end not all apps have
   * been told (a bit of `untold` for each tag) stay until `bury`. Returns how many stay.
   */
  adopt(shard: number, untold = 0): number {
    const { words, slots } = this;
    this.mine |= 1 << shard;
    this.firstFree[shard] = 0;
    let left = 0;
    let slot = 0;
    for (let base = shard * slots * nodeWords; slot < slots; slot += 1, base += nodeWords) {
      if (words[base + node.generation] === 0) break;
      const state = words[base + node.state];
      const isApps = state === nodeState.open || state === nodeState.ended;
      if (isApps && ((untold >>> this.tagAt(base)) & 1) === 1) {
        left += 1;
      } else {
        if (state !== nodeState.free) this.retireGeneration(base);
        this.link(shard, slot, base);
      }
    }
    this.fresh[shard] = slot;
    this.usedOf[shard] = left;
    return left;
  }

  /** Frees what a dead worker has left in a shard of ours: all apps have been told. Returns how many that were. */
  bury(shard: number, tag: number): number {
    if (!this.owns(shard)) return 0;
    const { words } = this;
    const end = this.touched(shard);
    let buried = 0;
    for (let slot = 0; slot < end; slot += 1) {
      const base = (shard * this.slots + slot) * nodeWords;
      if (words[base + node.state] === nodeState.free || this.tagAt(base) !== tag) continue;
      this.releaseForeign((shard << 20) | slot);
      buried += 1;
    }
    return buried;
  }

  /** Takes back a slot that a dead worker had opened: what its timer was means nothing here. */
  releaseForeign(sockfd24: number): void {
    const base = this.baseOf(sockfd24);
    const shard = sockfd24 >>> 20;
    this.retireGeneration(base);
    this.link(shard, sockfd24 & 0xfffff, base);
    this.usedOf[shard] = (this.usedOf[shard] as number) - 1;
  }

  /** Gives a shard up: another worker is to adopt it. Its records stay as they are. */
  disown(shard: number): void {
    this.mine &= ~(1 << shard);
    this.usedOf[shard] = 0;
  }

  owns(shard: number): boolean {
    return ((this.mine >>> shard) & 1) === 1;
  }

  /** Slots of a shard of ours that have ever been in use: none lies behind them. */
  touched(shard: number): number {
    return this.fresh[shard] as number;
  }

  /** Whether a number that came from outside can be one of ours: its shard is, and has such a slot. */
  isOurs(sockfd24: number): boolean {
    return (sockfd24 & slotMask) < this.slots && ((this.mine >>> (sockfd24 >>> 20)) & 1) === 1;
  }

  /** Slots in use in a shard of ours. */
  used(shard: number): number {
    return this.usedOf[shard] as number;
  }

  /** Whether nobody uses the shard: neither its slots, nor its flows another shard's. */
  isUnused(shard: number): boolean {
    return this.usedOf[shard] === 0 && this.straysOf[shard] === 0;
  }

  /** Slots in use in all our shards. */
  usedInAll(): number {
    let sum = 0;
    for (let shard = 0; shard < shards; shard += 1) sum += this.usedOf[shard] as number;
    return sum;
  }

  /**
   * A slot of the shard, or of another of ours when it is full or not ours: its sockfd24, or -1 when all are full. The
   * record is empty but for its generation, and in the state `transport`: no app sees it.
   */
  allocate(shard: number): number {
    if (this.owns(shard)) {
      const sockfd24 = this.take(shard);
      if (sockfd24 >= 0) return sockfd24;
    }
    const stray = this.allocateAnywhere();
    if (stray >= 0) {
      (this.words[this.baseOf(stray) + node.flags] as number) |= strayFlag | (shard << homeShift);
      this.straysOf[shard] = (this.straysOf[shard] as number) + 1;
    }
    return stray;
  }

  /** A slot of the first shard of ours that has one, so that few connections lie close together; or -1. */
  allocateAnywhere(): number {
    for (let shard = 0; shard < shards; shard += 1) {
      if (!this.owns(shard)) continue;
      const sockfd24 = this.take(shard);
      if (sockfd24 >= 0) return sockfd24;
    }
    return -1;
  }

  /** Takes a slot of ours back; numbers of its old generation are stale from here on. */
  release(sockfd24: number): void {
    const base = this.baseOf(sockfd24);
    if (this.words[base + node.state] === nodeState.free) return;
    if (
      ((this.words[base + node.timerNext] as number) | (this.words[base + node.timerPrev] as number)) !==
      0
    ) {
      throw new Error(`slot ${sockfd24} is given back while its timer is armed`);
    }
    const flags = this.words[base + node.flags] as number;
    if ((flags & strayFlag) !== 0) {
      const home = (flags >>> homeShift) & (shards - 1);
      this.straysOf[home] = (this.straysOf[home] as number) - 1;
    }
    const shard = sockfd24 >>> 20;
    this.retireGeneration(base);
    this.link(shard, sockfd24 & slotMask, base);
    this.usedOf[shard] = (this.usedOf[shard] as number) - 1;
  }

  /** Writes both ends as they are in packets: the peer's address at `at`, ours at `at + 4`. */
  setEnds(base: number, ends: Int32Array, at: number, wordCount: number, ports: number): void {
    const { words } = this;
    for (let i = 0; i < wordCount; i += 1) {
      words[base + node.peerAddress + i] = ends[at + i] as number;
      words[base + node.localAddress + i] = ends[at + 4 + i] as number;
    }
    words[base + node.ports] = ports;
    if (wordCount === 4) Atomics.or(words, base + node.flags, sixFlag);
  }

  /** Writes both ends from text. */
  setTextEnds(base: number, ends: Ends): void {
    const { words } = this;
    const six = parseAddress(ends.address, words, base + node.peerAddress);
    parseAddress(ends.localAddress, words, base + node.localAddress);
    words[base + node.ports] = (ends.port << 16) | ends.localPort;
    if (six) Atomics.or(words, base + node.flags, sixFlag);
  }

  /** Writes how the connection's messages go, and to whom (`endpoint`); the app sees it from here on. */
  open(base: number, rules: NodeRules, endpoint: number, open: number): void {
    const { words } = this;
    words[base + node.open] = open;
    words[base + node.sendlen] = rules.sendlen;
    const framing = framingKinds.indexOf(rules.framing) << framingShift;
    const flags = protocols.indexOf(rules.protocol) | framing | (endpoint << endpointShift);
    Atomics.or(words, base + node.flags, flags);
    Atomics.store(words, base + node.state, nodeState.open);
  }

  /** Counts bytes as handed over to be sent that no app has counted. */
  addEnqueued(sockfd24: number, bytes: number): void {
    Atomics.add(this.words, this.baseOf(sockfd24) + node.enqueued, bytes);
  }

  private take(shard: number): number {
    const { words } = this;
    const first = this.firstFree[shard] as number;
    let slot = first - 1;
    if (first === 0) {
      slot = this.fresh[shard] as number;
      if (slot >= this.slots) return -1;
      this.fresh[shard] = slot + 1;
    }
    const base = (shard * this.slots + slot) * nodeWords;
    if (first === 0) words[base + node.generation] = 1;
    else this.firstFree[shard] = words[base + node.timerNext] as number;
    words.fill(0, base + node.flags, base + nodeWords);
    words[base + node.flags] = this.tag << tagShift;
    this.usedOf[shard] = (this.usedOf[shard] as number) + 1;
    Atomics.store(words, base + node.state, nodeState.transport);
    return (shard << 20) | slot;
  }

  private retireGeneration(base: number): void {
    const generation = this.words[base + node.generation] as number;
    Atomics.store(this.words, base + node.state, nodeState.free);
    Atomics.store(this.words, base + node.generation, generation >= lastGeneration ? 1 : generation + 1);
  }

  private link(shard: number, slot: number, base: number): void {
    this.words[base + node.timerNext] = this.firstFree[shard] as number;
    this.words[base + node.timerPrev] = 0;
    this.firstFree[shard] = slot + 1;
  }
}
