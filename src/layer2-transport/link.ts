/**
 * The two rings between an app endpoint and a layer-2 worker, and the port that wakes whoever sleeps.
 *
 * Layer 2, used by both sides alike. A `Link` is one end; a `Mailbox` serves all the links of a thread: it takes a
 * bounded number of descriptors a turn, publishes what was posted once a batch, and sleeps when nothing is left.
 * Nothing here knows what a descriptor means.
 */

import type { MessagePort } from "node:worker_threads";
import { wakeWorker } from "../layer3-ip/packet-port.ts";
import { createRing, descriptorWords, RingConsumer, RingProducer } from "../layer3-ip/ring.ts";

export { wakeWorker } from "../layer3-ip/packet-port.ts";
export { createPool, FramePool, largeFrameBytes, shapeFor, smallFrameBytes } from "../layer3-ip/pool.ts";
export { descriptorWords, field } from "../layer3-ip/ring.ts";

/** Descriptors of one link that are handled before others get their turn. */
const descriptorsPerTurn = 512;
/** A turn also ends after this time, looked at every few descriptors: what slow handlers answered must get out. */
const turnMs = 2;
const clockEvery = 8;
/** An end to what `exhaust` does, should somebody send faster than it handles: 2 million descriptors. */
const exhaustTurns = 4096;
/** Descriptors a ring holds: 128 KiB of memory, a thousand messages in both directions at once. */
const ringCapacity = 4096;
/** How long a full ring is left alone before it is tried again. */
const retryMs = 1;

/** The shared memory of a link. `down` leads to the worker, `up` to the app. */
export interface LinkMemory {
  readonly down: SharedArrayBuffer;
  readonly up: SharedArrayBuffer;
  /** The port words of a worker that sleeps on its doorbell (a raw link's): it is rung and not posted to. */
  readonly doorbell?: SharedArrayBuffer | undefined;
  /** Likewise where the app's side is in such a worker. */
  readonly upDoorbell?: SharedArrayBuffer | undefined;
}

export function createLinkMemory(doorbell?: SharedArrayBuffer, upDoorbell?: SharedArrayBuffer): LinkMemory {
  return { down: createRing(ringCapacity), up: createRing(ringCapacity), doorbell, upDoorbell };
}

/** One end of a link, whatever it is made of: `Link` between threads, `LocalLink` within one. */
export interface LinkEnd {
  /** The other side's number: a worker's index, or an app endpoint's party. */
  readonly peer: number;
  /** Descriptors wait in this thread because the other side does not keep up. */
  readonly overflowing: boolean;
  readonly isClosed: boolean;
  /** Posts a descriptor. It leaves with the batch; order is kept. */
  post(
    kindWord: number,
    sockfd: number,
    generation: number,
    frame: number,
    offset: number,
    length: number,
    arg0: number,
    arg1: number,
  ): void;
  /** Publishes what was posted. */
  flush(): void;
  /** Resolves when no descriptor of this link waits in this thread; undefined: none does. */
  drained(): Promise<void> | undefined;
  /** Takes what the other side has posted and nobody has read: before the end. */
  takeAll(receive: (words: Int32Array, at: number) => void): void;
  close(): void;
}

export class Link implements LinkEnd {
  readonly peer: number;
  isClosed = false;
  readonly incoming: RingConsumer;
  readonly port: MessagePort;
  private readonly outgoing: RingProducer;
  private readonly doorbell: Uint32Array | undefined;
  private readonly mailbox: Mailbox;
  private readonly overflow: number[] = [];
  private overflowAt = 0;
  private timer: NodeJS.Timeout | undefined;
  private waiters: (() => void)[] = [];

  constructor(mailbox: Mailbox, side: "app" | "worker", peer: number, memory: LinkMemory, port: MessagePort) {
    this.mailbox = mailbox;
    this.peer = peer;
    this.port = port;
    this.outgoing = new RingProducer(side === "app" ? memory.down : memory.up);
    const doorbell = side === "app" ? memory.doorbell : memory.upDoorbell;
    this.doorbell = doorbell && new Uint32Array(doorbell);
    this.incoming = new RingConsumer(side === "app" ? memory.up : memory.down);
    port.on("message", mailbox.wake);
    port.unref();
  }

  /** Whether the ring is full and descriptors wait in this thread. */
  get overflowing(): boolean {
    return this.overflowAt < this.overflow.length;
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
    const slot = this.overflowing ? -1 : this.outgoing.reserve();
    if (slot < 0) {
      this.overflow.push(kindWord, sockfd, generation, frame, offset, length, arg0, arg1);
    } else {
      const words = this.outgoing.words;
      words[slot] = kindWord;
      words[slot + 1] = sockfd;
      words[slot + 2] = generation;
      words[slot + 3] = frame;
      words[slot + 4] = offset;
      words[slot + 5] = length;
      words[slot + 6] = arg0;
      words[slot + 7] = arg1;
    }
    this.mailbox.schedule();
  }

