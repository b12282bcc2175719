/**
 * Ends of many connections at once: of a listener, of an app endpoint that has died, of all when the worker stops.
 *
 * Layer 2. There may be millions, so they are gone over in slices between which packets and messages have their turn,
 * and only so many are on their way to an end in order at a time: each of those needs memory until its peer agrees.
 */

import type { CloseCode } from "./descriptor.ts";
import { NodeWalk } from "./node-walk.ts";
import type { NodeTable } from "./nodes/node-table.ts";
import { node, nodeState } from "./nodes/v-node.ts";

/** Records that are looked at in one go. */
const slice = 16_384;
/** Connections that are told to end in one go: what their peers answer must find room. */
const toldAtOnce = 512;
/** While fewer are on their way to an end, the next are told at once; */
const endingFew = 1024;
/** beyond, these are told now and then (peers may take their time), */
const toldNow = 256;
const thenMs = 2;
/** and with so many nobody is: each takes memory. */
const endingMost = 65_536;
/** Records that are looked at between counts of how many have been told. */
const finer = 64;

/** What the endings ask of the dispatcher. */
export interface EndingsHost {
  /** Ends the connection once what was sent is out. */
  finishNode(sockfd24: number, generation: number, code: CloseCode): void;
  /** Ends the connection at once, with a reset. */
  abortNode(sockfd24: number, generation: number, code: CloseCode): void;
  /** Ends it, and nobody is told; one that has ended already is forgotten. */
  orphanNode(sockfd24: number, generation: number): void;
  /** Connections that are on their way to an end in order. */
  readonly endingCount: number;
}

export class Endings {
  private readonly table: NodeTable;
  private readonly host: EndingsHost;
  private stopped = false;

  constructor(table: NodeTable, host: EndingsHost) {
    this.table = table;
    this.host = host;
  }

  /** Ends the connections of one `opens`, or all, in order. A few are told when this returns, the others soon after. */
  finish(openId: number | undefined, code: CloseCode): void {
    const { words } = this.table;
    let told = 0;
    const walk = new NodeWalk(this.table, (sockfd24, base, state) => {
      if (state !== nodeState.open) return;
      if (openId !== undefined && words[base + node.open] !== openId) return;
      told += 1;
      this.host.finishNode(sockfd24, words[base + node.generation] as number, code);
    });
    const step = (): void => {
      if (this.stopped) return;
      const isBusy = this.host.endingCount >= endingFew;
      const most = this.host.endingCount >= endingMost ? 0 : isBusy ? toldNow : toldAtOnce;
      told = 0;
      let more = true;
      for (let looked = 0; more && told < most && looked < slice; looked += finer) more = walk.next(finer);
      if (!more) return;
      if (isBusy) setTimeout(step, thenMs);
      else setImmediate(step);
    };
    step();
  }

  /** Ends all at once, for as long as there is time. From here on `finish` does nothing more. */
  async abortAll(code: CloseCode, deadlineMs: number): Promise<void> {
    this.stopped = true;
    const { words } = this.table;
    const walk = new NodeWalk(this.table, (sockfd24, base, state) => {
      if (state === nodeState.open)
        this.host.abortNode(sockfd24, words[base + node.generation] as number, code);
    });
    while (walk.next(toldAtOnce) && performance.now() < deadlineMs) await nextTurn();
  }

  /** The app endpoint `party` has died: its connections end. Resolves when none of them is left. */
  async orphan(party: number): Promise<void> {
    const { words } = this.table;
    const walk = new NodeWalk(this.table, (sockfd24, base, state) => {
      if (state !== nodeState.open && state !== nodeState.ended) return;
      if (this.table.endpointAt(base) !== party) return;
      this.host.orphanNode(sockfd24, words[base + node.generation] as number);
    });
    while (walk.next(slice)) await nextTurn();
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
