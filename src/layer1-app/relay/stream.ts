/**
 * The paths being published: their tracks, their readers, and who publishes them now.
 *
 * Layer 1, relay. It knows the engine's tracks and nothing of RTSP messages or connections; sessions are told
 * through `Reader`.
 */

import type { KeyFrames } from "../../layer3-ip/fanout-types.ts";
import { Audience } from "./audience.ts";
import { SourceClock, TrackClock } from "./clock.ts";
import type { Core } from "./core.ts";
import { buildReaderSdp, type Sdp, type SdpMedia, sameMedia } from "./protocol/sdp.ts";

/** What a stream needs of whoever reads it. */
export interface Reader {
  /** The stream is over: say BYE and end. */
  streamEnded(reason: string): void;
}

/** Who feeds a stream, as far as the stream needs to know. */
export interface Source {
  /** Takes a compound receiver report for the publisher of a track. */
  report(track: Track, bytes: Uint8Array): void;
  /** Somebody else feeds the stream now, or the stream is gone. */
  replaced(reason: string): void;
}

/** One medium of a stream. */
export interface Track {
  readonly stream: Stream;
  readonly index: number;
  readonly media: SdpMedia;
  /** Its number in the engine. */
  readonly id: number;
  readonly keyFrames: KeyFrames;
  /** Its readers on TCP. */
  readonly audience: Audience;
  clock: TrackClock;
  /** Readers on UDP that have been added to the engine. */
  udpReaders: number;
  /** For the next receiver report's fraction lost. */
  lastExpected: number;
  lastLost: number;
}

/** Which of a codec's packets a decoder can start on. */
export function keyFramesOf(media: SdpMedia): KeyFrames {
  switch (media.encoding) {
    case "H264":
      return "h264";
    case "H265":
    case "HEVC":
      return "h265";
    case "VP8":
      return "vp8";
    case "VP9":
      return "vp9";
    case "AV1":
      return "av1";
    case "JPEG":
      return "any";
    default:
      return media.type === "audio" ? "any" : "none";
  }
}

let lastStreamId = 0;

export class Stream {
  readonly path: string;
  readonly sdp: Sdp;
  readonly id: number;
  readonly tracks: readonly Track[];
  readonly readers = new Set<Reader>();
  /** The publication that feeds it; undefined between two. */
  source: Source | undefined;
  /** Readers wait for a new publisher until then, when `source` is gone. */
  keepUntilMs = 0;
  nextReportMs = 0;
  nextReceiverReportMs = 0;

  constructor(core: Core, path: string, sdp: Sdp) {
    this.path = path;
    this.sdp = sdp;
    lastStreamId += 1;
    this.id = lastStreamId;
    const source = new SourceClock();
    const tracks: Track[] = [];
    let leader: number | undefined;
    for (const [index, media] of sdp.media.entries()) {
      const keyFrames = keyFramesOf(media);
      const id = core.fanout.openTrack({
        payloadType: media.formats[0] ?? 0,
        keyFrames,
        clockRate: media.clockRate,
        cacheBytes: core.settings.cacheBytes,
        ...(leader === undefined || media.type === "video" ? {} : { leader }),
      });
      if (media.type === "video" && keyFrames !== "none") leader ??= id;
      const track: Track = {
        stream: this,
        index,
        media,
        id,
        keyFrames,
        audience: new Audience(core, id, keyFrames),
        clock: new TrackClock(source, media.clockRate),
        udpReaders: 0,
        lastExpected: 0,
        lastLost: 0,
      };
      tracks.push(track);
    }
    this.tracks = tracks;
  }

  /** A new source's clocks are its own. */
  resetClocks(): void {
    const source = new SourceClock();
    for (const track of this.tracks) track.clock = new TrackClock(source, track.media.clockRate);
  }

  /** What DESCRIBE answers; `address` is the one the reader reached us at. */
  description(address: string): string {
    return buildReaderSdp(this.sdp, { address, id: this.id });
  }
}

/** A DESCRIBE that waits. */
interface Waiter {
  readonly path: string;
  readonly untilMs: number;
  readonly done: (stream: Stream | undefined) => void;
}

/** The table of paths. */
export class Streams {
  readonly #core: Core;
  readonly #byPath = new Map<string, Stream>();
  readonly #byTrack = new Map<number, Track>();
  readonly #waiters = new Set<Waiter>();

  constructor(core: Core) {
    this.#core = core;
  }

  get size(): number {
    return this.#byPath.size;
  }

  get waiting(): number {
    return this.#waiters.size;
  }

  get(path: string): Stream | undefined {
    return this.#byPath.get(path);
  }

  /** By the engine's number. */
  track(id: number): Track | undefined {
    return this.#byTrack.get(id);
  }

  [Symbol.iterator](): IterableIterator<Stream> {
    return this.#byPath.values();
  }

  /** The stream for a new source: the one that is there if its media are the same, or a new one in its place. */
  take(path: string, sdp: Sdp): Stream {
    const there = this.#byPath.get(path);
    if (there !== undefined) {
      if (sameMedia(there.sdp, sdp)) {
        there.resetClocks();
        return there;
      }
      this.remove(there, "the publisher changed the media");
    }
    const stream = new Stream(this.#core, path, sdp);
    this.#byPath.set(path, stream);
    for (const track of stream.tracks) this.#byTrack.set(track.id, track);
    for (const waiter of [...this.#waiters]) if (waiter.path === path) this.#settle(waiter, stream);
    return stream;
  }

  /** Ends a stream: readers get BYE, its tracks are closed. */
  remove(stream: Stream, reason: string): void {
    if (this.#byPath.get(stream.path) !== stream) return;
    this.#byPath.delete(stream.path);
    for (const reader of [...stream.readers]) reader.streamEnded(reason);
    for (const track of stream.tracks) {
      this.#byTrack.delete(track.id);
      track.audience.close();
      this.#core.fanout.closeTrack(track.id);
    }
  }

  /** Resolves with the path's stream as soon as there is one, or with undefined after `holdMs`. */
  wait(path: string, holdMs: number, nowMs: number): Promise<Stream | undefined> {
    const there = this.#byPath.get(path);
    if (there !== undefined || holdMs === 0) return Promise.resolve(there);
    return new Promise((resolve) => {
      this.#waiters.add({ path, untilMs: nowMs + holdMs, done: resolve });
    });
  }

  /** Ends the waits that have lasted long enough; all of them if `nowMs` is infinite. */
  sweepWaiters(nowMs: number): void {
    for (const waiter of [...this.#waiters]) if (waiter.untilMs <= nowMs) this.#settle(waiter, undefined);
  }

  #settle(waiter: Waiter, stream: Stream | undefined): void {
    this.#waiters.delete(waiter);
    waiter.done(stream);
  }
}
