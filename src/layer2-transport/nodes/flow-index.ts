/**
 * Finds a connection by the keyed hash of its 5-tuple: always there, for whoever's packets carry no hint.
 *
 * Layer 2, one a worker. Open addressing with linear probing over one Int32Array: an entry is the record's place in the
 * table (24 bits) and 8 bits of the hash (the tag, never 0), so a probe that meets a stranger seldom looks at its
 * v-node. What is found is checked against the v-node. The hash itself stands in the v-node (word 11); it is layer 3's
 * steering hash, whose key nobody outside knows.
 *
 * The index grows without a pause: a table of twice the size is begun, and every insertion moves a few entries of the
 * old one over, whole clusters (runs without a gap) at a time, so that what is left there is found as before. It does
 * not shrink.
 */

import { preferHugePages } from "../../layer3-ip/huge-pages.ts";
import { matches } from "./flow-match.ts";
import { nodeShift as fieldShift, node as fields, type VNodeTable } from "./v-node.ts";

// Compiled in, as imported ones are not.
const node = fields;
const nodeShift = fieldShift;

const fewestEntries = 1024;
/** Positions of the old table that an insertion clears, at least: it is empty before the new one is full. */
const positionsPerInsertion = 8;
const placeMask = 0xffffff;
const tagMask = ~placeMask;
const noWords = new Int32Array(0);

/** The tag of a hash, in an entry's upper 8 bits. Positions are the hash's low bits, which tell nothing about it. */
function tagOf(hash: number): number {
  const tag = hash & tagMask;
  return tag === 0 ? placeMask + 1 : tag;
}

export class FlowIndex {
  private readonly table: VNodeTable;
  // Fields that begin with a value of their kind are known to be of it: no check at each use.
  private readonly nodes: Int32Array = noWords;
  private readonly protocol: number = 0;
  private entries = new Int32Array(fewestEntries);
  private mask = fewestEntries - 1;
  private count = 0;
  /** The table that is being left; empty when none is. */
  private old = new Int32Array(0);
  private oldMask = 0;
  /** Positions up to here are empty, from a gap on and around. */
  private oldAt = 0;
  private oldLeft = 0;

  /** Of the records of one protocol, as in their flags (0 is TCP). */
  constructor(table: VNodeTable, protocol = 0) {
    this.table = table;
    this.nodes = table.words;
    this.protocol = protocol;
  }

  get size(): number {
    return this.count;
  }

  /** Whether a table of twice the size is being filled. */
  get growing(): boolean {
    return this.oldLeft > 0;
  }

  /**
   * The sockfd24 of a flow's connection, or -1: `words` has the peer's address at `at` (1 word or 4, `wordCount`) and
   * ours at `at + 4`; `ports` is the peer's port << 16 | ours. `hash` is the flow's steering hash.
   */
  find(hash: number, words: Int32Array, at: number, wordCount: number, ports: number): number {
    const { nodes, entries, mask, protocol } = this;
    const tag = tagOf(hash);
    for (let i = hash & mask; ; i = (i + 1) & mask) {
      const entry = entries[i] as number;
      if (entry === 0) break;
      if ((entry & tagMask) !== tag) continue;
      const base = (entry & placeMask) << nodeShift;
      if (matches(nodes, base, words, at, wordCount, ports, protocol)) return this.table.sockfd24At(base);
    }
    return this.oldLeft === 0 ? -1 : this.findOld(hash, words, at, wordCount, ports);
  }

  /**
   * Adds a record that is not here. Its addresses, its ports and `hash`, in word 11, must stand in it and stay as they
   * are.
   */
  add(sockfd24: number, hash: number): void {
    if (this.oldLeft > 0) this.moveSome();
    else if (this.count * 8 >= this.entries.length * 5) this.grow();
    this.insert(this.table.baseOf(sockfd24) >>> nodeShift, hash);
    this.count += 1;
  }

  /** Takes a record out. False: it was not here. */
  remove(sockfd24: number, hash: number): boolean {
    const place = this.table.baseOf(sockfd24) >>> nodeShift;
    const here = positionOf(this.entries, this.mask, place, hash);
    if (here >= 0) {
      this.close(this.entries, this.mask, here);
    } else {
      const there = this.oldLeft > 0 ? positionOf(this.old, this.oldMask, place, hash) : -1;
      if (there < 0) return false;
      this.close(this.old, this.oldMask, there);
    }
    this.count -= 1;
    return true;
  }

  private findOld(hash: number, words: Int32Array, at: number, wordCount: number, ports: number): number {
    const { nodes, old, oldMask, protocol } = this;
    const tag = tagOf(hash);
    for (let i = hash & oldMask; ; i = (i + 1) & oldMask) {
      const entry = old[i] as number;
      if (entry === 0) return -1;
      if ((entry & tagMask) !== tag) continue;
      const base = (entry & placeMask) << nodeShift;
      if (matches(nodes, base, words, at, wordCount, ports, protocol)) return this.table.sockfd24At(base);
    }
  }

  private insert(place: number, hash: number): void {
    const { entries, mask } = this;
    let i = hash & mask;
    while (entries[i] !== 0) i = (i + 1) & mask;
    entries[i] = tagOf(hash) | place;
  }

  /** Empties a position, moving back what would not be found across the gap. */
  private close(entries: Int32Array, mask: number, position: number): void {
    let gap = position;
    for (let i = (gap + 1) & mask; ; i = (i + 1) & mask) {
      const entry = entries[i] as number;
      if (entry === 0) break;
      const home = (this.nodes[((entry & placeMask) << nodeShift) + node.hash] as number) & mask;
      // It may stand in the gap if that is not before its home.
      if (((i - home) & mask) < ((i - gap) & mask)) continue;
      entries[gap] = entry;
      gap = i;
    }
    entries[gap] = 0;
  }

  private grow(): void {
    this.old = this.entries;
    this.oldMask = this.mask;
    this.oldLeft = this.old.length;
    this.entries = new Int32Array(this.old.length * 2);
    preferHugePages(this.entries.buffer, 0, this.entries.length);
    this.mask = this.entries.length - 1;
    // From a gap on: a cluster that began before it would be cut in two.
    let at = 0;
    while (this.old[at] !== 0) at += 1;
    this.oldAt = at;
    this.moveSome();
  }

  /** Moves the next clusters of the old table over. */
  private moveSome(): void {
    const { old, oldMask, nodes } = this;
    let at = this.oldAt;
    let moved = 0;
    for (; moved < this.oldLeft; moved += 1, at = (at + 1) & oldMask) {
      const entry = old[at] as number;
      if (entry === 0) {
        if (moved >= positionsPerInsertion) break;
        continue;
      }
      const place = entry & placeMask;
      this.insert(place, nodes[(place << nodeShift) + node.hash] as number);
      old[at] = 0;
    }
    this.oldAt = at;
    this.oldLeft -= moved;
    if (this.oldLeft === 0) this.old = new Int32Array(0);
  }
}

/** Where a record's entry stands; -1: it is not there. */
function positionOf(entries: Int32Array, mask: number, place: number, hash: number): number {
  const wanted = tagOf(hash) | place;
  for (let i = hash & mask; ; i = (i + 1) & mask) {
    const entry = entries[i] as number;
    if (entry === wanted) return i;
    if (entry === 0) return -1;
  }
}
