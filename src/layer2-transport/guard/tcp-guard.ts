/**
 * The guard of TCP in one worker: what is taken on, what is refused, who is an attacker.
 *
 * Layer 2. It implements `Admission` with the parts beside it: a meter a listener, tables of sources and networks, the
 * ceiling on memory, the evictor, the watches. Time comes from outside. Whom to block is asked of the main thread, and
 * only for what cannot be forged: what a peer did after it had completed a handshake, which proves its address.
 */

import type { Counters, WorkerCounter } from "../counters.ts";
import {
  type Admission,
  MemoryAccount,
  type StrangeKind,
  type SynVerdict,
  strangeKind,
  synVerdict,
} from "../tcp/admission.ts";
import { AttackWatch } from "./attack-detector.ts";
import { Evictor, type EvictorEvents, type MemoryHolders } from "./evictor.ts";
import { MemoryCeiling, pressure } from "./memory-ceiling.ts";
import { maskInto, type PrefixBits, prefixText } from "./prefix-text.ts";
import type { BlockNote, GuardReport, TraceNote } from "./report.ts";
import type { TcpGuardSettings } from "./settings.ts";
import { Pace, SourceTable } from "./source-table.ts";
import { SynMeter } from "./syn-meter.ts";

/** Plain data for a worker: its guard's settings, and the memory of the ceiling. */
export interface TcpGuardStart {
  readonly settings: TcpGuardSettings;
  readonly ceiling: SharedArrayBuffer;
  readonly worker: number;
  readonly workers: number;
}

export interface TcpGuardContext extends TcpGuardStart {
  readonly counters: Counters<WorkerCounter>;
  /** A secret word: keys the tables' hashes. */
  random(): number;
  report(report: GuardReport): void;
}

type Watches = Readonly<
  Record<"flood" | "connections" | "resets" | "strays" | "gaps" | "slow" | "memory", AttackWatch>
>;

const tickMs = 10;
const lookMs = 100;
const windowMs = 1000;
const sourceSlots = 65_536;
const networkSlots = 16_384;
/** Meters; listeners' ports beyond share the last. */
const metersMost = 255;
/** Of a flood's SYNs, one in so many is looked at for its source. */
const floodSample = 16;
/** Under pressure, one source may have this part of all connections, and a network that; a few are always granted. */
const sourceShare = 1 / 64;
const sourceAlways = 64;
const networkShare = 1 / 16;
const networkAlways = 256;
/** Offences: points are forgiven at `offencePace` a second; beyond `offenceBurst` the source is blocked. */
const offencePace = 5;
const offenceBurst = 50;
const evictionPoints = 10;
const blockDoublings = 6;

export class TcpGuard implements Admission, EvictorEvents {
  readonly account = new MemoryAccount();
  readonly ceiling: MemoryCeiling;
  readonly sources: SourceTable;
  readonly networks: SourceTable;
  private readonly context: TcpGuardContext;
  private readonly settings: TcpGuardSettings;
  private readonly counters: Counters<WorkerCounter>;
  private readonly sourceBits: PrefixBits;
  private readonly networkBits: PrefixBits;
  private readonly prefix = new Int32Array(4);
  private readonly sourcePace: Pace;
  private readonly networkPace: Pace;
  private readonly offences = new Pace(offencePace, offenceBurst);
  private readonly meterOf = new Uint8Array(65_536);
  private readonly meters: SynMeter[] = [];
  private readonly watches: Watches;
  private readonly byStrange: readonly (AttackWatch | undefined)[];
  private evictor: Evictor | undefined;
  private connections = 0;
  private floodCount = 0;
  private level = 0;
  private nowMs = 0;
  private tickAtMs = 0;
  private lookAtMs = 0;
  private windowAtMs = -1;
  private blocks: BlockNote[] = [];

