/**
 * What a connection's number looks like on the wire: in the low 24 bits of TCP timestamps, and as IPv6 flow label.
 *
 * Layer 2, one a worker. Both go through keyed permutations, so a peer learns neither how many connections there are
 * nor in which order they came. What comes back is a hint and nothing more: `matches` (flow-match.ts) decides.
 *
 * The permutations are Feistel networks of four rounds over the halves of the number; a round's function is the top of
 * a product, quadratic in the half (as in RC6). They hide; they are no authentication.
 */

/** SYN cookies keep terms in the low bits of a timestamp's id, so the ids that name nobody differ in those. */
const reservedBits = 6;
const reservedMask = 0xffffff & (-1 << reservedBits);
const noLabel = 0;
const rounds = 4;

/** Where keys come from: int32 words that nobody can guess (`node:crypto` in workers). */
interface KeySource {
  word(): number;
}

/** A keyed permutation of the numbers of `2 * halfBits` bits. */
export class Permutation {
  private readonly halfBits: number;
  private readonly halfMask: number;
  private readonly topShift: number;
  private readonly keys = new Int32Array(rounds * 2);

  constructor(halfBits: number, random: KeySource) {
    this.halfBits = halfBits;
    this.halfMask = (1 << halfBits) - 1;
    this.topShift = 32 - halfBits;
    for (let i = 0; i < this.keys.length; i += 2) {
      this.keys[i] = random.word();
      this.keys[i + 1] = random.word() | 1;
    }
  }

  forward(value: number): number {
    const { keys, topShift } = this;
    let left = value >>> this.halfBits;
    let right = value & this.halfMask;
    left ^= mix(right, keys[0] as number, keys[1] as number) >>> topShift;
    right ^= mix(left, keys[2] as number, keys[3] as number) >>> topShift;
    left ^= mix(right, keys[4] as number, keys[5] as number) >>> topShift;
    right ^= mix(left, keys[6] as number, keys[7] as number) >>> topShift;
    return (left << this.halfBits) | right;
  }

  backward(value: number): number {
    const { keys, topShift } = this;
    let left = value >>> this.halfBits;
    let right = value & this.halfMask;
    right ^= mix(left, keys[6] as number, keys[7] as number) >>> topShift;
    left ^= mix(right, keys[4] as number, keys[5] as number) >>> topShift;
    right ^= mix(left, keys[2] as number, keys[3] as number) >>> topShift;
    left ^= mix(right, keys[0] as number, keys[1] as number) >>> topShift;
    return (left << this.halfBits) | right;
  }
}

function mix(half: number, key: number, factor: number): number {
  const spread = (Math.imul(half, factor) + key) | 0;
  return Math.imul(spread, (spread << 1) | 1);
}

export class Carrier {
  /** With any low 6 bits, the id that names no connection: for packets that belong to none, as SYN cookies do. */
  readonly reservedId: number;
  private readonly ids: Permutation;
  private readonly labels: Permutation;

  constructor(random: KeySource) {
    this.ids = new Permutation(12, random);
    this.labels = new Permutation(10, random);
    this.reservedId = random.word() & reservedMask;
  }

  /** 24 bits for the timestamps of a connection's packets. For 64 connections of 2^24 it is the reserved id. */
  wireId(sockfd24: number): number {
    const id = this.ids.forward(sockfd24);
    return (id & reservedMask) === this.reservedId ? this.reservedId : id;
  }

  /** The number that an echoed id speaks of, which need not be one in use, or of this worker; -1: of none. */
  sockfdOfWireId(id: number): number {
    return (id & reservedMask) === this.reservedId ? -1 : this.ids.backward(id);
  }

  /** The flow label of a slot's packets: 1 to 2^20 - 1. One slot has another's, and is found by other means. */
  labelOf(slot: number): number {
    const label = this.labels.forward(slot);
    return label === noLabel ? 1 : label;
  }

  /** The slot that a label speaks of, in the shard that the packet's flow belongs to; -1: of none. */
  slotOfLabel(label: number): number {
    return label === noLabel || label > 0xfffff ? -1 : this.labels.backward(label);
  }
}
