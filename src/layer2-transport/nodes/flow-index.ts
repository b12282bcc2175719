/**
 * Which connection a flow is, by its addresses and ports.
 *
 * Layer 2.
 */


import type { NodeTable } from "./node-table.ts";
import { node } from "./v-node.ts";

export class FlowIndex {
  private readonly map = new Map<number, number[]>();
  private readonly table: NodeTable;
  constructor(table: NodeTable) {
    this.table = table;
  }
  find(hash: number, words: Int32Array, at: number, wordCount: number, ports: number): number {
    const list = this.map.get(hash);
    if (list === undefined) return -1;
    const w = this.table.words;
    for (const sockfd24 of list) {
      const base = this.table.baseOf(sockfd24);
      let same = w[base + node.ports] === ports;
      for (let i = 0; i < wordCount; i += 1) {
        same = same && w[base + 12 + i] === words[at + i] && w[base + 16 + i] === words[at + 4 + i];
      }
      if (same) return sockfd24;
    }
    return -1;
  }
  add(sockfd24: number, hash: number): void {
    const list = this.map.get(hash);
    if (list) list.push(sockfd24);
    else this.map.set(hash, [sockfd24]);
  }
  remove(sockfd24: number, hash: number): void {
    const list = this.map.get(hash);
    if (!list) return;
    const i = list.indexOf(sockfd24);
    if (i >= 0) list.splice(i, 1);
    if (list.length === 0) this.map.delete(hash);
  }
}
