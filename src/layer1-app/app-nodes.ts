/**
 * Which connections are an endpoint's own, as the v-nodes say it: an idle connection has no object in layer 1.
 *
 * Layer 1. A record is ours when it names our party and we have told `connected` of it; it is over when we have told
 * `closed`. Both stand in the record's flags, set by us alone. It knows nothing of handlers.
 */

import {
  goneFlag,
  knownFlag,
  node,
  nodeState,
  nodeWords,
  toldFlag,
  type VNodeTable,
} from "../layer2-transport/index.ts";

/** Records that are looked at in one go where many are. */
const recordsPerSlice = 65_536;

export class AppNodes {
  readonly table: VNodeTable;
  private readonly words: Int32Array;
  private readonly party: number;

  constructor(table: VNodeTable, party: number) {
    this.table = table;
    this.words = table.words;
    this.party = party;
  }

  /** The record of a connection whose end has not been told; -1 when it has been, or the number is stale. */
  find(sockfd24: number, generation: number): number {
    const base = this.table.baseOf(sockfd24);
    if (this.words[base + node.generation] !== generation) return -1;
    return ((this.words[base + node.flags] as number) & toldFlag) === 0 ? base : -1;
  }

  /** Whether we have told of the connection. Of those of a quiet `opens` we never do. */
  isKnown(base: number): boolean {
    return ((this.words[base + node.flags] as number) & knownFlag) !== 0;
  }

  /** The connection is ours from here on. -1: the number is stale, or was so already. */
  markKnown(sockfd24: number, generation: number): number {
    const base = this.table.baseOf(sockfd24);
    if (this.words[base + node.generation] !== generation) return -1;
    return (Atomics.or(this.words, base + node.flags, knownFlag) & knownFlag) === 0 ? base : -1;
  }

  /** The connection is over for us and for everyone who knows its number. */
  markTold(base: number): void {
    Atomics.or(this.words, base + node.flags, toldFlag | goneFlag);
  }

  /** Whether the connection's sending side is closed, or will be. */
  isGone(base: number): boolean {
    return ((this.words[base + node.flags] as number) & goneFlag) !== 0;
  }

  /** The `opens` that the connection came from. */
  openAt(base: number): number {
    return this.words[base + node.open] as number;
  }

  /**
   * Visits our connections in a shard whose end has not been told, a slice from `slot` on: the slot to go on with, or
   * -1 at the end. A slot that was never in use ends a shard. With a `tag`: only those that the worker with that tag
   * opened.
   */
  visit(shard: number, slot: number, each: (base: number) => void, tag?: number): number {
    const { words } = this;
    const { slots } = this.table;
    const end = Math.min(slots, slot + recordsPerSlice);
    let base = this.table.baseOf((shard << 20) | slot);
    for (let at = slot; at < end; at += 1, base += nodeWords) {
      if (words[base + node.generation] === 0) return -1;
      if (words[base + node.state] === nodeState.free) continue;
      if (words[base + node.state] === nodeState.transport) continue;
      if (((words[base + node.flags] as number) & toldFlag) !== 0) continue;
      if (this.table.endpointAt(base) !== this.party) continue;
      if (tag === undefined || this.table.tagAt(base) === tag) each(base);
    }
    return end < slots ? end : -1;
  }
}
