/**
 * HyStart++ (RFC 9406): leaves slow start when the round trip begins to rise, before a queue overflows.
 *
 * Layer 2, TCP. Rounds are counted by sequence numbers. Knows nothing of the window's growth but its share.
 */
import type { WindowState } from "./congestion-control.ts";

const minThresholdUs = 4000;
const maxThresholdUs = 16_000;
const rttDivisor = 8;
const samplesNeeded = 8;
const cautiousDivisor = 4;
const cautiousRounds = 5;

export class HyStart {
  private roundEnd = 0;
  private lastRoundMinUs = Infinity;
  private roundMinUs = Infinity;
  private samples = 0;
  /** Rounds of conservative slow start; -1: not in it. */
  private cautious = -1;
  private baselineUs = Infinity;

  begin(window: WindowState): void {
    this.roundEnd = window.nxt;
    this.lastRoundMinUs = Infinity;
    this.roundMinUs = Infinity;
    this.samples = 0;
    this.cautious = -1;
    this.baselineUs = Infinity;
  }

  /** Takes in an ACK during slow start. Returns by what the growth is divided; may set ssthresh: slow start is over. */
  acked(window: WindowState): number {
    const { roundEnd } = this;
    const rttUs = window.sampleUs;
    // An end beyond SND.NXT is left from long ago.
    if (((window.una - roundEnd) | 0) >= 0 || ((roundEnd - window.nxt) | 0) > 0) this.startRound(window);
    if (rttUs >= 0) {
      if (rttUs < this.roundMinUs) this.roundMinUs = rttUs;
      this.samples += 1;
      this.judge();
    }
    return this.cautious >= 0 ? cautiousDivisor : 1;
  }

  private startRound(window: WindowState): void {
    if (this.cautious >= 0) {
      this.cautious += 1;
      if (this.cautious >= cautiousRounds) {
        window.ssthresh = window.cwnd;
        this.cautious = -1;
      }
    }
    this.roundEnd = window.nxt;
    this.lastRoundMinUs = this.roundMinUs;
    this.roundMinUs = Infinity;
    this.samples = 0;
  }

  private judge(): void {
    if (this.samples < samplesNeeded) return;
    if (this.cautious >= 0) {
      // It was no queue after all.
      if (this.roundMinUs < this.baselineUs) this.cautious = -1;
      return;
    }
    if (this.lastRoundMinUs === Infinity) return;
    const eighth = this.lastRoundMinUs / rttDivisor;
    const threshold =
      eighth < minThresholdUs ? minThresholdUs : eighth > maxThresholdUs ? maxThresholdUs : eighth;
    if (this.roundMinUs >= this.lastRoundMinUs + threshold) {
      this.baselineUs = this.roundMinUs;
      this.cautious = 0;
    }
  }
}
