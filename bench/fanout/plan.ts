/**
 * What the fan-out bench measures, how often, and in what order.
 */
import type { Measured, Scenario } from "./measure.ts";
import type { ServerName } from "./servers.ts";

export interface Step {
  readonly scenario: Scenario;
  /** Takes part in this many rounds; the first is thrown away when there are more than one. */
  readonly rounds: number;
}

export interface Plan {
  readonly steps: readonly Step[];
  readonly warmUpFrames: number;
  readonly windowFrames: number;
}

function udp(server: ServerName, readers: number, more: Partial<Scenario> = {}): Scenario {
  return { server, transport: "udp", readers, publish: "udp", segmentation: true, ...more };
}

function tcp(server: ServerName, readers: number): Scenario {
  return { server, transport: "tcp", readers, publish: "udp", segmentation: true };
}

/**
 * Servers that are compared stand beside each other, so that a round measures them one after the other. `relay`:
 * false leaves the relay out; `segmentation`: whether the run may also turn the offload off.
 */
export function makePlan(options: { quick: boolean; relay: boolean; segmentation: boolean }): Plan {
  const steps = options.quick ? quickSteps() : fullSteps();
  return {
    steps: steps.filter(({ scenario }) => {
      if (!options.relay && scenario.server === "relay") return false;
      return options.segmentation || scenario.segmentation;
    }),
    warmUpFrames: options.quick ? 25 : 100, // two seconds are short for a JIT compiler
    windowFrames: options.quick ? 50 : 100,
  };
}

function quickSteps(): Step[] {
  const once = (scenario: Scenario): Step => ({ scenario, rounds: 1 });
  return [
    ...(["relay", "gso", "sendto", "dgram"] as const).map((server) => once(udp(server, 100))),
    once(udp("relay", 1000)),
    once(tcp("relay", 100)),
    once(tcp("net", 100)),
  ];
}

function fullSteps(): Step[] {
  const servers = ["relay", "gso", "sendto", "dgram"] as const;
  const steps: Step[] = [];
  for (const readers of [10, 100, 300, 1000]) {
    for (const server of servers)
      steps.push({ scenario: udp(server, readers), rounds: roundsOf(server, readers) });
  }
  steps.push({ scenario: udp("relay", 100, { publish: "tcp" }), rounds: 3 });
  for (const server of ["relay", "net"] as const) steps.push({ scenario: tcp(server, 100), rounds: 4 });
  for (const server of ["relay", "gso", "sendto"] as const) {
    steps.push({ scenario: udp(server, 100, { segmentation: false }), rounds: 3 });
  }
  steps.push({ scenario: udp("relay", 1000, { segmentation: false }), rounds: 3 });
  return steps;
}

/** More where there are marks to judge. At 1000 readers the plain loops are beyond one core: three rounds tell that. */
function roundsOf(server: ServerName, readers: number): number {
  const plain = server === "sendto" || server === "dgram";
  return readers === 100 || (readers === 1000 && !plain) ? 6 : 3;
}

/** The rounds that count: all but the first, unless it is the only one. */
export function kept(rounds: readonly Measured[]): readonly Measured[] {
  return rounds.length > 1 ? rounds.slice(1) : rounds;
}
