/**
 * TCP Fast Open's cookies (RFC 7413): made and checked by a server, remembered by a client.
 *
 * Layer 2, pure. A server's cookie is 8 bytes of a keyed hash of both addresses: it proves that the client has once
 * received at its address, and nothing is kept for it. The client's memory is bounded: what was used least recently
 * is forgotten.
 */

import { node } from "../../nodes/v-node.ts";
import { SipHash } from "./siphash.ts";
import { addressWordsOf, addWords } from "./tuple.ts";

export const cookieBytes = 8;

/** What a client's cookie is worth: `old` is good, and the client is to be given a new one. */
export const cookieCheck = { bad: 0, good: 1, old: 2 } as const;

/** The server's side. */
export class FastOpenCookies {
  private hash: SipHash;
  private oldHash: SipHash | undefined = undefined;

  constructor(key: Uint32Array) {
    this.hash = new SipHash(key);
  }

  /** A new key. Cookies of the one before are good still, those of earlier ones no more (RFC 7413 4.1.2). */
  rotate(key: Uint32Array): void {
    this.oldHash = this.hash;
    this.hash = new SipHash(key);
  }

  /** Writes the cookie of the peer whose ends are in the v-node at `base`. Returns its 8 bytes. */
  write(words: Int32Array, base: number, bytes: Uint8Array, at: number): number {
    const { hash } = this;
    compute(hash, words, base);
    for (let i = 0; i < 4; i += 1) {
      bytes[at + i] = hash.low >>> (8 * i);
      bytes[at + 4 + i] = hash.high >>> (8 * i);
    }
    return cookieBytes;
  }

  /** Looks at a cookie of `length` bytes. */
  check(words: Int32Array, base: number, bytes: Uint8Array, at: number, length: number): number {
    if (length !== cookieBytes) return cookieCheck.bad;
    if (matches(this.hash, words, base, bytes, at)) return cookieCheck.good;
    const { oldHash } = this;
    return oldHash && matches(oldHash, words, base, bytes, at) ? cookieCheck.old : cookieCheck.bad;
  }
}

function compute(hash: SipHash, words: Int32Array, base: number): void {
  const count = addressWordsOf(words, base);
  hash.begin();
  addWords(hash, words, base + node.peerAddress, count);
  addWords(hash, words, base + node.localAddress, count);
  hash.finish();
}

/** Takes as long for every cookie that is wrong. */
function matches(hash: SipHash, words: Int32Array, base: number, bytes: Uint8Array, at: number): boolean {
  compute(hash, words, base);
  let difference = 0;
  for (let i = 0; i < 4; i += 1) {
    difference |= (bytes[at + i] as number) ^ ((hash.low >>> (8 * i)) & 0xff);
    difference |= (bytes[at + 4 + i] as number) ^ ((hash.high >>> (8 * i)) & 0xff);
  }
  return difference === 0;
}

/** What a client remembers of a server. */
export interface KnownServer {
  /** Empty: it has given none yet. */
  readonly cookie: Uint8Array;
  /** The MSS that it told, which bounds the data of the next SYN. */
  readonly mss: number;
  /** Data in SYNs get lost on the way to it (RFC 7413 4.1.3.1): not before this time again. */
  readonly quietUntilMs: number;
}

const noCookie = new Uint8Array(0);

/** The client's side: at most `capacity` servers, by address. */
export class FastOpenCache {
  private readonly servers = new Map<string, KnownServer>();
  private readonly capacity: number;

  constructor(capacity = 1024) {
    this.capacity = capacity;
  }

  get size(): number {
    return this.servers.size;
  }

  /** What is known of the server at the address (1 word or 4), if data in a SYN may be tried at all. */
  find(words: Int32Array, at: number, wordCount: number, nowMs: number): KnownServer | undefined {
    const key = keyOf(words, at, wordCount);
    const known = this.servers.get(key);
    if (!known || known.quietUntilMs > nowMs) return undefined;
    this.place(key, known);
    return known;
  }

  /** Whether SYNs to the server must be plain for now. */
  isQuiet(words: Int32Array, at: number, wordCount: number, nowMs: number): boolean {
    const known = this.servers.get(keyOf(words, at, wordCount));
    return known !== undefined && known.quietUntilMs > nowMs;
  }

  /** The server has given a cookie (4 to 16 bytes, copied). */
  store(words: Int32Array, at: number, wordCount: number, cookie: Uint8Array, mss: number): void {
    this.place(keyOf(words, at, wordCount), { cookie: Uint8Array.from(cookie), mss, quietUntilMs: 0 });
  }

  /** A SYN with data was not answered and one without was: no more of them until then. */
  silence(words: Int32Array, at: number, wordCount: number, untilMs: number): void {
    const key = keyOf(words, at, wordCount);
    const { cookie = noCookie, mss = 0 } = this.servers.get(key) ?? {};
    this.place(key, { cookie, mss, quietUntilMs: untilMs });
  }

  /** The server would not have the cookie. */
  forget(words: Int32Array, at: number, wordCount: number): void {
    this.servers.delete(keyOf(words, at, wordCount));
  }

  /** Puts it last; a Map is in the order of insertion, so the first is the one to go. */
  private place(key: string, server: KnownServer): void {
    this.servers.delete(key);
    if (this.servers.size >= this.capacity) {
      const oldest = this.servers.keys().next();
      if (!oldest.done) this.servers.delete(oldest.value);
    }
    this.servers.set(key, server);
  }
}

function keyOf(words: Int32Array, at: number, wordCount: number): string {
  return words.subarray(at, at + wordCount).join(".");
}
