/** The relay on the real runtime and engine, seen from kernel sockets: order on the wire, slowness, rudeness. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, describe, expect, it } from "vitest";
import { parseRtcp } from "../../../../src/layer1-app/relay/protocol/rtcp.ts";
import { parseRtpHeader } from "../../../../src/layer1-app/relay/protocol/rtp-packet.ts";
import { parseSdp } from "../../../../src/layer1-app/relay/protocol/sdp.ts";
import { createRelay } from "../../../../src/layer1-app/relay/relay.ts";
import type { Publication, RelayOptions } from "../../../../src/layer1-app/relay/types.ts";
import { rtp, VIDEO_SDP } from "../harness.ts";
import { RawClient } from "./raw-client.ts";
import { Stage } from "./support.ts";

const NOTHING = { connections: 0, sessions: 0, publishers: 0, readers: 0, streams: 0, waiting: 0, routes: 0 };
const IDR = 0x65;

/** A relay and a publisher in this very process. */
class Setting {
  readonly stage: Stage;
  readonly publication: Publication;
  #seq = 65_500; // It wraps within the test.

  constructor(stage: Stage) {
    this.stage = stage;
    this.publication = stage.relay.publish({ path: "cam", sdp: parseSdp(VIDEO_SDP), from: "the test" });
  }

  static async start(options: RelayOptions = {}): Promise<Setting> {
    return new Setting(await Stage.start(options));
  }

