/**
 * The fan-out bench: one stream to many readers, the relay beside naive loops and beside the best one in C.
 *
 * See docs/benchmarks.md for the method.
 */
import type { Bench, BenchContext, Row } from "../lib/bench.ts";
import { compileTools, openWorkshop, streamTools } from "../lib/compile.ts";
import { createNetwork } from "../lib/netns.ts";
import { Disturbed, type Measured, measure, type Scenario, type Setting } from "./measure.ts";
import { makePlan, type Plan } from "./plan.ts";
import { makeRows, type Series, scenarioName } from "./rows.ts";
import { compileReferences, relayExists } from "./servers.ts";

const attempts = 3;

export const bench: Bench = {
  name: "fanout",
  summary:
    "CPU a packet, loss, delay and memory of the relay with 10 to 1000 readers, beside loops in C and Node",
  run,
};

async function run(context: BenchContext): Promise<Row[]> {
  const relay = relayExists();
  if (!relay) context.say("there is no relay in this checkout: only the references are measured");
  const workshop = await openWorkshop();
  const network = await createNetwork(context.say);
  try {
    const tools = await compileTools(workshop, streamTools);
    const references = await compileReferences(workshop);
    const plan = makePlan({ quick: context.quick, relay, segmentation: network.canSetSegmentation });
    const setting = { network, tools, references, ...plan, say: context.say };
    return makeRows(await measurePlan(plan, setting));
  } finally {
    await network.close();
    workshop.close();
  }
}

/** Round after round, so that what is compared was measured within seconds of each other. */
async function measurePlan(plan: Plan, setting: Setting): Promise<Series[]> {
  const series = plan.steps.map(({ scenario }) => ({ scenario, rounds: [] as Measured[] }));
  const most = Math.max(0, ...plan.steps.map((step) => step.rounds));
  let segmentation = true;
  for (let round = 0; round < most; round++) {
    for (const [index, { scenario, rounds }] of plan.steps.entries()) {
      if (round >= rounds) continue;
      if (scenario.segmentation !== segmentation) {
        segmentation = scenario.segmentation;
        await setting.network.setUdpSegmentation(segmentation);
      }
      const measured = await measureUndisturbed(scenario, setting);
      series[index]!.rounds.push(measured);
      setting.say(`${scenarioName(scenario)}, round ${round + 1}: ${progress(measured)}`);
    }
  }
  return series;
}

/** A disturbed measurement is told, and taken again; a server that always sends too much fails the run. */
async function measureUndisturbed(scenario: Scenario, setting: Setting): Promise<Measured> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await measure(scenario, setting);
    } catch (error) {
      if (!(error instanceof Disturbed) || attempt === attempts) throw error;
      setting.say(`${scenarioName(scenario)}: not counted, measured again: ${error.message}`);
    }
  }
}

/** One line for whoever watches, with what the report has no room for. */
function progress(measured: Measured): string {
  const { use, windowSeconds } = measured;
  const threads = use.threads.slice(0, 3).map((thread) => {
    const share = (thread.cpuNs / windowSeconds / 1e7).toFixed(1);
    return `${thread.name} ${share} % ${Math.round(thread.sleeps / windowSeconds)} wakes/s`;
  });
  const figures = [
    `${Math.round(measured.nsPerPacket)} ns/packet`,
    `core ${measured.corePercent.toFixed(1)} %`,
    `loss ${measured.lossPercent.toFixed(2)} %`,
    `p50 ${measured.p50Ms.toFixed(2)} p99 ${measured.p99Ms.toFixed(2)} ms`,
  ];
  return `${figures.join(", ")} (${threads.join("; ")})`;
}
