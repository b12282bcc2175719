/**
 * Turns of a clip as one endless stream: numbers each packet anew, says when it is due, and writes sender
 * reports.
 *
 * Layer 1, relay: pure, the time is handed in. The clip's frames are patched in place, so a packet costs no
 * memory.
 */

import { randomBytes } from "node:crypto";
import type { DemoClip } from "./demo-clip.ts";
import { buildFrame, FRAME_PREFIX_BYTES } from "./protocol/interleaved.ts";
import { buildSenderReport, buildSourceDescription, compound, ntpFromMs } from "./protocol/rtcp.ts";
import { RTP_HEADER_BYTES, writeUint16, writeUint32 } from "./protocol/rtp-packet.ts";

const NOTHING = new Uint8Array(0);
const CNAME = "apo-demo";

interface TrackState {
  readonly ssrc: number;
  /** Of the first packet of the present session's first turn. */
  sequence: number;
  rtpTime: number;
  packets: number;
  octets: number;
}

export class LoopPlayer {
  readonly #clip: DemoClip;
  readonly #tracks: TrackState[];
  /** Full turns since `restart`, and the packet of the present one that is next. */
  #turn = 0;
  #next = 0;
  /** Wall clock at `restart`. */
  #wallMs = 0;

  /** `random` gives 32-bit numbers for SSRCs and starting points. */
  constructor(clip: DemoClip, random: () => number = () => randomBytes(4).readUInt32BE()) {
    this.#clip = { ...clip, frames: clip.frames.slice() };
    this.#tracks = clip.tracks.map(() => ({
      ssrc: random() >>> 0,
      sequence: random() & 0xffff,
      rtpTime: random() >>> 0,
      packets: 0,
      octets: 0,
    }));
  }

  /**
   * Starts a session: from the clip's first packet, with sequence numbers that follow those before, and RTP
   * times that are later by as much as the wall clock is.
   */
  restart(wallMs: number): void {
    const elapsedMs = this.#wallMs === 0 ? 0 : Math.max(wallMs - this.#wallMs, this.#playedMs());
    for (const [index, track] of this.#tracks.entries()) {
      const { clockRate } = this.#clip.tracks[index] as DemoClip["tracks"][number];
      track.sequence = (track.sequence + track.packets) & 0xffff;
      track.rtpTime = addTicks(track.rtpTime, Math.round((elapsedMs * clockRate) / 1000));
      track.packets = 0;
      track.octets = 0;
    }
    this.#wallMs = wallMs;
    this.#turn = 0;
    this.#next = 0;
  }

  /** How far the present session has come: RTP times of the next must lie behind it. */
  #playedMs(): number {
    return this.nextDueMicros / 1000;
  }

  /** The clock stood still for so long: what follows is that much later on the wall clock. */
  shift(micros: number): void {
    this.#wallMs += micros / 1000;
  }

  /** When the next packet is due, microseconds from `restart`. */
  get nextDueMicros(): number {
    return this.#turn * this.#clip.loopMicros + (this.#clip.dueMicros[this.#next] as number);
  }

  /**
   * The `$` frames that are due at `nowMicros`, up to the end of a turn; empty when there are none. A view,
   * valid until the next call.
   */
  take(nowMicros: number): Uint8Array {
    const { count, start, frames } = this.#clip;
    if (this.#next === count) this.#wrap();
    const first = this.#next;
    while (this.#next < count && this.nextDueMicros <= nowMicros) {
      this.#number(this.#next);
      this.#next += 1;
    }
    const taken = this.#next;
    if (taken === count) this.#wrap();
    return taken === first ? NOTHING : frames.subarray(start[first], start[taken]);
  }

  #wrap(): void {
    this.#next = 0;
    this.#turn += 1;
  }

  /** Writes a packet's sequence number, RTP time and SSRC. */
  #number(packet: number): void {
    const { frames, start, rtpTime } = this.#clip;
    const index = this.#clip.track[packet] as number;
    const track = this.#tracks[index] as TrackState;
    const { loopTicks } = this.#clip.tracks[index] as DemoClip["tracks"][number];
    const at = (start[packet] as number) + FRAME_PREFIX_BYTES;
    writeUint16(frames, at + 2, (track.sequence + track.packets) & 0xffff);
    writeUint32(
      frames,
      at + 4,
      addTicks(track.rtpTime, this.#turn * loopTicks + (rtpTime[packet] as number)),
    );
    writeUint32(frames, at + 8, track.ssrc);
    track.packets += 1;
    track.octets += (start[packet + 1] as number) - at - RTP_HEADER_BYTES;
  }

  /** A compound sender report of each track, as `$` frames. */
  reports(nowMicros: number): Uint8Array {
    const ntp = ntpFromMs(this.#wallMs + nowMicros / 1000);
    const frames = this.#tracks.map((track, index) => {
      const { clockRate } = this.#clip.tracks[index] as DemoClip["tracks"][number];
      const rtpTime = addTicks(track.rtpTime, Math.round((nowMicros * clockRate) / 1e6));
      const { packets, octets } = track;
      const report = buildSenderReport(track.ssrc, { ...ntp, rtpTime, packets, octets: octets >>> 0 });
      return buildFrame(2 * index + 1, compound(report, buildSourceDescription(track.ssrc, CNAME)));
    });
    return compound(...frames);
  }
}

/** RTP time is 32 bits wide; `ticks` may be far more after days. */
function addTicks(rtpTime: number, ticks: number): number {
  return (rtpTime + (ticks % 4_294_967_296)) % 4_294_967_296;
}
