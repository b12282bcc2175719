/**
 * BBR, first version: the window and the pace follow a model of the path, its bandwidth and its least round trip.
 *
 * Layer 2, TCP. After the paper of Cardwell et al. (ACM Queue 2016) and the first drafts: start-up, drain, cycles of
 * probing for bandwidth, and every ten seconds a moment with an almost empty pipe to see the round trip. Loss moves
 * the window only for a round trip (packet conservation). It does not detect policers, and answers ECN marks only for
 * about a round trip. Knows nothing of runs or ACKs.
 */
import type { DeliveryRate } from "../delivery-rate.ts";
import { type CongestionControl, maxWindow, type WindowState } from "./congestion-control.ts";

const startup = 0;
const drain = 1;
const probeBandwidth = 2;
const probeRtt = 3;

/** 2 / ln 2: doubles the delivery rate each round trip. */
const highGain = 2.885;
const windowGain = 2;
const cycleGains = [1.25, 0.75, 1, 1, 1, 1, 1, 1] as const;
/** Rounds for which the greatest bandwidth is believed. */
const bandwidthRounds = 10;
const minRttWindowUs = 10e6;
const probeRttUs = 200_000;
const minWindowSegments = 4;
/** The pipe is full when three rounds bring less than a quarter more. */
const fullGrowth = 1.25;
const fullRounds = 3;
/** Paced a little below the estimate, so that queues drain. */
const paceMargin = 0.99;
/** Room for delayed ACKs and super-packets that are being put together. */
const quantumBytes = 65_536;
const markBeta = 0.7;

export class Bbr implements CongestionControl {
  readonly isModel = true;
  /** Bytes a microsecond. */
  paceRate = 0.5;
  private readonly rate: DeliveryRate;
  private state = startup;
  private paceGain = 0.5;
  private readonly bandwidths = new Float64Array(bandwidthRounds);
  private round = 0;
  private roundEndBytes = 0.5;
  private isRoundStart = false;
  private fullBandwidth = 0.5;
  private fullCount = 0;
  private isFull = false;
  private minRttUs = Infinity;
  private minRttAtUs = 0.5;
  private cycle = 0;
  private cycleAtUs = 0.5;
  private probeRttDoneUs = -0.5;
  private priorWindow = 0.5;
  private wasRecovering = false;
  private conserving = false;

  constructor(rate: DeliveryRate) {
    this.rate = rate;
  }

  begin(window: WindowState): void {
    this.state = startup;
    this.paceGain = highGain;
    this.bandwidths.fill(0);
    this.round = 0;
    this.roundEndBytes = 0;
    this.isRoundStart = false;
    this.fullBandwidth = 0;
    this.fullCount = 0;
    this.isFull = false;
    this.minRttUs = window.minRttUs;
    this.minRttAtUs = window.nowUs;
    this.cycle = 0;
    this.cycleAtUs = window.nowUs;
    this.probeRttDoneUs = -1;
    this.priorWindow = 0;
    this.wasRecovering = false;
    this.conserving = false;
    window.ssthresh = Infinity;
    this.paceRate = 0;
  }

  acked(window: WindowState, bytes: number): void {
    this.updateRound();
    this.updateBandwidth();
    this.updateState(window);
    this.updateMinRtt(window);
    this.updatePace(window);
    this.updateWindow(window, bytes);
  }

  /** A loss is no measure of the path. */
  reduced(window: WindowState): number {
    if (this.priorWindow < window.cwnd) this.priorWindow = window.cwnd;
    return Infinity;
  }

  marked(window: WindowState): void {
    window.cwnd = Math.max(window.cwnd * markBeta, minWindowSegments * window.mss);
  }

  undo(): void {
    this.fullBandwidth = 0;
    this.fullCount = 0;
  }

  idled(): void {
    if (this.state === probeBandwidth) this.paceGain = 1;
  }

  /** The greatest of the last rounds. */
  private bandwidth(): number {
    let most = 0;
    for (let i = 0; i < bandwidthRounds; i += 1) {
      const one = this.bandwidths[i] as number;
      if (one > most) most = one;
    }
    return most;
  }

  private updateRound(): void {
    const { rate } = this;
    this.isRoundStart = rate.bytesPerUs > 0 && rate.priorBytes >= this.roundEndBytes;
    if (!this.isRoundStart) return;
    this.roundEndBytes = rate.deliveredBytes;
    this.round = (this.round + 1) % bandwidthRounds;
    this.bandwidths[this.round] = 0;
    this.conserving = false;
  }

  private updateBandwidth(): void {
    const { rate } = this;
    if (rate.bytesPerUs <= 0) return;
    if (rate.isAppLimited && rate.bytesPerUs < this.bandwidth()) return;
    if (rate.bytesPerUs > (this.bandwidths[this.round] as number)) {
      this.bandwidths[this.round] = rate.bytesPerUs;
    }
  }

