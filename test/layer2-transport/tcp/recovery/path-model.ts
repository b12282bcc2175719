/**
 * A path in virtual time for tests of loss recovery: senders with a `LossRecovery` each, a shared bottleneck (rate,
 * queue, marks), fixed delay, loss and reordering by script or by seed, and receivers that acknowledge as RFC 5681,
 * 2018, 2883 and 7323 have it. No packets: a segment is a pair of numbers.
 */
import {
  AckFacts,
  LossRecovery,
  type RecoveryTerms,
} from "../../../../src/layer2-transport/tcp/recovery/recovery.ts";

export const mss = 1448;

export const terms: RecoveryTerms = {
  mss,
  sack: true,
  timestamps: true,
  ecn: false,
  control: "cubic",
  initialWindow: 10,
  initialRtoUs: 1e6,
  minRtoUs: 200_000,
  maxRtoUs: 120e6,
};

/** A seeded stream of numbers in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 4_294_967_296;
  };
}

interface Event {
  atUs: number;
  order: number;
  run(): void;
}

/** Virtual time: events in order of time, then of making. */
export class World {
  nowUs = 1000;
  private readonly heap: Event[] = [];
  private order = 0;

  at(atUs: number, run: () => void): void {
    const { heap } = this;
    const event = { atUs, order: this.order++, run };
    let place = heap.push(event) - 1;
    while (place > 0) {
      const above = (place - 1) >> 1;
      if (!isBefore(event, heap[above]!)) break;
      heap[place] = heap[above]!;
      place = above;
    }
    heap[place] = event;
  }

  /** Runs until nothing is left, `isOver` says so, or the time is up. */
  run(untilUs: number, isOver: () => boolean = () => false): void {
    while (this.heap.length > 0 && this.heap[0]!.atUs <= untilUs && !isOver()) {
      const event = this.take();
      this.nowUs = Math.max(this.nowUs, event.atUs);
      event.run();
    }
  }

  private take(): Event {
    const { heap } = this;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let place = 0;
    for (;;) {
      let below = 2 * place + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1]!, heap[below]!)) below += 1;
      if (!isBefore(heap[below]!, last)) break;
      heap[place] = heap[below]!;
      place = below;
    }
    heap[place] = last;
    return first;
  }
}

const isBefore = (a: Event, b: Event): boolean => a.atUs < b.atUs || (a.atUs === b.atUs && a.order < b.order);

export interface PathRules {
  /** Bytes per second; Infinity: no bottleneck. */
  readonly bytesPerSecond: number;
  /** Bytes that may wait at the bottleneck. */
  readonly queueBytes: number;
  /** Bytes waiting from which on packets are marked (CE) when they may be. */
  readonly markBytes?: number;
  /** One way. */
  readonly delayUs: number;
  /** Is the `count`th segment of its flow lost? */
  readonly isLost?: (count: number, segment: Segment) => boolean;
  /** How much later than others the segment comes. */
  readonly extraDelayUs?: (count: number, segment: Segment) => number;
  readonly isAckLost?: (count: number) => boolean;
  /** A token bucket that drops: bytes per second and the bucket's size. */
  readonly policer?: { bytesPerSecond: number; burstBytes: number };
}

export interface Segment {
  readonly seq: number;
  readonly length: number;
  readonly clock: number;
  readonly isResent: boolean;
  readonly hasCwr: boolean;
  isMarked: boolean;
}

const wireOverhead = 52;

/** The way from the senders to the receivers: one queue for all. */
export class Path {
  readonly world: World;
  readonly rules: PathRules;
  dropped = 0;
  private freeAtUs = 0;
  private tokens = 0;
  private tokensAtUs = 0;

  constructor(world: World, rules: PathRules) {
    this.world = world;
    this.rules = rules;
    this.tokens = rules.policer?.burstBytes ?? 0;
  }

