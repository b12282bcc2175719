/**
 * Cuts off connections that are to end and whose peers take nothing of what is still queued for them.
 *
 * Layer 2. One timer looks at all of them, so a connection that is closed costs no timer of its own. A peer that reads
 * nothing must not keep a closed connection for ever; one with a linger time is not waited for longer than that.
 */

import type { Connection } from "./connection.ts";

/** How long a connection that is to end may go without a container taken before it is cut off. */
const stalledMs = 30_000;
const lookMs = 250;

interface Watched {
  readonly connection: Connection;
  /** The object may have been given to another connection meanwhile. */
  readonly epoch: number;
  /** Not waited for any longer; Infinity: as long as it goes on. */
  readonly endMs: number;
  completed: number;
  stalledAtMs: number;
}

export class ClosingWatch {
  private readonly cutOff: (connection: Connection) => void;
  private watched: Watched[] = [];
  private timer: NodeJS.Timeout | undefined;

  constructor(cutOff: (connection: Connection) => void) {
    this.cutOff = cutOff;
  }

  /** `lingerMs` negative: what is queued may take as long as the peer goes on taking it. */
  add(connection: Connection, lingerMs: number): void {
    const nowMs = performance.now();
    const { epoch, completed } = connection;
    const endMs = lingerMs < 0 ? Infinity : nowMs + lingerMs;
    this.watched.push({ connection, epoch, endMs, completed, stalledAtMs: nowMs + stalledMs });
    this.timer ??= setInterval(() => this.look(), lookMs).unref();
  }

  close(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.watched = [];
  }

  private look(): void {
    const nowMs = performance.now();
    const { watched } = this;
    this.watched = [];
    for (const entry of watched) if (this.isWaiting(entry, nowMs)) this.watched.push(entry);
    if (this.watched.length === 0) this.close();
  }

  /** Whether it is to be looked at again. */
  private isWaiting(entry: Watched, nowMs: number): boolean {
    const { connection } = entry;
    if (connection.epoch !== entry.epoch || connection.ended) return false;
    const isQueued = connection.completed !== connection.submitted;
    if (!isQueued && entry.endMs === Infinity) return false;
    if (connection.completed !== entry.completed || connection.file !== undefined) {
      entry.completed = connection.completed;
      entry.stalledAtMs = nowMs + stalledMs;
    }
    if (nowMs < entry.endMs && nowMs < entry.stalledAtMs) return true;
    this.cutOff(connection);
    return false;
  }
}
