/**
 * Clients, servers and a bad wire in virtual time: one run of a scenario from its first packet to its last timer.
 *
 * Layer 2. The same scenario gives the same run. Every byte is checked where it arrives, every segment where it is
 * sent, and every host's invariants after each of its turns; at the end nothing may be left over.
 */

import { RandomStream, SeedMixer } from "../../layer3-ip/random-stream.ts";
import { createVirtualWire, type VirtualWire } from "../../layer3-ip/virtual-wire.ts";
import { Attacker } from "./attacker.ts";
import { Content } from "./content.ts";
import { checkEnd, checkSessions, checkTurn } from "./invariants.ts";
import type { Plan } from "./plan.ts";
import type { Crash, HostSettings, Scenario } from "./scenario.ts";
import type { Session } from "./session.ts";
import { SimulatedHost } from "./simulated-host.ts";
import { traceLines } from "./trace-text.ts";
import { WireObserver } from "./wire-observer.ts";

export interface RunOptions {
  /** Bytes of trace that are kept for `pcapng` (0). */
  readonly traceBytes?: number;
  /** May change a host before the first packet: for tests of the checks themselves. */
  readonly sabotage?: (host: SimulatedHost) => void;
}

/** What a run came to. */
export interface RunResult {
  readonly scenario: Scenario;
  /** What went wrong, the first fault first; empty: nothing. */
  readonly faults: readonly string[];
  /** When, in virtual time. */
  readonly atUs: number;
  readonly events: number;
  readonly packets: number;
  /** Payload bytes that arrived at apps. */
  readonly bytes: number;
  readonly connections: number;
  /** Those that ended with an error, as they may on a bad line. */
  readonly failed: number;
  /** The trace as a pcapng file, and in words; empty if none was kept. */
  readonly pcapng: () => Uint8Array;
  readonly lines: (count: number) => string[];
}

/** Packets that a line may lose or spoil, of 1, so that nothing may fail because of that. */
const mildLoss = 0.05;
/** More than any run should need. */
const eventsMax = 3_000_000;
/** Virtual time until which all must be over: a bad line, keepalive and 15 retransmissions take hours. */
const endUs = 48 * 3_600_000_000;

/** Runs a scenario. */
export function runScenario(scenario: Scenario, options: RunOptions = {}): RunResult {
  return new Simulation(scenario, options).run();
}

class Simulation {
  private readonly scenario: Scenario;
  private readonly wire: VirtualWire;
  private readonly hosts: SimulatedHost[];
  private readonly observer: WireObserver;
  private readonly attacker: Attacker;
  private readonly faults: string[] = [];
  /** The plan that a pair of ends belongs to, by "client > server". */
  private readonly flows = new Map<string, Plan>();
  private events = 0;
  private gaveUp = false;
  private readonly crashed: SimulatedHost[] = [];

  constructor(scenario: Scenario, options: RunOptions) {
    const { seed, impairments } = scenario;
    this.scenario = scenario;
    this.wire = createVirtualWire({
      ...impairments,
      seed,
      mtu: 65_535,
      traceBytesMax: options.traceBytes ?? 0,
    });
    this.observer = new WireObserver((source, target) => this.contentFor(source, target));
    const purpose = 0x6174n << 48n;
    this.attacker = new Attacker(
      this.wire,
      new RandomStream(new SeedMixer(purpose ^ BigInt(seed))),
      (packet) => this.observer.ignoreForged(packet),
    );
    this.hosts = scenario.hosts.map((_, index) => this.host(index, 0));
    for (const host of this.hosts) options.sabotage?.(host);
  }

  private host(index: number, restarts: number): SimulatedHost {
    return new SimulatedHost({
      index,
      settings: this.scenario.hosts[index] as HostSettings,
      seed: this.scenario.seed,
      restarts,
      wire: this.wire,
      onSent: (packet) => {
        this.observer.sent(packet);
        this.attacker.overhear(packet);
      },
      planOf: (client, server) => this.planOf(client, server),
      onConnect: (plan, client, server) => this.flows.set(`${client} > ${server}`, plan),
      onTurn: (host) => this.check(host),
    });
  }

