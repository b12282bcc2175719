/**
 * Loss recovery of one connection: what was sent and not acknowledged, when it counts as lost, how much may be in
 * flight. RFC 6298, 6675, 8985 (RACK-TLP), 6937 (PRR), 5682 (F-RTO), 3042, 5681, 6582, 3168.
 *
 * Layer 2, TCP. Pure: knows no packets, no v-nodes and no clock but the times it is handed (microseconds). The owner
 * asks `nextLost` and `allowance` what may go out, says what did go out (`sent`, `resent`), hands in each ACK and
 * calls `onTimer` once `timerAtUs` has passed. He should take in the ACKs that wait before he runs timers: a timer
 * that is ahead of an ACK that has already arrived sends for nothing. Objects are pooled: `begin` or `resume`, `drop`.
 */
import type { Bbr } from "./congestion/bbr.ts";
import { AckFacts, type RecoveryTerms } from "./facts.ts";
import { open, RecoveryPhases, recovering, reducing, timedOut } from "./recovery-phases.ts";
import { type SentRun, sacked } from "./sent-runs.ts";
import { frtoNew } from "./undo.ts";

export type { RecoveryTerms, SentRun };
export { AckFacts };

/** RFC 8985 7.2: the longest that a peer holds an ACK back, and what a timer may be late by. */
const maxAckDelayUs = 200_000;
const timerSlackUs = 2000;
/** A model's pace: what goes out at once, and how late a timer may be and be made up for. */
const paceQuantumUs = 1000;
const maxCatchUpUs = 2000;
/** The most that one `nextLost` returns. */
const maxResendBytes = 65_535;

export class LossRecovery extends RecoveryPhases {
  /** When `onTimer` is to be called; Infinity: nothing is waited for. */
  timerAtUs = Infinity;
  private probeAtUs = Infinity;
  private probeIsResend = false;
  private probeEnd = 0;
  private flightEnd = 0;
  private lastSentUs = 0.5;
  private sawDuplicate = false;
  /** When the next paced transmission may go out. */
  private nextSendUs = 0.5;

  /** A fresh connection, after its handshake; `sendNext` is the first byte's number. */
  begin(terms: RecoveryTerms, sendNext: number, nowUs: number): void {
    this.start(terms, sendNext, nowUs);
    this.cwnd = Math.max(1, terms.initialWindow) * terms.mss;
    this.ssthresh = Infinity;
    this.control.begin(this);
  }

  /**
   * From rest. `srttUs` 0: unknown. `ssthreshSegments` 0xffff: none. After `idleUs` longer than the RTO the window is
   * restarted (RFC 5681 4.1, halved for each RTO as in RFC 2861).
   */
  resume(
    terms: RecoveryTerms,
    sendNext: number,
    srttUs: number,
    rttvarUs: number,
    cwndSegments: number,
    ssthreshSegments: number,
    idleUs: number,
    nowUs: number,
  ): void {
    this.start(terms, sendNext, nowUs);
    this.rtt.restore(srttUs, rttvarUs);
    this.rtoUs = this.rtt.baseRtoUs;
    this.cwnd = (cwndSegments < 1 ? 1 : cwndSegments) * terms.mss;
    this.ssthresh = ssthreshSegments >= 0xffff ? Infinity : Math.max(2, ssthreshSegments) * terms.mss;
    this.control.begin(this);
    if (idleUs > this.rtoUs) this.restart(idleUs);
  }

  /** The handshake's round trip; `isRepeated`: its SYN or SYN-ACK was sent again: no sample (RFC 6298 5.7). */
  handshakeRtt(rttUs: number, isRepeated = false): void {
    if (isRepeated || rttUs < 0) {
      this.rtt.lostSyn();
      this.cwnd = this.mss;
    } else {
      this.sampleUs = rttUs;
      this.rtt.sample(this, 1);
    }
    this.rtoUs = this.rtt.baseRtoUs;
  }

  /** The path's MTU changed. */
  setMss(mss: number): void {
    this.mss = mss;
    this.runs.mss = mss;
    if (this.cwnd < mss) this.cwnd = mss;
    if (this.ssthresh < 2 * mss) this.ssthresh = 2 * mss;
    this.setDuplicateBytes();
  }

  /** A router says that what is out was too long: all of it goes out again, which is no sign of congestion. */
  pathShrank(mss: number, nowUs: number): void {
    this.nowUs = nowUs;
    this.setMss(mss);
    this.runs.timeOut(Infinity);
    this.armTimers();
  }

