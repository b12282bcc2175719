/**
 * What is asked of app endpoints in other threads and awaited: that a module be loaded, that a dead worker be mourned.
 *
 * Layer 1. It knows control messages; how they travel (an app worker's port, a layer-2 worker's) is its user's matter.
 */

import type { FromAppWorker, ModuleFacts, ModuleOpen, ToAppWorker } from "./app-control.ts";
import { ApoError } from "./errors.ts";
import type { Estate } from "./shard-moves.ts";

interface Pending {
  readonly party: number;
  readonly resolve: (facts: ModuleFacts | undefined) => void;
  readonly reject: (error: ApoError) => void;
  /** It is fulfilled by the endpoint's death as well. */
  readonly mourning: boolean;
}

type Tell = (message: ToAppWorker) => void;

export class ModuleCalls {
  private readonly pending = new Map<number, Pending>();
  private nextCall = 1;

  /** Loads a module in an endpoint. Rejects with `EINVAL` when it cannot be, `EWORKER` when the endpoint dies. */
  async load(party: number, open: ModuleOpen, tell: Tell): Promise<ModuleFacts> {
    const facts = await this.ask(party, false, (call) => tell({ type: "load", call, open }));
    return facts as ModuleFacts;
  }

  /** Resolves when an endpoint has told the ends of its connections in a dead worker's shards, or has died itself. */
  async unlink(party: number, index: number, dead: Estate, tell: Tell): Promise<void> {
    await this.ask(party, true, (call) => tell({ type: "unlink", call, index, dead }));
  }

  /** An endpoint has answered. */
  hear(message: Extract<FromAppWorker, { call: number }>): void {
    const pending = this.pending.get(message.call);
    if (!pending) return;
    this.pending.delete(message.call);
    if (message.type === "unlinked" || message.facts) {
      pending.resolve(message.type === "loaded" ? message.facts : undefined);
      return;
    }
    const { code = "EINVAL", message: text = "the module failed" } = message.error ?? {};
    pending.reject(new ApoError(code, text));
  }

  /** An endpoint has died: it will answer nothing. */
  died(party: number, error: Error): void {
    for (const [number, pending] of [...this.pending]) {
      if (pending.party !== party) continue;
      this.pending.delete(number);
      const text = `an app worker died while loading: ${error.message}`;
      if (pending.mourning) pending.resolve(undefined);
      else pending.reject(new ApoError("EWORKER", text, { cause: error }));
    }
  }

  private ask(
    party: number,
    mourning: boolean,
    tell: (call: number) => void,
  ): Promise<ModuleFacts | undefined> {
    const call = this.nextCall++;
    return new Promise((resolve, reject) => {
      this.pending.set(call, { party, resolve, reject, mourning });
      tell(call);
    });
  }
}
