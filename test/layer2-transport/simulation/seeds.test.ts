/**
 * Seeds of the simulation: some hundred small ones, those that failed once, and the checks themselves, each of which
 * must find a stack that has been spoiled in its way.
 */
import { describe, expect, test } from "vitest";
import { drawScenario, type Scenario, smaller } from "../../../src/layer2-transport/simulation/scenario.ts";
import { runSeed, shrink } from "../../../src/layer2-transport/simulation/shrink.ts";
import type { SimulatedHost } from "../../../src/layer2-transport/simulation/simulated-host.ts";
import { runScenario } from "../../../src/layer2-transport/simulation/simulation.ts";

/** Others than these are run by `apo sim` in CI. */
const seeds = 200;
const atOnce = 50;

describe("seeds", () => {
  test.each(Array.from({ length: seeds / atOnce }, (_, i) => i * atOnce + 1))(
    "%i and the next 49",
    (first) => {
      for (let seed = first; seed < first + atOnce; seed += 1) {
        expect({ seed, faults: runSeed(seed).faults }).toEqual({ seed, faults: [] });
      }
    },
  );

  // What each of them found is in the history of the stack.
  test.each([
    31, // a record's next connection read beside the bytes of its own
    65, // a number was found by a segment after its end
    147, // a cookie came twice
    257, // likewise, with a FIN
    324, // a reset while data were unacknowledged passed for an end in order
    343, // a cookie and an MSS below its least
    2585, // two answers to one SYN
    2986, // a reset between both ends and the app's
    698, // a path swallowed all that was out, which was less than a full segment
    9298, // a D-SACK block of nothing
  ])("%i failed once", (seed) => {
    expect(runSeed(seed).faults).toEqual([]);
  });

  test("the same seed is the same run, to the last bit of the trace", () => {
    const scenario = drawScenario(12);
    const runs = [0, 1].map(() => runScenario(scenario, { traceBytes: 2 ** 24 }));
    const [one, other] = runs.map(({ pcapng }) => Buffer.from(pcapng()));
    expect(one?.length).toBeGreaterThan(1000);
    expect(one?.equals(other as Buffer)).toBe(true);
    expect(drawScenario(12)).toEqual(scenario);
    expect(drawScenario(13)).not.toEqual(scenario);
  });

  test("every kind of connection and every impairment occurs", () => {
    const scenarios = Array.from({ length: 200 }, (_, seed) => drawScenario(seed));
    const kinds = new Set(scenarios.flatMap(({ plans }) => plans.map(({ kind }) => kind)));
    const names = new Set(
      scenarios.flatMap(({ impairments }) =>
        Object.entries(impairments).flatMap(([name, value]) => (value ? [name] : [])),
      ),
    );
    expect(kinds.size).toBe(11);
    expect([...names]).toEqual(
      expect.arrayContaining(["loss", "corrupt", "duplicate", "reorder", "rateBitsPerSecond", "jitterMs"]),
    );
  });
});

/** A scenario with something of everything, on a line that loses nothing. */
const sound: Scenario = {
  ...drawScenario(1),
  impairments: { delayMs: 5 },
  hosts: drawScenario(1).hosts.slice(0, 2),
  clients: 1,
  plans: (["exchange", "upload", "both", "closeTogether"] as const).map((kind, i) => ({
    id: i + 1,
    kind,
    client: 0,
    server: 1,
    version6: i % 2 === 0,
    startUs: 1000 * i,
    up: 9000,
    down: 30_000,
    rounds: 2,
    write: 3000,
    gapUs: 0,
    pauseUs: 1000,
    serverFirst: false,
    pinned: false,
  })),
};

type Method = (...args: unknown[]) => unknown;

/** Replaces one call of a method of the server or of a part of it; `how` is given the real one. */
function spoil(
  part: keyof SimulatedHost | "",
  method: string,
  how: (real: Method, args: unknown[]) => unknown,
) {
  return (host: SimulatedHost) => {
    if (host.index !== 1) return;
    const target = (part === "" ? host : host[part]) as unknown as Record<string, Method>;
    const real = (target[method] as Method).bind(target);
    let calls = 0;
    target[method] = (...args) => {
      calls += 1;
      return calls === 4 ? how(real, args) : real(...args);
    };
  };
}

const never: (real: Method) => unknown = () => undefined;
const twice = (real: Method, args: unknown[]): unknown => {
  real(...args);
  return real(...args);
};

describe("a spoiled host is found out", () => {
  test("and a sound one is not", () => {
    expect(runScenario(sound).faults).toEqual([]);
  });

  test.each<[string, (host: SimulatedHost) => void, RegExp]>([
    ["payload that is not delivered", spoil("", "received", never), /is wrong|after \d+ bytes/],
    ["payload that is delivered twice", spoil("", "received", twice), /is wrong|sent in all/],
    ["a frame that is not given back", spoil("pool", "release", never), /1 frames in use at the end/],
    ["a frame that is given back twice", spoil("pool", "release", twice), /is free .* and was released/],
    ["a number that is not given back", spoil("nodes", "release", never), /1 v-nodes in use at the end/],
    ["an end that is not told", spoil("", "ended", never), /was never told|nobody was told the end/],
    [
      "an end that is told twice",
      spoil("", "ended", twice),
      /the end was told of \d+, which is no connection/,
    ],
    [
      "a timer that is not armed",
      (host) => {
        host.wheel.arm = () => {};
      },
      /no timer is armed|was never told its end/,
    ],
    [
      "a congestion window of nothing",
      (one) => {
        const flush = one.stack.flush.bind(one.stack);
        one.stack.flush = () => {
          flush();
          for (const { recovery } of one.stack.active()) recovery.cwnd = 0;
        };
      },
      /a congestion window of 0/,
    ],
    [
      "memory that is counted wrongly",
      (host) => {
        host.admission.account.queued += 5;
      },
      /5 bytes accounted to what is to be sent/,
    ],
    [
      "a descriptor that the native thread would refuse",
      spoil("layer3", "transmit", (real) => {
        const { words } = host(1).layer3.output;
        for (let at = 48; at < words.length; at += 8) words[at + 2] = 70_000;
        real();
      }),
      /layer 3 refused a packet/,
    ],
    [
      "a stack that throws",
      spoil("stack", "turn", () => {
        throw new RangeError("no such place");
      }),
      /RangeError: no such place/,
    ],
  ])("%s", (_what, sabotage, text) => {
    const { faults } = runScenario(sound, {
      sabotage: (one) => {
        hosts[one.index] = one;
        sabotage(one);
      },
    });
    expect(faults.join("\n")).toMatch(text);
  });
});

/** The hosts of the run under way. */
const hosts: SimulatedHost[] = [];
function host(index: number): SimulatedHost {
  return hosts[index] as SimulatedHost;
}

describe("making a failure small", () => {
  test("each step has less in it", () => {
    const scenario = drawScenario(5);
    const size = ({ plans, impairments }: Scenario) =>
      plans.reduce((sum, { up, down, rounds }) => sum + up + down + rounds, 0) +
      Object.keys(impairments).length;
    const list = [...smaller(scenario)];
    expect(list.length).toBeGreaterThan(10);
    for (const less of list) expect(size(less)).toBeLessThanOrEqual(size(scenario));
  });

  test("a run that did not fail stays as it is", () => {
    const result = runSeed(3);
    expect(shrink(result, 10).result).toBe(result);
  });
});
