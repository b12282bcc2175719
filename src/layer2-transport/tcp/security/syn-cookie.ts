/**
 * SYN cookies: what must be remembered of a SYN, put into our own sequence number and timestamp (RFC 4987 3.6).
 *
 * Layer 2, pure: nothing is kept. The layout is Bernstein's, as in Linux: the sequence number is
 *
 *   hash(ends) + the peer's + (clock << 24) + ((hash(ends, the peer's, clock) + MSS class) mod 2^24)
 *
 * so it grows with the peer's own and with time, and a guess is right once in 2^28. The clock steps every 64 seconds
 * and a cookie is good for this step and the last. Window scale, SACK and ECN stand in the low 6 bits of the timestamp
 * that the peer echoes; they are not signed, since only the peer's own connection suffers from other values.
 */

import { SipHash } from "./siphash.ts";
import { addTuple } from "./tuple.ts";

/** The classes that a peer's MSS is rounded down to; a smaller one counts as the least, which every path takes. */
export const cookieMss: readonly number[] = [536, 1220, 1360, 1400, 1440, 1460, 8940, 8960];

const stepUs = 64e6;
/** Steps of the clock that a cookie is good for. */
const goodSteps = 2;
/** No cookie is good for longer. */
export const cookieLifeUs = goodSteps * stepUs;

function classOf(mss: number): number {
  let found = 0;
  for (let i = 1; i < cookieMss.length; i += 1) if ((cookieMss[i] as number) <= mss) found = i;
  return found;
}

export class SynCookies {
  private readonly hash: SipHash;

  constructor(key: Uint32Array) {
    this.hash = new SipHash(key);
  }

  /** Our sequence number for the SYN-ACK. The ends are those of the v-node, or a scratch like one, at `base`. */
  make(words: Int32Array, base: number, peerIsn: number, mss: number, nowUs: number): number {
    const clock = Math.floor(nowUs / stepUs);
    const signed = (this.sign(words, base, peerIsn, clock) + classOf(mss)) & 0xffffff;
    return (this.offset(words, base, peerIsn) + ((clock << 24) | signed)) | 0;
  }

  /**
   * The MSS class (an index of `cookieMss`) of the cookie that came back as `isn`, which is the ACK's number less 1;
   * `peerIsn` is the segment's sequence number less 1. -1: it is none of ours, or too old.
   */
  check(words: Int32Array, base: number, peerIsn: number, isn: number, nowUs: number): number {
    const packed = isn - this.offset(words, base, peerIsn);
    const now = Math.floor(nowUs / stepUs);
    const age = (now - (packed >>> 24)) & 0xff;
    if (age >= goodSteps || age > now) return -1;
    const mssIndex = (packed - this.sign(words, base, peerIsn, now - age)) & 0xffffff;
    return mssIndex < cookieMss.length ? mssIndex : -1;
  }

  private offset(words: Int32Array, base: number, peerIsn: number): number {
    const { hash } = this;
    hash.begin();
    addTuple(hash, words, base);
    hash.finish();
    return (hash.low + peerIsn) | 0;
  }

  private sign(words: Int32Array, base: number, peerIsn: number, clock: number): number {
    const { hash } = this;
    hash.begin();
    addTuple(hash, words, base);
    hash.add(peerIsn);
    hash.add(clock);
    hash.finish();
    return hash.low & 0xffffff;
  }
}

/** Bits of the SYN-ACK's timestamp that a cookie takes. */
export const cookieTimestampBits = 0x3f;
const noScale = 15;
const sackBit = 16;
const ecnBit = 32;

/**
 * The SYN-ACK's timestamp: `head`, whose low 6 bits are replaced. `head` must not be read as a connection's number
 * when it is echoed. `scale` is the peer's, -1 for none.
 */
export function cookieTimestamp(head: number, scale: number, sack: boolean, ecn: boolean): number {
  const terms = (scale < 0 ? noScale : scale) | (sack ? sackBit : 0) | (ecn ? ecnBit : 0);
  return (head & ~cookieTimestampBits) | terms;
}

/** What `cookieTimestamp` wrote. */
export class CookieTerms {
  scale = -1;
  sack = false;
  ecn = false;
}

/** Reads the terms out of an echoed timestamp. A scale that no SYN can have (RFC 7323 2.3) counts as none. */
export function readCookieTimestamp(echo: number, into: CookieTerms): void {
  const scale = echo & 15;
  into.scale = scale === noScale ? -1 : scale;
  into.sack = (echo & sackBit) !== 0;
  into.ecn = (echo & ecnBit) !== 0;
}
