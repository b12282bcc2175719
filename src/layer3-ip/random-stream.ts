/**
 * xoshiro128** (Blackman and Vigna), seeded by SplitMix64: the twin of native/rawsock/links/random_stream.h, which
 * draws the same numbers.
 *
 * Layer 3, pure. For simulation: nothing secret may come from it. BigInt at seeding only.
 */

const word64 = (1n << 64n) - 1n;

/** Turns a 64-bit seed into as many well-mixed words as are asked for. */
export class SeedMixer {
  private state: bigint;

  constructor(seed: bigint) {
    this.state = seed & word64;
  }

  next(): bigint {
    this.state = (this.state + 0x9e3779b97f4a7c15n) & word64;
    let word = this.state;
    word = ((word ^ (word >> 30n)) * 0xbf58476d1ce4e5b9n) & word64;
    word = ((word ^ (word >> 27n)) * 0x94d049bb133111ebn) & word64;
    return word ^ (word >> 31n);
  }
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

/** One sequence of numbers. Two words of the mixer in a row are never both zero, which it could not leave. */
export class RandomStream {
  private s0: number;
  private s1: number;
  private s2: number;
  private s3: number;

  constructor(mixer: Pick<SeedMixer, "next">) {
    const first = mixer.next();
    const second = mixer.next();
    this.s0 = Number(BigInt.asIntN(32, first));
    this.s1 = Number(BigInt.asIntN(32, first >> 32n));
    this.s2 = Number(BigInt.asIntN(32, second));
    this.s3 = Number(BigInt.asIntN(32, second >> 32n));
  }

  /** 0 to 2^32 - 1. */
  next(): number {
    const result = Math.imul(rotateLeft(Math.imul(this.s1, 5), 7), 9) >>> 0;
    const shifted = this.s1 << 9;
    this.s2 ^= this.s0;
    this.s3 ^= this.s1;
    this.s1 ^= this.s2;
    this.s0 ^= this.s3;
    this.s2 ^= shifted;
    this.s3 = rotateLeft(this.s3, 11);
    return result;
  }

  /** True with a probability of threshold / 2^32. */
  chance(threshold: number): boolean {
    return this.next() < threshold;
  }

  /** 0 to count - 1, for a count of at most 2^26. */
  below(count: number): number {
    return scaleWord(this.next(), count);
  }
}

/** A 32-bit number brought down to 0 to count - 1; 52 bits of product, so a double holds it. */
export function scaleWord(word: number, count: number): number {
  return Math.floor(((word >>> 6) * count) / 2 ** 26);
}
