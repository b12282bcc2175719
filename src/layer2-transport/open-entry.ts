/**
 * What the connections of one `opens` have in common in a worker: rules, counts, and objects to use again.
 *
 * Layer 2. A v-node names its `opens` by number; everything else that a connection object needs is found here.
 */

import type { Connection } from "./connection.ts";
import type { ConnectionRules, ConnectRequest, ListenerRecord } from "./transport.ts";

/** Objects that are kept for their next use, at most. */
const mostSpare = 16_384;

export class OpenEntry {
  readonly id: number;
  readonly rules: ConnectionRules;
  readonly listener: ListenerRecord | undefined;
  readonly request: ConnectRequest | undefined;
  /** Of a listener: connections now, one word a worker. */
  readonly counts: Int32Array;
  /** Nobody wants to hear of each connection. */
  readonly quiet: boolean;
  /** Connections here that have not ended. */
  connections = 0;
  /** Nothing is to be remembered when there are none any more. */
  isLast: boolean;
  private readonly spare: Connection[] = [];

  constructor(id: number, rules: ConnectionRules, listener?: ListenerRecord, request?: ConnectRequest) {
    this.id = id;
    this.rules = rules;
    this.listener = listener;
    this.request = request;
    this.counts = new Int32Array(listener?.counts ?? new SharedArrayBuffer(4));
    this.isLast = listener === undefined;
    this.quiet = (listener ?? request)?.quiet ?? false;
  }

  /** Whether all workers together have as many connections as the listener may. */
  get isFull(): boolean {
    if (!this.listener) return false;
    let sum = 0;
    for (let i = 0; i < this.counts.length; i += 1) sum += this.counts[i] as number;
    return sum >= this.listener.limit;
  }

  takeSpare(): Connection | undefined {
    return this.spare.pop();
  }

  giveBack(connection: Connection): void {
    if (this.spare.length < mostSpare) this.spare.push(connection);
  }
}
