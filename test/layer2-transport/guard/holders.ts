/** A stack's connections as the guard sees them, made up: for tests of the evictor and of the guard. */
import type { HolderVisitor, MemoryHolders } from "../../../src/layer2-transport/guard/evictor.ts";
import type { MemoryAccount } from "../../../src/layer2-transport/tcp/admission.ts";

export interface Held {
  readonly sockfd24: number;
  received: number;
  queued: number;
  stalledMs: number;
  readonly address: number;
}

/** Keeps the account as the stack does. */
export class FakeHolders implements MemoryHolders {
  readonly held = new Map<number, Held>();
  readonly evicted: number[] = [];
  /** The most that were looked at in one call. */
  mostLooked = 0;
  private readonly account: MemoryAccount | undefined;
  private readonly closed: ((held: Held) => void) | undefined;

  constructor(account?: MemoryAccount, closed?: (held: Held) => void) {
    this.account = account;
    this.closed = closed;
  }

  add(held: Held): void {
    this.held.set(held.sockfd24, held);
    if (!this.account) return;
    this.account.received += held.received;
    this.account.queued += held.queued;
  }

  holders(cursor: number, most: number, visitor: HolderVisitor): number {
    const all = [...this.held.values()];
    const end = Math.min(all.length, cursor + most);
    this.mostLooked = Math.max(this.mostLooked, end - cursor);
    for (const { sockfd24, received, queued, stalledMs, address } of all.slice(cursor, end)) {
      visitor.holder(sockfd24, received, queued, stalledMs, Int32Array.of(address), 0, 1);
    }
    return end === all.length ? 0 : end;
  }

  evict(sockfd24: number): void {
    const held = this.held.get(sockfd24);
    if (!held) throw new Error(`no connection ${sockfd24}`);
    this.held.delete(sockfd24);
    this.evicted.push(sockfd24);
    if (this.account) {
      this.account.received -= held.received;
      this.account.queued -= held.queued;
    }
    this.closed?.(held);
  }
}
