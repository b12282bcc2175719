/**
 * The words of the fan-out engine: tracks, sources, receivers, events and counters.
 *
 * Layer 3. Types only. A track is one RTP stream (one SSRC, usually). Its packets come from UDP sources or are
 * handed in by `push`; they leave, a frame at a time, as one GSO send a UDP receiver, and to the app as a
 * `frames` event (for receivers on TCP). The engine's thread is the native one; nothing here blocks.
 */

/** Which frames a decoder can start on. "any": every packet (audio, MJPEG). "none": never cached, start now. */
export type KeyFrames = "h264" | "h265" | "vp8" | "vp9" | "av1" | "any" | "none";

export interface FanoutOptions {
  /** Longest a packet waits for the rest of its frame, in milliseconds (5). */
  readonly holdMs?: number;
  /** SO_RCVBUF and SO_SNDBUF of each socket, bytes (8 MiB each; the kernel may grant less, see counters). */
  readonly receiveBuffer?: number;
  readonly sendBuffer?: number;
  /** Threads that help with a frame to very many receivers (cores less one, at most 3; they sleep otherwise). */
  readonly helpers?: number;
  /** Turn UDP_SEGMENT off (for comparison and tests). */
  readonly gso?: boolean;
}

export interface FanoutSocket {
  readonly id: number;
  /** The address asked for; "" or "::" or "0.0.0.0" serve both families where the machine has IPv6. */
  readonly address: string;
  readonly port: number;
}

export interface TrackOptions {
  /** RTP payload type whose packets are looked at for key frames; other payload types pass too. */
  readonly payloadType: number;
  readonly keyFrames: KeyFrames;
  /** RTP clock in Hz, for reports. */
  readonly clockRate: number;
  /** Bound of the cache from the last key frame on (16 MiB); beyond it the cache is off until the next one. */
  readonly cacheBytes?: number;
  /** A track of the same session whose key frames start this track's cache too (audio follows video). */
  readonly leader?: number;
}

/** Where a receiver will start: for RTP-Info. `seq` is -1 when the track has not carried a packet yet. */
export interface StartPosition {
  readonly receiver: number;
  readonly seq: number;
  readonly rtpTime: number;
  readonly ssrc: number;
}

export interface ReceiverOptions {
  readonly socket: number; // RTP leaves from this one
  readonly reportSocket: number; // sender reports leave from this one
  readonly address: string;
  readonly port: number;
  readonly reportPort: number;
  /** "key": from the cached key frame, else from the next one. "now": from the next packet. */
  readonly start: "key" | "now";
}

/** A datagram that no track's source sent: RTCP, NAT punches, strangers. At most 2,048 bytes of it. */
export interface DatagramEvent {
  readonly socket: number;
  readonly address: string;
  readonly port: number;
  /** A copy; keep it as you like. */
  readonly bytes: Uint8Array;
}

/**
 * Whole packets of one track for receivers on TCP: each is preceded by four bytes `$`, 0, length (16 bit, network
 * order), so the array is an interleaved (RFC 2326 10.12) stream once the channel byte is written.
 */
export interface FramesEvent {
  readonly track: number;
  /** 0: live, for every tap reader that has started. Otherwise the ticket of `cached()`: for that reader alone. */
  readonly ticket: number;
  /** Starts with a packet that a decoder can start on. */
  readonly key: boolean;
  /** The event ends what the ticket asked for: from here on the reader takes live events. */
  readonly last: boolean;
  readonly packets: number;
  readonly rtpTime: number;
  readonly seq: number;
  /** A view, valid until the handler returns. The handler may write the channel bytes. */
  readonly bytes: Uint8Array;
  /** Offsets in `bytes` of each packet's four-byte prefix, `packets` of them; valid as `bytes` is. */
  readonly offsets: Uint32Array;
}

