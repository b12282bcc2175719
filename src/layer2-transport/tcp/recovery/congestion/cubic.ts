/**
 * CUBIC (RFC 9438) with HyStart++ (RFC 9406): the window as a cubic function of the time since the last reduction.
 *
 * Layer 2, TCP. Bytes and doubles throughout; the target of a round trip is held within [cwnd, 1.5 cwnd] (4.2), the
 * window never falls by an ACK. Time without data does not count (5.8). Knows nothing of runs or ACKs.
 */
import { type CongestionControl, maxWindow, slowStart, type WindowState } from "./congestion-control.ts";
import { HyStart } from "./hystart.ts";

/** The multiplicative decrease and the constant C, in segments per second cubed (4.1, 5.1). */
const beta = 0.7;
const cubicC = 0.4;
/** Growth of the Reno-friendly window in segments a round trip, so that it is as fair as Reno's half (4.3). */
const renoAlpha = (3 * (1 - beta)) / (1 + beta);
/** A target further off than this is reached in two round trips (4.2). */
const maxGrowth = 1.5;

export class Cubic implements CongestionControl {
  readonly isModel = false;
  private readonly hystart = new HyStart();
  /** The window before the last reduction, in bytes: the plateau. */
  private wMax = 0.5;
  /** When the present congestion avoidance began; -1: it has not. */
  private epochUs = -0.5;
  private ackedUs = 0.5;
  /** Seconds from there to the plateau. */
  private k = 0.5;
  /** What Reno would have, and cwnd before the last reduction. */
  private renoWindow = 0.5;
  private priorWindow = 0.5;
  private savedWMax = 0.5;
  private savedK = 0.5;
  private savedEpochUs = -0.5;
  private savedRenoWindow = 0.5;
  private savedPriorWindow = 0.5;

  begin(window: WindowState): void {
    this.hystart.begin(window);
    this.wMax = 0;
    this.epochUs = -1;
    this.ackedUs = window.nowUs;
    this.priorWindow = 0;
  }

  acked(window: WindowState, bytes: number, isLimited: boolean): void {
    const { nowUs } = window;
    // Time in which the window was not used is none in which it may have grown (RFC 9438 5.8).
    if (!isLimited && this.epochUs >= 0) this.epochUs += nowUs - this.ackedUs;
    this.ackedUs = nowUs;
    let left = bytes;
    if (window.cwnd < window.ssthresh) {
      const share = this.hystart.acked(window);
      if (!isLimited) return;
      left = slowStart(window, share === 1 ? bytes : bytes / share);
      if (left <= 0) return;
    }
    if (isLimited) this.avoid(window, left);
  }

  reduced(window: WindowState, flight: number, isTimeout: boolean): number {
    this.savedWMax = this.wMax;
    this.savedK = this.k;
    this.savedEpochUs = this.epochUs;
    this.savedRenoWindow = this.renoWindow;
    this.savedPriorWindow = this.priorWindow;
    // Fast convergence (4.7): a flow that lost before its old plateau leaves room.
    // After a timeout the plateau is where slow start ends (4.8).
    if (isTimeout) this.wMax = 0;
    else this.wMax = flight < this.wMax ? flight * ((1 + beta) / 2) : flight;
    this.priorWindow = flight;
    this.epochUs = -1;
    return Math.max(flight * beta, 2 * window.mss);
  }

  undo(): void {
    this.wMax = this.savedWMax;
    this.k = this.savedK;
    this.epochUs = this.savedEpochUs;
    this.renoWindow = this.savedRenoWindow;
    this.priorWindow = this.savedPriorWindow;
  }

  idled(idleUs: number): void {
    if (this.epochUs >= 0) this.epochUs += idleUs;
    this.ackedUs += idleUs;
  }

  private avoid(window: WindowState, bytes: number): void {
    const { cwnd, mss } = window;
    if (this.epochUs < 0) this.startEpoch(window);
    const seconds = (window.nowUs - this.epochUs + window.srttUs) / 1e6 - this.k;
    let target = this.wMax + cubicC * seconds * seconds * seconds * mss;
    if (target < cwnd) target = cwnd;
    else if (target > maxGrowth * cwnd) target = maxGrowth * cwnd;
    let grown = cwnd + ((target - cwnd) * bytes) / cwnd;
    // The Reno-friendly region (4.3).
    const alpha = this.renoWindow >= this.priorWindow ? 1 : renoAlpha;
    this.renoWindow += (alpha * mss * bytes) / cwnd;
    if (this.renoWindow > grown) grown = Math.min(this.renoWindow, cwnd + bytes);
    if (grown > maxWindow) grown = maxWindow;
    if (grown > cwnd) window.cwnd = grown;
  }

  private startEpoch(window: WindowState): void {
    const { cwnd, mss } = window;
    this.epochUs = window.nowUs;
    this.renoWindow = cwnd;
    if (cwnd >= this.wMax) {
      this.wMax = cwnd;
      this.k = 0;
    } else {
      this.k = Math.cbrt((this.wMax - cwnd) / mss / cubicC);
    }
  }
}
