/**
 * Connections of ours by their own address and port: no search, the place is the answer.
 *
 * Layer 2, one a worker. Each local address that has connections has a page of 65,536 words, made with its first
 * connection and let go with its last; an address of a whole prefix is found by its place in it. A word is
 * sockfd24 + 1, or 0. Of a prefix the addresses beyond the first 2^16 share their pages: what is found is a hint, to be
 * checked against the v-node.
 */

import { type IpPrefix, prefixContains } from "../../layer3-ip/ip-prefix.ts";

const ports = 65_536;
/** Of a whole prefix so many addresses have pages at most, as a power of two. */
const addressBitsMax = 16;

/** The connections of one local address. */
class Page {
  readonly words = new Int32Array(ports);
  used = 0;
  /** Where it stands. */
  pages: Map<number, Page> | undefined;
  place = 0;
}

/** One address of ours, or a whole prefix. */
interface Block {
  readonly prefix: IpPrefix;
  /** How many low bits of an address tell its page. */
  readonly addressBits: number;
  readonly pages: Map<number, Page>;
}

export class ClientIndex {
  private readonly blocks: readonly Block[];
  /** The page of the address asked for last: packets of one address come in a row. */
  private lastPage: Page | undefined;
  /** One that was let go, for the next address: connections that come and go by ones cost no page each. */
  private spare: Page | undefined;
  private readonly lastWords = new Int32Array(4);
  private lastCount = 0;

  constructor(addresses: readonly IpPrefix[], prefixes: readonly IpPrefix[]) {
    const alone = addresses.map((prefix) => ({
      ...prefix,
      prefixBits: prefix.version6 ? 128 : 32,
      whole: false,
    }));
    this.blocks = [...alone, ...prefixes].map((prefix) => {
      const free = (prefix.version6 ? 128 : 32) - prefix.prefixBits;
      return { prefix, addressBits: Math.min(free, addressBitsMax), pages: new Map<number, Page>() };
    });
  }

  /** Local addresses that have connections. */
  get pageCount(): number {
    return this.blocks.reduce((sum, { pages }) => sum + pages.size, 0);
  }

  /** The connection with this address (words at `at`) and port of ours; -1: there is none. */
  find(words: Int32Array, at: number, wordCount: number, port: number): number {
    const page = this.page(words, at, wordCount, false);
    return page === undefined ? -1 : (page.words[port] as number) - 1;
  }

  /** Enters a connection. False: the address is not one of ours, or another has the place. */
  add(words: Int32Array, at: number, wordCount: number, port: number, sockfd24: number): boolean {
    const page = this.page(words, at, wordCount, true);
    if (page === undefined || page.words[port] !== 0) return false;
    page.words[port] = sockfd24 + 1;
    page.used += 1;
    return true;
  }

  /** Nothing happens when the place has another. */
  remove(words: Int32Array, at: number, wordCount: number, port: number, sockfd24: number): void {
    const page = this.page(words, at, wordCount, false);
    if (page === undefined || page.words[port] !== sockfd24 + 1) return;
    page.words[port] = 0;
    page.used -= 1;
    if (page.used === 0) this.letGo(page);
  }

  private page(words: Int32Array, at: number, wordCount: number, make: boolean): Page | undefined {
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

  private search(words: Int32Array, at: number, wordCount: number, make: boolean): Page | undefined {
    const address = words.subarray(at, at + wordCount);
    for (const { prefix, addressBits, pages } of this.blocks) {
      if (prefix.version6 !== (wordCount === 4) || !prefixContains(prefix, address)) continue;
      const place = (address[wordCount - 1] as number) & (2 ** addressBits - 1);
      const page = pages.get(place);
      if (page !== undefined || !make) return page;
      const made = this.spare ?? new Page();
      this.spare = undefined;
      made.pages = pages;
      made.place = place;
      pages.set(place, made);
      return made;
    }
    return undefined;
  }

  private letGo(page: Page): void {
    if (this.lastPage === page) this.lastPage = undefined;
    page.pages?.delete(page.place);
    page.pages = undefined;
    this.spare = page;
  }
}