  send(count: number, segment: Segment, canMark: boolean, arrive: (segment: Segment) => void): void {
    const { world, rules } = this;
    const bytes = segment.length + wireOverhead;
    if (rules.isLost?.(count, segment) || !this.passesPolicer(bytes)) {
      this.dropped += 1;
      return;
    }
    const startUs = Math.max(world.nowUs, this.freeAtUs);
    const waiting = ((startUs - world.nowUs) * rules.bytesPerSecond) / 1e6;
    if (waiting > 0 && waiting + bytes > rules.queueBytes) {
      this.dropped += 1;
      return;
    }
    if (canMark && rules.markBytes !== undefined && waiting > rules.markBytes) segment.isMarked = true;
    this.freeAtUs = startUs + (bytes / rules.bytesPerSecond) * 1e6;
    const extraUs = rules.extraDelayUs?.(count, segment) ?? 0;
    world.at(this.freeAtUs + rules.delayUs + extraUs, () => arrive(segment));
  }

  private passesPolicer(bytes: number): boolean {
    const { policer } = this.rules;
    if (!policer) return true;
    const { nowUs } = this.world;
    const filled = this.tokens + ((nowUs - this.tokensAtUs) * policer.bytesPerSecond) / 1e6;
    this.tokens = Math.min(policer.burstBytes, filled);
    this.tokensAtUs = nowUs;
    if (this.tokens < bytes) return false;
    this.tokens -= bytes;
    return true;
  }
}

export interface FlowRules {
  readonly terms?: Partial<RecoveryTerms>;
  /** Bytes to send in all. */
  readonly bytes: number;
  /** The longest call of `sent`, in segments. */
  readonly superSegments?: number;
  /** The receiver's window. */
  readonly window?: number;
  /** Acknowledge each second segment or after this long; 0: each at once. */
  readonly delayedAckUs?: number;
  /** The sender has only so many bytes each so often: an application that writes in pieces. */
  readonly pieces?: { bytes: number; eachUs: number };
  /** The first sequence number: near the wrap by default. */
  readonly isn?: number;
  readonly startUs?: number;
}

/** One transfer: the sender's half of a stack and a receiver. */
export class Flow {
  readonly recovery = new LossRecovery();
  readonly receiver: Receiver;
  readonly world: World;
  private readonly path: Path;
  private readonly rules: FlowRules;
  private readonly facts = new AckFacts();
  readonly isn: number;
  private sentBytes = 0;
  private offeredBytes: number;
  ackedBytes = 0;
  segmentsSent = 0;
  finishedUs = -1;
  maxCwnd = 0;
  minCwnd = Infinity;
  private clock = 0;
  private clockUs = 0;
  private lastEcho = 0;
  private ackCount = 0;
  private timerUs = Infinity;
  private checks = 0;
  /** Called after each ACK. */
  watch: ((flow: Flow) => void) | undefined;

  constructor(path: Path, rules: FlowRules) {
    this.path = path;
    this.world = path.world;
    this.rules = rules;
    this.isn = rules.isn ?? -5000;
    this.offeredBytes = rules.pieces ? 0 : rules.bytes;
    this.receiver = new Receiver(this.world, this.isn, rules, (ack) => this.sendAck(ack));
    this.world.at(rules.startUs ?? this.world.nowUs, () => this.start());
  }

  get isDone(): boolean {
    return this.ackedBytes === this.rules.bytes;
  }

  private start(): void {
    const { nowUs } = this.world;
    this.recovery.begin({ ...terms, ...this.rules.terms }, this.isn, nowUs);
    this.recovery.handshakeRtt(2 * this.path.rules.delayUs + 100);
    if (this.rules.pieces) this.offer();
    this.output();
  }

  private offer(): void {
    const { pieces } = this.rules;
    if (!pieces) return;
    this.offeredBytes = Math.min(this.rules.bytes, this.offeredBytes + pieces.bytes);
    if (this.offeredBytes < this.rules.bytes) {
      this.world.at(this.world.nowUs + pieces.eachUs, () => {
        this.offer();
        this.output();
      });
    }
  }

  private tick(isResend: boolean): void {
    const { nowUs } = this.world;
    if (!isResend && nowUs - this.clockUs < 5000) return;
    if (((this.clock - this.lastEcho) & 0xff) >= 100) return;
    this.clock = (this.clock + 1) & 0xff;
    this.clockUs = nowUs;
  }