  private updateState(window: WindowState): void {
    if (!this.isFull && this.isRoundStart && !this.rate.isAppLimited) this.checkFull();
    if (this.state === startup && this.isFull) {
      this.state = drain;
      this.paceGain = 1 / highGain;
    }
    if (this.state === drain && window.inFlight <= this.pipe(1)) this.enterProbeBandwidth(window);
    if (this.state === probeBandwidth) this.updateCycle(window);
  }

  private checkFull(): void {
    const bandwidth = this.bandwidth();
    if (bandwidth >= this.fullBandwidth * fullGrowth) {
      this.fullBandwidth = bandwidth;
      this.fullCount = 0;
      return;
    }
    this.fullCount += 1;
    this.isFull = this.fullCount >= fullRounds;
  }

  private enterProbeBandwidth(window: WindowState): void {
    this.state = probeBandwidth;
    // Any phase but the one that drains; connections begin at different ones by their own arithmetic.
    this.cycle = ((window.nxt >>> 4) % (cycleGains.length - 1)) + 1;
    if (this.cycle === 1) this.cycle = 0;
    this.cycleAtUs = window.nowUs;
    this.paceGain = cycleGains[this.cycle] as number;
  }

  private updateCycle(window: WindowState): void {
    const { paceGain } = this;
    const isLong = window.nowUs - this.cycleAtUs > this.minRttUs;
    const isOver =
      paceGain > 1
        ? isLong && (window.lostBytes > 0 || window.inFlight >= this.pipe(paceGain))
        : isLong || (paceGain < 1 && window.inFlight <= this.pipe(1));
    if (!isOver) return;
    this.cycle = (this.cycle + 1) % cycleGains.length;
    this.cycleAtUs = window.nowUs;
    this.paceGain = cycleGains[this.cycle] as number;
  }

  private updateMinRtt(window: WindowState): void {
    const { nowUs, sampleUs } = window;
    const isOld = nowUs - this.minRttAtUs > minRttWindowUs;
    if (sampleUs >= 0 && (sampleUs <= this.minRttUs || isOld)) {
      this.minRttUs = sampleUs;
      this.minRttAtUs = nowUs;
    }
    if (isOld && this.state !== probeRtt) {
      this.state = probeRtt;
      this.paceGain = 1;
      this.priorWindow = Math.max(this.priorWindow, window.cwnd);
      this.probeRttDoneUs = -1;
    }
    if (this.state !== probeRtt) return;
    if (this.probeRttDoneUs < 0) {
      if (window.inFlight > minWindowSegments * window.mss) return;
      this.probeRttDoneUs = nowUs + Math.max(probeRttUs, this.minRttUs);
    } else if (nowUs >= this.probeRttDoneUs) {
      this.minRttAtUs = nowUs;
      if (window.cwnd < this.priorWindow) window.cwnd = this.priorWindow;
      this.priorWindow = 0;
      if (this.isFull) this.enterProbeBandwidth(window);
      else {
        this.state = startup;
        this.paceGain = highGain;
      }
    }
  }

  private updatePace(window: WindowState): void {
    const bandwidth = this.bandwidth();
    let rate = bandwidth * this.paceGain * paceMargin;
    if (bandwidth === 0 && window.srttUs > 0) rate = (highGain * window.cwnd) / window.srttUs;
    // Until the pipe is full the pace only rises.
    if (this.isFull || rate > this.paceRate) this.paceRate = rate;
  }

  /** Bytes that fill the pipe `gain` times. */
  private pipe(gain: number): number {
    return this.minRttUs === Infinity ? Infinity : gain * this.bandwidth() * this.minRttUs;
  }

  private updateWindow(window: WindowState, bytes: number): void {
    const least = minWindowSegments * window.mss;
    const recovering = window.inRecovery;
    if (recovering !== this.wasRecovering) {
      this.wasRecovering = recovering;
      if (recovering) {
        this.conserving = true;
        this.roundEndBytes = this.rate.deliveredBytes;
        window.cwnd = window.inFlight + Math.max(bytes, window.mss);
      } else {
        this.conserving = false;
        if (this.priorWindow > window.cwnd) window.cwnd = this.priorWindow;
        this.priorWindow = 0;
      }
    }
    if (this.conserving) {
      window.cwnd = Math.max(window.inFlight + bytes, window.mss);
    } else {
      const gain = this.isFull ? windowGain : highGain;
      const pipe = this.pipe(gain);
      const target = pipe === 0 || pipe === Infinity ? Infinity : pipe + this.headroom();
      const grown = window.cwnd + bytes;
      if (this.isFull) window.cwnd = grown < target ? grown : target;
      else if (window.cwnd < target) window.cwnd = grown;
      if (window.cwnd < least) window.cwnd = least;
    }
    if (this.state === probeRtt && window.cwnd > least) window.cwnd = least;
    if (window.cwnd > maxWindow) window.cwnd = maxWindow;
  }

  /** What is on its way into or out of a super-packet at this pace. */
  private headroom(): number {
    const millisecond = this.paceRate * 1000;
    return 3 * (millisecond < quantumBytes ? millisecond : quantumBytes);
  }
}
