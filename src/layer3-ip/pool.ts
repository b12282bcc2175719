/**
 * The packet pool: frames of 2 KiB and of 64 KiB in one shared, page-aligned piece of memory.
 *
 * Layer 3, used by every thread of a runtime (and mirrored in C++ by native/rawsock). It knows nothing of packets.
 * A frame is named by its `ref`: its byte offset in the memory divided by 2,048. Ref 0 is never a frame. Each
 * partition belongs to one thread, which alone allocates from it; any thread frees. In 32-bit words:
 *
 *   word 0  magic "APO1" (0x314f5041)          word 4  first ref of partition 0
 *   word 1  partitions                         word 5  first word of the metadata
 *   word 2  2 KiB frames a partition           word 6  first word of the partitions' controls
 *   word 3  64 KiB frames a partition
 *
 * Controls: 64 words a partition. Words 0-3, written by the owner alone: head of its private list of 2 KiB frames,
 * 2 KiB frames ever used, head and count likewise for 64 KiB frames. Word 16 and word 32, each on its own line:
 * heads of the lists of returned 2 KiB and 64 KiB frames. Metadata: 4 words a ref: reference count (0 = free),
 * next ref (of the free list, or of the container when allocated; 0 ends it), holders (one bit a thread, so that
 * a dead thread's frames are found again; kept by `hold` and `drop`), bytes of the frame.
 * Partition p's frames start at ref first + p * (small + 32 * large): the small ones, then the large ones.
 *
 * Freeing: the count goes down by an atomic subtraction; at 0 the frame is pushed by compare-and-swap onto the
 * returned list of its partition (the owner pushes onto its private list). The owner takes a whole returned list
 * by one exchange, so there is no ABA. Lists are LIFO, never-used frames come last: memory is touched lazily.
 * A container is a chain of frames, all full but the last; the count of its first frame is the count of them all.
 */

import { copyBytes } from "./copy-bytes.ts";

export const smallFrameBytes = 2048;
export const largeFrameBytes = 65_536;

const refBytes = smallFrameBytes;
const refsOfLarge = largeFrameBytes / refBytes;
const magic = 0x314f5041;
const controlWords = 64;
const metaWords = 4;

const smallHead = 0;
const smallUsed = 1;
const largeHead = 2;
const largeUsed = 3;
const smallReturned = 16;
const largeReturned = 32;

const countWord = 0;
const nextWord = 1;
const holdersWord = 2;
const bytesWord = 3;

export interface PoolShape {
  /** Threads that allocate. */
  readonly partitions: number;
  /** 2 KiB frames a partition. */
  readonly small: number;
  /** 64 KiB frames a partition. */
  readonly large: number;
}

/** The frames of a partition of `bytes` bytes: a quarter of it in small frames, the rest in large ones. */
export function shapeFor(partitions: number, bytes: number): PoolShape {
  const large = Math.max(4, Math.floor((bytes * 0.75) / largeFrameBytes));
  const small = Math.max(refsOfLarge, Math.floor((bytes * 0.25) / largeFrameBytes) * refsOfLarge);
  return { partitions, small, large };
}

interface SharedMemory {
  readonly buffer: SharedArrayBuffer;
}
interface WebAssemblyGlobal {
  Memory: new (shape: { initial: number; maximum: number; shared: true }) => SharedMemory;
}

/** Zeroed shared memory that starts on a page: only WebAssembly promises that, so it is asked first. */
function pageAligned(bytes: number): SharedArrayBuffer {
  const pages = Math.ceil(bytes / 65_536);
  const { WebAssembly } = globalThis as unknown as { WebAssembly?: WebAssemblyGlobal };
  try {
    if (WebAssembly) return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
  } catch {
    // A limit on address space (ulimit -v) refuses its guard pages; plain memory serves all but AF_XDP.
  }
  return new SharedArrayBuffer(pages * 65_536);
}

/** Makes the memory of a pool. Costs address space only, until frames are used. */
export function createPool(shape: PoolShape): SharedArrayBuffer {
  const { partitions, small, large } = shape;
  if (partitions < 1 || small < 1 || large < 1 || small % refsOfLarge !== 0) {
    throw new RangeError(`not a pool's shape: ${JSON.stringify(shape)} (small must be a multiple of 32)`);
  }
  const controlStart = 64;
  const metaStart = controlStart + partitions * controlWords;
  const stride = small + large * refsOfLarge;
  // The metadata cover the refs of the header too, so that a ref indexes them directly.
  let first = refsOfLarge;
  while (first * refBytes < 4 * (metaStart + (first + partitions * stride) * metaWords)) first += refsOfLarge;
  const buffer = pageAligned((first + partitions * stride) * refBytes);
  new Int32Array(buffer, 0, 7).set([magic, partitions, small, large, first, metaStart, controlStart]);
  return buffer;
}