  run(): RunResult {
    try {
      this.start();
      this.play();
    } catch (error) {
      this.faults.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    const result = this.result();
    for (const host of [...this.hosts, ...this.crashed]) host.close();
    return result;
  }

  private start(): void {
    const { clients, plans, attacks, crash } = this.scenario;
    this.attacker.attack(attacks);
    if (crash) this.crash(crash);
    for (const host of this.hosts.slice(clients)) host.listen();
    for (const plan of plans) {
      this.wire.at(plan.startUs, () => this.hosts[plan.client]?.connect(plan, plan.server));
    }
  }

  /** The host goes, and another with the same address and nothing in its memory comes. */
  private crash({ host: index, atUs, backAfterUs }: Crash): void {
    this.wire.at(atUs, () => {
      const host = this.hosts[index] as SimulatedHost;
      host.crash();
      this.crashed.push(host);
    });
    this.wire.at(atUs + backAfterUs, () => {
      const host = this.host(index, 1);
      this.hosts[index] = host;
      if (index >= this.scenario.clients) host.listen();
    });
  }

  private play(): void {
    let listening = true;
    while (this.faults.length === 0) {
      if (this.step() || this.giveUpOrphans()) continue;
      if (!listening) break;
      // Nothing moves any more: whoever still listens stops, and then all must be gone.
      listening = false;
      for (const host of this.hosts.slice(this.scenario.clients)) host.unlisten();
    }
    if (this.faults.length === 0) this.checkAll();
  }

  private step(): boolean {
    if (!this.wire.step()) return false;
    this.events += 1;
    if (this.events > eventsMax) this.faults.push(`${eventsMax} events, and no end: ${this.unfinished()}`);
    if (this.wire.nowUs > endUs) this.faults.push(`${endUs / 3.6e9} hours, and no end: ${this.unfinished()}`);
    return true;
  }

  /**
   * One whose peer has given up and whose reset was lost waits for ever for a FIN; likewise a client whose ACK with the
   * server's cookie was lost, and what a late segment with a good cookie has made of itself. Their apps end them. True:
   * there are such. Any other that waits is a fault, found at the end.
   */
  private giveUpOrphans(): boolean {
    if (this.isMild() && !this.wasSpoiled()) return false;
    const over = (plan: Plan, isClient: boolean) => {
      const mayBeInOrder = usedCookies(this.hosts[plan.server] as SimulatedHost);
      return this.sessionsOf(plan, isClient).every(
        ({ ending, dead }) => dead || (ending !== undefined && (mayBeInOrder || ending.code !== "end")),
      );
    };
    const orphans = this.hosts.filter(({ sessions }) =>
      sessions.some(({ ending, plan, isClient }) => !ending && over(plan, !isClient)),
    );
    if (this.gaveUp || orphans.length === 0) return false;
    this.gaveUp = true;
    for (const host of orphans) host.giveUp();
    return true;
  }

  private check(host: SimulatedHost): void {
    this.faults.push(...this.observer.faults.splice(0), ...checkTurn(host));
  }

  private checkAll(): void {
    const mild = this.isMild();
    for (const plan of this.scenario.plans) {
      const [client] = this.sessionsOf(plan, true);
      if (this.scenario.crash && [plan.client, plan.server].includes(this.scenario.crash.host)) continue;
      const servers = this.sessionsOf(plan, false);
      this.faults.push(...checkSessions(plan, client, servers, mild));
      // What comes with a good cookie is a connection, even if it was one before.
      const repeats = servers.length > 1 && !usedCookies(this.hosts[plan.server] as SimulatedHost);
      if (repeats) this.faults.push(`connection ${plan.id} was accepted ${servers.length} times`);
    }
    for (const host of this.hosts) this.faults.push(...checkEnd(host));
  }

  private sessionsOf(plan: Plan, isClient: boolean): Session[] {
    return [...this.crashed, ...this.hosts].flatMap(({ sessions }) =>
      sessions.filter((session) => session.plan === plan && session.isClient === isClient),
    );
  }

  /**
   * The line loses so little (one packet in twenty at most) that fifteen retransmissions in a row never do: then no
   * connection may fail.
   */
  private isMild(): boolean {
    if (this.scenario.crash) return false;
    // On a slow line answers to probes may wait behind the data for longer than keepalive does.
    const isSlow = (this.scenario.impairments.rateBitsPerSecond ?? 0) > 0;
    if (isSlow && this.scenario.hosts.some(({ tcp }) => tcp.keepalive)) return false;
    const { loss = 0, corrupt = 0, gilbertElliott } = this.scenario.impairments;
    if (loss + corrupt > mildLoss || gilbertElliott !== undefined) return false;
    const { queueFull, inboxFull, tooBig } = this.wire.counts();
    const dropped = this.hosts.some(
      ({ layer3, counters }) =>
        layer3.counts.has("rx.dropped.poolEmpty") ||
        // Data that overtake the ACK with the cookie are a stranger's.
        usedCookies({ counters }),
    );
    return queueFull + inboxFull + tooBig === 0 && !dropped;
  }

  /** The line has lost something, and that may have been a reset, which nobody repeats. */
  private wasSpoiled(): boolean {
    const { lost, corrupted } = this.wire.counts();
    return lost + corrupted > 0;
  }

  private unfinished(): string {
    const open = this.hosts.flatMap(({ sessions }) => sessions.filter(({ ending }) => !ending));
    return open.map(({ name, received }) => `${name} has ${received} bytes`).join("; ") || "all have ended";
  }

  private planOf(client: string, server: string): Plan | undefined {
    const plan = this.flows.get(`${client} > ${server}`);
    // The segments of a connection that a late cookie brought back contradict those of the first.
    if (plan && this.sessionsOf(plan, false).length > 0) this.observer.ignore(client, server);
    return plan;
  }

  private contentFor(source: string, target: string): Content | undefined {
    const up = this.flows.get(`${source} > ${target}`);
    if (up) return new Content(up.id, true);
    const down = this.flows.get(`${target} > ${source}`);
    return down && new Content(down.id, false);
  }

  private result(): RunResult {
    const sessions = this.hosts.flatMap((host) => host.sessions);
    const failed = sessions.filter(({ ending }) => ending !== undefined && ending.error !== "");
    return {
      scenario: this.scenario,
      faults: this.faults,
      atUs: this.wire.nowUs,
      events: this.events,
      packets: this.wire.counts().sent,
      bytes: sessions.reduce((total, { received }) => total + received, 0),
      connections: this.scenario.plans.length,
      failed: failed.filter(({ isClient }) => isClient).length,
      pcapng: () => this.wire.traceBytes(),
      lines: (count) => traceLines(this.wire.trace, count),
    };
  }
}

function usedCookies({ counters }: Pick<SimulatedHost, "counters">): boolean {
  return counters.get("layer2.tcp.cookies-sent") > 0;
}
