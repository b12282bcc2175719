/**
 * A stream being published, whoever does it: packets in, sender reports in, receiver reports out, and its end.
 *
 * Layer 1, relay. It knows the engine and the stream; RTSP publishers and pull sources both come through here.
 */

import { ApoError } from "../errors.ts";
import type { Core } from "./core.ts";
import type { Route, SourceRoute } from "./ports.ts";
import { parseRtcp } from "./protocol/rtcp.ts";
import { isStreamPath } from "./protocol/rtsp-url.ts";
import { plainAddress } from "./settings.ts";
import type { Source, Stream, Track } from "./stream.ts";
import type { Publication, PublishOptions } from "./types.ts";

/** Where a track's packets come from on UDP. */
interface UdpSource extends Route {
  readonly track: Track;
  readonly address: string;
  rtpPort: number;
  readonly rtcpPort: number;
}

const ONE_PACKET = new Uint32Array(2);

class LivePublication implements Publication, Source, SourceRoute {
  readonly #core: Core;
  readonly #options: PublishOptions;
  readonly stream: Stream;
  readonly path: string;
  readonly #udp: UdpSource[] = [];
  live = true;
  #ending = false;
  /** `SourceRoute`: the address of all its UDP sources; "" before the first. */
  address = "";

  constructor(core: Core, stream: Stream, options: PublishOptions) {
    this.#core = core;
    this.stream = stream;
    this.path = stream.path;
    this.#options = options;
  }

  get from(): string {
    return this.#options.from;
  }

  get readers(): number {
    return this.stream.readers.size;
  }

  push(track: number, bytes: Uint8Array, offsets: Uint32Array, count: number): void {
    const target = this.live ? this.stream.tracks[track] : undefined;
    if (target !== undefined && count > 0) this.#core.fanout.push(target.id, bytes, offsets, count);
  }

  rtcp(track: number, bytes: Uint8Array): void {
    const target = this.live ? this.stream.tracks[track] : undefined;
    if (target === undefined) return;
    this.#core.count("rtcp.received");
    const packets = parseRtcp(bytes);
    if (packets.length === 0) this.#core.count("rtcp.malformed");
    for (const packet of packets) {
      if (packet.kind === "sr") target.clock.onSenderReport(packet.info, this.#core.now());
      if (packet.kind === "bye" && packet.ssrcs.includes(this.#core.fanout.trackStatus(target.id).ssrc)) {
        this.#options.goodbye?.(track);
      }
    }
  }

  addSource(track: number, address: string, rtpPort: number, rtcpPort: number): void {
    const target = this.live ? this.stream.tracks[track] : undefined;
    if (target === undefined) return;
    const source: UdpSource = {
      track: target,
      address: plainAddress(address),
      rtpPort,
      rtcpPort,
      heard: (lane, bytes) => {
        if (lane === "rtcp") this.rtcp(track, bytes);
      },
    };
    if (this.#udp.length === 0) {
      this.address = source.address;
      this.#core.ports.addSource(this);
    }
    this.#udp.push(source);
    this.#core.fanout.addSource(target.id, this.#core.rtpSocket.id, source.address, rtpPort);
    this.#core.ports.addRoute("rtcp", source.address, rtcpPort, source);
  }

  engineTrack(track: number): number | undefined {
    return this.live ? this.stream.tracks[track]?.id : undefined;
  }

  /** A packet from a port it did not name: its own, if the payload type is a track's that has been silent so far. */
  claimRtp(payloadType: number, port: number, bytes: Uint8Array): boolean {
    const source = this.#udp.find(
      (one) =>
        one.track.media.formats.includes(payloadType) &&
        this.#core.fanout.trackStatus(one.track.id).packets === 0,
    );
    if (source === undefined) return false;
    const { id } = source.track;
    this.#core.fanout.removeSource(id, this.#core.rtpSocket.id, source.address, source.rtpPort);
    source.rtpPort = port;
    this.#core.fanout.addSource(id, this.#core.rtpSocket.id, source.address, port);
    ONE_PACKET[1] = bytes.length;
    this.#core.fanout.push(id, bytes, ONE_PACKET, 1);
    this.#core.count("datagrams.learned");
    return true;
  }

  claimRtcp(ssrc: number, bytes: Uint8Array): boolean {
    const source = this.#udp.find((one) => {
      const status = this.#core.fanout.trackStatus(one.track.id);
      return status.packets > 0 && status.ssrc === ssrc;
    });
    if (source === undefined) return false;
    this.rtcp(source.track.index, bytes);
    return true;
  }

  report(track: Track, bytes: Uint8Array): void {
    const source = this.#udp.find((one) => one.track === track);
    if (source === undefined) this.#options.report?.(track.index, bytes);
    else if (source.rtcpPort !== 0) {
      this.#core.fanout.send(this.#core.rtcpSocket.id, source.address, source.rtcpPort, bytes);
    }
  }

  replaced(reason: string): void {
    if (!this.live) return;
    this.#stop();
    if (!this.#ending) this.#options.ended?.(reason);
  }

  end(reason: string, options: { readonly keepMs?: number } = {}): void {
    if (!this.live || this.#ending) return;
    this.#ending = true;
    const { stream } = this;
    const core = this.#core;
    const keepMs = options.keepMs ?? 0;
    core.info("publisher-left", `${this.from} stopped publishing ${this.path}: ${reason}`, {
      path: this.path,
      publisher: this.from,
      reason,
    });
    // The last packets are still on their way through the engine: readers get them before BYE.
    core.later(core.settings.lingerMs, () => {
      if (this.live) this.#stop();
      if (stream.source !== this) return;
      stream.source = undefined;
      stream.keepUntilMs = core.now() + keepMs;
      if (keepMs === 0) core.streams.remove(stream, reason);
    });
  }

  #stop(): void {
    this.live = false;
    for (const source of this.#udp) {
      this.#core.fanout.removeSource(
        source.track.id,
        this.#core.rtpSocket.id,
        source.address,
        source.rtpPort,
      );
      this.#core.ports.removeRoute("rtcp", source.address, source.rtcpPort, source);
    }
    if (this.#udp.length > 0) this.#core.ports.removeSource(this);
    this.#udp.length = 0;
  }
}

/**
 * Publishes a path.
 * @throws ApoError EINVAL for a path that no stream may have, ENOBUFS when there are too many streams.
 */
export function publish(core: Core, options: PublishOptions): Publication {
  const { path } = options;
  if (path === "" || !isStreamPath(path)) {
    throw new ApoError("EINVAL", `relay: "${path}" cannot be a stream's path`);
  }
  const before = core.streams.get(path);
  if (before === undefined && core.streams.size >= core.settings.streamsMax) {
    throw new ApoError("ENOBUFS", `relay: ${core.settings.streamsMax} streams are the limit`);
  }
  const old = before?.source;
  const stream = core.streams.take(path, options.sdp);
  const publication = new LivePublication(core, stream, options);
  stream.source = publication;
  stream.nextReceiverReportMs = 0;
  old?.replaced(`replaced by ${options.from}`);
  const media = options.sdp.media.map((one) => one.encoding || one.type).join(" + ");
  const verb = old === undefined ? "publishes" : "takes over";
  core.info(
    old === undefined ? "publisher-joined" : "publisher-replaced",
    `${options.from} ${verb} ${path}: ${media}`,
    {
      path,
      publisher: options.from,
      media,
    },
  );
  return publication;
}