  /** Back to the pool: forgets all runs. */
  drop(): void {
    this.runs.clear();
    this.timerAtUs = Infinity;
    this.duplicateBytes = 0;
  }

  /**
   * Bytes of new data that the window lets out now; the peer's window is the caller's matter. Whole segments, or less
   * than one: send that only when it is all there is.
   */
  allowance(nowUs: number): number {
    const { runs, mss } = this;
    if (runs.first === undefined) {
      const idleUs = nowUs - this.lastSentUs;
      if (idleUs > this.rtoUs) {
        this.restart(idleUs);
        this.lastSentUs = nowUs;
      }
    }
    if (this.probeDue) return mss;
    if (this.bbr !== undefined && this.isPaced(this.bbr, nowUs)) return 0;
    if (runs.firstLost !== undefined && this.undo.frto !== frtoNew) return 0;
    let room = Math.floor(this.cwnd - this.inFlight);
    if (this.bbr !== undefined) room = Math.min(room, this.quantum(this.bbr));
    if (room >= mss) return room - (room % mss);
    return room > 0 ? room : 0;
  }

  /** New data went out at SND.NXT: up to 64 KB in one call, FIN counted. `appLimited`: there was no more to send. */
  sent(seq: number, length: number, clock: number, nowUs: number, appLimited: boolean): void {
    const { runs } = this;
    if (seq !== runs.nxt)
      throw new Error(`sent at ${seq}, but SND.NXT is ${runs.nxt}: tell each segment, in order`);
    this.nowUs = nowUs;
    runs.nowUs = nowUs;
    const isFirst = runs.first === undefined;
    if (isFirst) this.rtoBaseUs = nowUs;
    const run = runs.append(length, clock);
    if (this.bbr !== undefined) this.paced(this.bbr, run, length, isFirst, appLimited);
    this.lastSentUs = nowUs;
    this.wasAppLimited = appLimited;
    this.wantsCwr = false;
    if (this.phase !== open) this.prr.sent(length);
    const flight = this.inFlight;
    if (((runs.una - this.flightEnd) | 0) >= 0) {
      this.lastMaxFlight = this.maxFlight;
      this.maxFlight = flight;
      this.flightEnd = runs.nxt;
    } else if (flight > this.maxFlight) {
      this.maxFlight = flight;
      this.flightEnd = runs.nxt;
    }
    if (this.probeDue) this.probed(false);
    this.armTimers();
  }

  /**
   * The first lost run, when it may go out now: at most `limit` bytes, whole segments (a longer run is cut). Call
   * `resent` when it has gone out; it is offered again otherwise.
   */
  nextLost(limit: number = maxResendBytes): SentRun | undefined {
    const run = this.runs.firstLost;
    if (run === undefined || this.undo.frto === frtoNew) return undefined;
    const { mss } = this;
    if (this.bbr !== undefined && !this.forceFirst && this.isPaced(this.bbr, this.nowUs)) return undefined;
    let room = this.cwnd - this.inFlight;
    if (this.bbr !== undefined) room = Math.min(room, this.quantum(this.bbr));
    if (this.forceFirst && room < mss) room = mss;
    if (room > limit) room = limit;
    if (run.length > room) {
      if (room < mss) return undefined;
      const bytes = Math.floor(room);
      this.runs.split(run, bytes - (bytes % mss));
    }
    return run;
  }

  /** `length` bytes of a run went out again. */
  resent(run: SentRun, length: number, clock: number, nowUs: number): void {
    const { runs } = this;
    if (run.state === sacked) return;
    this.nowUs = nowUs;
    runs.nowUs = nowUs;
    runs.resend(run, length, clock);
    if (this.bbr !== undefined) this.paced(this.bbr, run, run.length, false, false);
    const segments = this.segments(run.length);
    this.retransmits += segments;
    if (this.phase >= recovering) this.undo.resent(segments);
    if (this.phase !== open) this.prr.sent(run.length);
    this.forceFirst = false;
    this.lastSentUs = nowUs;
    if (this.probeDue) this.probed(true);
    if (run === runs.first) this.rtoBaseUs = nowUs;
    this.armTimers();
  }

