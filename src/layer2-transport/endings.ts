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
/** Connections that may be ending in order while more are told to. */
const endingMost = 8192;
const retryMs = 2;

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

  /** Ends the connections of one `opens`, or all, in order. What fits into one go is done when this returns. */
  finish(openId: number | undefined, code: CloseCode): void {
    const { words } = this.table;
    const walk = new NodeWalk(this.table, (sockfd24, base, state) => {
      if (state !== nodeState.open) return;
      if (openId !== undefined && words[base + node.open] !== openId) return;
      this.host.finishNode(sockfd24, words[base + node.generation] as number, code);
    });
    const step = (): void => {
      if (this.stopped) return;
      if (this.host.endingCount > endingMost) {
        setTimeout(step, retryMs);
      } else if (walk.next(slice)) {
        setImmediate(step);
      }
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
    while (walk.next(slice) && performance.now() < deadlineMs) await nextTurn();
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
