/**
 * Everything that one simulation is, as plain data: drawn from a seed, or written down as the smallest that fails.
 *
 * Layer 2, simulation only; pure. The same scenario gives the same run, byte for byte. `smaller` lists scenarios with
 * less in them, for the search for what a failure really needs.
 */

import type { Impairments } from "../../layer3-ip/impairment-options.ts";
import { RandomStream, SeedMixer } from "../../layer3-ip/random-stream.ts";
import { congestionControls, defaultTcpOptions, type TcpOptions } from "../tcp/options.ts";
import { type Plan, planKinds } from "./plan.ts";

export interface HostSettings {
  readonly mtu: number;
  /** Narrower than the link; 0: not so. */
  readonly pathMtu: number;
  readonly tellsTooBig: boolean;
  /** Of 256 batches received, how many are merged. */
  readonly mergeOf256: number;
  /** What its clock shows at the beginning. */
  readonly clockOffsetUs: number;
  /** How long it takes to notice what has come. */
  readonly lagUs: number;
  /** How long the native thread takes to send what it is given, and how many packets may wait for it. */
  readonly sendLagUs: number;
  readonly ringCapacity: number;
  /** Of the 2,048 frames that worker and app have each (and 64 large ones), so many are left to them. */
  readonly frames: number;
  /** Initial sequence numbers are close below this, which they then pass: 2^31 or 2^32; 0: wherever they fall. */
  readonly wrapsAt: number;
  /** Its app acts later than it is told, as in another thread; otherwise at once. */
  readonly appLagUs: number;
  readonly tcp: TcpOptions;
}

export interface Scenario {
  readonly seed: number;
  readonly impairments: Impairments;
  /** Clients first, then servers. */
  readonly hosts: readonly HostSettings[];
  readonly clients: number;
  readonly plans: readonly Plan[];
  /** Packets that somebody sends who means harm. */
  readonly attacks: number;
  /** A host that loses all it knows, and comes back after a while. */
  readonly crash?: Crash | undefined;
}

export interface Crash {
  readonly host: number;
  readonly atUs: number;
  readonly backAfterUs: number;
}

/** How large a drawn scenario is at most. */
export interface ScenarioSize {
  readonly clients: number;
  readonly servers: number;
  readonly connections: number;
  /** Of one direction of a connection. */
  readonly bytes: number;
}

export const smallSize: ScenarioSize = { clients: 2, servers: 2, connections: 5, bytes: 100_000 };

const hourUs = 3_600_000_000;

class Draw {
  readonly stream: RandomStream;

  constructor(seed: number, purpose: number) {
    const first = new SeedMixer((BigInt(purpose) << 56n) ^ BigInt(seed));
    this.stream = new RandomStream(first);
  }

  below(count: number): number {
    return this.stream.below(count);
  }

  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  /** True `percent` of the time. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  oneOf<Value>(values: readonly Value[]): Value {
    return values[this.below(values.length)] as Value;
  }

  /** Whole, 1 to `most`, every power of two alike. */
  size(most: number): number {
    const bits = Math.log2(most);
    return Math.max(1, Math.min(most, Math.round(2 ** ((this.below(10_001) / 10_000) * bits))));
  }

  /** A probability up to `most`. */
  share(most: number): number {
    return (this.below(1001) / 1000) * most;
  }
}

/** Draws a scenario. The same seed and size give the same one. */
export function drawScenario(seed: number, size: ScenarioSize = smallSize): Scenario {
  const draw = new Draw(seed, 1);
  const clients = draw.between(1, size.clients);
  const servers = draw.between(1, size.servers);
  const hosts = drawHosts(draw, clients + servers);
  const isSixPossible = (hosts[0]?.mtu ?? 0) >= 1280;
  const impairments = drawImpairments(draw);
  const count = draw.between(1, size.connections);
  const worst = 1 - (1 - (impairments.loss ?? 0)) * (1 - (impairments.corrupt ?? 0));
  const bytes = worst > 0.2 ? Math.min(size.bytes, 20_000) : size.bytes;
  const plans = Array.from({ length: count }, (_, i) => drawPlan(draw, i + 1, clients, servers, bytes));
  const fitting = isSixPossible ? plans : plans.map((plan) => ({ ...plan, version6: false }));
  const attacks = draw.chance(30) ? draw.size(100) : 0;
  const crash = draw.chance(12)
    ? { host: draw.below(hosts.length), atUs: draw.size(5_000_000), backAfterUs: draw.size(100_000_000) }
    : undefined;
  return { seed, impairments, hosts, clients, plans: fitting, attacks, crash };
}

