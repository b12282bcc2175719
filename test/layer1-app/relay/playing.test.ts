/** Reading: field behaviours 5a.9 to 5a.20, and what becomes of sessions. */
import { describe, expect, it } from "vitest";
import { buildGoodbye, msFromNtp, parseRtcp } from "../../../src/layer1-app/relay/protocol/rtcp.ts";
import type { FakeClient } from "./fake-apo.ts";
import {
  AV_SDP,
  BASE,
  frame,
  harness,
  playTcp,
  playUdp,
  rtp,
  sessionOf,
  setupUdp,
  VIDEO_SDP,
} from "./harness.ts";

const setup = (client: FakeClient, track: number, transport: string, session = "") =>
  client.ask("SETUP", `${BASE}/cam/trackID=${track}`, {
    Transport: transport,
    ...(session === "" ? {} : { Session: session }),
  });

describe("SETUP", () => {
  it("5a.9 takes the first alternative it can serve, and answers exactly one", async () => {
    const { reader, publish } = await harness();
    await publish();
    const answer = await setup(
      reader(),
      0,
      "RTP/SAVP;unicast;client_port=1-2,RTP/AVP;multicast,RTP/AVP/TCP;unicast;interleaved=0-1," +
        "RTP/AVP;unicast;client_port=6000-6001",
    );
    expect(answer.headers.Transport).toBe("RTP/AVP/TCP;unicast;interleaved=0-1");
  });

  it.each([
    "RTP/AVP;multicast",
    "RTP/SAVP;unicast;client_port=6000-6001",
    "RTP/AVP;unicast",
    "RTP/AVP;unicast;client_port=0-1",
    "RAW/RAW/UDP;unicast;client_port=1-2",
    "nonsense",
  ])("5a.9 %s is 461, and the session stays usable", async (transport) => {
    const { reader, publish, relay } = await harness();
    await publish();
    const client = reader();
    expect((await setup(client, 0, transport)).status).toBe(461);
    expect(relay.stats().sessions).toBe(1);
    expect((await setup(client, 0, "RTP/AVP/TCP;unicast;interleaved=0-1")).status).toBe(200);
  });

  it("a SETUP without a Transport header is 400", async () => {
    const { reader, publish } = await harness();
    await publish();
    expect((await reader().ask("SETUP", `${BASE}/cam/trackID=0`)).status).toBe(400);
  });

  it("5a.10 interleaved: echoed, or an even pair given; overlapping pairs are refused", async () => {
    const { reader, publish } = await harness();
    await publish("cam", AV_SDP);
    const client = reader();
    const first = await setup(client, 0, "RTP/AVP/TCP;unicast");
    expect(first.headers.Transport).toBe("RTP/AVP/TCP;unicast;interleaved=0-1");
    expect((await setup(client, 1, "RTP/AVP/TCP;unicast;interleaved=1-2", sessionOf(first))).status).toBe(
      461,
    );
    expect((await setup(client, 1, "RTP/AVP/TCP;unicast;interleaved=7-7", sessionOf(first))).status).toBe(
      461,
    );
    const second = await setup(client, 1, "RTP/AVP/TCP;unicast;interleaved=6-7", sessionOf(first));
    expect(second.headers.Transport).toBe("RTP/AVP/TCP;unicast;interleaved=6-7");
  });

  it("5a.11 UDP: client_port echoed, one server pair for all, ssrc once it is known", async () => {
    const { reader, publish, relay } = await harness();
    const publisher = await publish();
    const first = await setup(reader(), 0, "RTP/AVP/UDP;unicast;client_port=6000-6001;mode=play");
    const pair = `${relay.rtpSocket.port}-${relay.rtcpSocket.port}`;
    expect(first.headers.Transport).toBe(`RTP/AVP;unicast;client_port=6000-6001;server_port=${pair}`);
    await publisher.write(frame(0, rtp(1, 1, { ssrc: 0xabc })));
    const second = await setup(reader(), 0, 'RTP/AVP;unicast;client_port=6002-6003;mode="PLAY"');
    expect(second.headers.Transport).toBe(
      `RTP/AVP;unicast;client_port=6002-6003;server_port=${pair};ssrc=00000ABC`,
    );
  });

  it("5a.11 destination= is not honoured", async () => {
    const { reader, publish, fanout } = await harness();
    const publisher = await publish();
    const client = reader("10.0.0.1");
    await setup(client, 0, "RTP/AVP;unicast;destination=10.9.9.9;client_port=6000-6001");
    await client.ask("PLAY", `${BASE}/cam`);
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    expect(fanout.take("10.9.9.9 6000")).toEqual([]);
    expect(fanout.take("10.0.0.1 6000")).toHaveLength(1);
  });

  it("5a.13 one track leaves and comes back while the other plays; twice the same track is fine", async () => {
    const { reader, publish, fanout } = await harness();
    const publisher = await publish("cam", AV_SDP);
    const client = reader();
    const { session } = await playUdp(client, "cam", 2);
    const both = async (seq: number) => {
      await publisher.write(frame(0, rtp(seq, seq, { key: true })));
      await publisher.write(frame(2, rtp(seq, seq, { payloadType: 97 })));
      return [fanout.take("10.0.0.1 6000").length, fanout.take("10.0.0.1 6002").length];
    };
    expect(await both(1)).toEqual([1, 1]);
    const gone = await client.ask("TEARDOWN", `${BASE}/cam/trackID=1`, { Session: session });
    expect([gone.status, await both(2)]).toEqual([200, [1, 0]]);
    await setup(client, 1, "RTP/AVP;unicast;client_port=6002-6003", session);
    await setup(client, 1, "RTP/AVP;unicast;client_port=6002-6003", session);
    expect(await both(3)).toEqual([1, 0]);
    expect((await client.ask("PLAY", `${BASE}/cam`, { Session: session })).status).toBe(200);
    fanout.take("10.0.0.1 6002"); // What was cached.
    expect(await both(4)).toEqual([1, 1]);
  });

  it("5a.13 a reader may want one track only", async () => {
    const { reader, publish } = await harness();
    const publisher = await publish("cam", AV_SDP);
    const client = reader();
    await setup(client, 1, "RTP/AVP/TCP;unicast;interleaved=0-1");
    const answer = await client.ask("PLAY", `${BASE}/cam/`);
    expect(answer.status).toBe(200);
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    await publisher.write(frame(2, rtp(7, 7, { payloadType: 97 })));
    expect(client.frames().map(({ channel, packet }) => [channel, packet[3]])).toEqual([[0, 7]]);
  });

  it("5a.14 a UDP session goes on in a second connection, and without any for a while", async () => {
    const { reader, publish, fanout, relay, pass } = await harness();
    const publisher = await publish();
    const first = reader("10.0.0.1");
    const session = await setupUdp(first);
    const second = reader("10.0.0.1");
    expect((await second.ask("PLAY", `${BASE}/cam`, { Session: session })).status).toBe(200);
    first.end();
    second.end();
    pass(15);
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    expect(fanout.take("10.0.0.1 6000")).toHaveLength(1);
    const third = reader("10.0.0.1");
    expect((await third.ask("GET_PARAMETER", `${BASE}/cam`, { Session: session })).status).toBe(200);
    pass(15);
    expect(relay.stats().readers).toBe(1);
    pass(10);
    expect(relay.stats()).toMatchObject({ readers: 0, routes: 0, publishers: 1 });
  });
});

