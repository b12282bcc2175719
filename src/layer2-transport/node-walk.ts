/**
 * Goes over the v-nodes of a worker's shards, a slice at a time: there may be millions.
 *
 * Layer 2. Records may come and go meanwhile; one that is there all the time is visited once.
 */

import type { NodeTable } from "./nodes/node-table.ts";
import { node, nodeState, nodeWords, shards } from "./nodes/v-node.ts";

export class NodeWalk {
  private readonly table: NodeTable;
  private readonly visit: (sockfd24: number, base: number, state: number) => void;
  private shard = 0;
  private slot = 0;

  /** `visit` is called with every record that is not free. */
  constructor(table: NodeTable, visit: (sockfd24: number, base: number, state: number) => void) {
    this.table = table;
    this.visit = visit;
  }

  /** Looks at the next `most` records. False: that was the last of them. */
  next(most: number): boolean {
    const { table } = this;
    const { words } = table;
    let left = most;
    while (this.shard < shards) {
      const end = table.owns(this.shard) ? table.touched(this.shard) : 0;
      while (this.slot < end && left > 0) {
        const sockfd24 = (this.shard << 20) | this.slot;
        const base = (this.shard * table.slots + this.slot) * nodeWords;
        this.slot += 1;
        left -= 1;
        const state = words[base + node.state] as number;
        if (state !== nodeState.free) this.visit(sockfd24, base, state);
      }
      if (this.slot < end) return true;
      this.shard += 1;
      this.slot = 0;
    }
    return false;
  }
}
