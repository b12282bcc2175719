/**
 * A session that publishes: ANNOUNCE, SETUP of its tracks, RECORD.
 *
 * Layer 1, relay. Its packets go to a publication, as those of any source do.
 */

import type { Connection } from "./connection.ts";
import type { Core } from "./core.ts";
import { buildFrame } from "./protocol/interleaved.ts";
import { buildReceiverReport } from "./protocol/rtcp.ts";
import { buildPunch } from "./protocol/rtp-packet.ts";
import type { Sdp } from "./protocol/sdp.ts";
import { publish } from "./publication.ts";
import { Session } from "./session.ts";
import { PUBLISHER_ORPHAN_MS } from "./settings.ts";
import type { Publication } from "./types.ts";

/** How one track of it travels. */
export type PublisherTransport =
  | { readonly lower: "udp"; readonly ports: readonly [number, number] }
  | { readonly lower: "tcp"; readonly channels: readonly [number, number] };

export class PublishSession extends Session {
  readonly kind = "publish";
  readonly sdp: Sdp;
  /** The URL of ANNOUNCE: relative controls are resolved against it. */
  readonly base: string;
  readonly #transports = new Map<number, PublisherTransport>();
  readonly #connection: Connection;
  #publication: Publication | undefined;
  #lastPackets = 0;
  /** Tracks that said BYE, with the packets that they had sent by then. */
  readonly #goodbyes = new Map<number, number>();

  constructor(core: Core, connection: Connection, path: string, base: string, sdp: Sdp) {
    super(core, connection, path);
    this.sdp = sdp;
    this.base = base;
    this.#connection = connection;
  }

  get trackCount(): number {
    return this.#transports.size;
  }

  /** Gives a track's channels back, since it is set up anew. */
  unclaim(track: number): void {
    const before = this.#transports.get(track);
    if (before?.lower === "tcp") this.#connection.unclaim(before.channels);
    this.#transports.delete(track);
  }

  setup(track: number, transport: PublisherTransport): void {
    this.lower = transport.lower;
    this.#transports.set(track, transport);
    if (transport.lower === "udp") return;
    this.#connection.claim(
      transport.channels,
      { push: (bytes, offsets, count) => this.#publication?.push(track, bytes, offsets, count) },
      { packet: (bytes) => this.#publication?.rtcp(track, bytes) },
    );
  }

  /**
   * Goes live. The path's publisher before, if any, is replaced now and not earlier: an ANNOUNCE that comes to nothing
   * does no harm.
   * @throws ApoError when the relay has too many streams.
   */
  record(): void {
    if (this.#publication !== undefined) return;
    const over = this.lower === "tcp" ? "TCP" : "UDP";
    this.#publication = publish(this.core, {
      path: this.path,
      sdp: this.sdp,
      from: `${this.name} (${over})`,
      report: (track, bytes) => this.#report(track, bytes),
      goodbye: (track) => void this.#goodbyes.set(track, this.#packetsOf(track)),
      ended: (reason) => this.#ended(reason),
    });
    for (const [track, transport] of this.#transports) {
      if (transport.lower === "udp") {
        this.#publication.addSource(track, this.address, transport.ports[0], transport.ports[1]);
      }
    }
    this.state = "active";
  }

  /** Opens the way through a firewall on our side, once RECORD is answered. */
  punch(): void {
    const { core } = this;
    for (const transport of this.#transports.values()) {
      if (transport.lower !== "udp") continue;
      const [rtp, rtcp] = transport.ports;
      core.fanout.send(core.rtpSocket.id, this.address, rtp, buildPunch(core.ssrc));
      core.fanout.send(core.rtcpSocket.id, this.address, rtcp, buildReceiverReport(core.ssrc));
    }
  }

  overdue(nowMs: number): string | undefined {
    const packets = this.#packets();
    if (packets !== this.#lastPackets) {
      this.#lastPackets = packets;
      this.touch();
      return undefined;
    }
    const silentMs = nowMs - this.lastSeenMs;
    // Some leave without TEARDOWN, or wait for ever before it.
    if (this.#saidGoodbye()) {
      if (this.connection !== undefined) this.connection.over = this.id;
      return "it said good-bye";
    }
    if (this.lostMs > 0 && silentMs > PUBLISHER_ORPHAN_MS && nowMs - this.lostMs > PUBLISHER_ORPHAN_MS) {
      return "its connection was lost, and it is silent";
    }
    if (silentMs <= this.core.settings.sessionTimeoutMs) return undefined;
    this.core.count("sessions.timeout");
    return `no packet for ${Math.round(silentMs / 1000)} s`;
  }

  protected release(reason: string): void {
    for (const transport of this.#transports.values()) {
      if (transport.lower === "tcp") this.#connection.unclaim(transport.channels);
    }
    this.#transports.clear();
    this.#publication?.end(reason);
    this.#publication = undefined;
  }

  /** Somebody else publishes the path now, or the relay closes: this one is told by the end of its connection. */
  #ended(reason: string): void {
    const { connection } = this;
    this.#publication = undefined;
    this.core.info("publisher-left", `${this.name} stopped publishing ${this.path}: ${reason}`, {
      path: this.path,
      publisher: this.name,
      reason,
    });
    this.end(reason);
    if (connection !== undefined) this.core.closeConnection(connection.sockfd);
  }

  #report(track: number, bytes: Uint8Array): void {
    const transport = this.#transports.get(track);
    if (transport?.lower !== "tcp" || this.connection === undefined) return;
    this.core.send(this.connection.sockfd, buildFrame(transport.channels[1], bytes));
  }

  #saidGoodbye(): boolean {
    if (this.#goodbyes.size === 0) return false;
    return [...this.#transports.keys()].every((track) => {
      const packets = this.#packetsOf(track);
      return packets === 0 || this.#goodbyes.get(track) === packets;
    });
  }

  #packetsOf(track: number): number {
    const id = this.#publication?.engineTrack(track);
    return id === undefined ? 0 : this.core.fanout.trackStatus(id).packets;
  }

  #packets(): number {
    if (this.#publication === undefined) return 0;
    let sum = 0;
    for (const track of this.core.streams.get(this.path)?.tracks ?? []) {
      sum += this.core.fanout.trackStatus(track.id).packets;
    }
    return sum;
  }
}
