/**
 * Who owns which shard of the v-node table: given out at the start, moved when a worker dies, given back to its heir.
 *
 * Layer 1. A dead worker's shards go to the others at once, who serve new connections there while the apps are still
 * being told of the ends of the old ones; a record's tag says whose it was. Connections never move: an heir gets back
 * those of its shards that nobody uses. It knows numbers and messages, and nothing of threads or v-nodes.
 */

import { shards, type ToWorker } from "../layer2-transport/index.ts";

/** How often those who have a fresh worker's shards are asked for them. */
const askMs = 1000;
const nobody = -1;
/** A tag's bit that differs between a worker and its successor. */
const otherLife = 16;

/** How workers are spoken to. */
export interface ShardMovesHost {
  post(index: number, message: ToWorker): void;
  /** Asks a worker which of these shards it gives up. */
  disown(index: number, shards: readonly number[]): Promise<readonly number[]>;
}

/** What a dead worker has left. */
export interface Estate {
  readonly shards: readonly number[];
  readonly tag: number;
}

export class ShardMoves {
  /** For every thread to see: a worker's index + 1, or 0. Who adopts a shard writes it there. */
  readonly owners = new SharedArrayBuffer(4 * shards);
  private readonly host: ShardMovesHost;
  private readonly count: number;
  /** By shard: whose it is or is about to be. */
  private readonly assigned: number[];
  private readonly lives: number[];
  private readonly alive: boolean[];
  /** A bit for the tag of each dead worker of whose connections not all apps have been told the end. */
  private untold = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(count: number, host: ShardMovesHost) {
    this.count = count;
    this.host = host;
    this.assigned = Array.from({ length: shards }, () => nobody);
    this.lives = Array.from({ length: count }, () => 0);
    this.alive = Array.from({ length: count }, () => false);
  }

  /** The tag of the worker's present life. */
  tagOf(index: number): number {
    return index | (((this.lives[index] as number) & 1) * otherLife);
  }

  /** The shards that a worker starts with when the runtime starts; its successors begin with none. */
  first(index: number): readonly number[] {
    if ((this.lives[index] as number) > 0) return [];
    const own = this.homeOf(index);
    for (const shard of own) this.assigned[shard] = index;
    this.alive[index] = true;
    return own;
  }

  /** A worker has died: its shards go to the others. What it leaves must be told to the apps, and then be `buried`. */
  died(index: number): Estate {
    const tag = this.tagOf(index);
    const words = new Int32Array(this.owners);
    const left: number[] = [];
    for (let shard = 0; shard < shards; shard += 1) {
      if (this.assigned[shard] !== index) continue;
      Atomics.store(words, shard, 0);
      this.assigned[shard] = nobody;
      left.push(shard);
    }
    this.alive[index] = false;
    this.lives[index] = (this.lives[index] as number) + 1;
    this.untold |= 1 << tag;
    this.assignFree();
    return { shards: left, tag };
  }

  /** All apps know of the ends of a dead worker's connections: their records are free. */
  bury({ shards: left, tag }: Estate): void {
    this.untold &= ~(1 << tag);
    for (let index = 0; index < this.count; index += 1) {
      const held = left.filter((shard) => this.assigned[shard] === index);
      if (held.length > 0) this.host.post(index, { type: "bury", shards: held, tag });
    }
  }

  /** A dead worker's successor can serve: it listens where the others do. */
  replaced(index: number): void {
    this.alive[index] = true;
    this.assignFree();
    void this.giveBack();
  }

  close(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.alive.fill(false);
  }

  private homeOf(index: number): readonly number[] {
    const own: number[] = [];
    for (let shard = index; shard < shards; shard += this.count) own.push(shard);
    return own;
  }

  /** Shards that are nobody's go to those who are there, in turn. */
  private assignFree(): void {
    const heirs = this.alive.flatMap((isAlive, index) => (isAlive ? [index] : []));
    if (heirs.length === 0) return;
    const given = new Map<number, number[]>();
    let next = 0;
    for (let shard = 0; shard < shards; shard += 1) {
      if (this.assigned[shard] !== nobody) continue;
      const home = shard % this.count;
      const heir = this.alive[home] ? home : (heirs[next++ % heirs.length] as number);
      this.assigned[shard] = heir;
      given.set(heir, [...(given.get(heir) ?? []), shard]);
    }
    for (const [heir, list] of given) {
      this.host.post(heir, { type: "adopt", shards: list, untold: this.untold });
    }
  }

  /** Asks for the shards that are not with the workers that they were given to at the start. */
  private async giveBack(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    const asked: Promise<void>[] = [];
    for (let index = 0; index < this.count; index += 1) {
      if (!this.alive[index]) continue;
      const away = [...this.assigned.keys()].filter((shard) => {
        const home = shard % this.count;
        return this.assigned[shard] === index && home !== index && this.alive[home];
      });
      if (away.length > 0) asked.push(this.ask(index, away));
    }
    if (asked.length === 0) return;
    await Promise.all(asked);
    if (!this.alive.includes(true)) return;
    this.timer = setTimeout(() => void this.giveBack(), askMs).unref();
  }

  private async ask(index: number, away: readonly number[]): Promise<void> {
    let given: readonly number[];
    try {
      given = await this.host.disown(index, away);
    } catch {
      return; // It died, and with that its shards have been given out anew.
    }
    for (const shard of given) if (this.assigned[shard] === index) this.assigned[shard] = nobody;
    this.assignFree();
  }
}