/** One thread's view of the pool. `partition` is the one it allocates from. */
export class FramePool {
  readonly buffer: SharedArrayBuffer;
  /** The whole pool as bytes: a frame starts at `ref * 2048`. */
  readonly bytes: Buffer;
  readonly partition: number;
  private readonly words: Int32Array;
  private readonly shape: PoolShape;
  private readonly first: number;
  private readonly stride: number;
  private readonly meta: number;
  private readonly controls: number;
  private readonly own: number;
  private readonly ownFirst: number;

  constructor(buffer: SharedArrayBuffer, partition: number) {
    const words = new Int32Array(buffer);
    const [found, partitions = 0, small = 0, large = 0, first = 0, meta = 0, controls = 0] = words.subarray(
      0,
      7,
    );
    if (found !== magic) throw new RangeError("this memory is not a frame pool");
    if (partition < 0 || partition >= partitions)
      throw new RangeError(`no partition ${partition} in this pool`);
    this.buffer = buffer;
    this.bytes = Buffer.from(buffer);
    this.partition = partition;
    this.words = words;
    this.shape = { partitions, small, large };
    this.first = first;
    this.stride = small + large * refsOfLarge;
    this.meta = meta;
    this.controls = controls;
    this.own = controls + partition * controlWords;
    this.ownFirst = first + partition * this.stride;
  }

  /** A frame of 2 KiB (or of 64 KiB) with a count of 1; 0 when the partition has none left. */
  allocateFrame(large: boolean): number {
    const { words, own } = this;
    const listWord = own + (large ? largeHead : smallHead);
    let ref = words[listWord] as number;
    if (ref === 0) {
      const returnedWord = own + (large ? largeReturned : smallReturned);
      if (Atomics.load(words, returnedWord) !== 0) ref = Atomics.exchange(words, returnedWord, 0);
    }
    if (ref !== 0) {
      words[listWord] = words[this.meta + ref * metaWords + nextWord] as number;
    } else {
      const usedWord = own + (large ? largeUsed : smallUsed);
      const used = words[usedWord] as number;
      if (used >= (large ? this.shape.large : this.shape.small)) return 0;
      words[usedWord] = used + 1;
      ref = large ? this.ownFirst + this.shape.small + used * refsOfLarge : this.ownFirst + used;
    }
    const meta = this.meta + ref * metaWords;
    words[meta + nextWord] = 0;
    words[meta + holdersWord] = 0;
    words[meta + bytesWord] = large ? largeFrameBytes : smallFrameBytes;
    Atomics.store(words, meta + countWord, 1);
    return ref;
  }

  /** A container for `length` bytes (at least one frame) with a count of 1; 0 when memory is short. */
  allocate(length: number): number {
    if (length <= smallFrameBytes) return this.allocateFrame(false) || this.allocateFrame(true);
    let head = 0;
    let last = 0;
    let left = length;
    while (left > 0) {
      const ref = this.allocateFrame(left > smallFrameBytes) || this.allocateFrame(left <= smallFrameBytes);
      if (ref === 0) {
        if (head !== 0) this.release(head);
        return 0;
      }
      if (head === 0) head = ref;
      else this.words[this.meta + last * metaWords + nextWord] = ref;
      last = ref;
      left -= this.frameBytes(ref);
    }
    return head;
  }

  /** Bytes of the frame. */
  frameBytes(ref: number): number {
    return this.words[this.meta + ref * metaWords + bytesWord] as number;
  }

  /** The container's next frame; 0 at its end. */
  nextFrame(ref: number): number {
    return this.words[this.meta + ref * metaWords + nextWord] as number;
  }

  /** Whether nobody else has a count of the frame. */
  isSole(ref: number): boolean {
    return Atomics.load(this.words, this.meta + ref * metaWords + countWord) === 1;
  }

  /** Adds `count` to a container's count: that many more `release`s will follow. */
  retain(ref: number, count = 1): void {
    Atomics.add(this.words, this.meta + ref * metaWords + countWord, count);
  }

  /** Takes one from a container's count; at 0 all its frames are free. */
  release(ref: number): void {
    if (Atomics.sub(this.words, this.meta + ref * metaWords + countWord, 1) !== 1) return;
    for (let frame = ref; frame !== 0; ) {
      const next = this.nextFrame(frame);
      this.free(frame);
      frame = next;
    }
  }

  /** Marks thread `holder` (0 to 31) as one that will `drop` the container. */
  hold(ref: number, holder: number): void {
    Atomics.or(this.words, this.meta + ref * metaWords + holdersWord, 1 << holder);
  }

  /** Moves the mark of `hold` from one thread to another; the count stays. */
  passOn(ref: number, from: number, to: number): void {
    if (from !== to)
      Atomics.xor(this.words, this.meta + ref * metaWords + holdersWord, (1 << from) | (1 << to));
  }