  /** The last segment: what a tail-loss probe sends when there is no new data (RFC 8985 7.3). */
  probeRun(): SentRun | undefined {
    const { last } = this.runs;
    if (last === undefined || last.state === sacked) return undefined;
    const whole = last.length % this.mss;
    const tail = whole === 0 ? this.mss : whole;
    return last.length > tail ? this.runs.split(last, last.length - tail) : last;
  }

  /** Takes in an ACK. Returns the bytes that it acknowledges cumulatively for the first time. */
  acked(facts: AckFacts): number {
    const { runs } = this;
    this.nowUs = facts.receivedUs;
    runs.startAck(facts.echoClock);
    const bytes = runs.advance(facts.ack);
    this.peerWindow = facts.window;
    this.sawDuplicate = false;
    if (this.hasSack) {
      if (facts.sackCount > 0) this.takeSacks(facts);
    } else {
      this.countDuplicates(facts, bytes);
    }
    const { delivery } = runs;
    if (bytes > 0) {
      this.backoffs = 0;
      this.rtoUs = this.rtt.baseRtoUs;
      this.rtoBaseUs = facts.nowUs;
      if (this.forceFirst) this.forceFirst = false;
    } else if (
      delivery.bytes === 0 &&
      this.phase === open &&
      !facts.ece &&
      !this.sawDuplicate &&
      !this.probeOut
    ) {
      return 0;
    }
    this.judge(facts, bytes);
    if (runs.first === undefined) {
      this.timerAtUs = Infinity;
      this.rackAtUs = Infinity;
      this.probeDue = false;
    } else {
      this.nowUs = facts.nowUs;
      this.armTimers();
    }
    return bytes;
  }

  /**
   * A timer is due. "probe": send one segment of new data or `probeRun()`; "retransmit": `nextLost` has something
   * (`backoffs` is above 0 when that was the RTO); "none": nothing to do.
   */
  onTimer(nowUs: number): "none" | "probe" | "retransmit" {
    const { runs } = this;
    if (runs.first === undefined) {
      this.timerAtUs = Infinity;
      return "none";
    }
    if (nowUs < this.timerAtUs) return "none";
    this.nowUs = nowUs;
    let answer: "none" | "probe" | "retransmit" = "none";
    if (this.rackAtUs <= nowUs) {
      runs.startAck(-1);
      if (this.detectLosses()) {
        if (this.phase < recovering) this.enterRecovery(0);
        answer = "retransmit";
      }
    } else if (this.probeAtUs <= nowUs) {
      this.probeAtUs = Infinity;
      this.probeDue = true;
      this.rtoBaseUs = nowUs;
      this.probes += 1;
      answer = "probe";
    } else if (this.rtoBaseUs + this.rtoUs <= nowUs) {
      this.timeOut();
      answer = "retransmit";
    }
    this.armTimers();
    return answer;
  }

  /** What is wrong, in words: for tests and the simulator. */
  faults(): string[] {
    const found = this.runs.faults();
    if (this.inFlight < 0) found.push(`${this.inFlight} bytes in flight`);
    if (!(this.cwnd >= this.mss)) found.push(`cwnd is ${this.cwnd}`);
    if (!(this.ssthresh >= this.mss)) found.push(`ssthresh is ${this.ssthresh}`);
    if (!this.isEmpty && this.timerAtUs === Infinity)
      found.push("something is outstanding and no timer runs");
    return found;
  }

  private start(terms: RecoveryTerms, sendNext: number, nowUs: number): void {
    this.runs.begin(sendNext, terms.mss);
    this.nowUs = nowUs;
    this.sampleUs = -1;
    this.undoEnd = sendNext;
    this.rtt.begin(terms.initialRtoUs, terms.minRtoUs, terms.maxRtoUs, nowUs);
    this.rack.begin();
    this.undo.begin();
    this.choose(terms.control);
    this.nextSendUs = nowUs;
    this.mss = terms.mss;
    this.hasSack = terms.sack;
    this.hasEcn = terms.ecn;
    this.maxRtoUs = terms.maxRtoUs;
    this.initialWindow = terms.initialWindow;
    this.phase = open;
    this.inRecovery = false;
    this.backoffs = 0;
    this.rtoUs = terms.initialRtoUs;
    this.timerAtUs = Infinity;
    this.wantsCwr = false;
    this.retransmits = 0;
    this.lostTotal = 0;
    this.timeouts = 0;
    this.probes = 0;
    this.undos = 0;
    this.duplicates = 0;
    this.deliveredTotal = 0;
    this.highSeq = sendNext;
    this.hasReduced = false;
    this.rackAtUs = Infinity;
    this.probeAtUs = Infinity;
    this.forceFirst = false;
    this.probeDue = false;
    this.probeOut = false;
    this.duplicateAcks = 0;
    this.duplicateBytes = 0;
    this.maxFlight = 0;
    this.lastMaxFlight = 0;
    this.flightEnd = sendNext;
    this.lastSentUs = nowUs;
    this.wasAppLimited = false;
    this.peerWindow = 0;
  }

