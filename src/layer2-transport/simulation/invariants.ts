/**
 * What must hold after every turn of a host, and at the end when all is over.
 *
 * Layer 2, simulation only. Each check returns what is wrong in words; none: all is well. What apps and the observer of
 * the wire find by themselves is collected in `faults` lists, which are checked here too.
 */

import { tcpState } from "../tcp/tcb.ts";
import { isClean, type Plan, totals } from "./plan.ts";
import type { Session } from "./session.ts";
import type { SimulatedHost } from "./simulated-host.ts";

/** No connection may have more of these than its peer could ever take. */
const cwndMax = 2 ** 31;

/** After a turn of a host. */
export function checkTurn(host: SimulatedHost): string[] {
  const faults = [...host.faults, ...host.pool.faults, ...host.nativePool.faults, ...host.appPool.faults];
  faults.push(...host.layer3.faults);
  for (const fault of host.stack.checkInvariants()) faults.push(fault);
  for (const tcb of host.stack.active()) {
    if (tcb.state < tcpState.established) continue;
    const { cwnd, inFlight } = tcb.recovery;
    const name = `connection number ${tcb.sockfd24}`;
    if (!(cwnd >= 1 && cwnd < cwndMax)) faults.push(`${name}: a congestion window of ${cwnd}`);
    const out = (tcb.sendNext - tcb.sendUna) | 0;
    if (!(inFlight >= 0 && inFlight <= out))
      faults.push(`${name}: ${inFlight} bytes in flight, of ${out} that are out`);
  }
  return faults.map((fault) => `${host.name}: ${fault}`);
}

/** When every timer has run out and nothing moves any more. */
export function checkEnd(host: SimulatedHost): string[] {
  const faults: string[] = [];
  const none = (count: number, what: string) => {
    if (count !== 0) faults.push(`${host.name}: ${count} ${what} at the end`);
  };
  none(host.nodes.usedInAll(), "v-nodes in use");
  host.releaseKept();
  none(host.pool.framesInUse(), "frames in use");
  none(host.stack.activeCount, "active records");
  none(host.stack.halfOpenCount, "half-open connections");
  none(host.wheel.armedCount, "timers armed");
  none(host.layer3.portsInUse, "ports open");
  none(host.liveSessions, "connections that nobody was told the end of");
  const { account } = host.admission;
  none(account.records, "bytes accounted to records");
  none(account.received, "bytes accounted to what was received");
  none(account.queued, "bytes accounted to what is to be sent");
  return faults;
}

/** Whether each end of a connection got what it was to get. `mild`: the line was not so bad that one may fail. */
export function checkSessions(
  plan: Plan,
  client: Session | undefined,
  servers: readonly Session[],
  mild: boolean,
): string[] {
  const faults: string[] = [];
  const { up, down } = totals(plan);
  if (!client?.ending) return [`connection ${plan.id} (${plan.kind}): its client was never told the end`];
  for (const server of servers) if (!server.ending) faults.push(`${server.name}: was never told its end`);
  // One that was lost on the way may have been opened at the server all the same.
  const server = servers[0];
  const failed = (one: Session) => one.ending?.code !== "end" && one.ending?.code !== "closed";
  const both = server ? [client, server] : [client];
  if (!isClean(plan)) return faults;
  if (mild) {
    if (!server) faults.push(`${client.name}: nobody accepted it`);
    for (const one of both.filter(failed)) {
      faults.push(
        `${one.name}: ended with "${one.ending?.code} ${one.ending?.error}" on a line that is not so bad`,
      );
    }
  }
  if (both.some(failed) || !server) return faults;
  for (const one of both) {
    if (one.thrownAway) faults.push(`${one.name}: ended in order, but a write was thrown away`);
  }
  if (server.received !== up) faults.push(`${server.name}: got ${server.received} bytes of ${up}`);
  if (client.received !== down) faults.push(`${client.name}: got ${client.received} bytes of ${down}`);
  for (const one of both) {
    if (!one.finished && !one.peerEnded) faults.push(`${one.name}: ended before its script was done`);
  }
  return faults;
}
