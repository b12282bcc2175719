/**
 * One track of a reading session: a receiver of the engine (UDP) or a member of an audience (TCP), and the RTCP
 * that comes back.
 *
 * Layer 1, relay.
 */

import { Member } from "./audience.ts";
import type { Connection } from "./connection.ts";
import type { Lane, ReaderRoute } from "./ports.ts";
import { parseRtcp, type ReportBlock } from "./protocol/rtcp.ts";
import type { ReaderTransport, ReadSession } from "./reader.ts";
import { reportToMember, reportToReceiver } from "./reports.ts";
import type { Track } from "./stream.ts";
import type { TcpPlayer } from "./tcp-player.ts";

type Start = { readonly seq: number; readonly rtpTime: number };

export class ReaderTrack implements ReaderRoute {
  readonly session: ReadSession;
  readonly track: Track;
  /** As it was written in SETUP: RTP-Info must say the very same. */
  readonly url: string;
  readonly transport: ReaderTransport;
  readonly known: Record<Lane, boolean> = { rtp: false, rtcp: false };
  /** The engine's number, 0 while it has none. */
  receiver = 0;
  member: Member | undefined;
  /** The reader's last report on this track. */
  lastBlock: ReportBlock | undefined;
  readonly #connection: Connection;
  #started = false;
  /** Packets sent before the last pause. */
  #sentBefore = 0;
  /** UDP: where to, as said or as learned. */
  #ports: [rtp: number, rtcp: number] = [0, 0];

  constructor(
    session: ReadSession,
    track: Track,
    url: string,
    transport: ReaderTransport,
    connection: Connection,
  ) {
    this.session = session;
    this.track = track;
    this.url = url;
    this.transport = transport;
    this.#connection = connection;
    if (transport.lower === "tcp") {
      const rtcp = (bytes: Uint8Array): void => this.heard("rtcp", bytes);
      connection.claim(transport.channels, { packet: () => session.touch() }, { packet: rtcp });
      return;
    }
    this.#ports = [...transport.ports];
    session.core.ports.addRoute("rtp", session.address, this.#ports[0], this);
    session.core.ports.addRoute("rtcp", session.address, this.#ports[1], this);
  }

  /** `Learner`: what is to be learned is this very object. */
  get route(): ReaderRoute {
    return this;
  }

  ssrc(): number {
    const status = this.session.core.fanout.trackStatus(this.track.id);
    return status.packets === 0 ? 0 : status.ssrc;
  }

  /** RTP or RTCP of the reader, from where it was expected. */
  heard(lane: Lane, bytes: Uint8Array): void {
    const { core } = this.session;
    this.session.touch();
    if (this.transport.lower === "udp" && !this.known[lane]) {
      this.known[lane] = true;
      this.session.confirmed();
    }
    if (lane === "rtp") return; // A punch: nothing in it.
    core.count("rtcp.received");
    const packets = parseRtcp(bytes);
    if (packets.length === 0) core.count("rtcp.malformed");
    for (const packet of packets) {
      if (packet.kind === "rr" || packet.kind === "sr") this.lastBlock = packet.blocks[0] ?? this.lastBlock;
    }
  }

  /** A NAT's port: what goes to this lane goes there from now on. */
  learned(lane: Lane, port: number): void {
    const { core, address } = this.session;
    const at = lane === "rtp" ? 0 : 1;
    core.ports.removeRoute(lane, address, this.#ports[at], this);
    this.#ports[at] = port;
    core.ports.addRoute(lane, address, port, this);
    if (this.receiver !== 0) {
      core.fanout.moveReceiver(this.receiver, address, lane === "rtp" ? port : 0, lane === "rtcp" ? port : 0);
    }
  }

  /** Fixes its first packet. */
  prepare(player: TcpPlayer): Start {
    const { fanout } = this.session.core;
    if (this.receiver !== 0 || this.member !== undefined) {
      const status = fanout.trackStatus(this.track.id);
      if (status.packets === 0) return { seq: -1, rtpTime: 0 };
      return { seq: (status.lastSeq + 1) & 0xffff, rtpTime: status.lastRtpTime };
    }
    this.#started = false;
    if (this.transport.lower === "tcp") {
      this.member = new Member(player, this.#connection.sockfd, this.transport.channels[0]);
      player.add(this.track, this.member);
      return this.track.audience.join(this.member);
    }
    const start = fanout.addReceiver(this.track.id, {
      socket: this.session.core.rtpSocket.id,
      reportSocket: this.session.core.rtcpSocket.id,
      address: this.session.address,
      port: this.#ports[0],
      reportPort: this.#ports[1],
      start: "key",
    });
    this.receiver = start.receiver;
    this.track.udpReaders++;
    return start;
  }

  /** A sender report at once, so that the first packet's time means something; then packets. */
  start(): void {
    if (this.#started) return;
    this.#started = true;
    const { core } = this.session;
    if (this.member !== undefined) reportToMember(core, this.track, this.member);
    if (this.receiver === 0) return;
    reportToReceiver(core, this.track, this.receiver);
    core.fanout.startReceiver(this.receiver);
  }

  stop(): void {
    this.#started = false;
    this.#sentBefore = this.sent();
    if (this.member !== undefined) this.track.audience.leave(this.member);
    this.member = undefined;
    if (this.receiver === 0) return;
    this.session.core.fanout.removeReceiver(this.receiver);
    this.receiver = 0;
    this.track.udpReaders--;
  }

  /** Packets sent since it last started. */
  sent(): number {
    if (this.member !== undefined) {
      return this.#sentBefore + this.track.audience.sent(this.member).packets;
    }
    if (this.receiver === 0) return this.#sentBefore;
    return this.#sentBefore + (this.session.core.fanout.receiverStatus(this.receiver)?.packets ?? 0);
  }

  release(): void {
    this.stop();
    if (this.transport.lower === "tcp") {
      this.#connection.unclaim(this.transport.channels);
      return;
    }
    const { core, address } = this.session;
    core.ports.removeRoute("rtp", address, this.#ports[0], this);
    core.ports.removeRoute("rtcp", address, this.#ports[1], this);
  }
}
