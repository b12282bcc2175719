/**
 * Whether a listener is flooded with SYNs: far more come than handshakes are completed.
 *
 * Layer 2, one worker, one meter a listener's port. A rush of real clients completes what it begins, and does not
 * count as a flood; forged SYNs are never completed. Windows of 100 ms, over which a decaying sum of about a second
 * runs.
 */

const windowMs = 100;
/** What is left of the sums after a window: they span about a second. */
const decay = 0.9;
/** SYNs per completed handshake that are no flood: clients repeat theirs when the way is bad. */
const ordinaryRatio = 3;
/** A flood is over when it has been below half its mark for so long. */
const calmMs = 3000;

export class SynMeter {
  /** SYNs and completions of about the last second. */
  syns = 0;
  completed = 0;
  /** When the flood began; -1: there is none. */
  floodSinceMs = -1;
  /** SYNs during the flood. */
  floodSyns = 0;
  private readonly mark: number;
  private windowAtMs = -1;
  private calmSinceMs = -1;

  /** `mark`: SYNs a second beyond what is completed that are a flood; 0: never. */
  constructor(mark: number) {
    this.mark = mark;
  }

  /** One SYN; whether the listener is flooded. */
  syn(nowMs: number): boolean {
    this.advance(nowMs);
    this.syns += 1;
    if (this.floodSinceMs >= 0) this.floodSyns += 1;
    else if (this.isBeyond(this.mark)) {
      this.floodSinceMs = nowMs;
      this.floodSyns = this.syns;
      this.calmSinceMs = -1;
    }
    return this.floodSinceMs >= 0;
  }

  /** One handshake was completed. */
  complete(nowMs: number): void {
    this.advance(nowMs);
    this.completed += 1;
  }

  /** Lets time pass. */
  advance(nowMs: number): void {
    if (this.windowAtMs < 0) this.windowAtMs = nowMs;
    const passed = Math.floor((nowMs - this.windowAtMs) / windowMs);
    if (passed <= 0) return;
    this.windowAtMs += passed * windowMs;
    const left = decay ** passed;
    this.syns *= left;
    this.completed *= left;
    if (this.floodSinceMs < 0) return;
    if (this.isBeyond(this.mark / 2)) this.calmSinceMs = -1;
    else if (this.calmSinceMs < 0) this.calmSinceMs = nowMs;
    else if (nowMs - this.calmSinceMs >= calmMs) this.floodSinceMs = -1;
  }

  private isBeyond(mark: number): boolean {
    return this.mark > 0 && this.syns > mark + ordinaryRatio * this.completed;
  }
}
