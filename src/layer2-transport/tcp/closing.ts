/**
 * The end of a connection: in order by FIN, at once by RST, and the wait after it.
 *
 * Layer 2, TCP (RFC 9293 3.6 and 3.10.4, RFC 1337). In TIME-WAIT a connection is its v-node and a timer again.
 */

import type { ErrorCode } from "../../layer1-app/errors.ts";
import type { CloseCode } from "../descriptor.ts";
import { node, nodeState } from "../nodes/v-node.ts";
import type { StackCore } from "./core.ts";
import type { Output } from "./output.ts";
import type { Rest } from "./rest.ts";
import { type Tcb, tcpState } from "./tcb.ts";

export class Closing {
  private readonly core: StackCore;
  private readonly output: Output;
  private readonly rest: Rest;

  constructor(core: StackCore, output: Output, rest: Rest) {
    this.core = core;
    this.output = output;
    this.rest = rest;
  }

  /** Nothing more is sent after what is queued; the other direction goes on. */
  shutdown(tcb: Tcb): void {
    if (tcb.finWanted) return;
    tcb.finWanted = true;
    this.core.markDirty(tcb);
  }

  /** Nothing more is sent, and nobody reads: what comes is acknowledged and dropped. */
  end(tcb: Tcb): void {
    const { core } = this;
    if (tcb.ending) return;
    tcb.ending = true;
    tcb.endAwaited = false;
    if (tcb.over) {
      this.core.finish(tcb, "end");
      return;
    }
    const { lingerMs, finTimeoutMs } = tcb.options;
    if (lingerMs === 0) {
      this.abort(tcb, true);
      return;
    }
    tcb.discarding = true;
    core.context.admission.account.received -= tcb.unread.bytes;
    tcb.unread.clear();
    tcb.finWanted = true;
    if (lingerMs > 0) tcb.closeAtUs = core.nowUs + 1000 * lingerMs;
    else if (tcb.state === tcpState.finWait2) tcb.closeAtUs = core.nowUs + 1000 * finTimeoutMs;
    core.markDirty(tcb);
  }

  /** Ends at once; `reset` tells the peer. */
  abort(tcb: Tcb, reset: boolean, code: CloseCode = "reset", error?: ErrorCode): void {
    const { state } = tcb;
    const isSynchronised = state >= tcpState.synReceived && state !== tcpState.timeWait;
    if (reset && isSynchronised) this.output.sendReset(tcb);
    this.core.finish(tcb, code, error);
  }

  /** Both FINs are acknowledged: the number stays taken for a while, so that old segments find nobody new. */
  timeWait(tcb: Tcb): void {
    const { core } = this;
    const { sockfd24, base } = tcb;
    const untilMs = (core.nowMs + tcb.options.timeWaitMs) | 0;
    core.tellEnded(tcb, "end");
    if (tcb.options.timeWaitMs === 0) {
      core.finish(tcb, "end");
      return;
    }
    tcb.told = false;
    this.rest.rest(tcb);
    core.context.counters.add("layer2.tcp.time-waits");
    core.context.wheel.arm(sockfd24, untilMs);
    void base;
  }

  /** A connection at rest in TIME-WAIT, or one that nobody has use for any more, goes. */
  expire(sockfd24: number, base: number): void {
    const { core } = this;
    core.forget(sockfd24, base, core.words[base + node.open] as number);
    if (core.words[base + node.state] === nodeState.transport) core.context.nodes.release(sockfd24);
  }
}
