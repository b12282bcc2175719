/**
 * The words of the relay: its options, its handle, and what a source of media (an RTSP publisher, a pull, a
 * program of one's own) does to publish.
 *
 * Layer 1, relay. Types only.
 */

import type { Fanout, FanoutSocket } from "../../layer3-ip/fanout-types.ts";
import type { RelayLog } from "./log.ts";
import type { Sdp } from "./protocol/sdp.ts";

/** What `createRelay` takes; everything has a default. Times are milliseconds. */
export interface RelayOptions {
  /** RTSP port (8554; 0 picks a free one). */
  readonly port?: number;
  /** Local address of all ports (every one of the machine). */
  readonly address?: string;
  /** UDP port for RTP, even; RTCP is the next one (8000; 0 picks a free pair). */
  readonly rtpPort?: number;
  /** Bytes that may be queued for a TCP reader before it is dropped to the next key frame (4 MiB). */
  readonly budgetBytes?: number;
  /** A slow reader whose connection takes nothing for so long is disconnected (10,000). */
  readonly stallMs?: number;
  /** Silence after which a session ends (65,000); clients are told five seconds less. */
  readonly sessionTimeoutMs?: number;
  /** How long a UDP session may be silent once its RTSP connection is lost (20,000). */
  readonly orphanMs?: number;
  /** A connection without a session is closed after so long without a request (60,000). */
  readonly connectionIdleMs?: number;
  /** Between two sender reports to a reader (5,000). */
  readonly reportMs?: number;
  /** How long DESCRIBE waits for a source that is on its way (8,000). */
  readonly describeHoldMs?: number;
  /** From the end of a stream to the readers' BYE, for the last packets to leave (100). */
  readonly lingerMs?: number;
  /** Bound of each track's key-frame cache, bytes (16 MiB). */
  readonly cacheBytes?: number;
  /** Longest a packet waits for the rest of its frame (5). */
  readonly holdMs?: number;
  /** Most sessions at once (8,192). */
  readonly sessionsMax?: number;
  /** Most readers of one path (5,000). */
  readonly readersMax?: number;
  /** Most paths with a publisher at once (1,024). */
  readonly streamsMax?: number;
  /** Where log entries go (nowhere). */
  readonly log?: RelayLog;
  /** The clock, milliseconds since 1970 (`Date.now`). */
  readonly now?: () => number;
  /** Between two rounds of housekeeping (1,000; 0: none by itself, call `sweep`). */
  readonly sweepMs?: number;
}

/** What a source hands to `Relay.publish`. */
export interface PublishOptions {
  /** The stream's path, without slashes at its ends. */
  readonly path: string;
  readonly sdp: Sdp;
  /** Who it is, for the log: "10.0.0.9:40112 (TCP)", "pull rtsp://cam/1". No passwords. */
  readonly from: string;
  /** Takes a compound RTCP report for the source, every few seconds, a track at a time (sources not on UDP). */
  report?(track: number, bytes: Uint8Array): void;
  /** The source said BYE for the SSRC of a track (RFC 3550 6.6). What follows is for its maker to say. */
  goodbye?(track: number): void;
  /** The publication has ended, and not by its own `end`: replaced by another publisher, or the relay closed. */
  ended?(reason: string): void;
}

/** A stream being published. Every method is harmless after the end. */
export interface Publication {
  readonly path: string;
  /** False once it has ended or has been replaced. */
  readonly live: boolean;
  /** Readers of the path now. */
  readonly readers: number;
  /** Hands in RTP packets of one track: packet i at `offsets[2*i]`, `offsets[2*i+1]` bytes long. Copied. */
  push(track: number, bytes: Uint8Array, offsets: Uint32Array, count: number): void;
  /** Hands in a compound RTCP packet of the source (its sender reports fix the readers' clocks). */
  rtcp(track: number, bytes: Uint8Array): void;
  /**
   * Takes a track's packets from UDP: RTP that reaches the relay's RTP port from `address`:`rtpPort`, RTCP that
   * reaches its RTCP port from `rtcpPort`. Receiver reports go back there. Port 0: from any port.
   */
  addSource(track: number, address: string, rtpPort: number, rtcpPort: number): void;
  /** The engine's number of a track, for sources with sockets of their own in the engine; undefined after the end. */
  engineTrack(track: number): number | undefined;
  /** Ends it: readers get BYE, unless the same media are published again within `keepMs` (0). Idempotent. */
  end(reason: string, options?: { readonly keepMs?: number }): void;
}

/** A path whose source is not publishing yet, but will: DESCRIBE waits for it. */
export interface Expectation {
  /** From now on the path answers 404 again while nobody publishes. Idempotent. */
  withdraw(): void;
}

/** How a source that the relay expects is doing. */
export interface SourceStatus {
  /** The path that it feeds. */
  readonly name: string;
  /** Without the password. */
  readonly url: string;
  readonly state: "connecting" | "playing" | "waiting" | "stopped";
  readonly transport: "tcp" | "udp";
  /** Tries so far, and how many of them came to playing. */
  readonly attempts: number;
  readonly sessions: number;
  /** RTP packets of the present session. */
  readonly packets: number;
  /** Frames of the present session on channels that were not agreed on, and what was no RTP. */
  readonly ignored: number;
  readonly readers: number;
  /** Why the last session or try ended. */
  readonly lastFailure: { readonly code: string; readonly text: string } | undefined;
}

/** Numbers of what exists now, and every counter since the start by name. */
export interface RelayStats {
  readonly connections: number;
  readonly sessions: number;
  readonly publishers: number;
  readonly readers: number;
  readonly streams: number;
  /** DESCRIBE requests that wait for a source. */
  readonly waiting: number;
  /** UDP ports and channels that datagrams are known by. */
  readonly routes: number;
  /** The sources that were announced by `expect` and tell how they are. */
  readonly sources: readonly SourceStatus[];
  readonly counters: Readonly<Record<string, number>>;
}

/** A running relay. */
export interface Relay extends AsyncDisposable {
  /** The RTSP port in use. */
  readonly port: number;
  /** Its URL without a path, for people: "rtsp://127.0.0.1:8554". */
  readonly url: string;
  /** The engine and its socket pair, for sources that receive over UDP. */
  readonly fanout: Fanout;
  readonly rtpSocket: FanoutSocket;
  readonly rtcpSocket: FanoutSocket;
  /** Publishes a path; whoever published it before is replaced, its readers stay if the media are the same. */
  publish(options: PublishOptions): Publication;
  /**
   * Announces a source that is on its way. `wanted` is called when a reader asks and nobody publishes; `status` is
   * for `stats`.
   */
  expect(path: string, wanted?: () => void, status?: () => SourceStatus): Expectation;
  stats(): RelayStats;
  /** Does what is due: reports, timeouts, slow readers. Called by itself every `sweepMs`. */
  sweep(): void;
  /** Says BYE to all, closes every session and port. Idempotent. */
  close(): Promise<void>;
}