  constructor(context: TcpGuardContext) {
    const { settings, worker, ceiling } = context;
    this.context = context;
    this.settings = settings;
    this.counters = context.counters;
    this.ceiling = new MemoryCeiling(settings.memoryBytes, this.account, worker, ceiling);
    this.sourceBits = { bits4: settings.sourceBits4, bits6: settings.sourceBits6 };
    this.networkBits = { bits4: settings.networkBits4, bits6: settings.networkBits6 };
    this.sources = new SourceTable(sourceSlots, this.sourceBits, context.random(), context.random());
    this.networks = new SourceTable(networkSlots, this.networkBits, context.random(), context.random());
    this.sourcePace = this.paceOf(settings.sourceRate);
    this.networkPace = this.paceOf(settings.networkRate);
    this.watches = this.makeWatches();
    this.byStrange = this.watchesByStrange();
  }

  /** The stack, whose connections are looked over from now on. */
  attach(holders: MemoryHolders): void {
    this.evictor = new Evictor(holders, this, this.settings.stallMs);
  }

  // --- what TCP asks: see ../tcp/admission.ts -------------------------------------------------------------------

  syn(
    words: Int32Array,
    at: number,
    wordCount: 1 | 4,
    halfOpen: number,
    nowMs: number,
    port = 0,
    hopLimit = 0,
  ): SynVerdict {
    const isFlood = this.meter(port).syn(nowMs);
    if (isFlood) {
      this.floodCount += 1;
      if (this.floodCount % floodSample === 0) this.watches.flood.sample(words, at, wordCount, hopLimit);
    }
    if (this.level === pressure.full) {
      this.counters.add("layer2.guard.syn-memory");
      this.watches.memory.add(words, at, wordCount, hopLimit);
      return synVerdict.drop;
    }
    if (!this.withinLimits(words, at, wordCount, nowMs)) return synVerdict.drop;
    // Near the ceiling, too, nothing is kept for a handshake: else forged SYNs would hold what real clients need.
    const isScarce = this.level >= pressure.high;
    if (!isFlood && !isScarce && (this.settings.halfOpen === 0 || halfOpen < this.settings.halfOpen))
      return synVerdict.take;
    this.counters.add("layer2.guard.cookies");
    return synVerdict.cookie;
  }

  opened(words: Int32Array, at: number, wordCount: 1 | 4, nowMs: number, port = 0): boolean {
    this.meter(port).complete(nowMs);
    const source = this.sources.take(words, at, wordCount, nowMs);
    const network = this.networks.take(words, at, wordCount, nowMs);
    this.watches.connections.add(words, at, wordCount, 0);
    const { settings } = this;
    if (this.isFull(source, network)) {
      this.counters.add("layer2.guard.refused-source");
      const isForHim = this.isOver(this.sources, source, settings.sourceConnections);
      if (isForHim) this.offend(words, at, wordCount, "connection-flood", 1);
      return false;
    }
    (this.sources.connections[source] as number) += 1;
    (this.networks.connections[network] as number) += 1;
    this.connections += 1;
    return true;
  }

  closed(words: Int32Array, at: number, wordCount: 1 | 4): void {
    this.connections = Math.max(0, this.connections - 1);
    leave(this.sources, this.sources.find(words, at, wordCount));
    leave(this.networks, this.networks.find(words, at, wordCount));
  }

  memory(bytes: number): boolean {
    if (this.ceiling.allows(bytes)) return true;
    this.counters.add("layer2.guard.memory-refused");
    this.watches.memory.addMany(1);
    return false;
  }

  strange(
    kind: StrangeKind,
    words: Int32Array,
    at: number,
    wordCount: 1 | 4,
    _nowMs: number,
    hopLimit = 0,
  ): void {
    this.counters.add("layer2.guard.strange");
    this.byStrange[kind]?.add(words, at, wordCount, hopLimit);
    if (kind === strangeKind.gaps) this.offend(words, at, wordCount, "gap-flood", 1);
  }

  // --- what the evictor tells -----------------------------------------------------------------------------------

  slow(words: Int32Array, at: number, wordCount: 1 | 4): void {
    this.watches.slow.sample(words, at, wordCount, 0);
  }

