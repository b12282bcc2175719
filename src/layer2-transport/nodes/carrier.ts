/**
 * The ids that packets carry: a connection's number in a TCP timestamp's low 24 bits, its slot in an IPv6 flow label.
 *
 * Layer 2, pure. What goes on the wire is a keyed permutation of the number, so that ids look random and tell nobody
 * how many connections there are. It is a hint on the way back: whoever uses it checks the v-node's addresses.
 *
 * A permutation is a Feistel network of four rounds over the two halves of the value, each round a table of random
 * numbers by half (4,096 of them at most): a few loads from the nearest cache.
 */

const halfOfId = 12;
const halfOfSlot = 10;
const rounds = 4;

/** A bijection of the numbers below 2^(2 * half). */
export class Permutation {
  private readonly half: number;
  private readonly mask: number;
  private readonly tables: Uint16Array;

  /** Fills its tables from `source`, an int32 a word. */
  constructor(half: number, source: { word(): number }) {
    this.half = half;
    this.mask = 2 ** half - 1;
    this.tables = Uint16Array.from({ length: rounds * 2 ** half }, () => source.word() & this.mask);
  }

  forward(value: number): number {
    const { half, mask, tables } = this;
    let left = value >>> half;
    let right = value & mask;
    left ^= tables[right] as number;
    right ^= tables[mask + 1 + left] as number;
    left ^= tables[2 * (mask + 1) + right] as number;
    right ^= tables[3 * (mask + 1) + left] as number;
    return (left << half) | right;
  }

  backward(value: number): number {
    const { half, mask, tables } = this;
    let left = value >>> half;
    let right = value & mask;
    right ^= tables[3 * (mask + 1) + left] as number;
    left ^= tables[2 * (mask + 1) + right] as number;
    right ^= tables[mask + 1 + left] as number;
    left ^= tables[right] as number;
    return (left << half) | right;
  }
}

export class Carrier {
  /**
   * What stands for no connection in a timestamp; its low 6 bits may be anything (SYN cookies keep terms there), so 64
   * wire values decode to nothing and the connections that would have them go without (`hasWireId`).
   */
  readonly reservedId: number;
  private readonly ids: Permutation;
  private readonly slots: Permutation;

  /** `source` must be unpredictable: `node:crypto` in workers. */
  constructor(source: { word(): number }) {
    this.ids = new Permutation(halfOfId, source);
    this.slots = new Permutation(halfOfSlot, source);
    this.reservedId = (source.word() & 0xffffc0) >>> 0;
  }

  /** The wire value of a connection's number; `reservedId` for the 64 numbers whose value means nothing. */
  wireId(sockfd24: number): number {
    const id = this.ids.forward(sockfd24);
    return (id & 0xffffc0) === this.reservedId ? this.reservedId : id;
  }

  /** The number that a wire value leads to; -1: none. */
  sockfdOfWireId(id: number): number {
    return (id & 0xffffc0) === this.reservedId ? -1 : this.ids.backward(id);
  }

  /** The flow label of a slot (0 to 2^20 - 1): never 0, which has Linux choose one by itself. */
  labelOf(slot: number): number {
    const label = this.slots.forward(slot);
    // The slot whose label would be 0 goes without: the label leads to another slot and is a mismatch.
    return label === 0 ? 1 : label;
  }

  /** The slot that a label leads to; -1: none. */
  slotOfLabel(label: number): number {
    return label === 0 ? -1 : this.slots.backward(label);
  }
}
