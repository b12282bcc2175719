/**
 * Initial sequence numbers that cannot be guessed: a keyed hash of the connection's ends plus a clock (RFC 6528 3).
 *
 * Layer 2, pure. The clock steps every 4 microseconds, so that a connection between the same ends begins above what an
 * earlier one has used; the hash sets every other pair of ends apart by an amount that only the key tells.
 */

import { SipHash } from "./siphash.ts";
import { addTuple } from "./tuple.ts";

export class InitialSequence {
  private readonly hash: SipHash;

  constructor(key: Uint32Array) {
    this.hash = new SipHash(key);
  }

  /** For the connection whose ends are in the v-node at `base`. `nowUs` must never run backwards. */
  isn(words: Int32Array, base: number, nowUs: number): number {
    const { hash } = this;
    hash.begin();
    addTuple(hash, words, base);
    hash.finish();
    return (hash.low + Math.floor(nowUs / 4)) | 0;
  }
}
