/**
 * Which shard a flow belongs to: the twin of native/rawsock/ip/steer_hash.h, for workers that choose a local port.
 *
 * Layer 3. HalfSipHash-1-3 over both ends in a fixed order, so that both directions hash alike. A test holds this
 * file and the native thread together: a port chosen here must be steered back to the worker that chose it.
 */

export interface SteerKey {
  readonly low: number;
  readonly high: number;
}

/** One end of a flow: address words in network order as numbers (IPv4: the first alone), and the port. */
export interface FlowEnd {
  readonly words: Int32Array;
  readonly at: number;
  readonly port: number;
}

/** Negative, 0 or positive as the first `count` words of one address are below, equal to or above the other's. */
function compareWords(a: Int32Array, aAt: number, b: Int32Array, bAt: number, count: number): number {
  for (let i = 0; i < count; i += 1) {
    const x = (a[aAt + i] as number) >>> 0;
    const y = (b[bAt + i] as number) >>> 0;
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}

export class SteerHash {
  private readonly key: SteerKey;
  private v0 = 0;
  private v1 = 0;
  private v2 = 0;
  private v3 = 0;

  constructor(key: SteerKey) {
    this.key = key;
  }

  /** The hash (a signed 32-bit number) of a flow; `wordCount` is 1 for IPv4 and 4 for IPv6. */
  hash(
    a: Int32Array,
    aAt: number,
    aPort: number,
    b: Int32Array,
    bAt: number,
    bPort: number,
    wordCount: number,
    protocol: number,
  ): number {
    const order = compareWords(a, aAt, b, bAt, wordCount) || (aPort < bPort ? -1 : 1);
    this.begin();
    if (order < 0) {
      this.addAll(a, aAt, wordCount);
      this.addAll(b, bAt, wordCount);
      this.add((aPort << 16) | bPort);
    } else {
      this.addAll(b, bAt, wordCount);
      this.addAll(a, aAt, wordCount);
      this.add((bPort << 16) | aPort);
    }
    this.add(protocol);
    return this.finish((2 * wordCount + 2) * 4);
  }

  private begin(): void {
    const { low, high } = this.key;
    this.v0 = low | 0;
    this.v1 = high | 0;
    this.v2 = 0x6c796765 ^ low;
    this.v3 = 0x74656462 ^ high;
  }

  private addAll(words: Int32Array, at: number, count: number): void {
    for (let i = 0; i < count; i += 1) this.add(words[at + i] as number);
  }

  private add(word: number): void {
    this.v3 ^= word;
    this.round();
    this.v0 ^= word;
  }

  private finish(bytes: number): number {
    this.add(bytes << 24);
    this.v2 ^= 0xff;
    this.round();
    this.round();
    this.round();
    return this.v1 ^ this.v3;
  }

  private round(): void {
    let { v0, v1, v2, v3 } = this;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    this.v0 = v0;
    this.v1 = v1;
    this.v2 = v2;
    this.v3 = v3;
  }
}

/** The shard (0 to 15) of a flow's hash. */
export function shardOfHash(hash: number): number {
  return hash >>> 28;
}
