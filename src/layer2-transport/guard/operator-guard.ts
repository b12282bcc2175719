/**
 * The guard as an operator sees it (`apo.guard`): layer 3's lists and offenders, and what the workers' guards tell.
 *
 * Layer 2, main thread. It joins the reports of all workers, blocks whom they ask to block, for a time, and keeps one
 * table of who did what at either layer. Everything is bounded; what is oldest gives way.
 */

import { type Guard, LinkGuard } from "../../layer3-ip/guard.ts";
import { ceilingUnitBytes, createCeilingMemory } from "./memory-ceiling.ts";
import type { AttackKind, AttackNote, GuardReport, TraceNote } from "./report.ts";
import { type BlockClock, type TimedBlock, TimedBlocks, wallClock } from "./timed-blocks.ts";

/** An attack that goes on, or has just ended. */
export interface Attack {
  readonly kind: AttackKind;
  /** Who sends at least a quarter of it: an address or a prefix; "" when there are many. */
  readonly from: string;
  /** Hops between us, guessed from the TTL; -1: not known. */
  readonly distance: number;
  /** Events a second; of "slow-read", slow peers now. */
  readonly perSecond: number;
  /** Events since it began; of "slow-read", the most at once. */
  readonly count: number;
  readonly since: Date;
  readonly isOver: boolean;
}

/** Who did what at either layer. */
export interface TraceRecord {
  /** An address, or the prefix that counts as one source. */
  readonly source: string;
  /** Hops away; -1: not known. */
  readonly distance: number;
  /** How often, by reason: "tcpNull" (a packet that layer 3 dropped), "syn-flood" (an attack that layer 2 saw). */
  readonly reasons: Readonly<Record<string, number>>;
  readonly firstSeen: Date;
  readonly lastSeen: Date;
  /** Until when it is blocked of our own accord. */
  readonly blockedUntil: Date | undefined;
}

/** `apo.guard`: layer 3's, and TCP's. */
export interface RuntimeGuard extends Guard {
  /** The attacks that go on now. */
  attacks(): Attack[];
  /** Who did what, dropped packets and attacks together; the latest first, at most 1,024 of either layer. */
  trace(): TraceRecord[];
  /** What TCP connections keep, and the ceiling on it, in bytes. Off by what has changed in the last 10 ms. */
  memory(): { readonly kept: number; readonly ceiling: number };
  /** Whom the guard has blocked of its own accord, and until when. */
  blocks(): TimedBlock[];
  /** Blocks a prefix for so many milliseconds. False: it is on the allow list, or blocked for good. */
  blockFor(prefix: string, milliseconds: number): Promise<boolean>;
}

/** What the runtime is told: something to raise an alarm for. */
export type AttackListener = (attack: Attack, text: string, count: number) => void;

const tracesMost = 1024;

interface Ongoing {
  /** By worker. */
  readonly parts: Map<number, AttackNote>;
  since: Date;
}

interface Trace {
  distance: number;
  readonly reasons: Record<string, number>;
  firstMs: number;
  lastMs: number;
}

export class OperatorGuard extends LinkGuard implements RuntimeGuard {
  /** Set by the runtime. */
  onAttack: AttackListener | undefined;
  private readonly clock: BlockClock;
  private readonly timed: TimedBlocks;
  private readonly ongoing = new Map<AttackKind, Ongoing>();
  private readonly traces = new Map<string, Trace>();

  private readonly kept: Int32Array;
  private readonly ceiling: number;

  /** `ceiling`: bytes, and what the workers write there of what they keep. */
  constructor(ceiling = { bytes: 0, memory: createCeilingMemory(1) }, clock: BlockClock = wallClock) {
    super();
    this.ceiling = ceiling.bytes;
    this.kept = new Int32Array(ceiling.memory);
    this.clock = clock;
    this.timed = new TimedBlocks(this, clock);
  }

  attacks(): Attack[] {
    return [...this.ongoing].map(([kind, ongoing]) => joined(kind, ongoing, false));
  }

  memory(): { kept: number; ceiling: number } {
    let units = 0;
    for (let worker = 0; worker < this.kept.length; worker += 1) units += Atomics.load(this.kept, worker);
    return { kept: units * ceilingUnitBytes, ceiling: this.ceiling };
  }

  blocks(): TimedBlock[] {
    return this.timed.all();
  }

  blockFor(prefix: string, milliseconds: number): Promise<boolean> {
    return this.timed.add(prefix, "asked", milliseconds);
  }

