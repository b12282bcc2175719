/**
 * A fan-out engine without threads and sockets: the same promises as the real one, kept at once and in memory, so
 * that a test sees every packet that would leave and can let datagrams come from any address.
 *
 * A frame ends at the marker bit. Key frames are those whose payload starts with `KEY_BYTE`.
 */

import { ApoError } from "../../../src/layer1-app/errors.ts";
import { buildGoodbye, buildSenderReport, compound } from "../../../src/layer1-app/relay/protocol/rtcp.ts";
import { parseRtpHeader } from "../../../src/layer1-app/relay/protocol/rtp-packet.ts";
import type {
  Fanout,
  FanoutEvents,
  FanoutSocket,
  ReceiverOptions,
  ReceiverStatus,
  StartPosition,
  TrackOptions,
  TrackStatus,
} from "../../../src/layer3-ip/fanout-types.ts";

/** First payload byte of a packet that a decoder can start on. */
export const KEY_BYTE = 0x65;

/** A datagram that left. */
export interface Sent {
  readonly socket: number;
  readonly to: string;
  readonly bytes: Uint8Array;
}

interface FakeReceiver {
  readonly track: FakeTrack;
  readonly options: ReceiverOptions;
  to: string;
  reportTo: string;
  state: "prepared" | "waiting" | "live";
  backlog: Uint8Array[];
  packets: number;
  octets: number;
}

interface FakeTrack {
  readonly id: number;
  readonly options: TrackOptions;
  readonly sources: Set<string>;
  readonly receivers: Set<FakeReceiver>;
  frame: Uint8Array[];
  cache: Uint8Array[];
  caching: boolean;
  tapped: boolean;
  packets: number;
  bytes: number;
  ssrc: number;
  seq: number;
  time: number;
  base: number;
  arrivalMs: number;
}

export class FakeFanout implements Fanout {
  events: FanoutEvents = {};
  readonly sent: Sent[] = [];
  readonly sockets = new Map<number, FanoutSocket>();
  readonly tracks = new Map<number, FakeTrack>();
  readonly receivers = new Map<number, FakeReceiver>();
  readonly now: () => number;
  /** Ports that are "taken". */
  readonly taken = new Set<number>();
  closed = false;
  #next = 1;
  #pending: (() => void)[] = [];

  constructor(now: () => number) {
    this.now = now;
  }

  openSocket(options: { address?: string; port: number }): Promise<FanoutSocket> {
    const port = options.port === 0 ? 30_000 + 2 * this.#next : options.port;
    if (this.taken.has(port)) return Promise.reject(new ApoError("EADDRINUSE", `UDP port ${port} is taken`));
    const socket = { id: this.#next++, address: options.address ?? "", port };
    this.sockets.set(socket.id, socket);
    return Promise.resolve(socket);
  }

  closeSocket(socket: number): void {
    this.sockets.delete(socket);
  }

  openTrack(options: TrackOptions): number {
    const id = this.#next++;
    this.tracks.set(id, {
      id,
      options,
      sources: new Set(),
      receivers: new Set(),
      frame: [],
      cache: [],
      caching: false,
      tapped: false,
      packets: 0,
      bytes: 0,
      ssrc: 0,
      seq: 0,
      time: 0,
      base: 0,
      arrivalMs: 0,
    });
    return id;
  }

  closeTrack(track: number): void {
    for (const receiver of this.#track(track).receivers) {
      for (const [id, one] of this.receivers) if (one === receiver) this.receivers.delete(id);
    }
    this.tracks.delete(track);
  }

  addSource(track: number, socket: number, address: string, port: number): void {
    this.#track(track).sources.add(`${socket} ${address} ${port}`);
  }

  removeSource(track: number, socket: number, address: string, port: number): void {
    this.#track(track).sources.delete(`${socket} ${address} ${port}`);
  }

  /** A datagram arrives: a source's packet, or an event. */
  arrive(socket: number, address: string, port: number, bytes: Uint8Array): void {
    for (const track of this.tracks.values()) {
      if (track.sources.has(`${socket} ${address} ${port}`) || track.sources.has(`${socket} ${address} 0`)) {
        this.#packet(track, bytes.slice());
        return;
      }
    }
    this.events.datagram?.({ socket, address, port, bytes: bytes.slice() });
  }

  push(track: number, bytes: Uint8Array, offsets: Uint32Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const start = offsets[2 * i] ?? 0;
      this.#packet(this.#track(track), bytes.slice(start, start + (offsets[2 * i + 1] ?? 0)));
    }
  }

