/**
 * The state machine of loss recovery and the window: open, reducing (ECN), recovering, timed out. The part of
 * `LossRecovery` that knows no ACKs and no timers of its own: it marks losses and says how far the window falls.
 *
 * Layer 2, TCP. RFC 5681, 6582, 6675, 6937, 5682, 4015, 3168. Knows no packets, no v-nodes and no clock.
 */
import { Bbr } from "./congestion/bbr.ts";
import type { CongestionControl, WindowState } from "./congestion/congestion-control.ts";
import { Cubic } from "./congestion/cubic.ts";
import { NewReno } from "./congestion/newreno.ts";
import { DeliveryRate } from "./delivery-rate.ts";
import type { ControlName } from "./facts.ts";
import { ProportionalReduction } from "./prr.ts";
import { duplicateThreshold, Rack } from "./rack.ts";
import { RttEstimator } from "./rtt.ts";
import { lost, SentRuns, sacked } from "./sent-runs.ts";
import { frtoFirst, frtoNew, frtoOff, Undo } from "./undo.ts";

/** Phases: nothing to repair; a reduction by ECN or a tail loss; fast recovery; after a timeout. */
export const open = 0;
export const reducing = 1;
export const recovering = 2;
export const timedOut = 3;

/** A reordering timer is not set closer than this: the wheel has milliseconds. */
const minRackDelayUs = 1000;
/** A window counts as used when this much of it was left at most: a super-packet may have been held back. */
const maxSlackBytes = 65_536;

export class RecoveryPhases implements WindowState {
  /** Bytes. */
  cwnd = 0.5;
  /** Infinity: none yet. */
  ssthresh = Infinity;
  /** Fast recovery or recovery after a timeout. */
  inRecovery = false;
  /** Retransmission timeouts without progress between them. */
  backoffs = 0;
  /** The timeout in force, backoff included. */
  rtoUs = 0.5;
  /** The next new segment carries CWR (RFC 3168 6.1.2); `sent` ends it. */
  wantsCwr = false;
  /** Segments sent again, segments taken for lost, timeouts, tail-loss probes, reductions taken back: since `begin`. */
  retransmits = 0;
  lostTotal = 0;
  timeouts = 0;
  probes = 0;
  undos = 0;
  /** D-SACKs: segments that arrived twice. */
  duplicates = 0;
  /** Bytes. */
  deliveredTotal = 0.5;
  mss = 1460;
  protected readonly runs = new SentRuns();
  protected readonly rtt = new RttEstimator();
  protected readonly rack = new Rack();
  protected readonly prr = new ProportionalReduction();
  protected readonly undo = new Undo();
  protected readonly cubic = new Cubic();
  protected readonly newReno = new NewReno();
  protected control: CongestionControl = this.cubic;
  /** For a control that is a model of the path; undefined for the others. */
  protected bbr: Bbr | undefined = undefined;
  private spareBbr: Bbr | undefined = undefined;
  protected rate: DeliveryRate | undefined = undefined;
  protected phase = open;
  protected hasSack = false;
  protected hasEcn = false;
  protected maxRtoUs = 0.5;
  protected initialWindow = 10;
  /** SND.NXT when the present or the last reduction began. */
  protected highSeq = 0;
  /** There was a reduction, and nothing above its `highSeq` has been acknowledged yet: no second one for the same. */
  protected hasReduced = false;
  /** SND.NXT when the last recovery ended: D-SACKs for it have come when this is acknowledged. */
  protected undoEnd = 0;
  /** The time of what is being looked at: an ACK's arrival, or now. */
  nowUs = 0.5;
  /** The round trip that the present ACK measured; -1: none. */
  sampleUs = -0.5;
  protected rtoBaseUs = 0.5;
  protected rackAtUs = Infinity;
  /** The segment at SND.UNA goes out whatever the window says: after a timeout. */
  protected forceFirst = false;
  /** A probe is due: one segment goes out whatever the window says. */
  protected probeDue = false;
  protected probeOut = false;
  /** Without SACK: duplicate ACKs, and the bytes that they stand for. */
  protected duplicateAcks = 0;
  protected duplicateBytes = 0;
  protected duplicateLimit = 0;
  /** The most that was in flight in this round trip, which ends at `flightEnd`. */
  protected maxFlight = 0;
  /** The same of the round trip before. */
  protected lastMaxFlight = 0;
  protected wasAppLimited = false;
  protected peerWindow = 0;

  /** SND.UNA and SND.NXT as this object knows them. */
  get una(): number {
    return this.runs.una;
  }

  get nxt(): number {
    return this.runs.nxt;
  }

  /** Bytes in the network by the best knowledge (RFC 6675: pipe). */
  get inFlight(): number {
    return this.runs.flyingBytes - this.duplicateBytes;
  }

  /** Nothing is outstanding. */
  get isEmpty(): boolean {
    return this.runs.first === undefined;
  }

  /** 0: no sample yet. */
  get srttUs(): number {
    return this.rtt.srttUs;
  }

  get rttvarUs(): number {
    return this.rtt.rttvarUs;
  }