  /** A frame of `count` packets; returns the sequence number of its last. */
  send(key = false, count = 3, bytes = 1000): number {
    for (let i = 0; i < count; i++) {
      this.#seq = (this.#seq + 1) & 0xffff;
      const packet = rtp(this.#seq, this.#seq * 10, { key: key && i === 0, marker: i === count - 1, bytes });
      if (key && i === 0) packet[12] = IDR;
      this.publication.push(0, packet, Uint32Array.of(0, packet.length), 1);
    }
    return this.#seq;
  }
}

/** The newest RTP packet's; a report may have come behind it. */
function lastSeq(client: RawClient): number | undefined {
  const frame = client.frames.findLast(({ channel }) => channel === 0);
  return frame && parseRtpHeader(frame.packet)?.seq;
}

describe("on the wire", () => {
  let setting: Setting | undefined;
  afterEach(async () => {
    await setting?.stage.close();
    setting = undefined;
  });

  it("5a.19 UDP: report first, then the packet that RTP-Info named, BYE at the end, all from one pair", async () => {
    setting = await Setting.start();
    const { stage } = setting;
    const first = setting.send(true) - 2;
    const [rtpSocket, rtcpSocket] = [createSocket("udp4"), createSocket("udp4")];
    rtpSocket.bind(0, "127.0.0.1");
    rtcpSocket.bind(0, "127.0.0.1");
    await Promise.all([once(rtpSocket, "listening"), once(rtcpSocket, "listening")]);
    const heard: { lane: string; port: number; bytes: Uint8Array }[] = [];
    const packets = new Promise<void>((resolve) => {
      rtpSocket.on("message", (bytes, { port }) => {
        heard.push({ lane: "rtp", port, bytes });
        if (heard.filter(({ lane }) => lane === "rtp").length === 6) resolve();
      });
    });
    const bye = new Promise<void>((resolve) => {
      rtcpSocket.on("message", (bytes, { port }) => {
        heard.push({ lane: "rtcp", port, bytes });
        if (parseRtcp(bytes).some(({ kind }) => kind === "bye")) resolve();
      });
    });
    const client = await RawClient.connect(stage.relay.port);
    const url = stage.url("cam");
    const ports = `${rtpSocket.address().port}-${rtcpSocket.address().port}`;
    const setup = await client.ask("SETUP", `${url}/trackID=0`, {
      Transport: `RTP/AVP;unicast;client_port=${ports}`,
    });
    const { rtpSocket: ours, rtcpSocket: oursToo } = stage.relay;
    expect(setup.headers.get("Transport")).toBe(
      `RTP/AVP;unicast;client_port=${ports};server_port=${ours.port}-${oursToo.port};ssrc=00001234`,
    );
    const play = await client.ask("PLAY", `${url}/`);
    expect(play.headers.get("RTP-Info")).toBe(`url=${url}/trackID=0;seq=${first};rtptime=${first * 10}`);
    setting.send();
    await packets;
    setting.publication.end("the test is over");
    await bye;
    expect(heard[0]?.lane).toBe("rtcp");
    expect(parseRtcp(heard[0]?.bytes ?? new Uint8Array(0))[0]).toMatchObject({ kind: "sr", ssrc: 0x1234 });
    const media = heard.filter(({ lane }) => lane === "rtp");
    expect(parseRtpHeader(media[0]?.bytes ?? new Uint8Array(0))?.seq).toBe(first);
    expect(new Set(media.map(({ port }) => port))).toEqual(new Set([ours.port]));
    client.socket.end();
    rtpSocket.close();
    rtcpSocket.close();
    await expect.poll(() => stage.relay.stats()).toMatchObject(NOTHING);
  });

  it("5a.15 5a.19 TCP: answer, report, the packet that RTP-Info named, everything after it, BYE", async () => {
    setting = await Setting.start();
    const { stage } = setting;
    const first = setting.send(true) - 2;
    const client = await RawClient.connect(stage.relay.port);
    const play = await client.play(stage.url("cam"));
    expect(play.headers.get("RTP-Info")).toContain(`;seq=${first};`);
    for (let i = 0; i < 50; i++) setting.send();
    await client.until(() => client.frames.length === 1 + 51 * 3);
    expect(client.frames[0]?.channel).toBe(1);
    const seqs = client.frames.slice(1).map(({ packet }) => parseRtpHeader(packet)?.seq);
    expect(seqs).toEqual(Array.from({ length: 51 * 3 }, (_, i) => (first + i) & 0xffff));
    setting.publication.end("the test is over");
    await client.until(() => client.frames.length > 1 + 51 * 3);
    expect(parseRtcp(client.frames.at(-1)?.packet ?? new Uint8Array(0)).at(-1)?.kind).toBe("bye");
    await client.until(() => client.ended); // It does not know BYE: the relay hangs up.
    await expect.poll(() => stage.relay.stats()).toMatchObject(NOTHING);
  });

  it("sixty TCP readers that come at different times get every packet from a key frame on", async () => {
    setting = await Setting.start();
    const { stage } = setting;
    const clients: RawClient[] = [];
    setting.send(true);
    for (let i = 0; i < 60; i++) {
      const client = await RawClient.connect(stage.relay.port);
      await client.play(stage.url("cam"));
      clients.push(client);
      setting.send(i % 20 === 19);
    }
    const last = setting.send();
    const lastOf = (client: RawClient) => lastSeq(client);
    for (const client of clients) {
      await client.until(() => lastOf(client) === last);
      const packets = client.frames.filter(({ channel }) => channel === 0).map(({ packet }) => packet);
      expect(packets[0]?.[12]).toBe(IDR);
      const seqs = packets.map((packet) => parseRtpHeader(packet)?.seq ?? -1);
      expect(seqs).toEqual(seqs.map((_, i) => ((seqs[0] ?? 0) + i) & 0xffff));
      client.socket.destroy();
    }
    await expect.poll(() => stage.relay.stats()).toMatchObject({ connections: 0, sessions: 0, readers: 0 });
  });

  it("a reader that takes nothing is dropped, then disconnected; the one beside it misses nothing", async () => {
    setting = await Setting.start({ budgetBytes: 256 * 1024, stallMs: 1500 });
    const { stage, publication } = setting;
    setting.send(true);
    const slow = await RawClient.connect(stage.relay.port);
    await slow.play(stage.url("cam"));
    const fast = await RawClient.connect(stage.relay.port);
    await fast.play(stage.url("cam"));
    slow.socket.pause();
    let sent = 1;
    // More than the kernel's buffers hold of one connection, and the budget on top.
    while (stage.relay.stats().counters["slow.readers"] === 0 && sent < 3000) {
      const last = setting.send(sent % 25 === 0, 10, 1300);
      sent++;
      const seen = () => lastSeq(fast);
      await fast.until(() => seen() === last);
    }
    expect(stage.relay.stats().counters["slow.readers"]).toBe(1);
    await stage.until("reader-stalled", "cam");
    await stage.until("reader-left", "cam");
    expect(fast.ended).toBe(false);
    const seqs = fast.frames
      .filter(({ channel }) => channel === 0)
      .map(({ packet }) => parseRtpHeader(packet)?.seq ?? -1);
    expect(seqs).toEqual(seqs.map((_, i) => ((seqs[0] ?? 0) + i) & 0xffff));
    expect(publication.readers).toBe(1);
    slow.socket.destroy();
    fast.socket.destroy();
    await expect.poll(() => stage.relay.stats()).toMatchObject({ connections: 0, sessions: 0, readers: 0 });
  });

  it("rude clients leave nothing behind, and the others notice nothing", async () => {
    setting = await Setting.start({ connectionIdleMs: 1000 });
    const stand = setting;
    const { stage } = stand;
    const good = await RawClient.connect(stage.relay.port);
    await good.play(stage.url("cam"));
    // A reader whose first key frame is still on its way waits for the next one: this one reads before others are rude.
    await expect
      .poll(() => {
        stand.send(true);
        return good.frames.some(({ channel }) => channel === 0);
      })
      .toBe(true);
    const rudenesses: (string | Uint8Array)[] = [
      "OPTIONS",
      "DESCRIBE rtsp://x/y RTSP/1.0\r\nCSeq: 1\r\n",
      `OPTIONS * RTSP/1.0\r\nX: ${"y".repeat(20_000)}`,
      `ANNOUNCE rtsp://x/y RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 60000\r\n\r\n${"v=0\r\n".repeat(100)}`,
      "ANNOUNCE rtsp://x/y RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999\r\n\r\n",
      "GET / HTTP/1.0\r\n\r\n",
      new Uint8Array(200_000),
      Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3),
      Uint8Array.of(0x24, 0, 0xff, 0xff, 1, 2, 3),
      Buffer.concat(Array.from({ length: 2000 }, () => Uint8Array.of(0x24, 7, 0, 1, 9))),
    ];
    for (const [i, rudeness] of rudenesses.entries()) {
      const client = await RawClient.connect(stage.relay.port);
      client.socket.write(rudeness);
      if (i % 2 === 0) client.socket.resetAndDestroy();
    }
    await expect
      .poll(() => stage.relay.stats(), { timeout: 20_000 })
      .toMatchObject({ connections: 1, sessions: 1 });
    const last = setting.send();
    await good.until(() =>
      good.frames.some(({ channel, packet }) => channel === 0 && parseRtpHeader(packet)?.seq === last),
    );
    expect(good.ended).toBe(false);
  });

  it("a port already taken: which one, in words, and nothing is kept of the failed start", async () => {
    setting = await Setting.start();
    const { apo, relay } = setting.stage;
    const address = "127.0.0.1";
    const { port } = relay;
    await expect(createRelay(apo, { address, port, rtpPort: 0 })).rejects.toMatchObject({
      code: "EADDRINUSE",
      message: `relay: TCP port ${port} (RTSP): taken by another program`,
    });
    const rtpPort = relay.rtpSocket.port;
    await expect(createRelay(apo, { address, port: 0, rtpPort })).rejects.toMatchObject({
      code: "EADDRINUSE",
      message: `relay: UDP ports ${rtpPort} and ${rtpPort + 1} (RTP and RTCP): taken by another program`,
    });
    await relay.close();
    const again = await createRelay(apo, { address, port, rtpPort });
    await again.close();
  });

  it("options that cannot be are refused by name", async () => {
    setting = await Setting.start();
    const { apo } = setting.stage;
    const wrong: [RelayOptions, string][] = [
      [{ rtpPort: 8001 }, "the RTP port must be even"],
      [{ port: 70_000 }, 'option "port" must be a port number'],
      [{ budgetBytes: -1 }, 'option "budgetBytes" must be 0 or more'],
      [{ colour: 1 } as RelayOptions, 'there is no option "colour"'],
      [{ port: "x" } as unknown as RelayOptions, 'option "port" must be a number'],
    ];
    for (const [options, message] of wrong) {
      await expect(createRelay(apo, options)).rejects.toMatchObject({
        code: "EINVAL",
        message: expect.stringContaining(message),
      });
    }
  });
});
