/**
 * Round-trip time and the retransmission timeout (RFC 6298), in microseconds.
 *
 * Layer 2, TCP. The variance part of the RTO has a floor (`minRtoUs`) and not their sum, as in Linux: a long path with
 * a steady round trip would else time out at the first delayed ACK. With many samples a round trip, each weighs less
 * (RFC 7323, appendix G). Knows nothing of clocks: it is given durations.
 */

const minGranularityUs = 1;
/** RFC 6298 5.7: what follows a handshake that had to be repeated. */
const afterLostSynRtoUs = 3e6;
/** How long a minimum is believed at least; at most twice that. */
const minRttWindowUs = 150e6;

export class RttEstimator {
  /** 0: no sample yet. */
  srttUs = 0.5;
  rttvarUs = 0.5;
  /** The RTO without backoff. */
  baseRtoUs = 0.5;
  /** The least of the last minutes; Infinity: no sample. */
  minRttUs = Infinity;
  latestUs = 0.5;
  private recentMinUs = Infinity;
  private windowStartUs = 0.5;
  private minRtoUs = 0.5;
  private maxRtoUs = 0.5;

  begin(initialRtoUs: number, minRtoUs: number, maxRtoUs: number, nowUs: number): void {
    this.srttUs = 0;
    this.rttvarUs = 0;
    this.baseRtoUs = initialRtoUs;
    this.minRttUs = Infinity;
    this.recentMinUs = Infinity;
    this.latestUs = 0;
    this.windowStartUs = nowUs;
    this.minRtoUs = minRtoUs;
    this.maxRtoUs = maxRtoUs;
  }

  /** What was known before a rest. The minimum starts at the mean, from which it falls. */
  restore(srttUs: number, rttvarUs: number): void {
    if (srttUs <= 0) return;
    this.srttUs = srttUs;
    this.rttvarUs = rttvarUs;
    this.minRttUs = srttUs;
    this.recentMinUs = srttUs;
    this.latestUs = srttUs;
    this.setRto();
  }

  lostSyn(): void {
    this.baseRtoUs = Math.min(this.maxRtoUs, Math.max(this.baseRtoUs, afterLostSynRtoUs));
  }

  /** Takes in `window.sampleUs`. `perRound`: how many samples a round trip gives, about. */
  sample(window: { readonly sampleUs: number; readonly nowUs: number }, perRound: number): void {
    const { sampleUs, nowUs } = window;
    const rtt = sampleUs < minGranularityUs ? minGranularityUs : sampleUs;
    this.latestUs = rtt;
    if (this.srttUs === 0) {
      this.srttUs = rtt;
      this.rttvarUs = rtt / 2;
    } else {
      const error = rtt - this.srttUs;
      const weight = perRound > 1 ? 1 / perRound : 1;
      this.rttvarUs += ((error < 0 ? -error : error) - this.rttvarUs) * 0.25 * weight;
      this.srttUs += error * 0.125 * weight;
    }
    if (rtt < this.recentMinUs) this.recentMinUs = rtt;
    if (rtt < this.minRttUs) this.minRttUs = rtt;
    else if (nowUs - this.windowStartUs > minRttWindowUs) {
      this.minRttUs = this.recentMinUs;
      this.recentMinUs = rtt;
      this.windowStartUs = nowUs;
    }
    this.setRto();
  }

  private setRto(): void {
    const margin = 4 * this.rttvarUs;
    const rto = this.srttUs + (margin > this.minRtoUs ? margin : this.minRtoUs);
    this.baseRtoUs = rto > this.maxRtoUs ? this.maxRtoUs : rto;
  }
}
