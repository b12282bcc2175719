/** What cameras do wrong, or just otherwise, and a pull lives with: field notes by maker, a test each. */

import { afterEach, describe, expect, test } from "vitest";
import type { PullOptions } from "../../../../src/layer1-app/relay/client/pull-source.ts";
import { buildFrame } from "../../../../src/layer1-app/relay/protocol/interleaved.ts";
import { buildGoodbye, parseRtcp } from "../../../../src/layer1-app/relay/protocol/rtcp.ts";
import type { RtspRequest } from "../../../../src/layer1-app/relay/protocol/rtsp-message.ts";
import { AUDIO_SDP, type CameraScript, FakeCamera, rtpPacket, until, VIDEO_SDP } from "./fake-camera.ts";
import { type Bench, openBench } from "./pull-harness.ts";

const AV_SDP = `${VIDEO_SDP}${AUDIO_SDP}`;

let camera: FakeCamera | undefined;
let bench: Bench | undefined;

afterEach(async () => {
  await bench?.[Symbol.asyncDispose]();
  await camera?.close();
});

/** Pulls from a camera of this script, and waits for packets of every track that is expected. */
async function pullFrom(script: CameraScript, options: Partial<PullOptions> = {}, tracks = 2) {
  camera = await FakeCamera.start(script);
  bench = await openBench();
  const pull = bench.pull({ url: camera.url(), stallMs: 20_000, firstPacketMs: 20_000, ...options });
  const { relay } = bench;
  await until("packets", () => pull.status().packets > 10);
  expect(pull.status()).toMatchObject({ state: "playing", attempts: 1 });
  expect(relay.stats()).toMatchObject({ publishers: 1, streams: 1 });
  const setUps = camera.requests.filter((request) => request.method === "SETUP");
  expect(bench.log.join("\n")).toContain(tracks === 1 ? "one track" : `${tracks} tracks`);
  return { camera, bench, pull, setUps };
}

const onSetup = (headers: Record<string, string | undefined>) => (request: RtspRequest) =>
  request.method === "SETUP" ? { headers } : undefined;

