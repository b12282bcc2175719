/**
 * A camera for tests: a scripted RTSP server on loopback that behaves well unless the test says otherwise.
 *
 * It is a server of its own on node:net and node:dgram and not the relay's, so that the client is not tested
 * against its own faults.
 */

import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { buildFrame } from "../../../../src/layer1-app/relay/protocol/interleaved.ts";
import { classify, rtspFraming } from "../../../../src/layer1-app/relay/protocol/rtsp-framing.ts";
import {
  buildResponse,
  parseRtspMessage,
  type RtspRequest,
} from "../../../../src/layer1-app/relay/protocol/rtsp-message.ts";
import { parseTransport } from "../../../../src/layer1-app/relay/protocol/transport-header.ts";

export interface Reply {
  status?: number;
  /** Headers beside CSeq; what is set replaces the usual one, undefined takes it away. */
  headers?: Record<string, string | undefined>;
  body?: string;
}

/** What to do with a request: `undefined` is the usual answer. */
export type Action = Reply | "silence" | "close" | Uint8Array | undefined;

export interface CameraScript {
  sdp?: string;
  act?(request: RtspRequest, line: CameraLine): Action;
  /** What is asked of everybody: 401 without, checked by the test in `act`. */
  streaming?: boolean;
}

export const VIDEO_SDP = [
  "v=0",
  "o=- 1 1 IN IP4 127.0.0.1",
  "s=camera",
  "t=0 0",
  "m=video 0 RTP/AVP 96",
  "a=rtpmap:96 H264/90000",
  "a=fmtp:96 packetization-mode=1",
  "a=control:trackID=0",
].join("\r\n");

export const AUDIO_SDP = ["", "m=audio 0 RTP/AVP 8", "a=control:trackID=1", ""].join("\r\n");

/** One connection of the camera. */
export class CameraLine {
  readonly socket: Socket;
  readonly requests: RtspRequest[] = [];
  /** Packets that came from the client, by channel. */
  readonly received: { channel: number; bytes: Uint8Array }[] = [];
  /** How each track set up travels: a channel, or a UDP port of the client. */
  readonly tracks: ({ channel: number } | { ports: readonly [number, number] })[] = [];
  playing: NodeJS.Timeout | undefined;
  seq = 1000;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  send(bytes: Uint8Array): void {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }
}

export class FakeCamera {
  readonly lines: CameraLine[] = [];
  script: CameraScript;
  #server: Server | undefined;
  readonly udp: UdpSocket[] = [];
  /** Datagrams that came from the client. */
  readonly datagrams: { lane: "rtp" | "rtcp"; port: number; bytes: Uint8Array }[] = [];

  constructor(script: CameraScript = {}) {
    this.script = script;
  }

  static async start(script: CameraScript = {}, port = 0): Promise<FakeCamera> {
    const camera = new FakeCamera(script);
    await camera.listen(port);
    return camera;
  }

  async listen(port: number): Promise<void> {
    this.#server = createServer((socket) => this.#accept(socket)).listen(port, "127.0.0.1");
    await once(this.#server, "listening");
    for (const lane of ["rtp", "rtcp"] as const) {
      const socket = createSocket("udp4").bind(0, "127.0.0.1");
      await once(socket, "listening");
      socket.on("message", (bytes, from) => this.datagrams.push({ lane, port: from.port, bytes }));
      this.udp.push(socket);
    }
  }

  get port(): number {
    const address = this.#server?.address();
    if (typeof address !== "object" || address === null) throw new Error("the camera does not listen");
    return address.port;
  }

  url(credentials = ""): string {
    return `rtsp://${credentials}127.0.0.1:${this.port}/live/main`;
  }

  /** Every request of every connection. */
  get requests(): RtspRequest[] {
    return this.lines.flatMap((line) => line.requests);
  }

  methods(): string[] {
    return this.requests.map((request) => request.method);
  }

  find(method: string): RtspRequest | undefined {
    return this.requests.find((request) => request.method === method);
  }

  /** Cuts every connection. */
  cut(): void {
    for (const line of this.lines) {
      clearInterval(line.playing);
      line.socket.destroy();
    }
  }

  async close(): Promise<void> {
    this.cut();
    for (const socket of this.udp.splice(0)) socket.close();
    const server = this.#server;
    if (server?.listening === true) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  #accept(socket: Socket): void {
    const line = new CameraLine(socket);
    this.lines.push(line);
    let rest = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("close", () => clearInterval(line.playing));
    socket.on("data", (chunk) => {
      rest = Buffer.concat([rest, chunk]);
      for (let length = rtspFraming(rest); length > 0; length = rtspFraming(rest)) {
        this.#take(line, rest.subarray(0, length));
        rest = rest.subarray(length);
      }
    });
  }

  #take(line: CameraLine, piece: Buffer): void {
    if (classify(piece) === "interleaved") {
      for (let at = 0; at < piece.length; at += 4 + piece.readUInt16BE(at + 2)) {
        const bytes = new Uint8Array(piece.subarray(at + 4, at + 4 + piece.readUInt16BE(at + 2)));
        line.received.push({ channel: piece[at + 1] as number, bytes });
      }
      return;
    }
    const request = parseRtspMessage(new Uint8Array(piece));
    if (request.kind !== "request") return;
    line.requests.push(request);
    const action = this.script.act?.(request, line);
    if (action === "silence") return;
    if (action === "close") line.socket.end();
    else if (action instanceof Uint8Array) line.send(action);
    else this.#reply(line, request, action ?? {});
  }

