/** Pulls between relays of ours, and of what FFmpeg publishes. */

import { afterEach, describe, expect, test } from "vitest";
import { startPull } from "../../../../src/layer1-app/relay/client/pull-source.ts";
import { type Demo, startDemo } from "../../../../src/layer1-app/relay/demo.ts";
import type { RelayOptions } from "../../../../src/layer1-app/relay/types.ts";
import { FakeCamera, until, VIDEO_SDP } from "./fake-camera.ts";
import { type Bench, type CountingReader, openBench, openReader, QUICK } from "./pull-harness.ts";
import { run, startTool, toolMissing } from "./tools.ts";

const undo: AsyncDisposable[] = [];

afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one[Symbol.asyncDispose]();
});

async function bench(options: RelayOptions = {}): Promise<Bench> {
  const made = await openBench(options);
  undo.push(made);
  return made;
}

/** A relay with the demo on it: the far end. */
async function origin(options: RelayOptions = {}): Promise<{ far: Bench; demo: Demo; url: string }> {
  const far = await bench(options);
  const demo = await startDemo(far.apo, { url: `${far.relay.url}/demo` });
  undo.push(demo);
  return { far, demo, url: `${far.relay.url}/demo` };
}

const flows = (reader: CountingReader, from: readonly number[] = []) =>
  reader.packets.length > 0 && reader.packets.every((count, track) => count > (from[track] ?? 0) + 5);

test("fifty readers, one session with the far end", async () => {
  const { far, url } = await origin();
  const near = await bench();
  const pull = near.pull({ url });
  await until("packets", () => pull.status().packets > 0);
  const readers = await Promise.all(
    Array.from({ length: 50 }, () => openReader(near.apo, `${near.relay.url}/cam`)),
  );
  await until("packets at every reader", () => readers.every((reader) => flows(reader)));
  expect(far.relay.stats()).toMatchObject({ readers: 1, publishers: 1 });
  expect(near.relay.stats()).toMatchObject({ readers: 50, publishers: 1 });
  expect(pull.status()).toMatchObject({ readers: 50, attempts: 1 });
  for (const reader of readers) reader.close();
});

test("a reader who asks before the far end is there waits for it", async () => {
  const { url } = await origin();
  const near = await bench();
  near.pull({ url });
  const reader = await openReader(near.apo, `${near.relay.url}/cam`);
  await until("packets", () => flows(reader));
});

test.each(["tcp", "udp"] as const)(
  "the far end dies and comes back: readers stay, over %s",
  async (transport) => {
    const first = await openBench();
    const demo = await startDemo(first.apo, { url: `${first.relay.url}/demo` });
    const near = await bench();
    const pull = near.pull({ url: `${first.relay.url}/demo`, transport });
    const reader = await openReader(near.apo, `${near.relay.url}/cam`);
    await until("packets", () => flows(reader));
    expect(pull.status().transport).toBe(transport);

    const { port } = first.relay;
    await demo.stop();
    await first[Symbol.asyncDispose]();
    await until("the pull to notice", () => pull.status().state !== "playing");
    expect(reader.open).toBe(true);

    const before = [...reader.packets];
    await origin({ port });
    await until("packets again", () => flows(reader, before));
    expect(reader.open).toBe(true);
    expect(pull.status().sessions).toBe(2);
    expect(near.relay.stats().readers).toBe(1);
  },
);

test("other media after the return: the old readers are told goodbye, new ones are served", async () => {
  const camera = await FakeCamera.start();
  undo.push({ [Symbol.asyncDispose]: () => camera.close() });
  const near = await bench();
  const pull = near.pull({ url: camera.url() });
  const reader = await openReader(near.apo, `${near.relay.url}/cam`);
  await until("packets", () => flows(reader));
  camera.script = { sdp: VIDEO_SDP };
  camera.cut();
  await until("the old reader to go", () => near.relay.stats().readers === 0);
  await until("the second session", () => pull.status().sessions === 2);
  const after = await openReader(near.apo, `${near.relay.url}/cam`);
  expect(after.described.sdp.media).toHaveLength(1);
  await until("packets", () => flows(after));
});

test("several pulls: one far end's fault is nobody else's", async () => {
  const { url } = await origin();
  const camera = await FakeCamera.start();
  undo.push({ [Symbol.asyncDispose]: () => camera.close() });
  const near = await bench();
  const good = near.pull({ url, name: "good", transport: "udp" });
  const other = near.pull({ url, name: "other" });
  const bad = near.pull({ url: camera.url(), name: "bad" });
  const none = near.pull({ url: "rtsp://127.0.0.1:1/", name: "none" });
  await until("all to play", () => [good, other, bad].every((pull) => pull.status().packets > 0));
  for (let i = 0; i < 3; i++) {
    camera.cut();
    await until("another session", () => bad.status().sessions > i + 1 && bad.status().packets > 0);
  }
  await until("tries", () => none.status().attempts > 3);
  expect([good.status().sessions, other.status().sessions]).toEqual([1, 1]);
  const { sources } = near.relay.stats();
  expect(sources.map(({ name }) => name)).toEqual(["good", "other", "bad", "none"]);
  expect(sources[0]).toMatchObject({ state: "playing", transport: "udp", sessions: 1, readers: 0 });
  expect(sources[3]).toMatchObject({ sessions: 0, lastFailure: { code: "unreachable" } });
});