describe("PLAY", () => {
  it("5a.15 the answer is ahead of every frame over TCP", async () => {
    const { reader, publish, fanout } = await harness();
    const publisher = await publish();
    await publisher.write(frame(0, rtp(1, 100, { key: true })));
    const client = reader();
    await playTcp(client); // It reads the answer first, or fails.
    fanout.flush();
    await publisher.write(frame(0, rtp(2, 200)));
    expect(client.frames().map(({ channel, packet }) => [channel, packet[3]])).toEqual([
      [1, 6], // The sender report: its length field.
      [0, 1],
      [0, 2],
    ]);
  });

  it("5a.15 over UDP, packets wait until the answer is out", async () => {
    const { reader, publish, fanout, apo } = await harness();
    const publisher = await publish();
    await publisher.write(frame(0, rtp(1, 100, { key: true })));
    const client = reader();
    const session = await setupUdp(client);
    const release = apo.holdFlushed();
    const answer = client.ask("PLAY", `${BASE}/cam`, { Session: session });
    await Promise.resolve();
    await publisher.write(frame(0, rtp(2, 200)));
    expect(fanout.take("10.0.0.1 6000")).toEqual([]);
    release();
    await answer;
    expect(fanout.take("10.0.0.1 6000").map((packet) => packet[3])).toEqual([1, 2]);
  });

  it("5a.16 RTP-Info: each URL as it was set up, the first packet's seq and time, in SETUP order", async () => {
    const { reader, publish, fanout } = await harness();
    const publisher = await publish("cam", AV_SDP);
    await publisher.write(frame(0, rtp(1000, 90_000, { key: true, marker: false })));
    await publisher.write(frame(0, rtp(1001, 90_000)));
    await publisher.write(frame(2, rtp(500, 48_000, { payloadType: 97 })));
    const client = reader();
    const second = `${BASE}/cam?x=1/trackID=1`;
    const first = `${BASE}/cam?x=1/trackID=0`;
    const session = sessionOf(
      await client.ask("SETUP", second, { Transport: "RTP/AVP;client_port=6002-6003" }),
    );
    await client.ask("SETUP", first, { Transport: "RTP/AVP;client_port=6000-6001", Session: session });
    const answer = await client.ask("PLAY", `${BASE}/cam?x=1/`, { Session: session, Range: "npt=0.000-" });
    expect(answer.headers["RTP-Info"]).toBe(
      `url=${second};seq=500;rtptime=48000,url=${first};seq=1000;rtptime=90000`,
    );
    expect(answer.headers.Range).toBe("npt=now-");
    expect(fanout.take("10.0.0.1 6000")[0]?.subarray(2, 4)).toEqual(Uint8Array.of(1000 >> 8, 1000 & 0xff));
  });

  it("5a.16 a track without a packet yet is left out of RTP-Info", async () => {
    const { reader, publish } = await harness();
    await publish();
    const { answer } = await playUdp(reader());
    expect(answer.headers["RTP-Info"]).toBeUndefined();
  });

  it("5a.17 PLAY twice, PAUSE and PLAY again, Scale answered with what is played", async () => {
    const { reader, publish } = await harness();
    const publisher = await publish();
    const client = reader();
    await playTcp(client);
    expect((await client.ask("PLAY", `${BASE}/cam`)).status).toBe(200);
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    expect(client.frames()).toHaveLength(1);
    expect((await client.ask("PAUSE", `${BASE}/cam`)).status).toBe(200);
    await publisher.write(frame(0, rtp(2, 2)));
    expect(client.frames()).toEqual([]);
    const answer = await client.ask("PLAY", `${BASE}/cam`, { Scale: "2.0" });
    expect(answer.headers.Scale).toBe("1.000");
  });

  it("5a.18 PAUSE over UDP, then SETUP over TCP in the same connection without a session: a new one", async () => {
    const { reader, publish, relay, fanout } = await harness();
    const publisher = await publish();
    const client = reader();
    const { session } = await playUdp(client);
    expect((await client.ask("PAUSE", `${BASE}/cam`, { Session: session })).status).toBe(200);
    const again = await setup(client, 0, "RTP/AVP/TCP;unicast;interleaved=0-1");
    expect(again.status).toBe(200);
    expect(sessionOf(again)).not.toBe(session);
    expect((await client.ask("PLAY", `${BASE}/cam`, { Session: sessionOf(again) })).status).toBe(200);
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    expect(client.frames()).toHaveLength(1);
    expect(fanout.receivers.size).toBe(0);
    expect(relay.stats()).toMatchObject({ sessions: 2, readers: 1 });
  });

  it("5a.19 a sender report before the first packet and every five seconds, in the publisher's time", async () => {
    const { reader, publish, fanout, clock, pass } = await harness();
    const publisher = await publish("cam", AV_SDP);
    // The publisher's clock is an hour ahead; only its video has reported.
    const ntpSeconds = 2_208_988_800 + clock.nowMs / 1000 + 3600;
    const report = Buffer.alloc(28);
    report.set([0x80, 200, 0, 6, 0, 0, 0x12, 0x34]);
    report.writeUInt32BE(ntpSeconds, 8);
    report.writeUInt32BE(90_000, 16);
    await publisher.write(frame(1, report));
    await publisher.write(frame(0, rtp(1, 90_000, { key: true })));
    await publisher.write(frame(2, rtp(1, 48_000, { payloadType: 97 })));
    const read = (bytes: Uint8Array | undefined) => {
      const first = parseRtcp(bytes ?? new Uint8Array(0))[0];
      if (first?.kind !== "sr") throw new Error("no sender report");
      const { info } = first;
      return [
        Math.round(msFromNtp(info.ntpSeconds, info.ntpFraction) - clock.nowMs),
        info.rtpTime,
        info.packets,
      ];
    };
    clock.nowMs += 2000;
    await playUdp(reader("10.0.0.1"), "cam", 2);
    expect(fanout.sent[0]?.to).toBe("10.0.0.1 6001");
    expect(read(fanout.take("10.0.0.1 6001")[0])).toEqual([3_600_000, 90_000 + 2 * 90_000, 0]);
    expect(read(fanout.take("10.0.0.1 6003")[0])).toEqual([3_600_000, 48_000 + 2 * 48_000, 0]);
    const client = reader("10.0.0.2");
    await playTcp(client, "cam", 2);
    fanout.flush();
    const frames = client.frames();
    expect(frames.map(({ channel }) => channel)).toEqual([1, 3, 0, 2]);
    expect(read(frames[0]?.packet)).toEqual([3_600_000, 270_000, 0]);
    pass(10);
    expect(fanout.take("10.0.0.1 6001").length).toBeGreaterThanOrEqual(2);
    const later = client.frames().filter(({ channel }) => channel === 1);
    expect(later.length).toBeGreaterThanOrEqual(2);
    expect(read(later.at(-1)?.packet)[2]).toBe(1);
  });

  it("5a.19 without the publisher's reports, time is that of arrival; the first comes with a packet", async () => {
    const { reader, publish, clock, pass } = await harness();
    const publisher = await publish();
    const client = reader();
    await playTcp(client);
    pass(3);
    expect(client.frames()).toEqual([]);
    await publisher.write(frame(0, rtp(1, 500_000, { key: true })));
    pass(1);
    const report = client.frames().find(({ channel }) => channel === 1);
    const first = parseRtcp(report?.packet ?? new Uint8Array(0))[0];
    if (first?.kind !== "sr") throw new Error("no sender report");
    expect(Math.round(msFromNtp(first.info.ntpSeconds, first.info.ntpFraction))).toBe(clock.nowMs);
    expect(first.info.rtpTime).toBe(500_000 + 90_000);
  });

  it("5a.19 BYE at the end of the stream, on every track", async () => {
    const { reader, publish, fanout, relay } = await harness();
    const publisher = await publish("cam", AV_SDP);
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    const client = reader();
    const { session } = await playUdp(client, "cam", 2);
    expect((await publisher.ask("TEARDOWN", `${BASE}/cam`)).status).toBe(200);
    for (const to of ["10.0.0.1 6001", "10.0.0.1 6003"]) {
      expect(parseRtcp(fanout.take(to).at(-1) ?? new Uint8Array(0)).at(-1)?.kind).toBe("bye");
    }
    expect(relay.stats()).toMatchObject({ sessions: 0, streams: 0, routes: 0 });
    // rtspsrc says good-bye to the session all the same, and takes a 454 for a failure.
    for (const method of ["PAUSE", "TEARDOWN"]) {
      expect((await client.ask(method, `${BASE}/cam`, { Session: session })).status).toBe(200);
    }
    expect((await client.ask("PLAY", `${BASE}/cam`, { Session: session })).status).toBe(454);
  });

  it("5a.20 media pass untouched, byte for byte", async () => {
    const { reader, publish, fanout } = await harness();
    const publisher = await publish("cam", VIDEO_SDP);
    const client = reader("10.0.0.1");
    await playTcp(client);
    await playUdp(reader("10.0.0.2"));
    const odd = Buffer.concat([
      Uint8Array.of(0xb1, 0x80 | 96),
      rtp(7, 9, { key: true, bytes: 1400 }).subarray(2),
    ]);
    odd[odd.length - 1] = 3;
    odd.writeUInt32BE(0xbede0000, 16); // A CSRC, an empty extension, padding.
    odd[20] = 0x65;
    const plain = rtp(8, 9, { key: true, bytes: 60_000 });
    for (const packet of [odd, plain]) await publisher.write(frame(0, packet));
    const received = client.frames().map(({ packet }) => Buffer.from(packet));
    expect(received.at(-1)).toEqual(plain);
    expect(
      fanout
        .take("10.0.0.2 6000")
        .map((packet) => Buffer.from(packet))
        .at(-1),
    ).toEqual(plain);
  });
});

