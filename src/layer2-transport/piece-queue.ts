/**
 * Parts of pool frames that wait for their turn with the app: datagrams, or pieces of a stream, in order.
 *
 * Layer 2. A ring of three words a piece that doubles when it is full; nothing is allocated a piece. It counts and
 * marks no frames: whoever puts one in does.
 */

const wordsEach = 3;
const firstCapacity = 4;

export class PieceQueue {
  /** Pieces. */
  length = 0;
  /** Bytes of all of them. */
  bytes = 0;
  private words = new Int32Array(firstCapacity * wordsEach);
  private mask = firstCapacity - 1;
  private first = 0;

  /** Of the first piece, which must be there. */
  get frame(): number {
    return this.words[this.first * wordsEach] as number;
  }

  get offset(): number {
    return this.words[this.first * wordsEach + 1] as number;
  }

  get size(): number {
    return this.words[this.first * wordsEach + 2] as number;
  }

  push(frame: number, offset: number, size: number): void {
    if (this.length > this.mask) this.grow();
    const at = ((this.first + this.length) & this.mask) * wordsEach;
    this.words[at] = frame;
    this.words[at + 1] = offset;
    this.words[at + 2] = size;
    this.length += 1;
    this.bytes += size;
  }

  /** Takes `count` bytes off the front of the first piece, of which some must be left. */
  consume(count: number): void {
    const at = this.first * wordsEach;
    (this.words[at + 1] as number) += count;
    (this.words[at + 2] as number) -= count;
    this.bytes -= count;
  }

  /** Takes the first piece out. */
  shift(): void {
    this.bytes -= this.size;
    this.first = (this.first + 1) & this.mask;
    this.length -= 1;
  }

  private grow(): void {
    const capacity = (this.mask + 1) * 2;
    const words = new Int32Array(capacity * wordsEach);
    for (let i = 0; i < this.length; i += 1) {
      const from = ((this.first + i) & this.mask) * wordsEach;
      for (let word = 0; word < wordsEach; word += 1) {
        words[i * wordsEach + word] = this.words[from + word] as number;
      }
    }
    this.words = words;
    this.mask = capacity - 1;
    this.first = 0;
  }
}
