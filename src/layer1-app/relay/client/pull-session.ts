/**
 * One session with a camera, from DESCRIBE to TEARDOWN: its packets go to a publication of the relay.
 *
 * Layer 1, relay/client. It ends once and says why; whether to try again is the business of `pull-source.ts`.
 */

import { isIP } from "node:net";
import { ApoError } from "../../errors.ts";
import type { Apo } from "../../types.ts";
import { buildFrame } from "../protocol/interleaved.ts";
import { buildReceiverReport, parseRtcp } from "../protocol/rtcp.ts";
import { buildPunch } from "../protocol/rtp-packet.ts";
import type { Sdp } from "../protocol/sdp.ts";
import { plainAddress } from "../settings.ts";
import type { Publication, Relay } from "../types.ts";
import { type AgreedTransport, type Described, describe, play, setUp } from "./camera-session.ts";
import type { CameraUrl } from "./camera-url.ts";
import { asFailure, RtspFailure } from "./failure.ts";
import { InterleavedInput } from "./interleaved-input.ts";
import type { RtspClient } from "./rtsp-client.ts";
import { openUdpPair, type UdpPair } from "./udp-pair.ts";

export type Keepalive = "auto" | "options" | "none";

export interface PullSessionOptions {
  readonly url: CameraUrl;
  readonly transport: "tcp" | "udp";
  readonly keepalive: Keepalive;
  readonly timeoutMs: number;
  readonly stallMs: number;
  readonly firstPacketMs: number;
  readonly keepMs: number;
  readonly random: () => number;
  /** Gives the making of a session up. One that plays is ended by `stop`. */
  readonly signal: AbortSignal;
  /** Publishes what was set up, right before PLAY. */
  publish(sdp: Sdp, handlers: PublicationHandlers): Publication;
  note(text: string): void;
}

export interface PublicationHandlers {
  report(track: number, bytes: Uint8Array): void;
  ended(reason: string): void;
}

/** After every track's BYE, packets that still come within this time mean that the source has not ended. */
const GOODBYE_GRACE_MS = 1_000;
/** How long TEARDOWN is waited for. */
const TEARDOWN_MS = 1_000;
const CHECK_MS = 500;

interface UdpTrack {
  readonly pair: UdpPair;
  /** Where its packets may come from. */
  addresses: readonly string[];
  rtpPort: number;
  rtcpPort: number;
}

export class PullSession {
  readonly #relay: Relay;
  readonly #options: PullSessionOptions;
  readonly #input: InterleavedInput;
  readonly #channels: number[] = [];
  readonly #udp: UdpTrack[] = [];
  readonly #goodbyes = new Set<number>();
  readonly #timers: NodeJS.Timeout[] = [];
  #described: Described | undefined;
  #publication: Publication | undefined;
  #tracks = 0;
  #timeoutSeconds = 60;
  #keepalives = 0;
  #packets = 0;
  #lastPacketMs = 0;
  #goodbyeMs = 0;
  #anyPacket = false;
  #failure: RtspFailure | undefined;
  #tellEnd: (failure: RtspFailure) => void = () => {};
  /** Resolves, never rejects, when the session is over: with why. */
  readonly ended: Promise<RtspFailure>;

