/**
 * Which NTP time a track's RTP time stands for: from the source's sender reports, else from when packets arrived.
 *
 * Layer 1, relay: pure; the time is handed in. All tracks of a source share one offset between the source's wall
 * clock and ours, so a track whose sender report has not come yet stays in step with one whose has.
 */

import type { TrackStatus } from "../../layer3-ip/fanout-types.ts";
import { msFromNtp, ntpFromMs, ntpMiddle, type SenderInfo } from "./protocol/rtcp.ts";

/** A point where both clocks are known. */
export interface ClockReading {
  readonly ntpSeconds: number;
  readonly ntpFraction: number;
  readonly rtpTime: number;
}

/** By how much a packet may come off its expected time before the stream's time is taken to have jumped. */
const JUMP_MS = 500;
/** How much of an arrival's deviation the mapping follows, so that drift is tracked and jitter is not. */
const FOLLOW = 1 / 16;

/** The source's wall clock less ours, once a sender report has told it. */
export class SourceClock {
  offsetMs: number | undefined;
}

/** One track's mapping. */
export class TrackClock {
  readonly #source: SourceClock;
  readonly #rate: number;
  #rtp = 0;
  /** Our wall clock when `#rtp` was due. */
  #wallMs = 0;
  #from: "nothing" | "arrival" | "report" = "nothing";
  #lastNtpMiddle = 0;
  #reportedAtMs = 0;

  constructor(source: SourceClock, clockRate: number) {
    this.#source = source;
    this.#rate = clockRate;
  }

  /** A sender report of the source, at our time `nowMs`. */
  onSenderReport(info: SenderInfo, nowMs: number): void {
    this.#lastNtpMiddle = ntpMiddle(info.ntpSeconds, info.ntpFraction);
    this.#reportedAtMs = nowMs;
    if (info.ntpSeconds === 0 && info.ntpFraction === 0) return; // RFC 3550 6.4.1: no wall clock there.
    const ntpMs = msFromNtp(info.ntpSeconds, info.ntpFraction);
    // One offset for all tracks of the source. It moves only when the source's clock was set, so that the
    // way's jitter does not move every report of every reader.
    const offset = ntpMs - nowMs;
    const known = this.#source.offsetMs;
    if (known === undefined || Math.abs(offset - known) > JUMP_MS) this.#source.offsetMs = offset;
    this.#rtp = info.rtpTime;
    this.#wallMs = ntpMs - (this.#source.offsetMs ?? 0);
    this.#from = "report";
  }

  /** Follows the arrivals, as long as no report has come. Call it before `read`. */
  onStatus(status: TrackStatus): void {
    if (this.#from === "report" || status.packets === 0) return;
    const expectedMs = this.#wallMs + this.#ticks(status.lastRtpTime) * (1000 / this.#rate);
    const deviationMs = status.lastArrivalMs - expectedMs;
    if (this.#from === "nothing" || Math.abs(deviationMs) > JUMP_MS) {
      this.#rtp = status.lastRtpTime;
      this.#wallMs = status.lastArrivalMs;
      this.#from = "arrival";
      return;
    }
    this.#wallMs += deviationMs * FOLLOW;
  }

  /** What to report at our time `nowMs`; undefined while nothing is known. */
  read(nowMs: number): ClockReading | undefined {
    if (this.#from === "nothing") return undefined;
    const ticks = Math.round(((nowMs - this.#wallMs) * this.#rate) / 1000);
    const rtpTime = (((this.#rtp + ticks) % 4_294_967_296) + 4_294_967_296) % 4_294_967_296;
    return { ...ntpFromMs(nowMs + (this.#source.offsetMs ?? 0)), rtpTime };
  }

  /** For a receiver report's LSR and DLSR. */
  lastReport(nowMs: number): { lastReport: number; delay: number } {
    if (this.#reportedAtMs === 0) return { lastReport: 0, delay: 0 };
    const delay = Math.round(((nowMs - this.#reportedAtMs) * 65_536) / 1000);
    return { lastReport: this.#lastNtpMiddle, delay: Math.min(Math.max(delay, 0), 0xffff_ffff) };
  }

  /** Signed distance of an RTP time from the anchor. */
  #ticks(rtpTime: number): number {
    return (rtpTime - this.#rtp) | 0;
  }
}
