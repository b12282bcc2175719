/**
 * Delivery rates: how fast the network delivered what a run belongs to, for model-based congestion control.
 *
 * Layer 2, TCP. After the draft on delivery rate estimation: each run carries what had been delivered when it went
 * out; the ACK that delivers it divides the difference by the longer of the time it took to send and to be
 * acknowledged, so that neither bursts of data nor of ACKs look like speed. Knows nothing of windows.
 */
import type { Delivery, SentRun } from "./sent-runs.ts";

export class DeliveryRate {
  /** Of the present ACK, bytes a microsecond; 0: no sample. */
  bytesPerUs = 0.5;
  /** The sender had too little to send: the network may be faster than that. */
  isAppLimited = false;
  /** What had been delivered when the sample's run went out: tells rounds. */
  priorBytes = 0.5;
  /** All that was delivered, and when the last of it was. */
  deliveredBytes = 0.5;
  private deliveredUs = 0.5;
  private flightStartUs = 0.5;
  /** Up to this much delivered the samples are the application's doing; 0: they are not. */
  private limitedUntil = 0.5;

  begin(nowUs: number): void {
    this.bytesPerUs = 0;
    this.isAppLimited = false;
    this.priorBytes = 0;
    this.deliveredBytes = 0;
    this.deliveredUs = nowUs;
    this.flightStartUs = nowUs;
    this.limitedUntil = 0;
  }

  /** A run goes out; `inFlight`: with it. */
  sent(run: SentRun, isFirst: boolean, inFlight: number, appLimited: boolean): void {
    if (isFirst) {
      this.flightStartUs = run.sentUs;
      this.deliveredUs = run.sentUs;
    }
    if (appLimited) this.limitedUntil = this.deliveredBytes + inFlight;
    run.deliveredBytes = this.deliveredBytes;
    run.deliveredUs = this.deliveredUs;
    run.flightStartUs = this.flightStartUs;
    run.appLimited = this.limitedUntil > 0;
  }

  /** An ACK. Samples shorter than the least round trip are no samples: they are from what was sent twice. */
  acked(delivery: Delivery, window: { readonly nowUs: number; readonly minRttUs: number }): void {
    this.bytesPerUs = 0;
    if (delivery.bytes <= 0) return;
    const { nowUs } = window;
    this.deliveredBytes += delivery.bytes;
    this.deliveredUs = nowUs;
    if (this.limitedUntil > 0 && this.deliveredBytes > this.limitedUntil) this.limitedUntil = 0;
    if (delivery.rackSentUs < 0) return;
    const sendUs = delivery.rackSentUs - delivery.rateFlightStartUs;
    const ackUs = nowUs - delivery.rateUs;
    const spanUs = sendUs > ackUs ? sendUs : ackUs;
    this.flightStartUs = delivery.rackSentUs;
    this.priorBytes = delivery.rateBytes;
    this.isAppLimited = delivery.rateAppLimited;
    if (spanUs < window.minRttUs || spanUs <= 0) return;
    this.bytesPerUs = (this.deliveredBytes - delivery.rateBytes) / spanUs;
  }
}
