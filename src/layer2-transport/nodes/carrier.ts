/**
 * What a connection's number looks like on the wire: in the low 24 bits of TCP timestamps, and as IPv6 flow label.
 *
 * Layer 2, one a worker. Both go through keyed permutations, so a peer learns neither how many connections there are
 * nor in which order they came. What comes back is a hint and nothing more: `matches` (flow-match.ts) decides.
 *
 * A permutation is two secret odd factors with the upper half folded into the lower after each: a dozen instructions,
 * because a packet's way to its v-node goes through here, and what stands before a memory access delays the next
 * packet's. It hides; it is no authentication.
 */

/** SYN cookies keep terms in the low bits of a timestamp's id, so the ids that name nobody differ in those. */
const reservedBits = 6;
const reservedMask = 0xffffff & (-1 << reservedBits);
const noLabel = 0;

/** Where keys come from: int32 words that nobody can guess (`node:crypto` in workers). */
interface KeySource {
  word(): number;
}

/** A keyed permutation of the numbers of `2 * halfBits` bits (30 at most). */
export class Permutation {
  // Fields that begin as small integers are known as such ever after.
  private readonly halfBits: number = 0;
  private readonly mask: number = 0;
  private readonly key: number = 0;
  private readonly factor1: number = 0;
  private readonly factor2: number = 0;
  private readonly inverse1: number = 0;
  private readonly inverse2: number = 0;

  constructor(halfBits: number, random: KeySource) {
    const mask = (1 << (2 * halfBits)) - 1;
    this.halfBits = halfBits;
    this.mask = mask;
    this.key = random.word() & mask;
    this.factor1 = (random.word() & mask) | 1;
    this.factor2 = (random.word() & mask) | 1;
    this.inverse1 = inverseOf(this.factor1) & mask;
    this.inverse2 = inverseOf(this.factor2) & mask;
  }

  forward(value: number): number {
    const { halfBits, mask } = this;
    const once = Math.imul(value ^ this.key, this.factor1) & mask;
    const twice = Math.imul(once ^ (once >>> halfBits), this.factor2) & mask;
    return twice ^ (twice >>> halfBits);
  }

  backward(value: number): number {
    const { halfBits, mask } = this;
    const twice = Math.imul(value ^ (value >>> halfBits), this.inverse2) & mask;
    return (Math.imul(twice ^ (twice >>> halfBits), this.inverse1) & mask) ^ this.key;
  }
}

/** What an odd number is to be multiplied by for 1, modulo 2^32 (Newton: each step doubles the right bits). */
function inverseOf(odd: number): number {
  let inverse = odd;
  for (let right = 3; right < 32; right *= 2) inverse = Math.imul(inverse, 2 - Math.imul(odd, inverse));
  return inverse;
}

export class Carrier {
  /** With any low 6 bits, the id that names no connection: for packets that belong to none, as SYN cookies do. */
  readonly reservedId: number = 0;
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
