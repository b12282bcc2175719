/**
 * Prefixes of addresses as words and as text: what a source or a network is called.
 *
 * Layer 2, pure.
 */

import { formatAddress } from "../../layer3-ip/address.ts";

/** How many bits of an address of either version make a prefix. */
export interface PrefixBits {
  readonly bits4: number;
  readonly bits6: number;
}

/** Copies the address at `at` into the first words of `into`, without the bits behind the prefix. */
export function maskInto(
  into: Int32Array,
  words: Int32Array,
  at: number,
  wordCount: 1 | 4,
  { bits4, bits6 }: PrefixBits,
): void {
  let left = wordCount === 1 ? bits4 : bits6;
  for (let i = 0; i < wordCount; i += 1, left -= 32) {
    const mask = left >= 32 ? -1 : left <= 0 ? 0 : -1 << (32 - left);
    into[i] = (words[at + i] as number) & mask;
  }
}

/** "192.0.2.0/24"; a whole address stands without its bits. The words are masked already. */
export function prefixText(
  words: Int32Array,
  at: number,
  wordCount: 1 | 4,
  { bits4, bits6 }: PrefixBits,
): string {
  const address = formatAddress(words, at, wordCount === 4);
  const bits = wordCount === 1 ? bits4 : bits6;
  return bits === 32 * wordCount ? address : `${address}/${bits}`;
}