  #reply(line: CameraLine, request: RtspRequest, reply: Reply): void {
    const usual = this.#usual(line, request, reply.status ?? 200);
    const headers: Record<string, string | undefined> = {
      CSeq: request.headers.get("CSeq"),
      ...usual.headers,
      ...reply.headers,
    };
    const lines = Object.entries(headers).filter(
      (entry): entry is [string, string] => entry[1] !== undefined,
    );
    const body = reply.body ?? usual.body;
    line.send(
      buildResponse({ status: reply.status ?? 200, headers: lines, ...(body === undefined ? {} : { body }) }),
    );
    if (request.method === "PLAY" && (reply.status ?? 200) === 200 && this.script.streaming !== false)
      this.play(line);
    if (request.method === "TEARDOWN") clearInterval(line.playing);
  }

  #usual(line: CameraLine, request: RtspRequest, status: number): Reply {
    if (status !== 200) return {};
    switch (request.method) {
      case "OPTIONS":
        return { headers: { Public: "OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, GET_PARAMETER" } };
      case "DESCRIBE":
        return {
          headers: { "Content-Type": "application/sdp", "Content-Base": `${request.url}/` },
          body: this.script.sdp ?? `${VIDEO_SDP}${AUDIO_SDP}`,
        };
      case "SETUP":
        return { headers: { Transport: this.#transport(line, request), Session: "77001122;timeout=60" } };
      default:
        return { headers: { Session: "77001122" } };
    }
  }

  #transport(line: CameraLine, request: RtspRequest): string {
    const asked = parseTransport(request.headers.get("Transport") ?? "")[0];
    if (asked?.interleaved !== undefined) {
      line.tracks.push({ channel: asked.interleaved[0] });
      return `RTP/AVP/TCP;unicast;interleaved=${asked.interleaved.join("-")};ssrc=4E0D1B62`;
    }
    const ports = asked?.clientPort ?? [0, 0];
    line.tracks.push({ ports });
    const own = this.udp.map((socket) => socket.address().port).join("-");
    return `RTP/AVP;unicast;client_port=${ports.join("-")};server_port=${own};ssrc=4E0D1B62`;
  }

  /** Sends a packet of every track each 10 ms. */
  play(line: CameraLine): void {
    clearInterval(line.playing);
    line.playing = setInterval(() => this.sendPackets(line), 10);
  }

  sendPackets(line: CameraLine): void {
    line.seq += 1;
    for (const [index, track] of line.tracks.entries()) {
      const packet = rtpPacket(index === 0 ? 96 : 8, line.seq, index);
      if ("channel" in track) line.send(buildFrame(track.channel, packet));
      else if (this.udp.length > 0) this.udp[0]?.send(packet, track.ports[0], "127.0.0.1");
    }
  }
}

/** A packet that a decoder could start on: one IDR slice, or any audio. */
export function rtpPacket(payloadType: number, seq: number, track: number, length = 100): Uint8Array {
  const packet = new Uint8Array(length).fill(0x55);
  const view = new DataView(packet.buffer);
  packet[0] = 0x80;
  packet[1] = 0x80 | payloadType;
  view.setUint16(2, seq & 0xffff);
  view.setUint32(4, seq * 900);
  view.setUint32(8, 0x4e0d1b62 + track);
  packet[12] = 0x65;
  return packet;
}

/** Waits until `condition` holds; fails after `deadlineMs` with `what`. */
export async function until(what: string, condition: () => boolean, deadlineMs = 30_000): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs / 1000} s in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