  /** What the stack's output does: lost runs first, then new data as far as both windows go. */
  private output(isProbe = false): void {
    const { recovery } = this;
    const { nowUs } = this.world;
    const limit = (this.rules.superSegments ?? 16) * terms.mss;
    for (let run = recovery.nextLost(limit); run !== undefined; run = recovery.nextLost(limit)) {
      this.tick(true);
      const { seq, length } = run;
      recovery.resent(run, length, this.clock, nowUs);
      this.emit(seq, length, true);
    }
    const window = this.rules.window ?? 2 ** 30;
    let sentAny = false;
    for (;;) {
      const open = window - (this.sentBytes - this.ackedBytes);
      const available = Math.min(this.offeredBytes - this.sentBytes, open);
      const allowed = recovery.allowance(nowUs);
      const bytes = Math.min(available, allowed, limit);
      if (bytes <= 0 || (bytes < terms.mss && allowed < available)) break;
      this.tick(false);
      const seq = (this.isn + this.sentBytes) | 0;
      this.sentBytes += bytes;
      const hasCwr = recovery.wantsCwr;
      recovery.sent(seq, bytes, this.clock, nowUs, this.sentBytes === this.offeredBytes);
      this.emit(seq, bytes, false, hasCwr);
      sentAny = true;
    }
    if (isProbe && !sentAny) {
      const run = recovery.probeRun();
      if (run) {
        this.tick(true);
        const { seq, length } = run;
        recovery.resent(run, length, this.clock, nowUs);
        this.emit(seq, length, true);
      }
    }
    this.arm();
  }

  private emit(seq: number, length: number, isResent: boolean, hasCwr = false): void {
    for (let at = 0; at < length; at += terms.mss) {
      const segment: Segment = {
        seq: (seq + at) | 0,
        length: Math.min(terms.mss, length - at),
        clock: this.clock,
        isResent,
        hasCwr: hasCwr && at === 0,
        isMarked: false,
      };
      const canMark = this.rules.terms?.ecn === true && !isResent;
      this.path.send(this.segmentsSent++, segment, canMark, (arrived) => this.receiver.take(arrived));
    }
  }

  private arm(): void {
    const { timerAtUs } = this.recovery;
    if (timerAtUs === Infinity || timerAtUs >= this.timerUs) return;
    this.timerUs = timerAtUs;
    this.world.at(timerAtUs, () => {
      if (this.timerUs !== timerAtUs) return;
      this.timerUs = Infinity;
      const answer = this.recovery.onTimer(this.world.nowUs);
      this.track();
      this.output(answer === "probe");
    });
  }

  private sendAck(ack: Ack): void {
    if (this.path.rules.isAckLost?.(this.ackCount++)) return;
    this.world.at(this.world.nowUs + this.path.rules.delayUs, () => this.takeAck(ack));
  }

  private takeAck(ack: Ack): void {
    const { facts, recovery, world } = this;
    facts.ack = ack.ack;
    facts.sackCount = ack.sacks.length / 2;
    facts.sacks.set(ack.sacks);
    facts.window = this.rules.window ?? 2 ** 30;
    facts.windowChanged = false;
    facts.hasPayload = false;
    facts.echoClock = this.rules.terms?.timestamps === false ? -1 : ack.echo;
    facts.ece = ack.ece;
    facts.receivedUs = world.nowUs;
    facts.nowUs = world.nowUs;
    if (((ack.echo - this.lastEcho) & 0xff) < 128) this.lastEcho = ack.echo;
    this.ackedBytes += recovery.acked(facts);
    if (this.isDone && this.finishedUs < 0) this.finishedUs = world.nowUs;
    this.track();
    this.watch?.(this);
    this.output();
  }

  private track(): void {
    const { cwnd } = this.recovery;
    if (cwnd > this.maxCwnd) this.maxCwnd = cwnd;
    if (cwnd < this.minCwnd) this.minCwnd = cwnd;
    // Often, but in proportion: each look goes over all runs.
    this.checks -= 1;
    if (this.checks > 0) return;
    this.checks = this.recovery.runCount >> 1;
    const faults = this.recovery.faults();
    if (faults.length > 0) throw new Error(`at ${this.world.nowUs} us: ${faults.join("; ")}`);
  }
}

