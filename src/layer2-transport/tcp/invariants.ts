/**
 * What must hold of every connection between turns; the simulator asks after every event.
 *
 * Layer 2, TCP. Costs a walk over all active records: not for production.
 */

import { node, nodeState } from "../nodes/v-node.ts";
import type { StackCore } from "./core.ts";
import { type Tcb, tcpState } from "./tcb.ts";

const windowMax = 2 ** 30;

/** What is wrong, in words; nothing when all is well. */
export function invariantsOf(core: StackCore): string[] {
  const wrong: string[] = [];
  const active = core.active();
  if (active.length !== core.activeCount) wrong.push(`${active.length} records, ${core.activeCount} counted`);
  let halfOpen = 0;
  for (const tcb of active) {
    if (tcb.halfOpen) halfOpen += 1;
    for (const text of wrongWith(core, tcb)) wrong.push(`sockfd24 ${tcb.sockfd24}: ${text}`);
  }
  if (halfOpen !== core.halfOpenCount) wrong.push(`${halfOpen} half-open, ${core.halfOpenCount} counted`);
  return wrong;
}

function wrongWith(core: StackCore, tcb: Tcb): string[] {
  const wrong: string[] = [];
  const check = (isRight: boolean, text: string): void => {
    if (!isRight) wrong.push(text);
  };
  const { recovery, queue } = tcb;
  const out = (tcb.sendNext - tcb.sendUna) | 0;
  const state = core.words[tcb.base + node.state] as number;
  check(core.words[tcb.base + node.active] === tcb.index, "its v-node names another record");
  check(state !== nodeState.free, "its v-node is free");
  check(tcb.state !== tcpState.closed, "a closed connection has a record");
  check(out >= 0, `SND.NXT lies ${-out} before SND.UNA`);
  check(out <= windowMax + 1, `${out} bytes are out`);
  check(((tcb.receiveEdge - tcb.receiveNext) | 0) >= 0 || tcb.finTaken, "RCV.NXT lies beyond the window");
  if (tcb.state >= tcpState.established) {
    check(out <= queue.bytes + (tcb.finSent ? 1 : 0), `${out} bytes are out of ${queue.bytes} queued`);
    check(
      recovery.isEmpty === (out === 0),
      `recovery ${recovery.isEmpty ? "has nothing" : "has something"}, ${out} out`,
    );
    check(recovery.cwnd >= 1 && Number.isFinite(recovery.cwnd), `cwnd is ${recovery.cwnd}`);
    check(recovery.inFlight >= 0, `${recovery.inFlight} bytes in flight`);
    check(recovery.inFlight <= out, `${recovery.inFlight} bytes in flight of ${out} out`);
  }
  check(tcb.unread.bytes >= 0 && tcb.reassembly.bytes >= 0, "a queue holds less than nothing");
  const waits = out > 0 || queue.bytes > 0;
  const isArmed = core.context.wheel.isArmed(tcb.sockfd24);
  check(!waits || tcb.dirty || isArmed, "it waits for something and no timer is armed");
  return wrong;
}
