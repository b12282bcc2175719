/** The demo through the relay's front door, judged by players that are not ours. */

import { afterEach, describe, expect, test } from "vitest";
import { startDemo } from "../../../src/layer1-app/relay/demo.ts";
import type { RelayOptions } from "../../../src/layer1-app/relay/types.ts";
import { until } from "./client/fake-camera.ts";
import { openBench, openReader } from "./client/pull-harness.ts";
import { run, toolMissing } from "./client/tools.ts";

const undo: AsyncDisposable[] = [];

afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one[Symbol.asyncDispose]();
});

async function demoOn(options: RelayOptions = {}) {
  const bench = await openBench(options);
  undo.push(bench);
  const demo = await startDemo(bench.apo, { url: `${bench.relay.url}/demo` });
  undo.push(demo);
  return { bench, demo, url: `${bench.relay.url}/demo` };
}

test("plays as soon as startDemo resolves", async () => {
  const { bench, url } = await demoOn();
  const reader = await openReader(bench.apo, url);
  await until("both tracks", () => reader.packets.every((count) => count > 20));
  expect(bench.relay.stats().counters["interleaved.short"]).toBe(0);
});

test("the relay restarts: the demo is there again, on its own", async () => {
  const first = await openBench();
  const runtime = await openBench();
  undo.push(runtime);
  const { port } = first.relay;
  const log: string[] = [];
  const demo = await startDemo(runtime.apo, {
    url: `rtsp://127.0.0.1:${port}/demo`,
    log: (entry) => void log.push(entry.text),
  });
  undo.push(demo);
  await first[Symbol.asyncDispose]();
  const second = await openBench({ port });
  undo.push(second);
  await until("the demo", () => second.relay.stats().publishers === 1);
  await until("its second session", () => demo.sessions === 2);
  expect(log.join("\n")).toMatch(/demo to rtsp:\/\/127\.0\.0\.1:\d+\/demo: .*; trying again in/);
});

test("stopping ends the stream at once, twice is as good", async () => {
  const { bench, demo } = await demoOn();
  await Promise.all([demo.stop(), demo.stop()]);
  await until("no stream", () => bench.relay.stats().streams === 0);
});

test("nobody serves: it waits, and stops when told", async () => {
  const bench = await openBench();
  undo.push(bench);
  const demo = await startDemo(bench.apo, { url: "rtsp://127.0.0.1:1/demo" });
  expect(demo.sessions).toBe(0);
  await demo.stop();
});

describe.skipIf(toolMissing("ffmpeg"))("FFmpeg", () => {
  test.each(["tcp", "udp"])(
    "decodes pictures and sound over %s across the loop without a word",
    async (transport) => {
      const { url } = await demoOn();
      const input = ["-rtsp_transport", transport, "-i", url, "-t", "11"];
      const decode = ["-xerror", "-err_detect", "explode", "-f", "framemd5", "-"];
      const { code, err, out } = await run("ffmpeg", [
        "-hide_banner",
        "-loglevel",
        "warning",
        ...input,
        ...decode,
      ]);
      expect({ code, err }).toEqual({ code: 0, err: "" });
      const frames = out.split("\n").filter((line) => /^\d,/.test(line));
      expect(frames.filter((line) => line.startsWith("0,")).length).toBeGreaterThan(270);
      expect(frames.filter((line) => line.startsWith("1,")).length).toBeGreaterThan(500);
    },
  );

  test("takes the demo as a server too (-rtsp_flags listen)", async () => {
    const bench = await openBench();
    undo.push(bench);
    // A port that was free a moment ago: FFmpeg cannot be asked for one.
    const other = await openBench();
    const { port } = other.relay;
    await other[Symbol.asyncDispose]();
    const url = `rtsp://127.0.0.1:${port}/film`;
    const args = ["-rtsp_flags", "listen", "-i", url, "-t", "3", "-f", "null", "-"];
    const listening = run("ffmpeg", ["-hide_banner", "-loglevel", "error", ...args]);
    undo.push(await startDemo(bench.apo, { url }));
    expect(await listening).toMatchObject({ code: 0, err: "" });
  });
});

describe.skipIf(toolMissing("gst-launch-1.0"))("GStreamer", () => {
  test.each(["tcp", "udp"])("rtspsrc decodes it over %s", async (protocol) => {
    const { url } = await demoOn();
    const source = `rtspsrc location=${url} protocols=${protocol} latency=50`;
    const pipeline = `${source} ! rtph264depay ! h264parse ! avdec_h264`;
    const args = ["-q", ...pipeline.split(" "), "!", "identity", "eos-after=100", "!", "fakesink"];
    const { code, err } = await run("gst-launch-1.0", args);
    expect({ code, err }).toEqual({ code: 0, err: "" });
  });
});