  evicted(words: Int32Array, at: number, wordCount: 1 | 4): void {
    this.counters.add("layer2.guard.evicted");
    this.watches.memory.add(words, at, wordCount, 0);
    this.offend(words, at, wordCount, "slow-read", evictionPoints);
  }

  // --- a turn ---------------------------------------------------------------------------------------------------

  /** Once a turn of the worker; does something every ten milliseconds at most. */
  turn(nowMs: number): void {
    if (nowMs < this.tickAtMs) return;
    this.nowMs = nowMs;
    this.tickAtMs = nowMs + tickMs;
    this.ceiling.refresh();
    this.level = this.ceiling.level();
    if (this.level > pressure.none || nowMs >= this.lookAtMs) {
      this.lookAtMs = nowMs + lookMs;
      this.evictor?.turn(this.ceiling.level(), this.ceiling.excess());
      this.ceiling.refresh();
      this.level = this.ceiling.level();
    }
    if (this.windowAtMs < 0) this.windowAtMs = nowMs;
    if (nowMs - this.windowAtMs >= windowMs) this.endWindow(nowMs);
  }

  private endWindow(nowMs: number): void {
    const { watches } = this;
    for (const meter of this.meters) meter.advance(nowMs);
    const isFlood = this.meters.some((meter) => meter.floodSinceMs >= 0);
    // The meters have judged: any SYN of a flood counts, and none when there is no flood.
    watches.flood.addMany(isFlood ? Math.max(1, this.floodCount) : 0);
    this.floodCount = 0;
    watches.slow.setLevel(this.evictor?.slowPeers ?? 0);
    const traces: TraceNote[] = [];
    const attacks = Object.values(watches)
      .map((watch) => watch.turn(nowMs, nowMs - this.windowAtMs, traces))
      .filter((note) => note !== undefined);
    this.windowAtMs = nowMs;
    const { blocks } = this;
    if (attacks.length + traces.length + blocks.length === 0) return;
    this.blocks = [];
    this.context.report({ attacks, blocks, traces });
  }

  // --- limits ---------------------------------------------------------------------------------------------------

  /** Whether a SYN may be answered at all. Looks nothing up when there is nothing to hold it against. */
  private withinLimits(words: Int32Array, at: number, wordCount: 1 | 4, nowMs: number): boolean {
    const { sourceRate, networkRate, sourceConnections, networkConnections } = this.settings;
    if (sourceRate + networkRate > 0) {
      const isInTime =
        keepsPace(this.sources, this.sourcePace, words, at, wordCount, nowMs) &&
        keepsPace(this.networks, this.networkPace, words, at, wordCount, nowMs);
      if (!isInTime) {
        this.counters.add("layer2.guard.syn-rate");
        return false;
      }
    }
    if (sourceConnections + networkConnections === 0 && this.level === pressure.none) return true;
    const source = this.sources.find(words, at, wordCount);
    const network = this.networks.find(words, at, wordCount);
    if (!this.isFull(source, network)) return true;
    this.counters.add("layer2.guard.syn-source");
    return false;
  }

  /** Whether a source (its place, or -1) has all the connections that it may have. */
  private isFull(source: number, network: number): boolean {
    const { sourceConnections, networkConnections } = this.settings;
    if (this.isOver(this.sources, source, sourceConnections)) return true;
    if (this.isOver(this.networks, network, networkConnections)) return true;
    if (this.level === pressure.none) return false;
    const most = Math.max(sourceAlways, sourceShare * this.connections);
    const mostOfNetwork = Math.max(networkAlways, networkShare * this.connections);
    return countAt(this.sources, source) >= most || countAt(this.networks, network) >= mostOfNetwork;
  }

  private isOver(table: SourceTable, place: number, limit: number): boolean {
    return limit > 0 && countAt(table, place) >= this.shareOf(limit);
  }

