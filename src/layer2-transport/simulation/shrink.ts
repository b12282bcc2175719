/**
 * The least of a scenario that still fails: takes away connections, impairments, options and bytes, one by one.
 *
 * Layer 2, simulation only. "Still fails" means with the same first fault, but for numbers and names.
 */

import { drawScenario, type Scenario, type ScenarioSize, smaller } from "./scenario.ts";
import { type RunResult, runScenario } from "./simulation.ts";

/** A failure, made small. */
export interface Shrunk {
  readonly result: RunResult;
  /** Runs that it took. */
  readonly runs: number;
}

/** Looks for the smallest scenario that fails, in at most `runsMax` runs. */
export function shrink(failure: RunResult, runsMax = 300): Shrunk {
  const kind = kindOf(failure);
  if (kind === "") return { result: failure, runs: 0 };
  let result = failure;
  let runs = 0;
  for (let found = true; found && runs < runsMax; ) {
    found = false;
    for (const candidate of smaller(result.scenario)) {
      if (runs >= runsMax) break;
      runs += 1;
      const next = runScenario(candidate);
      if (kindOf(next) !== kind) continue;
      result = next;
      found = true;
      break;
    }
  }
  return { result, runs };
}

/** The first fault without what differs from run to run. */
function kindOf({ faults }: RunResult): string {
  return (faults[0] ?? "").replace(/\([a-zA-Z]+\)|client|server|[0-9a-f.:]*\d[0-9a-f.:]*/g, "");
}

/** Runs the scenario of a seed. */
export function runSeed(seed: number, size?: ScenarioSize): RunResult {
  return runScenario(drawScenario(seed, size));
}

/** A scenario in a few lines, with what is not as usual. */
export function describeScenario(scenario: Scenario): string[] {
  const { seed, impairments, hosts, clients, plans, attacks, crash } = scenario;
  const set = Object.entries(impairments).filter(([, value]) => value !== 0 && value !== false);
  const lines = [`seed ${seed}: ${clients} clients, ${hosts.length - clients} servers`];
  lines.push(`  line: ${set.map(([name, value]) => `${name} ${text(value)}`).join(", ") || "good"}`);
  if (crash) {
    lines.push(
      `  host ${crash.host + 1} crashes at ${crash.atUs} us and is back ${crash.backAfterUs} us later`,
    );
  }
  if (attacks > 0) lines.push(`  ${attacks} packets of an attacker`);
  for (const plan of plans) {
    const { id, kind, client, server, version6, up, down, rounds, write, gapUs } = plan;
    lines.push(
      `  connection ${id}: ${kind}, host ${client + 1} to ${server + 1}, IPv${version6 ? 6 : 4}, up ${up}, ` +
        `down ${down}, rounds ${rounds}, writes of ${write}, gap ${gapUs} us`,
    );
  }
  return lines;
}

function text(value: unknown): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