function drawImpairments(draw: Draw): Impairments {
  const profile = draw.below(100);
  const delayMs = draw.chance(20) ? 0 : draw.size(200);
  const jitterMs = draw.chance(40) ? draw.size(Math.max(1, delayMs)) : 0;
  const slow = draw.chance(20);
  const rate = slow ? draw.size(10_000) * 10_000 : 0;
  const basic: Impairments = {
    delayMs,
    jitterMs,
    keepOrder: draw.chance(50),
    rateBitsPerSecond: rate,
    queueBytes: 2 ** draw.between(13, 18),
  };
  if (profile < 20) return basic;
  const most = profile < 55 ? 0.05 : 0.3;
  const all = profile >= 75;
  const some = () => (all || draw.chance(50) ? draw.share(most) : 0);
  const impaired: Impairments = {
    ...basic,
    loss: some(),
    corrupt: some(),
    duplicate: some(),
    reorder: some(),
    reorderMs: draw.size(300),
  };
  if (!draw.chance(10)) return impaired;
  return { ...impaired, gilbertElliott: { p: draw.share(0.05), r: 0.05 + draw.share(0.5) } };
}

function drawHosts(draw: Draw, count: number): HostSettings[] {
  const mtu = draw.oneOf([1500, 1500, 1500, 1280, 9000, 576]);
  // A path that swallows long packets and says nothing is found out by retransmissions alone: not on every line.
  const narrow = draw.chance(15) ? draw.oneOf([1280, 1400, 1480]) : 0;
  const tellsTooBig = draw.chance(70);
  const withCookies = draw.chance(25);
  return Array.from({ length: count }, () => ({
    mtu,
    pathMtu: narrow < mtu ? narrow : 0,
    tellsTooBig,
    mergeOf256: draw.oneOf([0, 0, 128, 256]),
    clockOffsetUs: drawClock(draw),
    lagUs: draw.oneOf([0, 10, 200]),
    sendLagUs: draw.oneOf([0, 0, 5, 3000]),
    ringCapacity: draw.oneOf([1024, 1024, 16, 4]),
    frames: draw.oneOf([2048, 2048, 2048, 128]),
    wrapsAt: draw.oneOf([0, 2 ** 31, 2 ** 32]),
    appLagUs: draw.oneOf([0, 0, 50, 3000]),
    tcp: drawTcp(draw, withCookies),
  }));
}

/** Clocks that are about to wrap, as microseconds in 32 bits and as milliseconds in 31 and 32. */
function drawClock(draw: Draw): number {
  const near = draw.below(60_000_000);
  const wraps = [2 ** 32, 2 ** 31 * 1000, 2 ** 32 * 1000, 2 ** 33];
  return draw.chance(40) ? near : Math.max(0, draw.oneOf(wraps) - near);
}

function drawTcp(draw: Draw, withCookies: boolean): TcpOptions {
  return {
    ...defaultTcpOptions,
    nodelay: draw.chance(60),
    quickack: draw.chance(20),
    // A cookie remembers no MSS below 536, or 1,220.
    maxseg: draw.chance(15) ? (withCookies ? 1460 : draw.between(88, 1460)) : 0,
    recvBuffer: draw.chance(50) ? defaultTcpOptions.recvBuffer : 2 ** draw.between(12, 17),
    congestion: draw.oneOf(congestionControls),
    initialWindow: draw.oneOf([10, 10, 1, 2, 4]),
    minRtoMs: draw.oneOf([200, 200, 50, 1000]),
    ecn: draw.chance(30),
    keepalive: draw.chance(30),
    keepaliveIdleMs: draw.oneOf([1000, 60_000, 7_200_000]),
    keepaliveIntervalMs: draw.oneOf([500, 75_000]),
    fastOpen: draw.chance(20),
    synBacklog: withCookies ? draw.below(2) : 4096,
    timeWaitMs: draw.oneOf([60_000, 60_000, 240_000]),
  };
}

