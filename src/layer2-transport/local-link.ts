/**
 * A link within one thread: between a worker's dispatcher and an app endpoint that lives beside it.
 *
 * Layer 2, used by both sides alike. It has the face of `Link` without rings, atomics or ports: what is posted waits in
 * a plain queue until the other side's turn comes, which is in the same turn of the worker. It knows no descriptors.
 */

import type { LinkEnd } from "./link.ts";
import { descriptorWords } from "./link.ts";

/** Descriptors that fit at first; the queue doubles when they do not. */
const firstCapacity = 256;
/** A queue that was longer than this is given up when it is empty. */
const keptCapacity = 65_536;

/** Handles one descriptor, whose words start at `at`. It may post, also to the queue that is being taken from. */
export type TakeDescriptor = (words: Int32Array, at: number) => void;

/** Descriptors in one direction. */
class LocalQueue {
  private words = new Int32Array(firstCapacity * descriptorWords);
  private first = 0;
  private end = 0;

  get isEmpty(): boolean {
    return this.first === this.end;
  }

  /** Where the eight words of the next descriptor go, in `space`. */
  reserve(): number {
    if (this.end === this.words.length) this.makeRoom();
    const at = this.end;
    this.end += descriptorWords;
    return at;
  }

  get space(): Int32Array {
    return this.words;
  }

  /** Hands over at most `most` descriptors, those among them that come meanwhile. Returns how many. */
  take(most: number, receive: TakeDescriptor): number {
    let taken = 0;
    while (taken < most && this.first < this.end) {
      const at = this.first;
      this.first += descriptorWords;
      taken += 1;
      // While it is looked at, its words stay where they are: room is made in a fresh array.
      receive(this.words, at);
    }
    if (this.first === this.end) this.empty();
    return taken;
  }

  private empty(): void {
    this.first = 0;
    this.end = 0;
    if (this.words.length > keptCapacity * descriptorWords) {
      this.words = new Int32Array(firstCapacity * descriptorWords);
    }
  }

  private makeRoom(): void {
    const held = this.end - this.first;
    const grown = new Int32Array(held * 2 > this.words.length ? this.words.length * 2 : this.words.length);
    grown.set(this.words.subarray(this.first, this.end));
    this.words = grown;
    this.first = 0;
    this.end = held;
  }
}

/** One end of a link within a thread. */
export class LocalLink implements LinkEnd {
  readonly peer: number;
  isClosed = false;
  private readonly outgoing: LocalQueue;
  private readonly incoming: LocalQueue;
  private readonly posted: () => void;

  /** `posted` is called with every descriptor: see to it that the other end takes it. */
  constructor(peer: number, outgoing: LocalQueue, incoming: LocalQueue, posted: () => void) {
    this.peer = peer;
    this.outgoing = outgoing;
    this.incoming = incoming;
    this.posted = posted;
  }

  get overflowing(): boolean {
    return false;
  }

  post(
    kindWord: number,
    sockfd: number,
    generation: number,
    frame: number,
    offset: number,
    length: number,
    arg0: number,
    arg1: number,
  ): void {
    const slot = this.outgoing.reserve();
    const words = this.outgoing.space;
    words[slot] = kindWord;
    words[slot + 1] = sockfd;
    words[slot + 2] = generation;
    words[slot + 3] = frame;
    words[slot + 4] = offset;
    words[slot + 5] = length;
    words[slot + 6] = arg0;
    words[slot + 7] = arg1;
    this.posted();
  }

  /** Nothing to do: there is nobody to wake. */
  flush(): void {}

  drained(): undefined {
    return undefined;
  }

  /** Handles at most `most` of the descriptors that the other end has posted. Returns how many. */
  take(most: number, receive: TakeDescriptor): number {
    return this.incoming.take(most, receive);
  }

  takeAll(receive: TakeDescriptor): void {
    while (!this.incoming.isEmpty) this.incoming.take(Number.MAX_SAFE_INTEGER, receive);
  }

  close(): void {
    this.isClosed = true;
  }
}

/** Both ends of a link within the thread of `party`. `posted` is called with every descriptor from either end. */
export function createLocalLink(party: number, posted: () => void): { worker: LocalLink; app: LocalLink } {
  const down = new LocalQueue();
  const up = new LocalQueue();
  return {
    worker: new LocalLink(party, up, down, posted),
    app: new LocalLink(party, down, up, posted),
  };
}