describe("liveness", () => {
  it("5a.5 a silent UDP session ends after 65 s; any request or RTCP keeps it", async () => {
    const { reader, publish, relay, fanout, pass } = await harness();
    const publisher = await publish();
    const client = reader("10.0.0.1");
    const { session } = await playUdp(client);
    const quiet = async (seconds: number) => {
      await publisher.write(frame(0, rtp(1, 1))); // The publisher is not what this is about.
      pass(seconds);
    };
    const keepers = [
      () => client.ask("GET_PARAMETER", `${BASE}/cam`, { Session: session }),
      () => client.ask("OPTIONS", "*"),
      () => fanout.arrive(relay.rtcpSocket.id, "10.0.0.1", 6001, Uint8Array.of(0x80, 201, 0, 1, 0, 0, 0, 1)),
    ];
    for (const keep of keepers) {
      await quiet(60);
      expect(relay.stats().readers).toBe(1);
      await keep();
    }
    await quiet(64);
    expect(relay.stats().readers).toBe(1);
    await quiet(3);
    expect(relay.stats()).toMatchObject({ readers: 0, routes: 0, counters: { "sessions.timeout": 1 } });
    const late = await reader("10.0.0.1").ask("GET_PARAMETER", `${BASE}/cam`, { Session: session });
    expect(late.status).toBe(454);
  });

  it("5a.5 a TCP reader that sends nothing lives as long as it takes what it is sent", async () => {
    const { reader, publish, relay, pass } = await harness();
    const publisher = await publish();
    const client = reader();
    await playTcp(client);
    for (let i = 1; i < 30; i++) {
      await publisher.write(frame(0, rtp(i, i, { key: true })));
      pass(10);
    }
    expect(client.ended).toBe(false);
    expect(relay.stats().readers).toBe(1);
  });

  it("5a.21 a publisher over UDP that sends no keepalive lives as long as its packets come", async () => {
    const { reader, relay, fanout, pass } = await harness();
    const client = reader("10.0.0.9");
    const url = `${BASE}/cam`;
    await client.ask("ANNOUNCE", url, { "Content-Type": "application/sdp" }, VIDEO_SDP);
    await setup(client, 0, "RTP/AVP/UDP;unicast;client_port=7000-7001;mode=record");
    expect((await client.ask("RECORD", url)).status).toBe(200);
    // The way through a firewall is opened from here.
    expect(fanout.take("10.0.0.9 7000")).toHaveLength(1);
    expect(fanout.take("10.0.0.9 7001")).toHaveLength(1);
    for (let i = 1; i < 30; i++) {
      fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 7000, rtp(i, i));
      pass(10);
    }
    expect(relay.stats().publishers).toBe(1);
    // It needs receiver reports within five seconds.
    expect(fanout.take("10.0.0.9 7001").length).toBeGreaterThanOrEqual(290 / 5);
    client.end();
    pass(20);
    expect(relay.stats()).toMatchObject({ publishers: 0, sessions: 0, streams: 0, routes: 0 });
  });

  it("a publisher over UDP that said BYE and is silent has gone, though it forgot its TEARDOWN", async () => {
    const { reader, relay, fanout, pass } = await harness();
    const client = reader("10.0.0.9");
    const url = `${BASE}/cam`;
    await client.ask("ANNOUNCE", url, { "Content-Type": "application/sdp" }, VIDEO_SDP);
    await setup(client, 0, "RTP/AVP/UDP;unicast;client_port=7000-7001;mode=record");
    await client.ask("RECORD", url);
    const goodbye = buildGoodbye(0x1234);
    fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 7000, rtp(1, 1));
    fanout.arrive(relay.rtcpSocket.id, "10.0.0.9", 7001, goodbye);
    fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 7000, rtp(2, 2));
    pass(3);
    expect(relay.stats().publishers).toBe(1); // It went on: the BYE is forgotten.
    fanout.arrive(relay.rtcpSocket.id, "10.0.0.9", 7001, buildGoodbye(0x9999));
    pass(3);
    expect(relay.stats().publishers).toBe(1); // Not its SSRC.
    fanout.arrive(relay.rtcpSocket.id, "10.0.0.9", 7001, goodbye);
    pass(3);
    expect(relay.stats()).toMatchObject({ publishers: 0, streams: 0 });
  });

  it("a publisher over TCP that said BYE and is silent has gone, and may still say TEARDOWN", async () => {
    const { reader, relay, pass } = await harness();
    const client = reader("10.0.0.9");
    const url = `${BASE}/cam`;
    await client.ask("ANNOUNCE", url, { "Content-Type": "application/sdp" }, VIDEO_SDP);
    await setup(client, 0, "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
    const recording = await client.ask("RECORD", url);
    await client.write(frame(0, rtp(1, 1)));
    await client.write(frame(1, buildGoodbye(0x1234)));
    pass(3);
    expect(relay.stats()).toMatchObject({ publishers: 0, streams: 0, connections: 1 });
    client.frames(); // Receiver reports.
    expect((await client.ask("TEARDOWN", url, { Session: recording.headers.Session ?? "" })).status).toBe(
      200,
    );
  });

  it("closing the relay says BYE, ends everything, twice if asked", async () => {
    const { reader, publish, relay, fanout } = await harness();
    const publisher = await publish();
    const client = reader();
    await playTcp(client);
    await relay.close();
    await relay.close();
    expect(parseRtcp(client.frames().at(-1)?.packet ?? new Uint8Array(0)).at(-1)?.kind).toBe("bye");
    expect([client.ended, publisher.ended, fanout.closed]).toEqual([true, true, true]);
    expect(relay.stats()).toMatchObject({ connections: 0, sessions: 0, streams: 0, routes: 0, waiting: 0 });
  });

  it("a TCP reader does not wait for ever for a key frame: a stream may have none that can be told", async () => {
    const made = await harness();
    const publisher = await made.publish("cam", VIDEO_SDP);
    await publisher.write(frame(0, rtp(1, 1)));
    const reader = made.reader();
    await playTcp(reader, "cam");
    await publisher.write(frame(0, rtp(2, 2)));
    expect(reader.frames().filter(({ channel }) => channel === 0)).toEqual([]);
    made.pass(11);
    await publisher.write(frame(0, rtp(3, 3)));
    expect(reader.frames().filter(({ channel }) => channel === 0)).toHaveLength(1);
  });
});