  /** Publishes what was posted, and wakes the other side if it sleeps. */
  flush(): void {
    if (this.isClosed) return;
    if (this.overflowing) this.refill();
    if (!this.outgoing.publish()) return;
    if (this.doorbell === undefined || !wakeWorker(this.doorbell)) this.port.postMessage(0);
  }

  drained(): Promise<void> | undefined {
    if (!this.overflowing) return undefined;
    return new Promise((resolve) => {
      this.waiters.push(resolve);
    });
  }

  takeAll(receive: (words: Int32Array, at: number) => void): void {
    const { incoming } = this;
    for (let at = incoming.take(); at >= 0; at = incoming.take()) receive(incoming.words, at);
    incoming.release();
  }

  /** Ends the link; what waits is forgotten. */
  close(): void {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.overflow.length = 0;
    this.overflowAt = 0;
    this.port.close();
    this.tellWaiters();
  }

  private refill(): void {
    const { overflow, outgoing } = this;
    while (this.overflowAt < overflow.length) {
      const slot = outgoing.reserve();
      if (slot < 0) break;
      for (let i = 0; i < descriptorWords; i += 1) {
        outgoing.words[slot + i] = overflow[this.overflowAt + i] as number;
      }
      this.overflowAt += descriptorWords;
    }
    if (this.overflowAt === overflow.length) {
      overflow.length = 0;
      this.overflowAt = 0;
      this.tellWaiters();
      return;
    }
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.flush();
    }, retryMs);
  }

  private tellWaiters(): void {
    const waiters = this.waiters;
    this.waiters = [];
    for (const resolve of waiters) resolve();
  }
}

/** A link whose other side is not there any more: what is posted is forgotten. */
export const noLink: LinkEnd = {
  peer: -1,
  overflowing: false,
  isClosed: true,
  post() {},
  flush() {},
  drained() {
    return undefined;
  },
  takeAll() {},
  close() {},
};

/** Handles one descriptor, whose words start at `at`. Returning true ends the turn early. */
export type Receive = (link: Link, words: Int32Array, at: number) => boolean | undefined;

export class Mailbox {
  /** Wakes the mailbox: bound, so that it can be a listener. */
  readonly wake: () => void;
  private readonly links: Link[] = [];
  private readonly receive: Receive;
  private readonly later: (run: () => void) => void;
  private readonly flushAll: () => void;
  private scheduled = false;
  private turnPending = false;
  private busy = false;

  /** `later` is `queueMicrotask` or `setImmediate`: when a batch that nobody ends is published. */
  constructor(receive: Receive, later: (run: () => void) => void) {
    this.receive = receive;
    this.later = later;
    this.wake = () => this.turn();
    this.flushAll = () => {
      this.scheduled = false;
      for (const link of this.links) link.flush();
    };
  }

  add(link: Link): void {
    this.links.push(link);
    this.wakeSoon();
  }

  /** Takes a link out and ends it. */
  remove(link: Link): void {
    const at = this.links.indexOf(link);
    if (at >= 0) this.links.splice(at, 1);
    link.close();
  }

  /** Publishes what was posted, now. */
  flush(): void {
    for (const link of this.links) link.flush();
  }

  /** Sees to it that posts are published soon; at the end of the turn when one is under way. */
  schedule(): void {
    if (this.scheduled || this.busy) return;
    this.scheduled = true;
    this.later(this.flushAll);
  }

  close(): void {
    for (const link of this.links.splice(0)) link.close();
  }

  private wakeSoon(): void {
    if (this.turnPending) return;
    this.turnPending = true;
    setImmediate(() => {
      this.turnPending = false;
      this.turn();
    });
  }

  /** Handles all that has come by now, whatever it takes: before an end that must not overtake it. */
  exhaust(): void {
    for (let turns = 0; turns < exhaustTurns && this.turn(); turns += 1);
  }

  /** One turn of every link. True: descriptors are left. */
  private turn(): boolean {
    if (this.busy) return false;
    this.busy = true;
    let more = false;
    try {
      for (const link of [...this.links]) more = this.serve(link) || more;
    } finally {
      this.busy = false;
      for (const link of this.links) link.flush();
    }
    if (more) this.wakeSoon();
    return more;
  }

  /** One link's turn. True: descriptors are left. */
  private serve(link: Link): boolean {
    const { incoming } = link;
    incoming.wake();
    const endMs = performance.now() + turnMs;
    for (let count = 0; count < descriptorsPerTurn; count += 1) {
      if (count % clockEvery === 0 && count > 0 && performance.now() > endMs) break;
      const at = incoming.take();
      if (at < 0) {
        incoming.release();
        if (incoming.sleep()) return false;
        continue;
      }
      if (this.receive(link, incoming.words, at)) break;
    }
    incoming.release();
    return true;
  }
}
