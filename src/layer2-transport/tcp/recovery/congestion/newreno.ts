/**
 * NewReno's window (RFC 5681): one segment a round trip, half at each loss, growth by bytes acknowledged (RFC 3465).
 *
 * Layer 2, TCP. Knows nothing of runs or ACKs.
 */
import { type CongestionControl, maxWindow, slowStart, type WindowState } from "./congestion-control.ts";

export class NewReno implements CongestionControl {
  readonly isModel = false;
  private ackedBytes = 0.5;

  begin(): void {
    this.ackedBytes = 0;
  }

  acked(window: WindowState, bytes: number, isLimited: boolean): void {
    if (!isLimited) return;
    let left = bytes;
    if (window.cwnd < window.ssthresh) {
      left = slowStart(window, bytes);
      if (left <= 0) return;
    }
    this.ackedBytes += left;
    if (this.ackedBytes < window.cwnd) return;
    const steps = Math.floor(this.ackedBytes / window.cwnd);
    this.ackedBytes -= steps * window.cwnd;
    window.cwnd = Math.min(window.cwnd + steps * window.mss, maxWindow);
  }

  reduced(window: WindowState, flight: number): number {
    this.ackedBytes = 0;
    return Math.max(flight / 2, 2 * window.mss);
  }

  undo(): void {}

  idled(): void {}
}
