/**
 * A ring of 32-byte descriptors in shared memory: one producer thread, one consumer thread, no lock.
 *
 * Layer 3, used by every thread of a runtime (and mirrored in C++ by native/rawsock). It knows nothing of what a
 * descriptor means. The memory, in 32-bit words in machine order; each index stands on its own 64-byte line:
 *
 *   word  0       head: descriptors ever published, written by the producer (a free-running uint32)
 *   word 16       tail: descriptors ever consumed, written by the consumer (a free-running uint32)
 *   word 32       sleeping: 1 while the consumer waits to be woken; whoever swaps it back to 0 wakes it
 *   word 48 + 8i  descriptor i, i = index & (capacity - 1); capacity is a power of two:
 *                 (words of the buffer - 48) / 8
 *
 * A descriptor's eight words: kind | flags << 8, sockfd24, generation, frame, offset, length, arg0, arg1.
 * The producer fills slots with plain stores and publishes a batch by one sequentially consistent store of `head`;
 * the consumer reads and gives slots back by one of `tail`. Going to sleep: store sleeping = 1, then load `head`
 * again. Waking: store `head`, then swap `sleeping`. Sequential consistency lets one of the two see the other.
 */

const headWord = 0;
const tailWord = 16;
const sleepingWord = 32;
const firstSlotWord = 48;

/** Words of one descriptor. */
export const descriptorWords = 8;

/** Where each field of a descriptor stands, counted from its first word. */
export const field = {
  kind: 0,
  sockfd: 1,
  generation: 2,
  frame: 3,
  offset: 4,
  length: 5,
  arg0: 6,
  arg1: 7,
} as const;

/** Memory for a ring of `capacity` descriptors (a power of two, at least 2). */
export function createRing(capacity: number): SharedArrayBuffer {
  if (capacity < 2 || capacity > 2 ** 24 || (capacity & (capacity - 1)) !== 0) {
    throw new RangeError(`a ring's capacity must be a power of two from 2 to 2^24, not ${capacity}`);
  }
  return new SharedArrayBuffer(4 * (firstSlotWord + capacity * descriptorWords));
}

function capacityOf(words: Int32Array): number {
  const capacity = (words.length - firstSlotWord) / descriptorWords;
  if (capacity < 2 || (capacity & (capacity - 1)) !== 0) throw new RangeError("this memory is not a ring");
  return capacity;
}

/** The producing end. Not to be shared between threads. */
export class RingProducer {
  /** The ring's memory: fill a reserved slot's eight words here. */
  readonly words: Int32Array;
  readonly capacity: number;
  private readonly mask: number;
  private head: number;
  /** How often something has been published: what was reserved before that may not be changed any more. */
  publishes = 0;
  private published: number;
  private knownTail: number;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.capacity = capacityOf(this.words);
    this.mask = this.capacity - 1;
    this.head = Atomics.load(this.words, headWord);
    this.published = this.head;
    this.knownTail = Atomics.load(this.words, tailWord);
  }

  /** The first word of the next free slot, taken at once; -1 when the ring is full. */
  reserve(): number {
    if ((this.head - this.knownTail) >>> 0 >= this.capacity) {
      this.knownTail = Atomics.load(this.words, tailWord);
      if ((this.head - this.knownTail) >>> 0 >= this.capacity) return -1;
    }
    const slot = firstSlotWord + (this.head & this.mask) * descriptorWords;
    this.head = (this.head + 1) | 0;
    return slot;
  }

  /** Hands everything reserved so far to the consumer. True: the consumer sleeps and the caller must wake it. */
  publish(): boolean {
    if (this.published === this.head) return false;
    this.published = this.head;
    this.publishes += 1;
    Atomics.store(this.words, headWord, this.head);
    if (Atomics.load(this.words, sleepingWord) === 0) return false;
    return Atomics.exchange(this.words, sleepingWord, 0) === 1;
  }

  /** Descriptors published and not yet consumed, and those reserved. */
  get size(): number {
    return (this.head - Atomics.load(this.words, tailWord)) >>> 0;
  }
}

/** The consuming end. Not to be shared between threads. */
export class RingConsumer {
  /** The ring's memory: read a slot's eight words here until `release`. */
  readonly words: Int32Array;
  readonly capacity: number;
  private readonly mask: number;
  private tail: number;
  private knownHead: number;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.capacity = capacityOf(this.words);
    this.mask = this.capacity - 1;
    this.tail = Atomics.load(this.words, tailWord);
    this.knownHead = this.tail;
  }

  /** The first word of the next descriptor, which counts as read; -1 when there is none. */
  take(): number {
    if (this.tail === this.knownHead) {
      this.knownHead = Atomics.load(this.words, headWord);
      if (this.tail === this.knownHead) return -1;
    }
    const slot = firstSlotWord + (this.tail & this.mask) * descriptorWords;
    this.tail = (this.tail + 1) | 0;
    return slot;
  }

  /** Gives the slots of all descriptors taken back to the producer. */
  release(): void {
    Atomics.store(this.words, tailWord, this.tail);
  }

  /** Says that the consumer will wait. False: something has come meanwhile, go on taking. */
  sleep(): boolean {
    Atomics.store(this.words, sleepingWord, 1);
    if (Atomics.load(this.words, headWord) === this.tail) return true;
    Atomics.store(this.words, sleepingWord, 0);
    return false;
  }

  /** Says that the consumer is awake (it was woken by something else than the producer). */
  wake(): void {
    Atomics.store(this.words, sleepingWord, 0);
  }
}
