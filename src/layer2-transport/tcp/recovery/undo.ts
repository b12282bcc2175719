/**
 * Was the reduction for nothing? F-RTO (RFC 5682) and D-SACK (RFC 3708), and what has to be restored then (RFC 4015).
 * Eifel by timestamps (RFC 3522) is seen by the scoreboard, which has the clock of each retransmission.
 *
 * Layer 2, TCP. Knows nothing of runs: it is told what went out again and what the ACKs say.
 */

/** F-RTO: not in use; the first segment was sent again; new data goes before retransmissions (RFC 5682, 2 and 2b). */
export const frtoOff = 0;
export const frtoFirst = 1;
export const frtoNew = 2;

export class Undo {
  /** A reduction may still turn out to be for nothing. */
  isOpen = false;
  /** cwnd and ssthresh before the reduction. */
  cwnd = 0.5;
  ssthresh = 0.5;
  /** `frtoOff`, `frtoFirst` or `frtoNew`. */
  frto = frtoOff;
  /** SND.UNA at the reduction: D-SACKs below it tell of older retransmissions. */
  private since = 0;
  /** Segments sent again since then that no D-SACK has reported. */
  private resends = 0;
  private hasResent = false;

  begin(): void {
    this.isOpen = false;
    this.frto = frtoOff;
    this.resends = 0;
    this.hasResent = false;
  }

  /** A reduction begins. */
  open(cwnd: number, ssthresh: number, una: number): void {
    this.isOpen = true;
    this.cwnd = cwnd;
    this.ssthresh = ssthresh;
    this.since = una;
    this.resends = 0;
    this.hasResent = false;
  }

  close(): void {
    this.isOpen = false;
    this.frto = frtoOff;
  }

  resent(segments: number): void {
    if (!this.isOpen) return;
    this.resends += segments;
    this.hasResent = true;
  }

  /** A D-SACK that ends at `end`: true when now all that was sent again is known to have arrived twice. */
  isAllDuplicate(segments: number, end: number): boolean {
    if (!this.isOpen || !this.hasResent || ((end - this.since) | 0) <= 0) return false;
    this.resends -= segments;
    return this.resends <= 0;
  }
}
