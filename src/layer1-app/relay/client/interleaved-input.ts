/**
 * Sorts the `$` frames of a connection by track, and hands each track's RTP packets on in runs.
 *
 * Layer 1, relay/client: the hot path of pulls over TCP. No allocation a packet.
 */

import { walkFrames } from "../protocol/interleaved.ts";
import { RTP_HEADER_BYTES } from "../protocol/rtp-packet.ts";

/** Packets that are handed on at once at most. */
const RUN_MAX = 512;
const UNKNOWN = 255;

export interface InterleavedSink {
  /** RTP packets: packet i at `offsets[2*i]`, `offsets[2*i+1]` bytes long. */
  packets(track: number, bytes: Uint8Array, offsets: Uint32Array, count: number): void;
  report(track: number, bytes: Uint8Array): void;
}

export class InterleavedInput {
  readonly #sink: InterleavedSink;
  /** Of each channel: 2 * track, one more for RTCP. */
  readonly #channels = new Uint8Array(256).fill(UNKNOWN);
  readonly #offsets: Uint32Array[] = [];
  readonly #counts: number[] = [];
  #bytes: Uint8Array = new Uint8Array(0);
  /** RTP packets that were handed on. */
  received = 0;
  /** Frames on channels that no track has, and what is too short or too odd to be RTP. */
  ignored = 0;

  constructor(sink: InterleavedSink) {
    this.#sink = sink;
  }

  /** Gives a pair of channels to a track. False when another track has one of them. */
  assign(track: number, [rtp, rtcp]: readonly [number, number]): boolean {
    if (rtp === rtcp || this.#channels[rtp] !== UNKNOWN || this.#channels[rtcp] !== UNKNOWN) return false;
    this.#channels[rtp] = 2 * track;
    this.#channels[rtcp] = 2 * track + 1;
    this.#offsets[track] = new Uint32Array(2 * RUN_MAX);
    this.#counts[track] = 0;
    return true;
  }

  /** A run of whole `$` frames; `bytes` may be a view that ends with this call. */
  take(bytes: Uint8Array): void {
    this.#bytes = bytes;
    walkFrames(bytes, this.#visit);
    for (let track = 0; track < this.#counts.length; track++) this.#flush(track);
  }

  readonly #visit = (channel: number, start: number, length: number): void => {
    const lane = this.#channels[channel] ?? UNKNOWN;
    if (lane === UNKNOWN) {
      this.ignored += 1;
      return;
    }
    const track = lane >> 1;
    if ((lane & 1) === 1) {
      this.#sink.report(track, this.#bytes.subarray(start, start + length));
      return;
    }
    if (length < RTP_HEADER_BYTES || (this.#bytes[start] ?? 0) >> 6 !== 2) {
      this.ignored += 1;
      return;
    }
    const offsets = this.#offsets[track] as Uint32Array;
    let count = this.#counts[track] as number;
    if (count === RUN_MAX) {
      this.#flush(track);
      count = 0;
    }
    offsets[2 * count] = start;
    offsets[2 * count + 1] = length;
    this.#counts[track] = count + 1;
  };

  #flush(track: number): void {
    const count = this.#counts[track];
    if (count === undefined || count === 0) return;
    this.#counts[track] = 0;
    this.received += count;
    this.#sink.packets(track, this.#bytes, this.#offsets[track] as Uint32Array, count);
  }
}
