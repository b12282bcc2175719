/**
 * Answers that a stranger could ask for without end: challenge ACKs and duplicate ACKs, within an allowance.
 *
 * Layer 2, TCP (RFC 5961 7). The allowance is a connection's own and a little random: a common one tells strangers
 * who talks to whom (CVE-2016-5696).
 */

import type { StackCore } from "./core.ts";
import { chargeChallenge } from "./security/challenge.ts";
import type { Tcb } from "./tcb.ts";

export class Challenge {
  private readonly core: StackCore;

  constructor(core: StackCore) {
    this.core = core;
  }

  /** Says what we expect, if the connection has not said it too often lately. */
  send(tcb: Tcb): void {
    if (!this.allows(tcb)) return;
    tcb.ackNow = true;
    this.core.markDirty(tcb);
  }

  /** Takes one from the allowance. False: there is none left just now. */
  allows(tcb: Tcb): boolean {
    const { core } = this;
    const next = chargeChallenge(tcb.challenge, core.timeMs, core.context.random.word());
    if (next < 0) {
      core.context.counters.add("layer2.tcp.drop.challenge-limit");
      return false;
    }
    tcb.challenge = next;
    core.context.counters.add("layer2.tcp.challenge-acks");
    return true;
  }
}