  /** Infinity: no sample yet. */
  get minRttUs(): number {
    return this.rtt.minRttUs;
  }

  get reorderSeen(): boolean {
    return this.rack.reorderSeen;
  }

  /** Runs on the scoreboard, and the steps over them that the last ACK's SACK blocks took: both are bounded. */
  get runCount(): number {
    return this.runs.count;
  }

  get sackSteps(): number {
    return this.runs.steps;
  }

  get sackedBytes(): number {
    return this.runs.sackedBytes;
  }

  get lostBytes(): number {
    return this.runs.lostBytes;
  }

  /** Only a window that was used grows (RFC 7661; in slow start it may be twice what was in flight). */
  protected isWindowLimited(): boolean {
    const { cwnd, maxFlight } = this;
    if (cwnd < this.ssthresh) return cwnd < 2 * maxFlight;
    const quarter = cwnd / 4;
    return maxFlight + this.mss + (quarter < maxSlackBytes ? quarter : maxSlackBytes) >= cwnd;
  }

  protected setWindow(bytes: number): void {
    this.cwnd = bytes < this.mss ? this.mss : bytes;
  }

  /** RACK. True: runs were newly marked. */
  protected detectLosses(): boolean {
    const { runs, rack } = this;
    this.rackAtUs = Infinity;
    if (runs.oldest === undefined || rack.xmitUs < 0) return false;
    const before = runs.lostBytes;
    rack.setPatience(runs, this.phase >= recovering, this);
    rack.detect(runs, this);
    if (rack.dueUs !== Infinity) this.rackAtUs = Math.max(rack.dueUs, this.nowUs + minRackDelayUs);
    const marked = runs.lostBytes - before;
    if (marked > 0) this.lostTotal += this.segments(marked);
    return marked > 0;
  }

  /** Without SACK: the third duplicate, or an ACK of a part during recovery (RFC 6582 3.2). */
  protected detectByDuplicates(bytes: number): boolean {
    const { runs } = this;
    const { first } = runs;
    if (first === undefined || first.state === lost) return false;
    if (this.phase === recovering) {
      if (bytes <= 0 || ((runs.una - this.highSeq) | 0) >= 0) return false;
    } else {
      if (this.phase === timedOut || this.duplicateAcks < duplicateThreshold) return false;
      // RFC 6582 3.2 step 1: the ACKs must be for something sent after the last recovery.
      if (this.hasReduced) return false;
    }
    if (first.length > this.mss) runs.split(first, this.mss);
    runs.markLost(first);
    this.lostTotal += 1;
    this.setDuplicateBytes();
    return true;
  }

  /** What the network bore before the loss: the most of the last two round trips (RFC 7661's pipeACK), at most cwnd. */
  protected flightSize(): number {
    const outstanding = (this.runs.nxt - this.runs.una) | 0;
    let flight = outstanding > this.maxFlight ? outstanding : this.maxFlight;
    if (this.lastMaxFlight > flight) flight = this.lastMaxFlight;
    return flight < this.cwnd ? flight : this.cwnd;
  }

  protected enterRecovery(newlyAcked: number): void {
    const { runs } = this;
    const { delivery } = runs;
    if (this.phase === open) {
      this.undo.open(this.cwnd, this.ssthresh, runs.una);
      this.reduce(newlyAcked + delivery.sackedBytes, false);
    }
    this.phase = recovering;
    this.inRecovery = true;
    this.highSeq = runs.nxt;
    runs.highSeq = runs.nxt;
  }

  protected reduce(newlyDelivered: number, isTimeout: boolean): void {
    const { runs } = this;
    this.ssthresh = this.control.reduced(this, this.flightSize(), isTimeout);
    const outstanding = (runs.nxt - runs.una) | 0;
    this.prr.begin(outstanding - runs.sackedBytes - this.duplicateBytes + newlyDelivered);
    this.hasReduced = true;
    this.probeOut = false;
    if (this.hasEcn) this.wantsCwr = true;
  }

  /** Congestion without loss: an ECN echo, or a loss that a probe repaired. One reduction a window. */
  protected congested(): void {
    if (this.phase !== open || this.hasReduced) return;
    this.undo.close();
    if (this.bbr !== undefined) this.bbr.marked(this);
    this.reduce(this.runs.delivery.bytes, false);
    this.highSeq = this.runs.nxt;
    // With less in flight than the new window there is nothing to bring down step by step.
    if (this.inFlight > this.ssthresh) this.phase = reducing;
    else if (this.bbr === undefined && this.cwnd > this.ssthresh) this.setWindow(this.ssthresh);
  }

  /**
   * Is the reduction behind us? A loss is repaired once all that was out is acknowledged; a mark has been answered
   * once something later is, which carried CWR (RFC 3168 6.1.2).
   */
  protected passReduction(): void {
    const beyond = (this.runs.una - this.highSeq) | 0;
    if (beyond < 0) return;
    if (beyond > 0) this.hasReduced = false;
    if (this.phase >= recovering || (this.phase === reducing && beyond > 0)) this.leaveRecovery();
  }