  trace(): TraceRecord[] {
    const all = new Map<string, Trace>();
    for (const [source, trace] of this.traces) all.set(source, { ...trace, reasons: { ...trace.reasons } });
    for (const { address, distance, reason, count, firstSeen, lastSeen } of this.offenders()) {
      const trace = all.get(address);
      const [firstMs, lastMs] = [firstSeen.getTime(), lastSeen.getTime()];
      if (!trace) {
        all.set(address, { distance, reasons: { [reason]: count }, firstMs, lastMs });
        continue;
      }
      trace.reasons[reason] = (trace.reasons[reason] ?? 0) + count;
      trace.firstMs = Math.min(trace.firstMs, firstMs);
      trace.lastMs = Math.max(trace.lastMs, lastMs);
      if (trace.distance < 0) trace.distance = distance;
    }
    const until = new Map(this.timed.all().map((block) => [block.prefix, block.until]));
    return [...all]
      .map(([source, { distance, reasons, firstMs, lastMs }]) => ({
        source,
        distance,
        reasons,
        firstSeen: new Date(firstMs),
        lastSeen: new Date(lastMs),
        blockedUntil: until.get(source),
      }))
      .sort((a, b) => b.lastSeen.getTime() - a.lastSeen.getTime());
  }

  /** A worker's report. */
  hear(worker: number, report: GuardReport): void {
    for (const note of report.attacks) this.hearAttack(worker, note);
    for (const note of report.traces) this.hearTrace(note);
    for (const { prefix, reason, forMs } of report.blocks) {
      this.hearTrace({ source: prefix, reason, count: 0, distance: -1 });
      this.timed.add(prefix, reason, forMs).catch((error: unknown) => {
        process.emitWarning(`the guard could not block ${prefix}: ${(error as Error).message}`, {
          type: "ApoWarning",
          code: "APO_GUARD",
        });
      });
    }
  }

  /** A worker has died: its part of what goes on is over. */
  forgetWorker(worker: number): void {
    for (const [kind, { parts }] of [...this.ongoing]) {
      if (parts.delete(worker) && parts.size === 0) this.ongoing.delete(kind);
    }
  }

  close(): void {
    this.timed.close();
  }

  private hearAttack(worker: number, note: AttackNote): void {
    const { kind } = note;
    const since = new Date(this.clock.now() - note.sinceMs);
    const ongoing: Ongoing = this.ongoing.get(kind) ?? { parts: new Map<number, AttackNote>(), since };
    if (since < ongoing.since) ongoing.since = since;
    const isNew = ongoing.parts.size === 0;
    ongoing.parts.set(worker, note);
    this.ongoing.set(kind, ongoing);
    const isOver = [...ongoing.parts.values()].every((part) => part.isOver);
    const attack = joined(kind, ongoing, isOver);
    if (isOver) this.ongoing.delete(kind);
    // Of what goes on, every worker tells every ten seconds: the first to tell speaks for all.
    if (isNew || isOver || worker === Math.min(...ongoing.parts.keys())) {
      this.onAttack?.(attack, attackText(attack), attack.count);
    }
  }

  private hearTrace({ source, reason, count, distance }: TraceNote): void {
    const nowMs = this.clock.now();
    const trace = this.traces.get(source) ?? { distance, reasons: {}, firstMs: nowMs, lastMs: nowMs };
    trace.lastMs = nowMs;
    if (distance >= 0) trace.distance = distance;
    trace.reasons[reason] = (trace.reasons[reason] ?? 0) + count;
    this.traces.delete(source);
    this.traces.set(source, trace);
    if (this.traces.size <= tracesMost) return;
    const [oldest] = this.traces.keys();
    if (oldest !== undefined) this.traces.delete(oldest);
  }
}

function joined(kind: AttackKind, { parts, since }: Ongoing, isOver: boolean): Attack {
  let perSecond = 0;
  let count = 0;
  let most: AttackNote | undefined;
  for (const part of parts.values()) {
    count += part.count;
    if (part.isOver) continue;
    perSecond += part.perSecond;
    if (!most || part.perSecond > most.perSecond) most = part;
  }
  return { kind, from: most?.from ?? "", distance: most?.distance ?? -1, perSecond, count, since, isOver };
}

const words: Readonly<Record<AttackKind, string>> = {
  "syn-flood": "SYN flood",
  "connection-flood": "flood of connections",
  "reset-storm": "storm of resets",
  "stray-segments": "storm of segments of no connection",
  "gap-flood": "flood of out-of-order data",
  "slow-read": "peers that do not read what they asked for",
  memory: "memory for connections runs short",
};

/** An attack in words for an operator. */
export function attackText({ kind, from, distance, perSecond, count, since, isOver }: Attack): string {
  const hops = distance < 0 ? "" : ` (${distance} hops away)`;
  const who = from === "" ? "from many sources" : `from ${from}${hops}`;
  const sinceText = since.toISOString();
  const unit = kind === "slow-read" ? "at most at once" : "in all";
  if (isOver) return `${words[kind]}: over; it began at ${sinceText}, ${count} ${unit}`;
  const now = kind === "slow-read" ? `${perSecond} now` : `${perSecond} a second`;
  return `${words[kind]}: ${now}, ${who}, since ${sinceText}, ${count} ${unit}`;
}
