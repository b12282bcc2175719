/** Servers that stall, close, lie or refuse: the pull says what is wrong, waits, and does not hammer. */

import { randomBytes } from "node:crypto";
import { createServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import type { RtspRequest } from "../../../../src/layer1-app/relay/protocol/rtsp-message.ts";
import { FakeCamera, until } from "./fake-camera.ts";
import { type Bench, openBench, openReader, QUICK } from "./pull-harness.ts";

let bench: Bench | undefined;
const cameras: FakeCamera[] = [];

afterEach(async () => {
  await bench?.[Symbol.asyncDispose]();
  for (const camera of cameras.splice(0)) await camera.close();
});

async function faulty(
  act: (request: RtspRequest, camera: FakeCamera) => ReturnType<NonNullable<FakeCamera["script"]["act"]>>,
) {
  const camera: FakeCamera = await FakeCamera.start({ act: (request) => act(request, camera) });
  cameras.push(camera);
  bench = await openBench();
  return { camera, bench };
}

test.each(["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])(
  "no answer to %s: given up in time, tried again",
  async (method) => {
    const { camera, bench } = await faulty((request) => (request.method === method ? "silence" : undefined));
    const pull = bench.pull({ url: camera.url(), timeoutMs: 150 });
    await until("three tries", () => pull.status().attempts >= 3);
    expect(pull.status().lastFailure).toEqual({ code: "timeout", text: `no answer to ${method} in 0.15 s` });
    expect(pull.status().sessions).toBe(0);
    await until("closed connections", () =>
      camera.lines.slice(0, 2).every((line) => line.socket.readableEnded),
    );
  },
);

test.each(["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])("the connection closes on %s", async (method) => {
  const { camera, bench } = await faulty((request) => (request.method === method ? "close" : undefined));
  const pull = bench.pull({ url: camera.url() });
  await until("three tries", () => pull.status().attempts >= 3);
  expect(pull.status().lastFailure?.code).toBe("closed");
  await pull.stop();
  await until("no stream", () => {
    bench.relay.sweep();
    return bench.relay.stats().sessions === 0;
  });
});

test("a server that accepts and says nothing", async () => {
  const server = createServer(() => {}).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  bench = await openBench();
  const { port } = server.address() as { port: number };
  const pull = bench.pull({ url: `rtsp://127.0.0.1:${port}/x`, timeoutMs: 100 });
  await until("two tries", () => pull.status().attempts >= 2);
  expect(pull.status().lastFailure?.code).toBe("timeout");
  await pull.stop();
  server.close();
});

test("garbage without end ends the session; a little of it does not", async () => {
  const { camera, bench } = await faulty((request) =>
    request.method === "DESCRIBE" ? Buffer.alloc(200_000, "garbage \n") : undefined,
  );
  const pull = bench.pull({ url: camera.url() });
  await until("a failure", () => pull.status().lastFailure !== undefined);
  expect(pull.status().lastFailure).toEqual({ code: "protocol", text: "what the server sends is not RTSP" });
  await pull.stop();

  const other = await FakeCamera.start({
    act(request, line) {
      if (request.method === "SETUP") line.send(Buffer.from("\u0000\u0001 left over\r\n"));
      return undefined;
    },
  });
  cameras.push(other);
  const good = bench.pull({ url: other.url(), name: "good" });
  await until("packets", () => good.status().packets > 10);
  expect(good.status().attempts).toBe(1);
});

test("random bytes instead of answers never harm the relay", async () => {
  const { camera, bench } = await faulty(() => randomBytes(3000));
  const pull = bench.pull({ url: camera.url(), timeoutMs: 100 });
  await until("four tries", () => pull.status().attempts >= 4);
  expect(["timeout", "protocol"]).toContain(pull.status().lastFailure?.code);
  expect(bench.relay.stats().publishers).toBe(0);
});

test.each([
  ["empty", "", "it has no m= line"],
  ["no media", "v=0\r\ns=x\r\n", "it has no m= line"],
  ["nonsense", "<html></html>", "it has no m= line"],
  ["a broken medium", "v=0\r\nm=video x RTP/AVP\r\n", "none of its m= lines makes sense"],
  ["SRTP only", "v=0\r\nm=video 0 RTP/SAVP 96\r\n", "encrypted media"],
])("a description that cannot be used: %s", async (_what, body, why) => {
  const { camera, bench } = await faulty((request) => (request.method === "DESCRIBE" ? { body } : undefined));
  const pull = bench.pull({ url: camera.url() });
  await until("a failure", () => pull.status().lastFailure !== undefined);
  expect(pull.status().lastFailure).toMatchObject({
    code: "description",
    text: expect.stringContaining(why),
  });
});

test("404, then the stream is there: it plays", async () => {
  let there = false;
  const { camera, bench } = await faulty((request) =>
    request.method === "DESCRIBE" && !there ? { status: 404 } : undefined,
  );
  const pull = bench.pull({ url: camera.url() });
  await until("two tries", () => pull.status().attempts >= 2);
  expect(pull.status().lastFailure).toEqual({
    code: "not-found",
    text: "the server answers DESCRIBE with 404 Not Found",
  });
  there = true;
  await until("packets", () => pull.status().packets > 0);
});

test("nobody listens: refused, and backoff grows", async () => {
  bench = await openBench();
  const pull = bench.pull({ url: "rtsp://127.0.0.1:1/x" });
  await until("four tries", () => pull.status().attempts >= 4);
  expect(pull.status().lastFailure?.text).toContain("127.0.0.1:1 refused the connection");
  const waits = bench.log.flatMap((line) => /trying again in ([\d.]+) s/.exec(line)?.[1] ?? []);
  expect(Number(waits[2])).toBeGreaterThan(Number(waits[0]));
});

describe("authorization", () => {
  const challenge = { "WWW-Authenticate": 'Digest realm="cam", nonce="abc"' };
  const demand = (good: (request: RtspRequest) => boolean) => (request: RtspRequest) =>
    good(request) ? undefined : { status: 401, headers: challenge };

  test("wrong credentials: two requests, then half a minute of quiet", async () => {
    const { camera, bench } = await faulty(demand(() => false));
    const url = camera.url("admin:geheim@");
    const pull = bench.pull({ url, backoff: { ...QUICK, maxMs: 60_000 } });
    await until("a failure", () => pull.status().state === "waiting");
    expect(camera.requests).toHaveLength(2);
    expect(pull.status().lastFailure).toEqual({
      code: "unauthorized",
      text: "the server does not accept the user name and password",
    });
    const text = bench.log.join("\n");
    expect(Number(/trying again in ([\d.]+) s/.exec(text)?.[1])).toBeGreaterThanOrEqual(30);
    // A reader who asks does not make it try sooner either.
    const reader = openReader(bench.apo, `${bench.relay.url}/cam`).catch(() => "refused");
    await until("the reader to wait", () => (bench?.relay.stats().waiting ?? 0) > 0);
    expect(camera.requests).toHaveLength(2);
    expect(JSON.stringify([text, pull.status()])).not.toContain("geheim");
    await pull.stop();
    bench.relay.sweep();
    await bench.relay.close();
    await reader;
  });

  test("no credentials: one request, and what to do about it", async () => {
    const { camera, bench } = await faulty(demand(() => false));
    const pull = bench.pull({ url: camera.url(), backoff: { ...QUICK, maxMs: 60_000 } });
    await until("a failure", () => pull.status().state === "waiting");
    expect(camera.requests).toHaveLength(1);
    expect(pull.status().lastFailure?.text).toContain("rtsp://user:password@host");
  });

  test("a camera that takes OPTIONS from anybody, and a nonce that expires at PLAY", async () => {
    let nonce = "one";
    const { camera, bench } = await faulty((request) => {
      if (request.method === "PLAY" && nonce === "one") nonce = "two";
      const fine =
        request.method === "OPTIONS" || request.headers.get("Authorization")?.includes(`"${nonce}"`) === true;
      if (fine) return undefined;
      return {
        status: 401,
        headers: { "WWW-Authenticate": `Digest realm="cam", nonce="${nonce}", stale=true` },
      };
    });
    const pull = bench.pull({ url: camera.url("u:p@") });
    await until("packets", () => pull.status().packets > 0);
    expect(pull.status().attempts).toBe(1);
    expect(camera.methods()).toEqual(["OPTIONS", "DESCRIBE", "DESCRIBE", "SETUP", "SETUP", "PLAY", "PLAY"]);
    expect(camera.requests.every((request) => !request.url.includes("u:p"))).toBe(true);
  });
});

describe("redirects", () => {
  test("302 is followed with the credentials, rtsps is not", async () => {
    const { camera: target, bench } = await faulty((request) =>
      request.headers.has("Authorization")
        ? undefined
        : { status: 401, headers: { "WWW-Authenticate": "Basic realm=x" } },
    );
    const from = await FakeCamera.start({
      act: (request) =>
        request.method === "DESCRIBE" ? { status: 302, headers: { Location: target.url() } } : undefined,
    });
    cameras.push(from);
    const pull = bench.pull({ url: from.url("u:p@") });
    await until("packets", () => pull.status().packets > 0);
    expect(target.find("PLAY")?.headers.get("Authorization")).toBe("Basic dTpw");
  });

  test("a circle is left after five", async () => {
    const { camera, bench } = await faulty((request, self) =>
      request.method === "DESCRIBE" ? { status: 301, headers: { Location: self.url() } } : undefined,
    );
    const pull = bench.pull({ url: camera.url() });
    await until("a failure", () => pull.status().lastFailure !== undefined);
    expect(pull.status().lastFailure?.code).toBe("redirect");
    expect(camera.requests.filter((request) => request.method === "DESCRIBE")).toHaveLength(6);
  });
});

describe("while playing", () => {
  test("packets stop: the session is given back and made anew", async () => {
    const { camera, bench } = await faulty(() => undefined);
    const pull = bench.pull({ url: camera.url(), stallMs: 700, firstPacketMs: 20_000 });
    await until("packets", () => pull.status().packets > 0);
    clearInterval(camera.lines[0]?.playing);
    await until("a second session", () => pull.status().sessions === 2 && pull.status().packets > 0);
    expect(pull.status().lastFailure?.code).toBe("stalled");
    expect(camera.lines[0]?.requests.at(-1)?.method).toBe("TEARDOWN");
  });

  test("the server forgets the session (454 to a keepalive)", async () => {
    const { camera, bench } = await faulty((request, self) => {
      if (request.method === "SETUP") return { headers: { Session: "9;timeout=2" } };
      const kept = self.lines.length === 1 && request.method === "GET_PARAMETER";
      return kept ? { status: 454 } : undefined;
    });
    const pull = bench.pull({ url: camera.url() });
    await until("a second session", () => pull.status().sessions === 2);
    expect(pull.status().lastFailure?.text).toBe("the server has forgotten the session");
  });
});

describe("transports", () => {
  const refuse = (lower: "TCP" | "UDP") => (request: RtspRequest) => {
    const tcp = request.headers.get("Transport")?.includes("/TCP") === true;
    return request.method === "SETUP" && tcp === (lower === "TCP") ? { status: 461 } : undefined;
  };

  test("auto: TCP refused with 461, UDP plays", async () => {
    const { camera, bench } = await faulty(refuse("TCP"));
    const pull = bench.pull({ url: camera.url() });
    await until("packets", () => pull.status().packets > 10);
    expect(pull.status()).toMatchObject({ transport: "udp", attempts: 2 });
    expect(camera.datagrams.some((one) => one.lane === "rtp")).toBe(true); // The punch.
    await until("a receiver report", () =>
      camera.datagrams.some((one) => one.lane === "rtcp" && one.bytes.length > 8),
    );
  });

  test("udp: refused with 461, TCP plays", async () => {
    const { camera, bench } = await faulty(refuse("UDP"));
    const pull = bench.pull({ url: camera.url(), transport: "udp" });
    await until("packets", () => pull.status().packets > 10);
    expect(pull.status()).toMatchObject({ transport: "tcp", attempts: 2 });
  });

  test("udp: no packet comes, TCP plays and is remembered", async () => {
    const { camera, bench } = await faulty(() => undefined);
    for (const socket of camera.udp.splice(0)) socket.close(); // Nothing leaves over UDP.
    camera.script.act = (request, line) => {
      if (request.method !== "SETUP" || !/client_port/.test(request.headers.get("Transport") ?? ""))
        return undefined;
      line.tracks.push({ ports: [9, 9] });
      return { headers: { Transport: "RTP/AVP;unicast;client_port=1-2;server_port=9-10" } };
    };
    const pull = bench.pull({ url: camera.url(), transport: "udp", firstPacketMs: 400 });
    await until("packets", () => pull.status().packets > 10);
    expect(pull.status()).toMatchObject({ transport: "tcp", attempts: 2, lastFailure: { code: "stalled" } });
    camera.cut();
    await until("another session", () => pull.status().sessions === 3 && pull.status().packets > 0);
    expect(pull.status().transport).toBe("tcp");
  });

  test("tcp alone: a refusal is not gone around", async () => {
    const { camera, bench } = await faulty(refuse("TCP"));
    const pull = bench.pull({ url: camera.url(), transport: "tcp" });
    await until("three tries", () => pull.status().attempts >= 3);
    expect(pull.status()).toMatchObject({ transport: "tcp", lastFailure: { code: "transport" } });
  });
});