  protected leaveRecovery(): void {
    if (this.phase !== timedOut && this.bbr === undefined) this.setWindow(this.ssthresh);
    if (this.phase >= recovering) this.rack.recovered();
    this.undoEnd = this.runs.nxt;
    this.duplicateAcks = 0;
    this.duplicateBytes = 0;
    this.phase = open;
    this.inRecovery = false;
    this.undo.frto = frtoOff;
  }

  /** The reduction was for nothing (RFC 4015). */
  protected takeBack(): void {
    const { undo } = this;
    if (!undo.isOpen) return;
    if (undo.cwnd > this.cwnd) this.cwnd = undo.cwnd;
    if (undo.ssthresh > this.ssthresh) this.ssthresh = undo.ssthresh;
    this.control.undo();
    undo.close();
    this.undos += 1;
    this.runs.unmarkLost();
    this.rack.forget(this.runs.nxt);
    this.duplicateAcks = 0;
    this.duplicateBytes = 0;
    this.phase = open;
    this.inRecovery = false;
    this.hasReduced = false;
    this.forceFirst = false;
  }

  protected timeOut(): void {
    const { runs, rack, nowUs } = this;
    const isNew =
      this.phase === open ||
      ((runs.una - this.highSeq) | 0) >= 0 ||
      (this.phase === timedOut && this.backoffs === 0);
    if (isNew) {
      this.undo.open(this.cwnd, this.ssthresh, runs.una);
      this.reduce(0, true);
    }
    this.duplicateAcks = 0;
    this.duplicateBytes = 0;
    if (runs.first?.state === sacked) runs.renege();
    const before = runs.lostBytes;
    let untilUs = nowUs;
    if (this.hasSack && rack.xmitUs >= 0) {
      rack.setPatience(runs, true, this);
      untilUs -= rack.patienceUs;
    }
    runs.timeOut(untilUs);
    this.lostTotal += this.segments(runs.lostBytes - before);
    this.phase = timedOut;
    this.inRecovery = true;
    this.highSeq = runs.nxt;
    runs.highSeq = runs.nxt;
    // It waited for new data, and none was sent: another try would wait as long.
    const isStalled = this.undo.frto === frtoNew;
    this.undo.frto = !isStalled && (isNew || this.backoffs > 0) ? frtoFirst : frtoOff;
    this.setWindow(this.inFlight + this.mss);
    this.backoffs += 1;
    this.timeouts += 1;
    this.rtoUs = Math.min(this.rtoUs * 2, this.maxRtoUs);
    this.rtoBaseUs = nowUs;
    this.rackAtUs = Infinity;
    this.probeDue = false;
    this.probeOut = false;
    this.forceFirst = true;
  }

  /** F-RTO with SACK (RFC 5682 3.1). */
  protected stepTimedOut(bytes: number): void {
    const { undo, runs } = this;
    if (undo.frto === frtoOff) return;
    if (runs.delivery.original) {
      this.takeBack();
    } else if (undo.frto === frtoNew) {
      undo.frto = frtoOff;
    } else if (bytes > 0) {
      const outstanding = (runs.nxt - runs.una) | 0;
      const canSendNew = !this.wasAppLimited && this.peerWindow - outstanding >= this.mss;
      undo.frto = canSendNew && ((runs.una - this.highSeq) | 0) < 0 ? frtoNew : frtoOff;
    }
  }

  /** Which control: objects of the two common ones are always there, a model's are made when first asked for. */
  protected choose(name: ControlName): void {
    const { runs } = this;
    runs.isRated = name === "bbr";
    this.bbr = undefined;
    if (name === "bbr") {
      this.rate ??= new DeliveryRate();
      this.rate.begin(this.nowUs);
      this.spareBbr ??= new Bbr(this.rate);
      this.bbr = this.spareBbr;
      this.control = this.bbr;
    } else {
      this.control = name === "newreno" ? this.newReno : this.cubic;
    }
  }

  protected setDuplicateBytes(): void {
    const most = this.runs.flyingBytes - this.mss;
    const bytes = this.duplicateAcks * this.mss;
    this.duplicateBytes = most <= 0 ? 0 : bytes < most ? bytes : most;
  }

  protected segments(bytes: number): number {
    return Math.ceil(bytes / this.mss);
  }

  /** RFC 2861: half for each RTO of idleness, not below the restart window (RFC 5681 4.1); ssthresh remembers. */
  protected restart(idleUs: number): void {
    if (this.bbr !== undefined) {
      this.bbr.idled();
      return;
    }
    const least = Math.min(this.initialWindow * this.mss, this.cwnd);
    if (this.ssthresh !== Infinity) this.ssthresh = Math.max(this.ssthresh, 0.75 * this.cwnd);
    let cwnd = this.cwnd;
    for (let left = idleUs; left > this.rtoUs && cwnd > least; left -= this.rtoUs) cwnd /= 2;
    this.cwnd = Math.max(cwnd, least);
    this.control.idled(idleUs);
  }
}