describe("answers to SETUP", () => {
  test("Hikvision: Session behind spaces, ssrc with a space, mode in quotes", async () => {
    const { camera } = await pullFrom({
      act(request) {
        if (request.method !== "SETUP") return undefined;
        const channels = /interleaved=([\d-]+)/.exec(request.headers.get("Transport") ?? "")?.[1];
        return {
          headers: {
            Transport: `RTP/AVP/TCP;unicast;interleaved=${channels};ssrc= 4e0d1b62;mode="play"`,
            Session: "       708345999;timeout=60",
          },
        };
      },
    });
    expect(camera.find("PLAY")?.headers.get("Session")).toBe("708345999");
  });

  test("Escam Q6: RTP/AVP with channels means TCP", async () => {
    await pullFrom({ act: onSetup({ Transport: "RTP/AVP;unicast;interleaved=0-1" }), sdp: VIDEO_SDP }, {}, 1);
  });

  test.each([
    ["Rubetek: ssrc with 0x", "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=0x4e0d1b62"],
    ["Dahua: ssrc in decimal", "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=1309481826"],
    ["no interleaved in the answer", "RTP/AVP/TCP;unicast"],
    ["no sense in the answer", "yes"],
  ])("%s", async (_what, transport) => {
    await pullFrom({ act: onSetup({ Transport: transport }), sdp: VIDEO_SDP }, {}, 1);
  });

  test("no Transport header at all", async () => {
    await pullFrom({ act: onSetup({ Transport: undefined }), sdp: VIDEO_SDP }, {}, 1);
  });

  test("the server gives other channels than were asked for", async () => {
    await pullFrom(
      {
        sdp: VIDEO_SDP,
        act(request, line) {
          if (request.method === "PLAY") line.tracks[0] = { channel: 6 };
          return onSetup({ Transport: "RTP/AVP/TCP;unicast;interleaved=6-7" })(request);
        },
      },
      {},
      1,
    );
  });

  test("OpenIPC: no server_port over UDP", async () => {
    const act = (request: RtspRequest) => {
      const ports = /client_port=([\d-]+)/.exec(request.headers.get("Transport") ?? "")?.[1];
      return onSetup({ Transport: `RTP/AVP;unicast;client_port=${ports}` })(request);
    };
    const { pull } = await pullFrom({ act }, { transport: "udp" });
    expect(pull.status().transport).toBe("udp");
  });

  test("no Session header", async () => {
    const { camera } = await pullFrom({ act: onSetup({ Session: undefined }) });
    expect(camera.find("PLAY")?.headers.has("Session")).toBe(false);
  });

  test("a track that the camera refuses is left out", async () => {
    const { bench } = await pullFrom(
      {
        act: (request) => (request.url.endsWith("trackID=1") ? { status: 404 } : undefined),
      },
      {},
      1,
    );
    expect(bench.log.join("\n")).toMatch(/left out: audio PCMA \(the server answers SETUP with 404/);
  });
});

describe("descriptions", () => {
  test("several s=, bad c= and t=, what is no line at all", async () => {
    const sdp = AV_SDP.replace("s=camera", "s=one\r\ns=two\r\nc=nonsense\r\nt=now\r\n?!");
    await pullFrom({ sdp });
  });

  test("TP-Link: a medium of an invalid kind beside good ones", async () => {
    const { bench } = await pullFrom({ sdp: `${AV_SDP}m=application/TP-LINK 0 RTP/AVP smart/1/90000\r\n` });
    expect(bench.log.join("\n")).toContain("left out: m=application/TP-LINK");
  });

  test("a back channel is not set up; sendonly on everything is", async () => {
    const back = "m=audio 0 RTP/AVP 0\r\na=sendonly\r\na=control:trackID=2\r\n";
    const { setUps } = await pullFrom({ sdp: `${AV_SDP}${back}` });
    expect(setUps).toHaveLength(2);
    await bench?.[Symbol.asyncDispose]();
    await camera?.close();
    const all = AV_SDP.replace(/a=control/g, "a=sendonly\r\na=control");
    expect((await pullFrom({ sdp: all })).setUps).toHaveLength(2);
  });

  test("one track without a control attribute", async () => {
    const sdp = VIDEO_SDP.replace("\r\na=control:trackID=0", "");
    const { setUps, camera } = await pullFrom({ sdp }, {}, 1);
    expect(setUps[0]?.url).toBe(`${camera.url()}/`);
  });

  test("absolute controls", async () => {
    const sdp = AV_SDP.replaceAll("a=control:", "a=control:rtsp://10.9.9.9/media/");
    const { setUps } = await pullFrom({ sdp });
    expect(setUps.map((request) => request.url)).toEqual([
      "rtsp://10.9.9.9/media/trackID=0",
      "rtsp://10.9.9.9/media/trackID=1",
    ]);
  });

  test.each([
    ["the scheme twice", "rtsp://rtsp://127.0.0.1/live/main/", "rtsp://127.0.0.1/live/main/trackID=0"],
    ["no scheme", "127.0.0.1/live/main/", "rtsp://127.0.0.1/live/main/trackID=0"],
    ["no slash at the end", "rtsp://127.0.0.1/live/main", "rtsp://127.0.0.1/live/main/trackID=0"],
  ])("Content-Base with %s; Verint: no double slash in SETUP", async (_what, base, expected) => {
    const act = (request: RtspRequest) =>
      request.method === "DESCRIBE" ? { headers: { "Content-Base": base } } : undefined;
    const { setUps } = await pullFrom({ sdp: VIDEO_SDP, act }, {}, 1);
    expect(setUps[0]?.url).toBe(expected);
  });
});

describe("requests", () => {
  test("Parrot: Range in PLAY; User-Agent everywhere; no mode in SETUP; no two at once", async () => {
    let waiting = 0;
    await pullFrom(
      {
        act(request, line) {
          waiting += 1;
          expect(waiting).toBe(1);
          setTimeout(() => {
            waiting -= 1;
            if (request.method === "PLAY") camera?.play(line);
            line.send(answers(request));
          }, 20);
          return "silence";
        },
        sdp: VIDEO_SDP,
      },
      {},
      1,
    );
    expect(camera?.find("PLAY")?.headers.get("Range")).toMatch(/^npt=/);
    expect(camera?.requests.every((request) => request.headers.has("User-Agent"))).toBe(true);
    expect(camera?.find("SETUP")?.headers.get("Transport")).not.toContain("mode");
    const cseqs = camera?.requests.map((request) => Number(request.headers.get("CSeq"))) ?? [];
    expect(cseqs).toEqual(cseqs.map((_, i) => i + 1));

    function answers(request: RtspRequest): Uint8Array {
      const cseq = `CSeq: ${request.headers.get("CSeq")}\r\n`;
      const body = request.method === "DESCRIBE" ? VIDEO_SDP : "";
      if (request.method === "SETUP") camera?.lines[0]?.tracks.push({ channel: 0 });
      const session = request.method === "SETUP" ? "Session: 1\r\n" : "";
      return Buffer.from(`RTSP/1.0 200 OK\r\n${cseq}${session}Content-Length: ${body.length}\r\n\r\n${body}`);
    }
  });

  test("OPTIONS is refused, names in lower case, no CSeq in answers", async () => {
    await pullFrom({
      act(request) {
        if (request.method === "OPTIONS") return { status: 501, headers: { CSeq: undefined } };
        return { headers: { CSeq: undefined, cseq: request.method === "PLAY" ? undefined : "7" } };
      },
    });
  });

  test("keepalives: GET_PARAMETER and OPTIONS in turn, with the session, half the timeout apart", async () => {
    const times: number[] = [];
    const { camera } = await pullFrom({
      act(request, line) {
        if (line.playing !== undefined) times.push(performance.now());
        return request.method === "SETUP" ? { headers: { Session: "9;timeout=2" } } : undefined;
      },
    });
    const kept = () => camera.lines[0]?.requests.slice(5) ?? [];
    await until("three keepalives", () => kept().length >= 3);
    expect(
      kept()
        .slice(0, 3)
        .map((request) => request.method),
    ).toEqual(["GET_PARAMETER", "OPTIONS", "GET_PARAMETER"]);
    expect(kept().every((request) => request.headers.get("Session") === "9")).toBe(true);
    expect(kept().every((request) => request.url === `${camera.url()}/`)).toBe(true);
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(990);
  });

  test("keepalives: OPTIONS alone where GET_PARAMETER is not offered, or not wanted", async () => {
    const { camera } = await pullFrom({
      act(request) {
        if (request.method === "OPTIONS") return { headers: { Public: "DESCRIBE, SETUP, PLAY" } };
        return request.method === "SETUP" ? { headers: { Session: "9;timeout=2" } } : undefined;
      },
    });
    await until("two keepalives", () => camera.requests.length >= 7);
    expect(camera.methods().slice(5, 7)).toEqual(["OPTIONS", "OPTIONS"]);
    await bench?.[Symbol.asyncDispose]();
    await camera.close();
    const other = await pullFrom(
      {
        act: (request) => (request.method === "SETUP" ? { headers: { Session: "9;timeout=2" } } : undefined),
      },
      { keepalive: "options" },
    );
    await until("two keepalives", () => other.camera.requests.length >= 7);
    expect(other.camera.methods().slice(5, 7)).toEqual(["OPTIONS", "OPTIONS"]);
  });

  test("receiver reports come by themselves, on the RTCP channel and about the right source", async () => {
    const { camera } = await pullFrom({});
    const reports = () => camera.lines[0]?.received.filter((one) => one.channel === 1) ?? [];
    const blocks = () =>
      reports().flatMap(({ bytes }) =>
        parseRtcp(bytes).flatMap((one) => (one.kind === "rr" ? one.blocks : [])),
      );
    await until("a report block", () => blocks().length > 0);
    expect(blocks().at(-1)).toMatchObject({ ssrc: 0x4e0d1b62, lost: 0 });
  });

  test("the server asks the client: it is answered", async () => {
    let answered = "";
    const { camera } = await pullFrom({
      act(request, line) {
        if (request.method === "PLAY") {
          line.send(Buffer.from("OPTIONS * RTSP/1.0\r\nCSeq: 99\r\n\r\n"));
          line.socket.on("data", (chunk: Buffer) => {
            answered += chunk.toString("latin1");
          });
        }
        return undefined;
      },
    });
    await until("an answer", () => /RTSP\/1\.0 200 OK\r\nCSeq: 99\r\n/.test(answered));
    expect(camera.lines).toHaveLength(1);
  });

  test("TEARDOWN at the end, with the session", async () => {
    const { camera, pull } = await pullFrom({});
    await pull.stop();
    expect(camera.find("TEARDOWN")?.headers.get("Session")).toBe("77001122");
    expect(pull.status().state).toBe("stopped");
    await until("the connection to end", () => camera.lines[0]?.socket.readableEnded === true);
  });
});

describe("packets", () => {
  test("Reolink: an old session's packets on channels that nobody has are left out", async () => {
    const stray = Buffer.concat([buildFrame(20, rtpPacket(96, 1, 0)), buildFrame(21, new Uint8Array(8))]);
    const { pull } = await pullFrom({
      act(_request, line) {
        line.send(stray);
        return undefined;
      },
    });
    expect(pull.status().ignored).toBeGreaterThan(4);
  });

  test("packets before the answer to PLAY", async () => {
    const { bench } = await pullFrom({
      act(request, line) {
        if (request.method === "PLAY") for (let i = 0; i < 5; i++) camera?.sendPackets(line);
        return undefined;
      },
    });
    expect(bench.relay.stats().publishers).toBe(1);
    expect(camera?.lines).toHaveLength(1);
  });

  test("another payload type and another SSRC than announced pass", async () => {
    const { pull, camera } = await pullFrom({ sdp: VIDEO_SDP, streaming: true }, {}, 1);
    const line = camera.lines[0];
    clearInterval(line?.playing);
    const before = pull.status().packets;
    const odd = rtpPacket(33, 5, 7);
    line?.send(buildFrame(0, odd));
    await until("the odd packet", () => pull.status().packets > before);
  });

  test("goodbye of one track of two is not the end; of both it is", async () => {
    const { pull, camera } = await pullFrom({});
    const line = camera.lines[0];
    line?.send(buildFrame(1, buildGoodbye(0x4e0d1b62)));
    const before = pull.status().packets;
    await until("packets after the goodbye", () => pull.status().packets > before + 200);
    expect(pull.status().attempts).toBe(1);
    clearInterval(line?.playing);
    line?.send(buildFrame(3, buildGoodbye(0x4e0d1b63)));
    await until("a second session", () => camera.lines.length === 2);
    expect(pull.status().lastFailure).toMatchObject({ code: "ended" });
    expect(line?.requests.at(-1)?.method).toBe("TEARDOWN");
  });
});