  addReceiver(track: number, options: ReceiverOptions): StartPosition {
    const target = this.#track(track);
    const receiver: FakeReceiver = {
      track: target,
      options,
      to: `${options.address} ${options.port}`,
      reportTo: `${options.address} ${options.reportPort}`,
      state: "prepared",
      backlog: [...target.cache],
      packets: 0,
      octets: 0,
    };
    const id = this.#next++;
    this.receivers.set(id, receiver);
    target.receivers.add(receiver);
    return { receiver: id, ...this.#start(target) };
  }

  startReceiver(receiver: number): void {
    const target = this.#receiver(receiver);
    const keyless = target.track.options.keyFrames === "any" || target.track.options.keyFrames === "none";
    target.state = target.backlog.length > 0 || keyless ? "live" : "waiting";
    for (const packet of target.backlog.splice(0)) this.#deliver(target, packet);
  }

  moveReceiver(receiver: number, address: string, port: number, reportPort: number): void {
    const target = this.#receiver(receiver);
    if (port !== 0) target.to = `${address} ${port}`;
    if (reportPort !== 0) target.reportTo = `${address} ${reportPort}`;
  }

  removeReceiver(receiver: number): void {
    const target = this.receivers.get(receiver);
    target?.track.receivers.delete(target);
    this.receivers.delete(receiver);
  }

  tap(track: number, on: boolean): void {
    this.#track(track).tapped = on;
  }

  cached(track: number): StartPosition & { readonly ticket: number } {
    const target = this.#track(track);
    const ticket = this.#next++;
    const packets = [...target.cache];
    // As with the real engine, events come after the call has returned: `flush` lets them.
    this.#pending.push(() => this.#frames(target, packets, ticket, true));
    return { receiver: 0, ticket, ...this.#start(target) };
  }

  /** Delivers what waits. */
  flush(): void {
    for (const event of this.#pending.splice(0)) event();
  }

  send(socket: number, address: string, port: number, bytes: Uint8Array): void {
    this.sent.push({ socket, to: `${address} ${port}`, bytes: bytes.slice() });
  }

  sendReport(
    track: number,
    report: { ntpSeconds: number; ntpFraction: number; rtpTime: number; cname: string; bye?: boolean },
    receiver?: number,
  ): void {
    const target = this.#track(track);
    const to = receiver === undefined ? [...target.receivers] : [this.#receiver(receiver)];
    for (const one of to) {
      if (receiver === undefined && one.state === "prepared") continue;
      const { packets, octets } = one;
      const parts = [buildSenderReport(target.ssrc, { ...report, packets, octets })];
      if (report.bye === true) parts.push(buildGoodbye(target.ssrc));
      this.sent.push({ socket: one.options.reportSocket, to: one.reportTo, bytes: compound(...parts) });
    }
  }

  trackStatus(track: number): TrackStatus {
    const target = this.#track(track);
    return {
      packets: target.packets,
      bytes: target.bytes,
      ssrc: target.ssrc,
      lastSeq: target.seq,
      lastRtpTime: target.time,
      lastArrivalMs: target.arrivalMs,
      lost: 0,
      jitter: 0,
      receivers: target.receivers.size,
      cachedPackets: target.cache.length,
      cachedBytes: 0,
      extendedSeq: target.seq,
      baseSeq: target.base,
    };
  }

  receiverStatus(receiver: number): ReceiverStatus | undefined {
    const target = this.receivers.get(receiver);
    if (target === undefined) return undefined;
    const { packets, octets, state } = target;
    return { packets, octets, dropped: 0, started: state !== "prepared", caughtUp: state === "live" };
  }

  counters(): Record<string, number> {
    return {};
  }

  close(): Promise<void> {
    this.closed = true;
    this.sockets.clear();
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Datagrams to "address port" since the last call. */
  take(to: string): Uint8Array[] {
    const taken = this.sent.filter((one) => one.to === to).map((one) => one.bytes);
    const rest = this.sent.filter((one) => one.to !== to);
    this.sent.length = 0;
    this.sent.push(...rest);
    return taken;
  }

  #start(track: FakeTrack): { seq: number; rtpTime: number; ssrc: number } {
    const first = parseRtpHeader(track.cache[0] ?? new Uint8Array(0));
    if (first !== undefined) return { seq: first.seq, rtpTime: first.timestamp, ssrc: first.ssrc };
    if (track.packets === 0) return { seq: -1, rtpTime: 0, ssrc: 0 };
    return { seq: (track.seq + 1) & 0xffff, rtpTime: track.time, ssrc: track.ssrc };
  }

  #packet(track: FakeTrack, packet: Uint8Array): void {
    const header = parseRtpHeader(packet);
    if (header === undefined) return;
    if (track.packets === 0) track.base = header.seq;
    track.packets++;
    track.bytes += packet.length;
    track.ssrc = header.ssrc;
    track.seq = header.seq;
    track.time = header.timestamp;
    track.arrivalMs = this.now();
    track.frame.push(packet);
    if (header.marker || track.options.keyFrames === "any") this.#frame(track, track.frame.splice(0));
  }

  #frame(track: FakeTrack, packets: Uint8Array[]): void {
    const first = packets[0] ?? new Uint8Array(0);
    const keyless = track.options.keyFrames === "any" || track.options.keyFrames === "none";
    const key = track.options.keyFrames === "any" || first[12] === KEY_BYTE;
    if (key && track.options.keyFrames !== "none") {
      track.cache = [];
      track.caching = true;
    }
    if (track.caching) track.cache.push(...packets);
    for (const receiver of track.receivers) {
      if (receiver.state === "prepared") receiver.backlog.push(...packets);
      if (receiver.state === "waiting" && (key || keyless)) receiver.state = "live";
      if (receiver.state === "live") for (const packet of packets) this.#deliver(receiver, packet);
    }
    if (!track.tapped) return;
    this.flush();
    this.#frames(track, packets, 0, key);
  }

  #frames(track: FakeTrack, packets: readonly Uint8Array[], ticket: number, key: boolean): void {
    const total = packets.reduce((sum, packet) => sum + packet.length + 4, 0);
    const bytes = new Uint8Array(total);
    const offsets = new Uint32Array(packets.length);
    let at = 0;
    for (const [i, packet] of packets.entries()) {
      offsets[i] = at;
      bytes.set([0x24, 0, packet.length >> 8, packet.length & 0xff], at);
      bytes.set(packet, at + 4);
      at += packet.length + 4;
    }
    const header = parseRtpHeader(packets[0] ?? new Uint8Array(0));
    this.events.frames?.({
      track: track.id,
      ticket,
      key: key && packets.length > 0,
      last: ticket !== 0,
      packets: packets.length,
      rtpTime: header?.timestamp ?? 0,
      seq: header?.seq ?? 0,
      bytes,
      offsets,
    });
  }

  #deliver(receiver: FakeReceiver, packet: Uint8Array): void {
    receiver.packets++;
    receiver.octets += packet.length - 12;
    this.sent.push({ socket: receiver.options.socket, to: receiver.to, bytes: packet });
  }

  #track(id: number): FakeTrack {
    const track = this.tracks.get(id);
    if (track === undefined) throw new Error(`there is no track ${id}`);
    return track;
  }

  #receiver(id: number): FakeReceiver {
    const receiver = this.receivers.get(id);
    if (receiver === undefined) throw new Error(`there is no receiver ${id}`);
    return receiver;
  }
}
