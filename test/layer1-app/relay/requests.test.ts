/** General request handling and publishing's way in: field behaviours 5a.1 to 5a.7, 5a.24, and bad input. */
import { describe, expect, it } from "vitest";
import { parseRtcp } from "../../../src/layer1-app/relay/protocol/rtcp.ts";
import { FAREWELL_MS } from "../../../src/layer1-app/relay/settings.ts";
import { AV_SDP, BASE, frame, harness, playTcp, playUdp, rtp, sessionOf, VIDEO_SDP } from "./harness.ts";

const TCP = { Transport: "RTP/AVP/TCP;unicast;interleaved=0-1" };

describe("general", () => {
  it("5a.1 OPTIONS with *, without a path and with any; Public lists the keepalive methods", async () => {
    const { reader } = await harness();
    const client = reader();
    for (const url of ["*", BASE, `${BASE}/`, `${BASE}/nothing`, "nonsense"]) {
      const answer = await client.ask("OPTIONS", url);
      expect(answer.status).toBe(200);
      expect(answer.headers.Public).toContain("GET_PARAMETER");
      expect(answer.headers.Public).toContain("SET_PARAMETER");
    }
  });

  it("5a.1 keepalives are answered before and in a session, an empty SET_PARAMETER too", async () => {
    const { reader, publish } = await harness();
    await publish();
    const client = reader();
    for (const method of ["GET_PARAMETER", "SET_PARAMETER", "OPTIONS"]) {
      expect((await client.ask(method, `${BASE}/cam`)).status).toBe(200);
    }
    const { session } = await playUdp(client);
    for (const method of ["GET_PARAMETER", "SET_PARAMETER", "OPTIONS"]) {
      expect((await client.ask(method, `${BASE}/cam`, { Session: session })).status).toBe(200);
      expect((await client.ask(method, `${BASE}/cam/`)).status).toBe(200);
    }
    expect((await client.ask("SET_PARAMETER", `${BASE}/cam`, {}, "volume: 3")).status).toBe(451);
    expect((await client.ask("GET_PARAMETER", `${BASE}/cam`, { Session: "dead" })).status).toBe(454);
  });

  it("5a.2 CSeq is echoed as it was sent, whatever the header's case", async () => {
    const { reader } = await harness();
    const client = reader();
    await client.write("OPTIONS * RTSP/1.0\r\ncseq: 0042 x\r\n\r\n");
    expect(client.answer().headers.CSeq).toBe("0042 x");
  });

  it("5a.3 garbage between requests is stepped over, up to a limit", async () => {
    const { reader, relay } = await harness();
    const client = reader();
    await client.write("\r\n\r\n\x00\x01\x02");
    expect((await client.ask("OPTIONS", "*")).status).toBe(200);
    await client.write(new Uint8Array(70_000).fill(1));
    expect(client.answer().status).toBe(400);
    expect(client.ended).toBe(true);
    expect(relay.stats().connections).toBe(0);
  });

  it("5a.3 an unknown Require is 551, and named", async () => {
    const { reader } = await harness();
    const answer = await reader().ask("DESCRIBE", `${BASE}/cam`, {
      Require: "www.onvif.org/ver20/backchannel",
    });
    expect(answer.status).toBe(551);
    expect(answer.headers.Unsupported).toBe("www.onvif.org/ver20/backchannel");
  });

  it("5a.4 Session is id;timeout=60 without a space or a dash; none in answers to ANNOUNCE and TEARDOWN", async () => {
    const { reader, publish, apo } = await harness();
    await publish();
    const client = reader();
    const answer = await client.ask("SETUP", `${BASE}/cam/trackID=0`, TCP);
    expect(answer.headers.Session).toMatch(/^[0-9a-f]{16};timeout=60$/);
    expect((await client.ask("TEARDOWN", `${BASE}/cam`)).headers.Session).toBeUndefined();
    const other = apo.connect("10.0.0.8", 1);
    const announced = await other.ask(
      "ANNOUNCE",
      `${BASE}/x`,
      { "Content-Type": "application/sdp" },
      VIDEO_SDP,
    );
    expect([announced.status, announced.headers.Session]).toEqual([200, undefined]);
  });

  it("5a.4 without a Session header, requests are about the connection's session", async () => {
    const { reader, publish } = await harness();
    await publish("cam", AV_SDP);
    const client = reader();
    const first = await client.ask("SETUP", `${BASE}/cam/trackID=0`, TCP);
    const second = await client.ask("SETUP", `${BASE}/cam/trackID=1`, {
      Transport: "RTP/AVP/TCP;unicast;interleaved=2-3",
    });
    expect(sessionOf(second)).toBe(sessionOf(first));
    expect((await client.ask("PLAY", `${BASE}/cam/`)).status).toBe(200);
  });

  it("5a.4 a session is not for another address", async () => {
    const { reader, publish, relay } = await harness();
    await publish();
    const { session } = await playUdp(reader("10.0.0.1"));
    const thief = reader("10.6.6.6");
    for (const method of ["PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER"]) {
      expect((await thief.ask(method, `${BASE}/cam`, { Session: session })).status).toBe(454);
    }
    expect(relay.stats()).toMatchObject({ readers: 1, counters: { "sessions.stolen": 4 } });
  });

  it("5a.6 DESCRIBE: Content-Base is the request's URL and a slash, with its query", async () => {
    const { reader, publish } = await harness();
    await publish("cam", AV_SDP);
    const answer = await reader().ask("DESCRIBE", `${BASE}/cam?x=1`, { Accept: "application/sdp" });
    expect(answer.headers["Content-Base"]).toBe(`${BASE}/cam?x=1/`);
    expect(answer.headers["Content-Type"]).toBe("application/sdp");
    expect(answer.body).toContain("a=control:*\r\n");
    expect(answer.body.match(/a=control:trackID=\d/g)).toEqual([
      "a=control:trackID=0",
      "a=control:trackID=1",
    ]);
    expect(answer.body).toContain("sprop-parameter-sets=Z0IAH6tAUB7Q,aM48gA==");
  });

  it("5a.6 SETUP takes the track before or behind the query, and none where there is only one", async () => {
    const { reader, publish } = await harness();
    await publish("two", AV_SDP, "10.0.0.8");
    await publish("one", VIDEO_SDP, "10.0.0.9");
    const setup = async (url: string) => (await reader().ask("SETUP", `${BASE}${url}`, TCP)).status;
    expect(await setup("/two/trackID=1?x=1")).toBe(200);
    expect(await setup("/two?x=1/trackID=1")).toBe(200);
    expect(await setup("/one/")).toBe(200);
    expect(await setup("/one")).toBe(200);
    expect(await setup("/two")).toBe(459);
    expect(await setup("/two/trackID=2")).toBe(404);
    expect(await setup("/none/trackID=0")).toBe(404);
  });

  it("5a.6 PLAY, PAUSE and TEARDOWN with and without a trailing slash, and of a track", async () => {
    const { reader, publish } = await harness();
    await publish();
    const client = reader();
    await playTcp(client);
    for (const url of ["cam", "cam/", "cam/trackID=0"]) {
      expect((await client.ask("PAUSE", `${BASE}/${url}`)).status).toBe(200);
      expect((await client.ask("PLAY", `${BASE}/${url}`)).status).toBe(200);
    }
    expect((await client.ask("TEARDOWN", `${BASE}/cam/trackID=0`)).status).toBe(200);
    expect((await client.ask("PLAY", `${BASE}/cam`)).status).toBe(454);
  });

  it("5a.7 DESCRIBE waits for a source that is on its way", async () => {
    const { reader, relay, publish } = await harness();
    let asked = 0;
    const expectation = relay.expect("pulled", () => {
      asked++;
    });
    const client = reader();
    const answer = client.ask("DESCRIBE", `${BASE}/pulled`);
    await Promise.resolve();
    expect([asked, relay.stats().waiting]).toEqual([1, 1]);
    expectation.withdraw();
    await publish("pulled");
    expect((await answer).status).toBe(200);
    expect(relay.stats().waiting).toBe(0);
  });

  it("5a.7 and says so when it does not come in time; a bare SETUP or PLAY is refused cleanly", async () => {
    const { reader, relay, pass } = await harness();
    relay.expect("pulled");
    const client = reader();
    const answer = client.ask("DESCRIBE", `${BASE}/pulled`);
    await Promise.resolve();
    pass(9);
    expect((await answer).status).toBe(503);
    await client.write(
      `SETUP ${BASE}/pulled/ RTSP/1.0\r\nCSeq: 0\r\nTransport: RTP/AVP;client_port=1-2\r\n\r\n`,
    );
    expect(client.answer().status).toBe(404);
    expect((await client.ask("PLAY", `${BASE}/pulled/`)).status).toBe(454);
    expect((await client.ask("DESCRIBE", `${BASE}/nobody`)).status).toBe(404);
  });
});

