/**
 * Which words of a v-node the keyed hashes take in: both addresses and both ports of a connection.
 *
 * Layer 2. `words` at `base` need not be a record of the table: a scratch of the same layout does (a SYN has none).
 */

import { node, sixFlag } from "../../nodes/v-node.ts";
import type { SipHash } from "./siphash.ts";

/** Words of each of the two addresses: 1 for IPv4, 4 for IPv6. */
export function addressWordsOf(words: Int32Array, base: number): 1 | 4 {
  return ((words[base + node.flags] as number) & sixFlag) === 0 ? 1 : 4;
}

/** Adds `count` words from `at` on. */
export function addWords(hash: SipHash, words: Int32Array, at: number, count: number): void {
  for (let i = 0; i < count; i += 1) hash.add(words[at + i] as number);
}

/** Adds both ends: 3 words for IPv4, 9 for IPv6. */
export function addTuple(hash: SipHash, words: Int32Array, base: number): void {
  const count = addressWordsOf(words, base);
  hash.add(words[base + node.ports] as number);
  addWords(hash, words, base + node.peerAddress, count);
  addWords(hash, words, base + node.localAddress, count);
}
