/**
 * A session that reads: SETUP of its tracks, PLAY, PAUSE, and what its ports and channels bring back.
 *
 * Layer 1, relay. It knows the engine's receivers and the audiences of TCP readers, and nothing of RTSP text
 * beyond the URL that a track was set up with.
 */

import type { StartPosition } from "../../layer3-ip/fanout-types.ts";
import type { Connection } from "./connection.ts";
import type { Core } from "./core.ts";
import type { Learner } from "./ports.ts";
import { ReaderTrack } from "./reader-track.ts";
import { reportToMember, reportToReceiver } from "./reports.ts";
import { Session } from "./session.ts";
import { FAREWELL_MS } from "./settings.ts";
import type { Reader, Stream, Track } from "./stream.ts";
import { TcpPlayer } from "./tcp-player.ts";

/** Where one track's media go. */
export type ReaderTransport =
  | { readonly lower: "udp"; readonly ports: readonly [number, number] }
  | { readonly lower: "tcp"; readonly channels: readonly [number, number] };

/** What PLAY tells about a track, for RTP-Info. */
export interface PlayedTrack {
  readonly url: string;
  readonly start: StartPosition | { readonly seq: number; readonly rtpTime: number };
}

export class ReadSession extends Session implements Reader, Learner {
  readonly kind = "read";
  readonly stream: Stream;
  /** In the order of SETUP. */
  readonly list: ReaderTrack[] = [];
  /** `Learner`. */
  untilMs = 0;
  readonly #player: TcpPlayer;
  #joinedMs = 0;

  constructor(core: Core, connection: Connection, stream: Stream) {
    super(core, connection, stream.path);
    this.stream = stream;
    this.#player = new TcpPlayer(core, this);
    stream.readers.add(this);
  }

  /** `Learner`: the tracks whose ports may be learned. */
  get tracks(): readonly ReaderTrack[] {
    return this.list;
  }

  /** Sets a track up, anew if it was set up before (it then stands still until the next PLAY). */
  setup(connection: Connection, track: Track, url: string, transport: ReaderTransport): void {
    this.teardownTrack(track);
    this.lower = transport.lower;
    const entry = new ReaderTrack(this, track, url, transport, connection);
    this.list.push(entry);
    if (transport.lower === "udp") this.core.ports.addLearner(this);
  }

  /** Takes one track out; true if it was there. */
  teardownTrack(track: Track): boolean {
    const at = this.list.findIndex((entry) => entry.track === track);
    if (at < 0) return false;
    this.list[at]?.release();
    this.list.splice(at, 1);
    return true;
  }

  /**
   * Fixes where each track will start, and changes nothing yet that a reader could see. Tracks that play already go on.
   */
  prepare(): PlayedTrack[] {
    if (this.lower === "udp") this.core.ports.addLearner(this);
    return this.list.map((entry) => ({ url: entry.url, start: entry.prepare(this.#player) }));
  }

  /** The answer is out: reports first, then packets. */
  start(): void {
    if (this.state === "ended") return;
    for (const entry of this.list) entry.start();
    if (this.state === "active") return;
    this.state = "active";
    if (this.#joinedMs !== 0) return;
    this.#joinedMs = this.core.now();
    const tracks = `${this.list.length} of ${this.stream.tracks.length} tracks`;
    this.core.info("reader-joined", `${this.name} reads ${this.path} over ${this.#lowerName} (${tracks})`, {
      path: this.path,
      reader: this.name,
      over: this.#lowerName,
    });
  }

  pause(): void {
    for (const entry of this.list) entry.stop();
    this.state = "ready";
  }

  /** `Learner` is told that the ports are what the client said: nothing more is learned. */
  confirmed(): void {
    this.core.ports.removeLearner(this);
  }

  streamEnded(reason: string): void {
    for (const entry of this.list) {
      if (entry.receiver !== 0) reportToReceiver(this.core, entry.track, entry.receiver, true);
      if (entry.member !== undefined) reportToMember(this.core, entry.track, entry.member, true);
    }
    const { connection, lower } = this;
    this.end(reason);
    if (connection === undefined) return;
    connection.over = this.id;
    // A reader on TCP that does not know BYE waits for packets that will not come. One that does says good-bye
    // first, and takes a closed connection for a failure.
    if (lower === "tcp") connection.closeAtMs = this.core.now() + FAREWELL_MS;
  }

  overdue(nowMs: number): string | undefined {
    const { settings } = this.core;
    if (this.lower === "tcp" && this.connection !== undefined) {
      const stalled = this.#player.sweep(this.connection.sockfd, nowMs);
      if (stalled) return "it takes nothing any more";
    }
    if (this.lostMs > 0 && nowMs - Math.max(this.lostMs, this.lastSeenMs) > settings.orphanMs) {
      return "its connection was lost, and it is silent";
    }
    if (nowMs - this.lastSeenMs <= settings.sessionTimeoutMs) return undefined;
    this.core.count("sessions.timeout");
    return `silent for ${Math.round((nowMs - this.lastSeenMs) / 1000)} s`;
  }

  protected release(reason: string, wasActive: boolean): void {
    this.core.ports.removeLearner(this);
    const packets = this.list.reduce((sum, entry) => sum + entry.sent(), 0);
    const lost = this.list.map((entry) => entry.lastBlock?.lost ?? 0).reduce((sum, one) => sum + one, 0);
    for (const entry of this.list) entry.release();
    this.list.length = 0;
    this.stream.readers.delete(this);
    if (!wasActive && this.#joinedMs === 0) return;
    const seconds = Math.round((this.core.now() - this.#joinedMs) / 1000);
    const skipped = this.#player.skippedPackets;
    const losses = `${skipped > 0 ? `, ${skipped} skipped` : ""}${lost > 0 ? `, ${lost} reported lost` : ""}`;
    this.core.info(
      "reader-left",
      `${this.name} left ${this.path} after ${seconds} s: ${reason} (${packets} packets${losses})`,
      { path: this.path, reader: this.name, reason, seconds, packets, skipped, lost },
    );
  }

  get #lowerName(): string {
    return this.lower === "tcp" ? "TCP" : "UDP";
  }
}
