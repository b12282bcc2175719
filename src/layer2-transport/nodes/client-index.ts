/**
 * Connections of ours by their own address and port: no search, the place is the answer.
 *
 * Layer 2. Each local address that has connections has a page of 65,536 words, made with its first connection; single
 * addresses are found in a map, those of a whole prefix by their place in it. A word is sockfd24 + 1, or 0.
 */

import { type IpPrefix, prefixContains } from "../../layer3-ip/ip-prefix.ts";

const ports = 65_536;
/** Of a whole prefix so many addresses have pages at most, as a power of two. */
const addressBitsMax = 16;

interface Block {
  readonly prefix: IpPrefix;
  readonly pages: (Int32Array | undefined)[];
}

export class ClientIndex {
  private readonly blocks: readonly Block[];
  /** The page of the address asked for last: packets of one address come in a row. */
  private lastPage: Int32Array | undefined;
  private readonly lastWords = new Int32Array(4);
  private lastCount = 0;

  constructor(addresses: readonly IpPrefix[], prefixes: readonly IpPrefix[]) {
    const alone = addresses.map((prefix) => ({
      ...prefix,
      prefixBits: prefix.version6 ? 128 : 32,
      whole: false,
    }));
    this.blocks = [...alone, ...prefixes].map((prefix) => ({ prefix, pages: [] }));
  }

  /** The connection with this address (words at `at`) and port of ours; -1: there is none. */
  find(words: Int32Array, at: number, wordCount: number, port: number): number {
    const page = this.page(words, at, wordCount, false);
    return page === undefined ? -1 : (page[port] as number) - 1;
  }

  /** False: the address is not one of ours. The place must be free. */
  add(words: Int32Array, at: number, wordCount: number, port: number, sockfd24: number): boolean {
    const page = this.page(words, at, wordCount, true);
    if (page === undefined) return false;
    page[port] = sockfd24 + 1;
    return true;
  }

  /** Nothing happens when the place has another. */
  remove(words: Int32Array, at: number, wordCount: number, port: number, sockfd24: number): void {
    const page = this.page(words, at, wordCount, false);
    if (page !== undefined && page[port] === sockfd24 + 1) page[port] = 0;
  }

  private page(words: Int32Array, at: number, wordCount: number, make: boolean): Int32Array | undefined {
    const { lastWords } = this;
    if (this.lastPage !== undefined && this.lastCount === wordCount) {
      let same = true;
      for (let i = 0; i < wordCount; i += 1) same = same && lastWords[i] === words[at + i];
      if (same) return this.lastPage;
    }
    const page = this.search(words, at, wordCount, make);
    if (page !== undefined) {
      this.lastPage = page;
      this.lastCount = wordCount;
      for (let i = 0; i < wordCount; i += 1) lastWords[i] = words[at + i] as number;
    }
    return page;
  }

  private search(words: Int32Array, at: number, wordCount: number, make: boolean): Int32Array | undefined {
    const address = words.subarray(at, at + wordCount);
    for (const { prefix, pages } of this.blocks) {
      if (prefix.version6 !== (wordCount === 4) || !prefixContains(prefix, address)) continue;
      const bits = Math.min((prefix.version6 ? 128 : 32) - prefix.prefixBits, addressBitsMax);
      const place = bits === 0 ? 0 : (address[wordCount - 1] as number) & (2 ** bits - 1);
      const page = pages[place];
      if (page !== undefined || !make) return page;
      const made = new Int32Array(ports);
      pages[place] = made;
      return made;
    }
    return undefined;
  }
}
