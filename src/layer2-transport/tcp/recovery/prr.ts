/**
 * Proportional rate reduction (RFC 6937, with the conservative bound of its successor): how much may be sent on each
 * ACK while the window comes down to ssthresh.
 *
 * Layer 2, TCP. Bytes throughout. Knows nothing of runs.
 */

export class ProportionalReduction {
  /** Bytes in flight when the reduction began (RecoverFS). */
  private flightBytes = 0;
  private deliveredBytes = 0;
  private outBytes = 0;

  begin(flightBytes: number): void {
    this.flightBytes = flightBytes > 1 ? flightBytes : 1;
    this.deliveredBytes = 0;
    this.outBytes = 0;
  }

  /** Bytes went out, new or again. */
  sent(bytes: number): void {
    this.outBytes += bytes;
  }

  /**
   * The window after an ACK that delivered `delivered` bytes with `pipe` in flight after it. `isSafe`: the ACK moved
   * SND.UNA on and told of no further loss.
   */
  window(delivered: number, pipe: number, ssthresh: number, mss: number, isSafe: boolean): number {
    this.deliveredBytes += delivered;
    let send: number;
    if (pipe > ssthresh) {
      send = Math.ceil((this.deliveredBytes * ssthresh) / this.flightBytes) - this.outBytes;
    } else {
      send = Math.max(this.deliveredBytes - this.outBytes, delivered);
      if (isSafe) send += mss;
      send = Math.min(ssthresh - pipe, send);
    }
    // The first retransmission goes out at once.
    if (this.outBytes === 0 && send < mss) send = mss;
    return pipe + (send > 0 ? send : 0);
  }
}