function drawPlan(draw: Draw, id: number, clients: number, servers: number, most: number): Plan {
  const kind = draw.oneOf(planKinds);
  const small = kind === "small";
  const rounds = kind === "exchange" ? draw.between(1, 8) : 2;
  const perRound = kind === "exchange" || kind === "idle" ? Math.ceil(most / 20) : most;
  const write = small ? draw.between(1, 40) : draw.size(Math.max(2, most));
  const fills = kind === "slowReader";
  const up = fills
    ? draw.between(Math.ceil(most / 5), most)
    : draw.size(small ? Math.min(most, 40 * write) : perRound);
  return {
    id,
    kind,
    client: draw.below(clients),
    server: clients + draw.below(servers),
    version6: draw.chance(50),
    startUs: draw.chance(50) ? draw.below(1_000_000) : 0,
    up,
    down: draw.size(perRound),
    rounds,
    // Not more than some hundred writes a connection.
    write: Math.max(write, Math.ceil(up / 300)),
    gapUs: small ? draw.size(30_000) : draw.chance(20) ? draw.size(100_000) : 0,
    pauseUs: kind === "idle" ? draw.size(3 * hourUs) : (fills ? 300_000 : 0) + draw.size(20_000_000),
    serverFirst: draw.chance(50),
    pinned: draw.chance(30),
  };
}

/** Scenarios with a little less in them, the boldest cuts first. */
export function* smaller(scenario: Scenario): Generator<Scenario> {
  const { plans, impairments, attacks } = scenario;
  if (scenario.crash) yield { ...scenario, crash: undefined };
  if (attacks > 0) {
    yield { ...scenario, attacks: 0 };
    yield { ...scenario, attacks: Math.floor(attacks / 2) };
    yield { ...scenario, attacks: attacks - 1 };
  }
  if (plans.length > 1) {
    const half = Math.ceil(plans.length / 2);
    yield { ...scenario, plans: plans.slice(0, half) };
    yield { ...scenario, plans: plans.slice(half) };
    for (const out of plans) yield { ...scenario, plans: plans.filter((plan) => plan !== out) };
  }
  for (const name of impairmentsToSwitchOff) {
    if (!impairments[name]) continue;
    const { [name]: _off, ...rest } = impairments;
    yield { ...scenario, impairments: rest };
  }
  for (const [i, host] of scenario.hosts.entries()) {
    for (const plainer of plainerHosts(host)) {
      yield { ...scenario, hosts: scenario.hosts.map((one, n) => (n === i ? plainer : one)) };
    }
  }
  for (const [i, plan] of plans.entries()) {
    for (const less of lesserPlans(plan)) {
      yield { ...scenario, plans: plans.map((one, n) => (n === i ? less : one)) };
    }
  }
}

const impairmentsToSwitchOff = [
  "gilbertElliott",
  "corrupt",
  "duplicate",
  "reorder",
  "reorderMs",
  "rateBitsPerSecond",
  "queueBytes",
  "jitterMs",
  "keepOrder",
  "loss",
  "delayMs",
] as const satisfies readonly (keyof Impairments)[];

function* plainerHosts(host: HostSettings): Generator<HostSettings> {
  const plain = {
    pathMtu: 0,
    tellsTooBig: false,
    mergeOf256: 0,
    clockOffsetUs: 0,
    lagUs: 0,
    sendLagUs: 0,
    ringCapacity: 1024,
    frames: 2048,
    wrapsAt: 0,
    appLagUs: 0,
  };
  for (const [name, value] of Object.entries(plain)) {
    if (host[name as keyof typeof plain] !== value) yield { ...host, [name]: value };
  }
  for (const name of Object.keys(defaultTcpOptions) as (keyof TcpOptions)[]) {
    if (host.tcp[name] === defaultTcpOptions[name]) continue;
    yield { ...host, tcp: { ...host.tcp, [name]: defaultTcpOptions[name] } };
  }
}

function* lesserPlans(plan: Plan): Generator<Plan> {
  for (const name of ["rounds", "up", "down"] as const) {
    if (plan[name] <= 1) continue;
    yield { ...plan, [name]: 1 };
    yield { ...plan, [name]: Math.ceil(plan[name] / 2) };
    yield { ...plan, [name]: plan[name] - 1 };
  }
  if (plan.gapUs > 0) yield { ...plan, gapUs: 0 };
  if (plan.startUs > 0) yield { ...plan, startUs: 0 };
  if (plan.pinned) yield { ...plan, pinned: false };
  const whole = Math.max(plan.up, plan.down);
  if (plan.write < whole) yield { ...plan, write: whole };
}