  private armTimers(): void {
    const rtoAtUs = this.rtoBaseUs + this.rtoUs;
    let atUs = rtoAtUs;
    if (this.rackAtUs < atUs) atUs = this.rackAtUs;
    if (
      this.hasSack &&
      this.phase <= reducing &&
      !this.probeOut &&
      !this.probeDue &&
      this.runs.sackedBytes === 0 &&
      this.rtt.srttUs > 0 &&
      this.backoffs === 0
    ) {
      const delayUs = this.runs.flyingBytes <= this.mss ? maxAckDelayUs : timerSlackUs;
      const probeAtUs = this.nowUs + 2 * this.rtt.srttUs + delayUs;
      this.probeAtUs = probeAtUs < rtoAtUs ? probeAtUs : rtoAtUs;
      if (this.probeAtUs < atUs) atUs = this.probeAtUs;
    } else {
      this.probeAtUs = Infinity;
    }
    this.timerAtUs = atUs;
  }

  /** Too early for the pace: `timerAtUs` says when it is not. */
  private isPaced(bbr: Bbr, nowUs: number): boolean {
    if (bbr.paceRate <= 0 || nowUs >= this.nextSendUs) return false;
    if (this.nextSendUs < this.timerAtUs) this.timerAtUs = this.nextSendUs;
    return true;
  }

  /** What goes out at once: about a millisecond's worth, since timers are no finer. */
  private quantum(bbr: Bbr): number {
    if (bbr.paceRate <= 0) return maxResendBytes;
    return Math.max(2 * this.mss, Math.min(maxResendBytes, bbr.paceRate * paceQuantumUs));
  }

  /** The pace after a transmission: a late timer is made up for, a long silence is not. */
  private paced(bbr: Bbr, run: SentRun, length: number, isFirst: boolean, appLimited: boolean): void {
    this.rate?.sent(run, isFirst, this.inFlight, appLimited);
    if (bbr.paceRate <= 0) return;
    const earliestUs = this.nowUs - maxCatchUpUs;
    const fromUs = this.nextSendUs > earliestUs ? this.nextSendUs : earliestUs;
    this.nextSendUs = fromUs + length / bbr.paceRate;
  }

  /** The probe went out. */
  private probed(isResend: boolean): void {
    this.probeDue = false;
    this.probeOut = true;
    this.probeIsResend = isResend;
    this.probeEnd = this.runs.nxt;
  }

  private takeSacks(facts: AckFacts): void {
    const { runs } = this;
    const { sacks } = facts;
    const count = facts.sackCount > 4 ? 4 : facts.sackCount;
    for (let i = 0; i < count; i += 1) {
      let left = sacks[2 * i] as number;
      const right = sacks[2 * i + 1] as number;
      if (((right - left) | 0) <= 0) continue;
      if (i === 0 && this.isDuplicateBlock(left, right, count, sacks)) {
        this.takeDuplicate(left, right);
        continue;
      }
      if (((right - runs.una) | 0) <= 0 || ((right - runs.nxt) | 0) > 0) continue;
      if (((left - runs.una) | 0) < 0) left = runs.una;
      runs.sack(left, right);
    }
  }

  /** RFC 2883: the first block is below the ACK, or within the second. */
  private isDuplicateBlock(left: number, right: number, count: number, sacks: Int32Array): boolean {
    if (((right - this.runs.una) | 0) <= 0) return true;
    if (count < 2) return false;
    return ((left - (sacks[2] as number)) | 0) >= 0 && ((right - (sacks[3] as number)) | 0) <= 0;
  }