interface Ack {
  ack: number;
  sacks: number[];
  echo: number;
  ece: boolean;
}

/** A receiver: in order, islands, D-SACK, the echo rule of RFC 7323 4.3. */
export class Receiver {
  next: number;
  duplicates = 0;
  /** Segments that came after one with higher numbers. */
  late = 0;
  private readonly islands: { left: number; right: number; at: number }[] = [];
  private readonly world: World;
  private readonly rules: FlowRules;
  private readonly send: (ack: Ack) => void;
  private arrivals = 0;
  private tsRecent = 0;
  private lastAckSent: number;
  private unacked = 0;
  private pendingAck = 0;
  private ece = false;

  constructor(world: World, isn: number, rules: FlowRules, send: (ack: Ack) => void) {
    this.world = world;
    this.next = isn;
    this.lastAckSent = isn;
    this.rules = rules;
    this.send = send;
  }

  take(segment: Segment): void {
    const right = (segment.seq + segment.length) | 0;
    this.arrivals += 1;
    if (((segment.seq - this.lastAckSent) | 0) <= 0 && ((segment.clock - this.tsRecent) << 24) >> 24 >= 0) {
      this.tsRecent = segment.clock;
    }
    if (segment.hasCwr) this.ece = false;
    if (segment.isMarked) this.ece = true;
    const duplicate = this.place(segment.seq, right);
    const isInOrder = duplicate.length === 0 && this.islands.length === 0;
    const delayUs = this.rules.delayedAckUs ?? 0;
    this.unacked += 1;
    if (isInOrder && delayUs > 0 && this.unacked < 2 && !this.ece) {
      const pending = ++this.pendingAck;
      this.world.at(this.world.nowUs + delayUs, () => {
        if (pending === this.pendingAck) this.acknowledge([]);
      });
      return;
    }
    this.acknowledge(duplicate);
  }

  private acknowledge(duplicate: number[]): void {
    this.pendingAck += 1;
    this.unacked = 0;
    this.lastAckSent = this.next;
    const blocks = [...this.islands].sort((a, b) => b.at - a.at);
    const sacks = [...duplicate];
    const hasSack = this.rules.terms?.sack !== false;
    for (const block of blocks) if (sacks.length < 6) sacks.push(block.left, block.right);
    this.send({ ack: this.next, sacks: hasSack ? sacks : [], echo: this.tsRecent, ece: this.ece });
  }

  /** Returns the D-SACK block: what had arrived before. */
  private place(seq: number, right: number): number[] {
    if (((right - this.next) | 0) <= 0) {
      this.duplicates += 1;
      return [seq, right];
    }
    if (((seq - this.next) | 0) <= 0) {
      this.next = right;
      if (this.islands.length > 0) this.late += 1;
      this.join();
      return [];
    }
    const held = this.islands.find((one) => ((seq - one.left) | 0) >= 0 && ((right - one.right) | 0) <= 0);
    if (held) {
      this.duplicates += 1;
      held.at = this.arrivals;
      return [seq, right];
    }
    let left = seq;
    let end = right;
    for (let i = this.islands.length - 1; i >= 0; i -= 1) {
      const one = this.islands[i]!;
      if (((one.left - end) | 0) > 0 || ((one.right - left) | 0) < 0) continue;
      if (((one.left - left) | 0) < 0) left = one.left;
      if (((one.right - end) | 0) > 0) end = one.right;
      this.islands.splice(i, 1);
    }
    this.islands.push({ left, right: end, at: this.arrivals });
    return [];
  }

  private join(): void {
    for (let found = true; found; ) {
      found = false;
      for (let i = 0; i < this.islands.length; i += 1) {
        const one = this.islands[i]!;
        if (((one.left - this.next) | 0) > 0) continue;
        if (((one.right - this.next) | 0) > 0) this.next = one.right;
        this.islands.splice(i, 1);
        found = true;
        break;
      }
    }
  }
}
