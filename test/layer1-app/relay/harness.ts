/** A relay on the fakes, a clock that the test moves, and the usual conversations in a line each. */
import type { LogEntry } from "../../../src/layer1-app/relay/log.ts";
import { createRelay } from "../../../src/layer1-app/relay/relay.ts";
import type { Relay, RelayOptions } from "../../../src/layer1-app/relay/types.ts";
import { type FakeAnswer, FakeApo, type FakeClient } from "./fake-apo.ts";
import { FakeFanout, KEY_BYTE } from "./fake-fanout.ts";

export const VIDEO_SDP = [
  "v=0",
  "o=- 1 1 IN IP4 10.0.0.9",
  "s=Camera",
  "t=0 0",
  "m=video 0 RTP/AVP 96",
  "a=rtpmap:96 H264/90000",
  "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IAH6tAUB7Q,aM48gA==",
  "a=control:streamid=0",
  "",
].join("\r\n");

export const AV_SDP = [
  VIDEO_SDP.trimEnd(),
  "m=audio 0 RTP/AVP 97",
  "a=rtpmap:97 MPEG4-GENERIC/48000/2",
  "a=control:streamid=1",
  "",
].join("\r\n");

/** An RTP packet of video: `key` frames can be started on, `marker` ends a frame. */
export function rtp(
  seq: number,
  time: number,
  options: { key?: boolean; marker?: boolean; payloadType?: number; ssrc?: number; bytes?: number } = {},
): Uint8Array {
  const packet = Buffer.alloc(12 + (options.bytes ?? 20), 0x11);
  packet[0] = 0x80;
  packet[1] = (options.payloadType ?? 96) | ((options.marker ?? true) ? 0x80 : 0);
  packet.writeUInt16BE(seq & 0xffff, 2);
  packet.writeUInt32BE(time >>> 0, 4);
  packet.writeUInt32BE(options.ssrc ?? 0x1234, 8);
  packet[12] = options.key === true ? KEY_BYTE : 0x41;
  return packet;
}

export function frame(channel: number, packet: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(0x24, channel, packet.length >> 8, packet.length & 0xff), packet]);
}

export interface Harness {
  readonly relay: Relay;
  readonly apo: FakeApo;
  readonly fanout: FakeFanout;
  readonly log: LogEntry[];
  /** Moves the clock, a second at a time, with housekeeping after each. */
  pass(seconds: number): void;
  clock: { nowMs: number };
  /** A publisher over TCP on channels 0-1, 2-3 ... */
  publish(path?: string, sdp?: string, address?: string): Promise<FakeClient>;
  reader(address?: string, port?: number): FakeClient;
}

export const BASE = "rtsp://192.0.2.1:8554";

export async function harness(options: RelayOptions = {}): Promise<Harness> {
  const clock = { nowMs: 1_700_000_000_000 };
  const fanout = new FakeFanout(() => clock.nowMs);
  const apo = new FakeApo(fanout);
  const log: LogEntry[] = [];
  const relay = await createRelay(apo.verbs, {
    now: () => clock.nowMs,
    sweepMs: 0,
    lingerMs: 0,
    log: (entry) => log.push(entry),
    ...options,
  });
  let port = 50_000;
  const made: Harness = {
    relay,
    apo,
    fanout,
    log,
    clock,
    pass(seconds) {
      for (let i = 0; i < seconds; i++) {
        clock.nowMs += 1000;
        relay.sweep();
      }
    },
    async publish(path = "cam", sdp = VIDEO_SDP, address = "10.0.0.9") {
      const client = apo.connect(address, port++);
      const url = `${BASE}/${path}`;
      expectStatus(await client.ask("ANNOUNCE", url, { "Content-Type": "application/sdp" }, sdp), 200);
      const count = sdp.split("m=").length - 1;
      let session = "";
      for (let i = 0; i < count; i++) {
        const transport = `RTP/AVP/TCP;unicast;interleaved=${2 * i}-${2 * i + 1};mode=record`;
        const answer = await client.ask("SETUP", `${url}/streamid=${i}`, { Transport: transport });
        expectStatus(answer, 200);
        session = sessionOf(answer);
      }
      expectStatus(await client.ask("RECORD", url, { Session: session }), 200);
      return client;
    },
    reader(address = "10.0.0.1", at = port++) {
      return apo.connect(address, at);
    },
  };
  return made;
}

export function expectStatus(answer: FakeAnswer, status: number): void {
  if (answer.status !== status) throw new Error(`${answer.status} ${answer.reason}, and not ${status}`);
}

export function sessionOf(answer: FakeAnswer): string {
  return (answer.headers.Session ?? "").split(";")[0] ?? "";
}

/** SETUP of each track over TCP, and PLAY. Returns the answers' session and PLAY. */
export async function playTcp(
  client: FakeClient,
  path = "cam",
  tracks = 1,
): Promise<{ session: string; answer: FakeAnswer }> {
  let session = "";
  for (let i = 0; i < tracks; i++) {
    const answer = await client.ask("SETUP", `${BASE}/${path}/trackID=${i}`, {
      Transport: `RTP/AVP/TCP;unicast;interleaved=${2 * i}-${2 * i + 1}`,
      ...(session === "" ? {} : { Session: session }),
    });
    expectStatus(answer, 200);
    session = sessionOf(answer);
  }
  const answer = await client.ask("PLAY", `${BASE}/${path}/`, { Session: session });
  expectStatus(answer, 200);
  return { session, answer };
}

/** The same over UDP, on ports 6000-6001, 6002-6003 ... */
export async function playUdp(
  client: FakeClient,
  path = "cam",
  tracks = 1,
  firstPort = 6000,
): Promise<{ session: string; answer: FakeAnswer }> {
  const session = await setupUdp(client, path, tracks, firstPort);
  const answer = await client.ask("PLAY", `${BASE}/${path}/`, { Session: session });
  expectStatus(answer, 200);
  return { session, answer };
}

export async function setupUdp(
  client: FakeClient,
  path = "cam",
  tracks = 1,
  firstPort = 6000,
): Promise<string> {
  let session = "";
  for (let i = 0; i < tracks; i++) {
    const answer = await client.ask("SETUP", `${BASE}/${path}/trackID=${i}`, {
      Transport: `RTP/AVP;unicast;client_port=${firstPort + 2 * i}-${firstPort + 2 * i + 1}`,
      ...(session === "" ? {} : { Session: session }),
    });
    expectStatus(answer, 200);
    session = sessionOf(answer);
  }
  return session;
}