  /** A worker's part of a limit: a source's connections fall to workers at random, never quite evenly. */
  private shareOf(limit: number): number {
    const { workers } = this.context;
    if (workers === 1) return limit;
    const part = limit / workers;
    return Math.ceil(part + 2 * Math.sqrt(part));
  }

  private paceOf(rate: number): Pace {
    const part = rate === 0 ? 0 : this.shareOf(rate);
    return new Pace(part, Math.max(1, part));
  }

  private offend(words: Int32Array, at: number, wordCount: 1 | 4, reason: string, points: number): void {
    const { blockMs } = this.settings;
    if (blockMs === 0) return;
    const { sources } = this;
    const place = sources.take(words, at, wordCount, this.nowMs);
    if (this.nowMs < (sources.blockedMs[place] as number)) return;
    for (let point = 0; point < points; point += 1) {
      const state = this.offences.after(sources.offenceMs[place] as number, this.nowMs);
      if (state >= 0) {
        sources.offenceMs[place] = state;
        continue;
      }
      const forMs = blockMs * 2 ** Math.min(blockDoublings, sources.blocks[place] as number);
      sources.blocks[place] = Math.min(255, (sources.blocks[place] as number) + 1);
      sources.offenceMs[place] = 0;
      sources.blockedMs[place] = this.nowMs + forMs;
      this.counters.add("layer2.guard.blocks");
      maskInto(this.prefix, words, at, wordCount, this.sourceBits);
      this.blocks.push({ prefix: prefixText(this.prefix, 0, wordCount, this.sourceBits), reason, forMs });
      return;
    }
  }

  private meter(port: number): SynMeter {
    const found = this.meters[(this.meterOf[port] as number) - 1];
    if (found) return found;
    if (this.meters.length < metersMost) this.meters.push(new SynMeter(this.settings.floodSyns));
    this.meterOf[port] = this.meters.length;
    return this.meters[this.meters.length - 1] as SynMeter;
  }

  private makeWatches(): Watches {
    const { settings } = this;
    const { sourceBits, networkBits } = this;
    return {
      // SYNs are judged by the meters: one that they count is an attack.
      flood: new AttackWatch("syn-flood", 1, sourceBits),
      connections: new AttackWatch("connection-flood", settings.alarmConnections, networkBits),
      resets: new AttackWatch("reset-storm", settings.alarmStrays, sourceBits),
      strays: new AttackWatch("stray-segments", settings.alarmStrays, sourceBits),
      gaps: new AttackWatch("gap-flood", settings.alarmStrays, sourceBits),
      slow: new AttackWatch("slow-read", settings.alarmSlow, sourceBits),
      memory: new AttackWatch("memory", 1, sourceBits),
    };
  }

  private watchesByStrange(): (AttackWatch | undefined)[] {
    const { strays, resets, gaps } = this.watches;
    const by: (AttackWatch | undefined)[] = [];
    by[strangeKind.ack] = strays;
    by[strangeKind.rst] = resets;
    by[strangeKind.syn] = strays;
    by[strangeKind.badAck] = strays;
    // The meters tell of these.
    by[strangeKind.halfOpen] = undefined;
    by[strangeKind.gaps] = gaps;
    return by;
  }
}

/** Connections at a place; 0 when nothing is known. */
function countAt(table: SourceTable, place: number): number {
  return place < 0 ? 0 : (table.connections[place] as number);
}

function leave(table: SourceTable, place: number): void {
  // A source that had to give way in the table has lost its count: what it opened before is closed uncounted.
  if (countAt(table, place) > 0) (table.connections[place] as number) -= 1;
}

/** Whether one more connection is within a source's rate; if so, it is counted. */
function keepsPace(
  table: SourceTable,
  pace: Pace,
  words: Int32Array,
  at: number,
  wordCount: 1 | 4,
  nowMs: number,
): boolean {
  if (pace.intervalMs === 0) return true;
  const place = table.take(words, at, wordCount, nowMs);
  const state = pace.after(table.paceMs[place] as number, nowMs);
  if (state < 0) return false;
  table.paceMs[place] = state;
  return true;
}
