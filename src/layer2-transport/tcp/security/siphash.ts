/**
 * SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash of 64 bits that nobody can guess or steer without its key.
 *
 * Layer 2, pure. Works on 32-bit words and on halves of its 64-bit state, since BigInt would allocate. Nothing here
 * knows what is hashed; keys come from whoever has a source of randomness.
 */

/** Where keys and other secrets come from: `node:crypto` in workers, a seeded stream in simulation. */
export interface WordSource {
  /** 32 random bits. */
  word(): number;
}

/** A fresh key of 128 bits. Every use has its own, so that what one gives away says nothing of another. */
export function makeKey(source: WordSource): Uint32Array {
  return Uint32Array.from({ length: 4 }, () => source.word());
}

/** Words that one hash can take in. */
const maxWords = 16;

/**
 * One keyed hash, used again and again: `begin`, `add` words (at most 16), `finish`, then read `low` and `high`.
 * A word stands for 4 bytes, lowest first.
 */
export class SipHash {
  /** The lower 32 bits of the last hash, signed. */
  low = 0;
  /** The upper ones. */
  high = 0;
  private readonly key: Uint32Array;
  private readonly words = new Int32Array(maxWords + 2);
  private count = 0;

  /** `key`: 4 words, copied. */
  constructor(key: Uint32Array) {
    if (key.length !== 4) throw new RangeError(`a SipHash key has 4 words, not ${key.length}`);
    this.key = key.slice();
  }

  begin(): void {
    this.count = 0;
  }

  add(word: number): void {
    if (this.count >= maxWords) throw new RangeError(`SipHash takes at most ${maxWords} words here`);
    this.words[this.count] = word;
    this.count += 1;
  }

  finish(): void {
    const { words, key, count } = this;
    const blocks = (count >>> 1) + 1;
    // The last block has the odd word, if there is one, and the length in bytes on top.
    if ((count & 1) === 0) words[count] = 0;
    words[2 * blocks - 1] = count << 26;
    const [k0 = 0, k1 = 0, k2 = 0, k3 = 0] = [key[0], key[1], key[2], key[3]];
    let low0 = k0 ^ 0x70736575;
    let high0 = k1 ^ 0x736f6d65;
    let low1 = k2 ^ 0x6e646f6d;
    let high1 = k3 ^ 0x646f7261;
    let low2 = k0 ^ 0x6e657261;
    let high2 = k1 ^ 0x6c796765;
    let low3 = k2 ^ 0x79746573;
    let high3 = k3 ^ 0x74656462;
    for (let block = 0; block <= blocks; block += 1) {
      const isLast = block === blocks;
      const low = isLast ? 0 : (words[2 * block] as number);
      const high = isLast ? 0 : (words[2 * block + 1] as number);
      low3 ^= low;
      high3 ^= high;
      if (isLast) low2 ^= 0xff;
      for (let round = isLast ? 4 : 2; round > 0; round -= 1) {
        // v0 += v1; v1 = rotate(v1, 13) ^ v0; v0 = rotate(v0, 32)
        let sum = (low0 + low1) | 0;
        high0 = (high0 + high1 + (sum >>> 0 < low1 >>> 0 ? 1 : 0)) | 0;
        low0 = sum;
        let turned = (low1 << 13) | (high1 >>> 19);
        high1 = ((high1 << 13) | (low1 >>> 19)) ^ high0;
        low1 = turned ^ low0;
        turned = low0;
        low0 = high0;
        high0 = turned;
        // v2 += v3; v3 = rotate(v3, 16) ^ v2
        sum = (low2 + low3) | 0;
        high2 = (high2 + high3 + (sum >>> 0 < low3 >>> 0 ? 1 : 0)) | 0;
        low2 = sum;
        turned = (low3 << 16) | (high3 >>> 16);
        high3 = ((high3 << 16) | (low3 >>> 16)) ^ high2;
        low3 = turned ^ low2;
        // v0 += v3; v3 = rotate(v3, 21) ^ v0
        sum = (low0 + low3) | 0;
        high0 = (high0 + high3 + (sum >>> 0 < low3 >>> 0 ? 1 : 0)) | 0;
        low0 = sum;
        turned = (low3 << 21) | (high3 >>> 11);
        high3 = ((high3 << 21) | (low3 >>> 11)) ^ high0;
        low3 = turned ^ low0;
        // v2 += v1; v1 = rotate(v1, 17) ^ v2; v2 = rotate(v2, 32)
        sum = (low2 + low1) | 0;
        high2 = (high2 + high1 + (sum >>> 0 < low1 >>> 0 ? 1 : 0)) | 0;
        low2 = sum;
        turned = (low1 << 17) | (high1 >>> 15);
        high1 = ((high1 << 17) | (low1 >>> 15)) ^ high2;
        low1 = turned ^ low2;
        turned = low2;
        low2 = high2;
        high2 = turned;
      }
      low0 ^= low;
      high0 ^= high;
    }
    this.low = low0 ^ low1 ^ low2 ^ low3;
    this.high = high0 ^ high1 ^ high2 ^ high3;
  }
}