describe("publishing", () => {
  const announce = { "Content-Type": "application/sdp" };

  it.each([
    ["FFmpeg's", "streamid=1", `${BASE}/p/streamid=1`],
    ["GStreamer's", "stream=1", `${BASE}/p/stream=1`],
    ["an absolute control", "rtsp://10.1.1.1:554/p/audio", `${BASE}/p/audio`],
    ["a relative one of any name", "snd", `${BASE}/p/snd`],
    ["trackID", "nowhere", `${BASE}/p/trackID=1`],
  ])("5a.24 SETUP in %s form", async (_, control, url) => {
    const { reader } = await harness();
    const client = reader();
    const sdp = AV_SDP.replace("streamid=1", control);
    expect((await client.ask("ANNOUNCE", `${BASE}/p`, announce, sdp)).status).toBe(200);
    const answer = await client.ask("SETUP", url, {
      Transport: "RTP/AVP/TCP;unicast;interleaved=0-1;mode=receive",
    });
    expect(answer.status).toBe(200);
    expect(answer.headers.Transport).toBe("RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
    expect((await client.ask("SETUP", `${BASE}/p/other`, TCP)).status).toBe(404);
  });

  it("5a.24 a pushed path with .sdp is the path without it", async () => {
    const { reader, publish } = await harness();
    await publish("cam.sdp");
    expect((await reader().ask("DESCRIBE", `${BASE}/cam`)).status).toBe(200);
    expect((await reader().ask("DESCRIBE", `${BASE}/cam.sdp`)).status).toBe(200);
  });

  it("5a.24 a new publisher takes the path over; with the same media its readers stay", async () => {
    const { reader, publish, relay } = await harness();
    const first = await publish();
    const client = reader();
    await playTcp(client);
    client.frames();
    const second = await publish("cam", VIDEO_SDP, "10.0.0.10");
    expect(first.ended).toBe(true);
    await second.write(frame(0, rtp(1, 1, { key: true })));
    expect(client.frames().filter(({ channel }) => channel === 0)).toHaveLength(1);
    expect(relay.stats()).toMatchObject({ streams: 1, publishers: 1, readers: 1 });
  });

  it("5a.24 with other media its readers get BYE and are let go", async () => {
    const { reader, publish, relay, pass } = await harness();
    await publish();
    const client = reader();
    await playTcp(client);
    await publish("cam", AV_SDP, "10.0.0.10");
    const last = client.frames().at(-1)?.packet ?? new Uint8Array(0);
    expect(parseRtcp(last).at(-1)?.kind).toBe("bye");
    pass(FAREWELL_MS / 1000 + 1);
    expect(client.ended).toBe(true);
    expect(relay.stats()).toMatchObject({ streams: 1, publishers: 1, readers: 0 });
  });

  it("5a.24 an ANNOUNCE that comes to nothing does not disturb the publisher", async () => {
    const { reader, publish, relay } = await harness();
    const first = await publish();
    const client = reader("10.0.0.10");
    await client.ask("ANNOUNCE", `${BASE}/cam`, announce, AV_SDP);
    await client.ask("SETUP", `${BASE}/cam/streamid=0`, TCP);
    client.end();
    expect(first.ended).toBe(false);
    expect(relay.stats()).toMatchObject({ sessions: 1, publishers: 1, streams: 1 });
  });

  it.each([
    ["", 400, "Bad Request: SDP is empty"],
    ["v=0\r\ns=-\r\n", 400, "Bad Request: SDP has no m= line: there is nothing to play"],
    ["v=0\r\nm=video x\r\n", 400, "Bad Request: SDP line 2: m= has no port number"],
    ["v=0\r\nm=video 0 RTP/SAVP 96\r\n", 415, "Unsupported Media Type: m=video is RTP/SAVP, not RTP/AVP"],
  ])("wrong SDP %j is refused with a reason", async (sdp, status, reason) => {
    const { reader, relay } = await harness();
    const answer = await reader().ask("ANNOUNCE", `${BASE}/p`, announce, sdp);
    expect([answer.status, answer.reason]).toEqual([status, reason]);
    expect(relay.stats().sessions).toBe(0);
  });

  it("refuses what cannot be published", async () => {
    const { reader, relay } = await harness();
    relay.expect("pulled");
    const client = reader();
    const ask = async (url: string, type: string) =>
      (await client.ask("ANNOUNCE", url, { "Content-Type": type }, VIDEO_SDP)).status;
    expect(await ask(`${BASE}/`, "application/sdp")).toBe(400);
    expect(await ask(`${BASE}/p`, "text/plain")).toBe(415);
    expect(await ask(`${BASE}/pulled`, "application/sdp")).toBe(403);
    expect(await ask("*", "application/sdp")).toBe(400);
    expect((await client.ask("RECORD", `${BASE}/p`)).status).toBe(454);
    expect(await ask(`${BASE}/p`, "application/sdp")).toBe(200);
    expect((await client.ask("RECORD", `${BASE}/p`)).status).toBe(455);
    expect((await client.ask("PLAY", `${BASE}/p`)).status).toBe(455);
  });
});

describe("bad input", () => {
  it.each([
    ["OPTIONS *\r\nCSeq: 1\r\n\r\n", 400],
    ["OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nnonsense\r\n\r\n", 400],
    ["ANNOUNCE * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 1000000\r\n\r\n", 413],
    ["ANNOUNCE * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -5\r\n\r\n", 400],
    [`OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: ${"y".repeat(20_000)}`, 413],
  ])("%j is answered, and the connection closed", async (text, status) => {
    const { reader, relay } = await harness();
    const client = reader();
    const other = reader();
    await client.write(text);
    expect(client.answer().status).toBe(status);
    expect(client.ended).toBe(true);
    expect((await other.ask("OPTIONS", "*")).status).toBe(200);
    expect(relay.stats()).toMatchObject({ connections: 1, sessions: 0 });
  });

  it("statuses that keep the connection: no CSeq, unknown method, wrong version, REDIRECT, Accept", async () => {
    const { reader, publish } = await harness();
    await publish();
    const client = reader();
    await client.write("OPTIONS * RTSP/1.0\r\nX: 1\r\n\r\n");
    expect(client.answer()).toMatchObject({ status: 400, reason: "Bad Request: no CSeq header" });
    const unknown = await client.ask("FLY", "*");
    expect(unknown.status).toBe(501);
    expect(unknown.headers.Public).toContain("DESCRIBE");
    const redirect = await client.ask("REDIRECT", `${BASE}/cam`);
    expect(redirect.status).toBe(405);
    expect(redirect.headers.Allow).toContain("DESCRIBE");
    await client.write("OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n");
    expect(client.answer().status).toBe(505);
    expect((await client.ask("DESCRIBE", `${BASE}/cam`, { Accept: "text/html" })).status).toBe(406);
    expect((await client.ask("OPTIONS", "*")).status).toBe(200);
  });

  it("HTTP is told that it is not served", async () => {
    const { reader } = await harness();
    const client = reader();
    await client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(new TextDecoder().decode(client.received)).toMatch(/^HTTP\/1\.1 501 /);
    expect(client.ended).toBe(true);
  });

  it("half a request then silence: the connection is closed, with nothing left", async () => {
    const { reader, relay, pass } = await harness();
    const client = reader();
    await client.write("DESCRIBE rtsp://h/p RTSP/1.0\r\nCSeq: 1");
    pass(59);
    expect(client.ended).toBe(false);
    pass(3);
    expect(client.ended).toBe(true);
    expect(relay.stats()).toMatchObject({ connections: 0, sessions: 0, waiting: 0 });
  });

  it("$ frames of any length and channel, from anybody, disturb nobody", async () => {
    const { reader, publish, relay } = await harness();
    const publisher = await publish();
    const client = reader();
    await playTcp(client);
    client.frames();
    for (const length of [0, 1, 3, 11, 12, 1000, 65_535]) {
      await publisher.write(frame(0, new Uint8Array(length)));
      await publisher.write(frame(1, new Uint8Array(length)));
      await publisher.write(frame(9, new Uint8Array(length)));
      await client.write(frame(0, new Uint8Array(length)));
      await client.write(frame(1, new Uint8Array(length)));
      await client.write(frame(200, new Uint8Array(length)));
    }
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    expect(client.frames().map(({ packet }) => packet.length)).toContain(32);
    expect(relay.stats()).toMatchObject({ sessions: 2, readers: 1, publishers: 1 });
    expect(relay.stats().counters).toMatchObject({ "interleaved.unknown": 14, "interleaved.short": 4 });
  });

  it("a publisher that vanishes mid-frame: readers get what came, then BYE; nothing is left", async () => {
    const { reader, publish, relay, fanout, pass } = await harness();
    const publisher = await publish("cam", AV_SDP);
    const client = reader();
    await playTcp(client, "cam", 2);
    await playUdp(reader("10.0.0.2"), "cam", 2);
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    await publisher.write(frame(0, rtp(2, 2, { marker: false })).subarray(0, 20));
    publisher.end("reset");
    const last = client.frames().slice(-2);
    expect(last.map(({ channel }) => channel)).toEqual([1, 3]);
    for (const { packet } of last) expect(parseRtcp(packet).at(-1)?.kind).toBe("bye");
    // It may say good-bye itself; if it does not, the connection is closed.
    expect(client.ended).toBe(false);
    pass(FAREWELL_MS / 1000 + 1);
    expect(client.ended).toBe(true);
    const report = fanout.take("10.0.0.2 6001").at(-1);
    expect(parseRtcp(report ?? new Uint8Array(0)).at(-1)?.kind).toBe("bye");
    expect(relay.stats()).toMatchObject({ sessions: 0, publishers: 0, readers: 0, streams: 0, routes: 0 });
    expect([fanout.tracks.size, fanout.receivers.size]).toEqual([0, 0]);
  });

  it("bounds sessions, readers of a path, sessions of a connection and streams", async () => {
    const limits = { sessionsMax: 6, readersMax: 3, streamsMax: 2 };
    const { reader, publish, apo } = await harness(limits);
    await publish("a", VIDEO_SDP, "10.0.0.7");
    await publish("b", VIDEO_SDP, "10.0.0.8");
    await expect(publish("c", VIDEO_SDP, "10.0.0.9")).rejects.toThrow("503");
    const setup = async (path: string) =>
      (await reader().ask("SETUP", `${BASE}/${path}/trackID=0`, TCP)).status;
    expect([await setup("a"), await setup("a"), await setup("a"), await setup("a")]).toEqual([
      200, 200, 200, 503,
    ]);
    expect(await setup("b")).toBe(503);
    expect(apo.clients.size).toBeGreaterThan(5);
  });
});