  /** Marks a container for one thread and nobody else: for who hands on the only count there is. */
  assign(ref: number, holder: number): void {
    Atomics.store(this.words, this.meta + ref * metaWords + holdersWord, 1 << holder);
  }

  /** Takes back the mark of `hold` alone: the container has been handed to another holder. */
  unhold(ref: number, holder: number): void {
    Atomics.and(this.words, this.meta + ref * metaWords + holdersWord, ~(1 << holder));
  }

  /** Takes back the mark of `hold` and one from the count. */
  drop(ref: number, holder: number): void {
    Atomics.and(this.words, this.meta + ref * metaWords + holdersWord, ~(1 << holder));
    this.release(ref);
  }

  /** Drops for a thread that has died whatever it held. Returns how many containers that were. */
  dropAll(holder: number): number {
    const bit = 1 << holder;
    let found = 0;
    this.eachUsed((ref) => {
      if (((this.words[this.meta + ref * metaWords + holdersWord] as number) & bit) === 0) return;
      found += 1;
      this.drop(ref, holder);
    });
    return found;
  }

  /** Copies bytes into a container from `at` on. The container must be long enough. */
  write(ref: number, at: number, source: Uint8Array): void {
    let frame = ref;
    let skip = at;
    let size = this.frameBytes(frame);
    while (skip >= size && this.nextFrame(frame) !== 0) {
      skip -= size;
      frame = this.nextFrame(frame);
      size = this.frameBytes(frame);
    }
    if (skip + source.length <= size) {
      copyBytes(source, 0, this.bytes, frame * refBytes + skip, source.length);
      return;
    }
    let done = 0;
    while (done < source.length) {
      const part = Math.min(size - skip, source.length - done);
      copyBytes(source, done, this.bytes, frame * refBytes + skip, part);
      done += part;
      skip = 0;
      frame = this.nextFrame(frame);
      if (frame === 0 && done < source.length)
        throw new RangeError("the container is too short for these bytes");
      size = frame === 0 ? 0 : this.frameBytes(frame);
    }
  }

  /** Copies bytes of the pool to another place in it, places counted from its first byte. They must not overlap. */
  copy(from: number, to: number, length: number): void {
    copyBytes(this.bytes, from, this.bytes, to, length);
  }

  /** The container's bytes as views, one a frame. */
  views(ref: number, offset: number, length: number): Buffer[] {
    const views: Buffer[] = [];
    let frame = ref;
    let skip = offset;
    let left = length;
    while (left > 0 && frame !== 0) {
      const part = Math.min(this.frameBytes(frame) - skip, left);
      if (part > 0) views.push(this.view(frame, skip, part));
      left -= Math.max(0, part);
      skip = Math.max(0, skip - this.frameBytes(frame));
      frame = this.nextFrame(frame);
    }
    return views;
  }

  /** A view of one frame's bytes. */
  view(ref: number, offset: number, length: number): Buffer {
    return Buffer.from(this.buffer, ref * refBytes + offset, length);
  }

  /** Frames that are allocated now, in all partitions. Exact only while no thread allocates or frees. */
  framesInUse(): number {
    let used = 0;
    this.eachUsed(() => {
      used += 1;
    });
    return used;
  }

  private free(ref: number): void {
    const { words } = this;
    const meta = this.meta + ref * metaWords;
    Atomics.store(words, meta + countWord, 0);
    const partition = Math.floor((ref - this.first) / this.stride);
    const large = words[meta + bytesWord] === largeFrameBytes;
    if (partition === this.partition) {
      const listWord = this.own + (large ? largeHead : smallHead);
      words[meta + nextWord] = words[listWord] as number;
      words[listWord] = ref;
      return;
    }
    const returnedWord = this.controls + partition * controlWords + (large ? largeReturned : smallReturned);
    let head = Atomics.load(words, returnedWord);
    for (;;) {
      words[meta + nextWord] = head;
      const seen = Atomics.compareExchange(words, returnedWord, head, ref);
      if (seen === head) return;
      head = seen;
    }
  }

  /** Calls `visit` with every ref whose count is not 0. */
  private eachUsed(visit: (ref: number) => void): void {
    const { small, partitions } = this.shape;
    for (let partition = 0; partition < partitions; partition += 1) {
      const control = this.controls + partition * controlWords;
      const start = this.first + partition * this.stride;
      const smalls = this.words[control + smallUsed] as number;
      const larges = this.words[control + largeUsed] as number;
      for (let i = 0; i < smalls; i += 1) this.visitUsed(start + i, visit);
      for (let i = 0; i < larges; i += 1) this.visitUsed(start + small + i * refsOfLarge, visit);
    }
  }

  private visitUsed(ref: number, visit: (ref: number) => void): void {
    if (Atomics.load(this.words, this.meta + ref * metaWords + countWord) !== 0) visit(ref);
  }
}