  private takeDuplicate(left: number, right: number): void {
    const segments = this.segments((right - left) | 0);
    // More duplicates than were ever sent again: somebody plays.
    if (this.duplicates + segments > this.retransmits) return;
    this.duplicates += segments;
    this.sawDuplicate = true;
    this.rack.duplicate(this.runs.una, this.runs.nxt);
    // What was sent again for nothing, and was no probe, had been overtaken.
    if (!this.probeOut && this.phase !== timedOut) this.rack.reorderSeen = true;
    if (!this.probeOut && this.undo.isAllDuplicate(segments, right)) this.takeBack();
  }

  /** Without SACK (RFC 5681 2, RFC 6582): what duplicate ACKs say about the network. */
  private countDuplicates(facts: AckFacts, bytes: number): void {
    const { runs, mss } = this;
    const { delivery } = runs;
    if (bytes > 0) {
      // One ACK for the hole; the others have been counted as duplicates.
      const counted = this.duplicateBytes;
      const gone = Math.ceil(bytes / mss) - 1;
      if (this.phase !== recovering || this.duplicateAcks <= gone) this.duplicateAcks = 0;
      else this.duplicateAcks -= gone;
      delivery.bytes = Math.max(bytes - counted, Math.min(bytes, mss));
      if (delivery.resent) delivery.original = false;
      this.duplicateLimit = this.segments((runs.nxt - runs.una) | 0);
    } else if (
      facts.ack === runs.una &&
      runs.first !== undefined &&
      !facts.hasPayload &&
      !facts.windowChanged
    ) {
      if (this.duplicateAcks === 0) this.duplicateLimit = this.segments((runs.nxt - runs.una) | 0);
      // No more than what was out when they began: else whoever repeats himself has all of his window sent at once
      // (RFC 5681 3.2, the remark on [SCWA99]).
      if (this.duplicateAcks < this.duplicateLimit) {
        this.duplicateAcks += 1;
        delivery.bytes = mss;
      }
    }
    this.setDuplicateBytes();
  }

  /** An ACK with news has been put into the scoreboard: round trip, losses, window. */
  private judge(facts: AckFacts, bytes: number): void {
    const { runs, rtt } = this;
    const { delivery } = runs;
    this.sampleUs = -1;
    if (delivery.rttSentUs >= 0) {
      this.sampleUs = this.nowUs - delivery.rttSentUs;
      const segments = ((runs.nxt - runs.una) | 0) / (2 * this.mss);
      rtt.sample(this, segments < 1 ? 1 : segments | 0);
      if (this.backoffs === 0) this.rtoUs = rtt.baseRtoUs;
    }
    this.deliveredTotal += delivery.bytes;
    if (this.hasSack) this.rack.update(runs, this);
    if (this.probeOut) this.judgeProbe(bytes);
    if (delivery.spurious && this.phase >= recovering) {
      if (this.phase === recovering) this.rack.reorderSeen = true;
      this.takeBack();
    }
    const isLossy = this.hasSack ? this.detectLosses() : this.detectByDuplicates(bytes);
    if (facts.ece && this.hasEcn) this.congested();
    this.step(bytes, isLossy);
  }

  /** The state machine of recovery, and the window. */
  private step(bytes: number, isLossy: boolean): void {
    const { runs } = this;
    if (this.phase === timedOut) this.stepTimedOut(bytes);
    if (this.hasReduced) this.passReduction();
    if (isLossy && this.phase <= reducing) this.enterRecovery(bytes);
    const delivered = runs.delivery.bytes;
    if (this.bbr !== undefined) {
      this.rate?.acked(runs.delivery, this);
      if (delivered > 0) this.bbr.acked(this, delivered);
    } else if (this.phase === reducing || this.phase === recovering) {
      const isSafe = bytes > 0 && !isLossy;
      this.setWindow(this.prr.window(delivered, this.inFlight, this.ssthresh, this.mss, isSafe));
    } else if (bytes > 0) {
      this.control.acked(this, delivered, this.isWindowLimited());
    }
    if (this.undo.isOpen && this.phase === open && ((runs.una - this.undoEnd) | 0) > 0) this.undo.close();
  }

  /** Did the probe repair a loss (RFC 8985 7.4)? */
  private judgeProbe(bytes: number): void {
    const beyond = (this.runs.una - this.probeEnd) | 0;
    if (beyond < 0) return;
    if (!this.probeIsResend || this.sawDuplicate) {
      this.probeOut = false;
    } else if (beyond > 0) {
      this.probeOut = false;
      this.congested();
    } else if (bytes === 0 && this.runs.delivery.bytes === 0) {
      this.probeOut = false;
    }
  }
}