test("a name that is taken, a wrong URL and rtsps are refused at once", async () => {
  const near = await bench();
  near.pull({ url: "rtsp://127.0.0.1:1/", name: "cam" });
  const start = (name: string, url: string) => () => startPull(near.apo, near.relay, { name, url });
  expect(start("cam", "rtsp://127.0.0.1:1/")).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(start("a//b", "rtsp://127.0.0.1:1/")).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(start("x", "http://127.0.0.1/")).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(start("x", "rtsps://127.0.0.1/")).toThrow(expect.objectContaining({ code: "ENOTSUP" }));
});

test("stopping leaves nothing behind: sessions, ports, streams, timers", async () => {
  const { far, url } = await origin();
  const near = await bench();
  const playing = near.pull({ url, name: "playing", transport: "udp" });
  const waiting = near.pull({
    url: "rtsp://127.0.0.1:1/",
    name: "waiting",
    backoff: { ...QUICK, minMs: 60_000 },
  });
  await until("both states", () => playing.status().packets > 0 && waiting.status().state === "waiting");
  await Promise.all([playing.stop(), waiting.stop(), playing.stop()]);
  expect([playing.status().state, waiting.status().state]).toEqual(["stopped", "stopped"]);
  await until("the far end's session to end", () => far.relay.stats().readers === 0);
  await until("the stream to go", () => near.relay.stats().streams === 0);
  expect(near.relay.stats()).toMatchObject({ publishers: 0, routes: 0, sessions: 0 });
  // The path can be pulled, and published, by others again.
  const again = near.pull({ url, name: "playing" });
  await until("packets", () => again.status().packets > 0);
});

test("stopping while a server keeps us waiting does not wait", async () => {
  const camera = await FakeCamera.start({ act: () => "silence" });
  undo.push({ [Symbol.asyncDispose]: () => camera.close() });
  const near = await bench();
  const pull = near.pull({ url: camera.url(), timeoutMs: 600_000 });
  await until("the first request", () => camera.requests.length > 0);
  await pull.stop();
  await until("the connection to end", () => camera.lines[0]?.socket.readableEnded === true);
});

describe.skipIf(toolMissing("ffmpeg"))("FFmpeg at both ends", () => {
  const source = ["-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"];
  const codecs = [
    ["H.264", ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25"]],
    ["H.265", ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=25"]],
  ] as const;
  test.each(codecs)(
    "publishes %s, is pulled over TCP and UDP, reads without an error",
    async (_name, codec) => {
      const far = await bench();
      const near = await bench();
      const url = `${far.relay.url}/film`;
      const rtsp = ["-f", "rtsp", "-rtsp_transport", "tcp", url];
      undo.push(startTool("ffmpeg", ["-hide_banner", "-loglevel", "error", ...source, ...codec, ...rtsp]));
      const pulls = (["tcp", "udp"] as const).map((transport) =>
        near.pull({ url, name: transport, transport }),
      );
      await until("packets", () => pulls.every((pull) => pull.status().packets > 0));
      for (const { name } of pulls) {
        const input = [
          "-rtsp_transport",
          "tcp",
          "-i",
          `${near.relay.url}/${name}`,
          "-t",
          "2",
          "-f",
          "null",
          "-",
        ];
        const { code, err } = await run("ffmpeg", ["-hide_banner", "-loglevel", "warning", ...input]);
        expect({ code, err }).toEqual({ code: 0, err: "" });
      }
      expect(far.relay.stats().readers).toBe(2);
    },
  );

  test("pictures and sound that were pulled are those of the source, byte for byte", async () => {
    const { url } = await origin();
    const near = await bench();
    near.pull({ url, name: "tcp", transport: "tcp" });
    near.pull({ url, name: "udp", transport: "udp" });
    // Nine seconds are more than a turn of the demo: each of its 200 pictures and 375 frames of sound is there.
    const hashes = async (from: string) => {
      const input = ["-rtsp_transport", "tcp", "-i", from, "-t", "9", "-c", "copy", "-f", "framemd5", "-"];
      const { code, err, out } = await run("ffmpeg", ["-hide_banner", "-loglevel", "error", ...input]);
      expect({ code, err }).toEqual({ code: 0, err: "" });
      // Stream, times, duration and size, then the packet's hash; what follows is about side data.
      return new Set(
        out.split("\n").flatMap((line) => /^([01],)(?:[^,]*,){4}\s*([0-9a-f]{32})/.exec(line)?.[2] ?? []),
      );
    };
    const [far, tcp, udp] = await Promise.all(
      [url, `${near.relay.url}/tcp`, `${near.relay.url}/udp`].map(hashes),
    );
    expect(far?.size).toBe(200 + 375);
    expect(tcp).toEqual(far);
    expect(udp).toEqual(far);
  });
});
