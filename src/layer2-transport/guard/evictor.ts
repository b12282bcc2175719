/**
 * Looks over the connections that hold memory: finds slow peers, and ends the worst when memory runs short.
 *
 * Layer 2, one worker. The stack shows its active records a few at a time (`MemoryHolders`); a turn looks at a bounded
 * number and keeps the sixteen worst. Worst is who has held the most for the longest. Under some pressure only peers
 * that stand still are ended, under high pressure whoever is worst; what an app has not read yet weighs little, for
 * that is no fault of the peer.
 */

import { type Pressure, pressure } from "./memory-ceiling.ts";

/** What the TCP stack offers. */
export interface MemoryHolders {
  /**
   * Goes over the active records from `cursor` (0: the first), at most `most` of them. The next cursor; 0 when the end
   * has been reached.
   */
  holders(cursor: number, most: number, visitor: HolderVisitor): number;
  /** Ends a connection with a reset; its `ended` says "reset" with `ENOBUFS`. */
  evict(sockfd24: number): void;
}

export interface HolderVisitor {
  /**
   * One connection. `receivedBytes`: frames out of order or unread. `queuedBytes`: queued or not acknowledged.
   * `stalledMs`: for how long the peer has taken nothing of that, its window being closed or not.
   */
  holder(
    sockfd24: number,
    receivedBytes: number,
    queuedBytes: number,
    stalledMs: number,
    words: Int32Array,
    at: number,
    wordCount: 1 | 4,
  ): void;
}

/** What the guard is told. */
export interface EvictorEvents {
  slow(words: Int32Array, at: number, wordCount: 1 | 4): void;
  /** A connection has been ended, whose peer this is. */
  evicted(words: Int32Array, at: number, wordCount: 1 | 4): void;
}

const worstPlaces = 16;
const recordsCalm = 256;
const recordsUnderPressure = 4096;
/** A peer that took nothing for so long may be ended under some pressure. */
const stillMs = 2000;
/** What unread bytes weigh beside queued ones. */
const unreadWeight = 0.25;

export class Evictor implements HolderVisitor {
  /** Slow peers in the last whole look over all connections. */
  slowPeers = 0;
  private readonly holders: MemoryHolders;
  private readonly events: EvictorEvents;
  private readonly stallMs: number;
  private cursor = 0;
  private slowSoFar = 0;
  private stillOnly = true;
  private found = 0;
  private least = 0;
  private readonly sockfds = new Int32Array(worstPlaces);
  private readonly scores = new Float64Array(worstPlaces);
  private readonly bytes = new Float64Array(worstPlaces);
  private readonly words = new Int32Array(4 * worstPlaces);
  private readonly wordCounts = new Uint8Array(worstPlaces);

  constructor(holders: MemoryHolders, events: EvictorEvents, stallMs: number) {
    this.holders = holders;
    this.events = events;
    this.stallMs = stallMs;
  }

  /** One look. `excess`: bytes that should go. How many connections were ended. */
  turn(level: Pressure, excess: number): number {
    this.found = 0;
    this.least = 0;
    this.stillOnly = level < pressure.high;
    const most = level === pressure.none ? recordsCalm : recordsUnderPressure;
    this.cursor = this.holders.holders(this.cursor, most, this);
    if (this.cursor === 0) {
      this.slowPeers = this.slowSoFar;
      this.slowSoFar = 0;
    }
    return level === pressure.none ? 0 : this.evict(excess);
  }

  holder(
    sockfd24: number,
    receivedBytes: number,
    queuedBytes: number,
    stalledMs: number,
    words: Int32Array,
    at: number,
    wordCount: 1 | 4,
  ): void {
    if (stalledMs >= this.stallMs && queuedBytes > 0) {
      this.slowSoFar += 1;
      this.events.slow(words, at, wordCount);
    }
    if (this.stillOnly && stalledMs < Math.min(stillMs, this.stallMs)) return;
    const score = (queuedBytes + unreadWeight * receivedBytes) * (1 + stalledMs / 1000);
    if (score <= 0) return;
    const place = this.found < worstPlaces ? this.found++ : this.least;
    if (this.found === worstPlaces && place === this.least && score <= (this.scores[place] as number)) return;
    this.sockfds[place] = sockfd24;
    this.scores[place] = score;
    this.bytes[place] = queuedBytes + receivedBytes;
    this.wordCounts[place] = wordCount;
    for (let i = 0; i < wordCount; i += 1) this.words[4 * place + i] = words[at + i] as number;
    this.findLeast();
  }

  private findLeast(): void {
    this.least = 0;
    for (let place = 1; place < this.found; place += 1) {
      if ((this.scores[place] as number) < (this.scores[this.least] as number)) this.least = place;
    }
  }

  private evict(excess: number): number {
    let left = excess;
    let ended = 0;
    while (left > 0) {
      let worst = -1;
      for (let place = 0; place < this.found; place += 1) {
        const score = this.scores[place] as number;
        if (score > 0 && (worst < 0 || score > (this.scores[worst] as number))) worst = place;
      }
      if (worst < 0) break;
      this.scores[worst] = 0;
      left -= this.bytes[worst] as number;
      ended += 1;
      this.events.evicted(this.words, 4 * worst, this.wordCounts[worst] as 1 | 4);
      this.holders.evict(this.sockfds[worst] as number);
    }
    return ended;
  }
}