  private constructor(relay: Relay, options: PullSessionOptions) {
    this.#relay = relay;
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#tellEnd = resolve;
    });
    this.#input = new InterleavedInput({
      packets: (track, bytes, offsets, count) => this.#publication?.push(track, bytes, offsets, count),
      report: (track, bytes) => this.#onReport(track, bytes),
    });
  }

  /**
   * Makes a session that plays.
   * @throws RtspFailure with everything undone.
   */
  static async open(apo: Apo, relay: Relay, options: PullSessionOptions): Promise<PullSession> {
    const session = new PullSession(relay, options);
    // The signal cuts the making short; a session that plays ends by TEARDOWN.
    const making = new AbortController();
    const giveUp = (): void => making.abort();
    options.signal.addEventListener("abort", giveUp);
    if (options.signal.aborted) giveUp();
    try {
      await session.#start(apo, making.signal);
      return session;
    } catch (error) {
      const failure =
        error instanceof ApoError ? new RtspFailure("refused", error.message) : asFailure(error);
      session.#end(failure);
      await session.ended;
      throw failure;
    } finally {
      options.signal.removeEventListener("abort", giveUp);
    }
  }

  /** Has a packet come yet? */
  get anyPacket(): boolean {
    return this.#anyPacket;
  }

  get packets(): number {
    return this.#packets;
  }

  get ignored(): number {
    return this.#input.ignored;
  }

  get publication(): Publication | undefined {
    return this.#publication;
  }

  get trackCount(): number {
    return this.#tracks;
  }

  /** Says TEARDOWN and ends. Idempotent. */
  async stop(): Promise<void> {
    this.#end(new RtspFailure("stopped", "the pull was stopped"));
    await this.ended;
  }

  async #start(apo: Apo, signal: AbortSignal): Promise<void> {
    const { url, timeoutMs, note } = this.#options;
    this.#described = await describe(apo, url, {
      timeoutMs,
      signal,
      frames: (bytes) => this.#input.take(bytes),
      closed: (failure) => this.#end(failure),
    });
    for (const left of this.#described.leftOut) note(`left out: ${left}`);
    const kept = await this.#setUpAll(this.#described);
    const sdp = {
      ...this.#described.sdp,
      media: kept.map((index) => this.#described?.sdp.media[index]),
    } as Sdp;
    if (this.#failure !== undefined) throw this.#failure;
    this.#publication = this.#options.publish(sdp, {
      report: (track, bytes) => this.#sendReport(track, bytes),
      ended: (reason) => this.#end(new RtspFailure("replaced", reason)),
    });
    for (let track = 0; track < this.#udp.length; track++) this.#receive(track);
    await play(this.#described);
    this.#watch();
  }

  /** Sets up every track. One that the server refuses is left out, unless it is the first. */
  async #setUpAll(described: Described): Promise<number[]> {
    const kept: number[] = [];
    for (const [index, media] of described.sdp.media.entries()) {
      try {
        await this.#setUpOne(described, index);
        kept.push(index);
      } catch (error) {
        const failure = asFailure(error);
        const lost =
          this.#failure !== undefined || failure.status === undefined || failure.code === "unauthorized";
        if (lost || kept.length === 0) throw failure;
        this.#options.note(`left out: ${media.type} ${media.encoding} (${failure.message})`);
      }
    }
    return kept;
  }

  async #setUpOne(described: Described, index: number): Promise<void> {
    const track = this.#tracks;
    if (this.#options.transport === "tcp") {
      const asked = { lower: "tcp", channels: [2 * track, 2 * track + 1] } as const;
      const { transport, timeoutSeconds } = await setUp(described, index, asked);
      this.#takeChannels(transport, track);
      this.#timeoutSeconds = timeoutSeconds;
    } else {
      await this.#setUpUdp(described, index, track);
    }
    this.#tracks += 1;
  }

  #takeChannels(transport: AgreedTransport, track: number): void {
    if (transport.lower !== "tcp") return;
    if (!this.#input.assign(track, transport.channels)) {
      throw new RtspFailure(
        "transport",
        `the server gives two tracks the same channels ${transport.channels.join("-")}`,
      );
    }
    this.#channels[track] = transport.channels[1];
  }

  async #setUpUdp(described: Described, index: number, track: number): Promise<void> {
    const { fanout, rtpSocket } = this.#relay;
    const pair = await openUdpPair(fanout, rtpSocket, (lane, event) => {
      if (lane === "rtcp" && this.#udp[track]?.addresses.includes(plainAddress(event.address)) === true) {
        const one = this.#udp[track];
        if (one.rtcpPort === 0) one.rtcpPort = event.port;
        this.#onReport(track, event.bytes);
      }
    });
    try {
      const asked = { lower: "udp", ports: [pair.rtp.port, pair.rtcp.port] } as const;
      const { transport, timeoutSeconds } = await setUp(described, index, asked);
      if (transport.lower !== "udp") return;
      this.#timeoutSeconds = timeoutSeconds;
      const peer = plainAddress(described.client.address);
      const { source } = transport;
      const other = source !== undefined && isIP(source) !== 0 && plainAddress(source) !== peer;
      this.#udp[track] = {
        pair,
        addresses: other ? [peer, plainAddress(source)] : [peer],
        rtpPort: transport.ports[0],
        rtcpPort: transport.ports[1],
      };
    } finally {
      if (this.#udp[track]?.pair !== pair) pair.close();
    }
  }

  /**
   * Lets a track's packets in, from any port of the camera, and opens the way through a NAT or a firewall.
   */
  #receive(track: number): void {
    const udp = this.#udp[track];
    const engineTrack = this.#publication?.engineTrack(track);
    if (udp === undefined || engineTrack === undefined) return;
    const { fanout } = this.#relay;
    const { rtp, rtcp } = udp.pair;
    for (const address of udp.addresses) {
      fanout.addSource(engineTrack, rtp.id, address, 0);
      if (udp.rtpPort !== 0) fanout.send(rtp.id, address, udp.rtpPort, buildPunch(0));
      if (udp.rtcpPort !== 0) fanout.send(rtcp.id, address, udp.rtcpPort, buildReceiverReport(0));
    }
  }

  #watch(): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#packets = this.#count();
    this.#lastPacketMs = performance.now();
    this.#timers.push(setInterval(() => this.#check(), CHECK_MS));
    this.#nextKeepalive();
  }

  /** RTP packets so far: of this connection over TCP, of the engine's tracks over UDP. */
  #count(): number {
    let sum = this.#input.received;
    for (let track = 0; track < this.#udp.length; track++) {
      const engineTrack = this.#publication?.engineTrack(track);
      if (engineTrack !== undefined) sum += this.#relay.fanout.trackStatus(engineTrack).packets;
    }
    return sum;
  }

  #check(): void {
    const nowMs = performance.now();
    const packets = this.#count();
    const { stallMs, firstPacketMs } = this.#options;
    if (packets !== this.#packets) {
      this.#packets = packets;
      this.#lastPacketMs = nowMs;
      this.#anyPacket = true;
    }
    if (this.#described?.client.lateStatus === 454) {
      this.#end(new RtspFailure("closed", "the server has forgotten the session"));
    } else if (this.#goodbyeMs > 0 && nowMs - this.#goodbyeMs > GOODBYE_GRACE_MS) {
      if (this.#lastPacketMs <= this.#goodbyeMs + CHECK_MS) {
        this.#end(new RtspFailure("ended", "the camera said goodbye"));
      } else {
        this.#goodbyeMs = 0;
        this.#goodbyes.clear();
      }
    } else if (nowMs - this.#lastPacketMs > (this.#anyPacket ? stallMs : Math.min(firstPacketMs, stallMs))) {
      const seconds = Math.round((nowMs - this.#lastPacketMs) / 1000);
      const text = this.#anyPacket
        ? `no packet for ${seconds} s`
        : `no packet came within ${seconds} s of PLAY`;
      this.#end(new RtspFailure("stalled", text));
    }
  }

  /**
   * In [timeout/2, timeout), less a margin for the way, so that many pulls do not all ask in the same
   * instant.
   */
  #nextKeepalive(): void {
    if (this.#options.keepalive === "none") return;
    const halfMs = Math.max(this.#timeoutSeconds, 2) * 500;
    const waitMs = halfMs + this.#options.random() * Math.max(halfMs - 2_000, halfMs / 2);
    this.#timers[1] = setTimeout(() => {
      this.#keepAlive();
      this.#nextKeepalive();
    }, waitMs);
  }

  /**
   * Cameras differ in what keeps a session alive: both ways in turn, and the relay's receiver reports
   * besides.
   */
  #keepAlive(): void {
    const described = this.#described;
    if (described === undefined) return;
    const get = this.#options.keepalive === "auto" && described.methods.has("GET_PARAMETER");
    const method = get && this.#keepalives % 2 === 0 ? "GET_PARAMETER" : "OPTIONS";
    this.#keepalives += 1;
    described.client.tell({ method, url: described.aggregate });
  }

  #onReport(track: number, bytes: Uint8Array): void {
    this.#publication?.rtcp(track, bytes);
    if (!parseRtcp(bytes).some((packet) => packet.kind === "bye")) return;
    this.#goodbyes.add(track);
    if (this.#goodbyes.size >= this.#tracks && this.#goodbyeMs === 0) this.#goodbyeMs = performance.now();
  }

  #sendReport(track: number, bytes: Uint8Array): void {
    const channel = this.#channels[track];
    const udp = this.#udp[track];
    if (channel !== undefined) this.#described?.client.send(buildFrame(channel, bytes));
    else if (udp !== undefined && udp.rtcpPort !== 0) {
      const [address = ""] = udp.addresses;
      this.#relay.fanout.send(udp.pair.rtcp.id, address, udp.rtcpPort, bytes);
    }
  }

  #end(failure: RtspFailure): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    for (const timer of this.#timers) clearTimeout(timer);
    for (let track = 0; track < this.#udp.length; track++) this.#unreceive(track);
    const publication = this.#publication;
    if (failure.code !== "replaced") {
      publication?.end(failure.message, { keepMs: failure.code === "stopped" ? 0 : this.#options.keepMs });
    }
    this.#tearDown(this.#described?.client).then(
      () => this.#tellEnd(failure),
      () => this.#tellEnd(failure),
    );
  }

  #unreceive(track: number): void {
    const udp = this.#udp[track];
    if (udp === undefined) return;
    const engineTrack = this.#publication?.engineTrack(track);
    if (engineTrack !== undefined) {
      for (const address of udp.addresses) {
        this.#relay.fanout.removeSource(engineTrack, udp.pair.rtp.id, address, 0);
      }
    }
    udp.pair.close();
  }

  /** A camera has few sessions to give: this one is given back where it can still be. */
  async #tearDown(client: RtspClient | undefined): Promise<void> {
    if (client === undefined) return;
    if (client.open && client.session !== undefined) {
      const url = this.#described?.aggregate ?? client.url.request;
      await client.request({ method: "TEARDOWN", url }, TEARDOWN_MS).catch(() => {});
    }
    client.close();
  }
}