export interface FanoutEvents {
  datagram?(event: DatagramEvent): void;
  frames?(event: FramesEvent): void;
  /** The engine's thread met an error that it cannot mend (a socket died). */
  failed?(error: Error): void;
}

/** What a track has carried. Times are of the wall clock, milliseconds since 1970 with fractions. */
export interface TrackStatus {
  readonly packets: number;
  readonly bytes: number;
  readonly ssrc: number;
  readonly lastSeq: number;
  readonly lastRtpTime: number;
  readonly lastArrivalMs: number;
  readonly lost: number;
  readonly jitter: number; // RTP units, RFC 3550 6.4.1
  readonly receivers: number;
  readonly cachedPackets: number;
  readonly cachedBytes: number;
  /** Extended highest sequence number, for receiver reports upstream. */
  readonly extendedSeq: number;
  readonly baseSeq: number;
}

export interface ReceiverStatus {
  readonly packets: number;
  readonly octets: number; // payload octets, RFC 3550 6.4.1
  readonly dropped: number;
  readonly started: boolean;
  readonly caughtUp: boolean;
}

/**
 * A fan-out engine. Every method is cheap and may be called from handlers; changes reach the native thread in the
 * order given, and a packet sees the receivers before a change or after it.
 */
export interface Fanout extends AsyncDisposable {
  events: FanoutEvents;
  /** Binds a UDP socket. Rejects with EADDRINUSE, EACCES, EADDRNOTAVAIL. Port 0 picks one. */
  openSocket(options: { address?: string; port: number }): Promise<FanoutSocket>;
  closeSocket(socket: number): void;

  openTrack(options: TrackOptions): number;
  closeTrack(track: number): void;
  /** Datagrams at `socket` from `address`:`port` are the track's packets. Port 0: from any port of it. */
  addSource(track: number, socket: number, address: string, port: number): void;
  removeSource(track: number, socket: number, address: string, port: number): void;
  /** Hands in `count` RTP packets, copied: packet i is in `bytes` at `offsets[2*i]`, `offsets[2*i+1]` bytes long. */
  push(track: number, bytes: Uint8Array, offsets: Uint32Array, count: number): void;

  /** Makes a receiver that stands still until `startReceiver`; its first packet is fixed now, for RTP-Info. */
  addReceiver(track: number, options: ReceiverOptions): StartPosition;
  startReceiver(receiver: number): void;
  /** Its packets go elsewhere from now on (a NAT's port was learned). Port 0 leaves that one as it is. */
  moveReceiver(receiver: number, address: string, port: number, reportPort: number): void;
  removeReceiver(receiver: number): void;

  /** Turns `frames` events for a track on or off (they cost a copy a frame). */
  tap(track: number, on: boolean): void;
  /**
   * Asks for what is cached since the last key frame, as `frames` events with the ticket returned, in order with the
   * live ones; nothing cached: one empty event with `last`. The position is that of the first packet.
   */
  cached(track: number): StartPosition & { readonly ticket: number };

  /** Sends a datagram (RTCP, a punch) from a socket. */
  send(socket: number, address: string, port: number, bytes: Uint8Array): void;
  /**
   * Sends every started UDP receiver of the track (or one) a compound SR + SDES (RFC 3550 6.4.1) with its own packet
   * and octet counts, for NTP time `ntpSeconds`.`ntpFraction` = RTP time `rtpTime`; `bye` appends a BYE.
   */
  sendReport(
    track: number,
    report: { ntpSeconds: number; ntpFraction: number; rtpTime: number; cname: string; bye?: boolean },
    receiver?: number,
  ): void;

  trackStatus(track: number): TrackStatus;
  receiverStatus(receiver: number): ReceiverStatus | undefined;
  /** Counters by name: packets, bytes, sends, segments, gso share, drops by reason. See docs/counters.md. */
  counters(): Record<string, number>;
  /** Stops the engine's sockets and frees all. Idempotent. */
  close(): Promise<void>;
}
