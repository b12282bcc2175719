/**
 * FFmpeg publishes and reads over UDP and TCP: every packet that readers get is one of the source's, none missing.
 *
 * The source's packets are those that FFmpeg gets from FFmpeg without a relay between, since RTP depacketising
 * writes start codes in its own way.
 */

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { have, makeClip, packetsOf, Stage } from "./support.ts";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** What FFmpeg gets when it listens for FFmpeg itself. */
async function withoutRelay(stage: Stage, file: string): Promise<string[]> {
  const url = `rtsp://127.0.0.1:${await freePort()}/direct`;
  const md5 = join(stage.folder, "direct.md5");
  const listener = stage.ffmpeg("-rtsp_flags", "listen", "-i", url, "-c", "copy", "-f", "framemd5", md5);
  // FFmpeg does not say when it listens: a publisher that comes too early is refused, and tries again.
  for (;;) {
    const { code, err } = await stage.ffmpeg(
      ...["-re", "-i", file, "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", url],
    );
    if (code === 0) break;
    if (!err.includes("Connection refused")) throw new Error(err);
  }
  await listener;
  return packetsOf(readFileSync(md5, "utf8"));
}

describe.skipIf(!have("ffmpeg", "-version"))("FFmpeg", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start();
  });
  afterAll(async () => {
    await stage?.close();
  });

  it.each(["h264", "h265"] as const)(
    "%s: published and read over UDP and TCP, packet for packet",
    async (codec) => {
      const audio = codec === "h264";
      const file = await makeClip(stage, codec, audio);
      const source = withoutRelay(stage, file);
      const results = await Promise.all(
        (["tcp", "udp"] as const).map(async (transport) => {
          const path = `${codec}/${transport}`;
          const published = await stage.publish(path, file, transport);
          const reads = await Promise.all([stage.read(path, "tcp"), stage.read(path, "udp")]);
          expect(await published.finished).toMatchObject({ code: 0, err: "" });
          return reads;
        }),
      );
      const expected = await source;
      expect(expected.filter((packet) => packet.startsWith("0"))).toHaveLength(125);
      if (audio) expect(expected.filter((packet) => packet.startsWith("1")).length).toBeGreaterThan(200);
      for (const reads of results) for (const packets of reads) expect(packets).toEqual(expected);
    },
  );

  it("any codec passes: VP8 with Opus, MJPEG, MPEG-TS", async () => {
    const noise = ["-f", "lavfi", "-i", "testsrc2=size=320x176:rate=25"];
    const sine = ["-f", "lavfi", "-i", "sine=sample_rate=48000"];
    const kinds: [path: string, input: string[], format: string[]][] = [
      [
        "vp8",
        [...noise, ...sine, "-c:v", "libvpx", "-deadline", "realtime", "-g", "25", "-c:a", "libopus"],
        [],
      ],
      ["mjpeg", [...noise, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-huffman", "default"], []],
      ["ts", [...noise, "-c:v", "mpeg2video", "-g", "10"], ["-f", "rtsp", "-rtsp_flags", "rtcp_to_source"]],
    ];
    await Promise.all(
      kinds.map(async ([path, input]) => {
        const url = stage.url(path);
        const publishing = stage.ffmpeg(
          "-re",
          ...input,
          "-t",
          "4",
          "-f",
          "rtsp",
          "-rtsp_transport",
          "tcp",
          url,
        );
        await stage.until("publisher-joined", path);
        const packets = await stage.read(path, "tcp");
        expect(packets.filter((packet) => packet.startsWith("0")).length).toBeGreaterThan(50);
        expect(await publishing).toMatchObject({ code: 0 });
      }),
    );
  });

  it("readers that come one after the other leave nothing behind", async () => {
    const file = await makeClip(stage, "h264", false);
    const looping = stage.run(
      "ffmpeg",
      ...["-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", file, "-c", "copy"],
      ...["-f", "rtsp", "-rtsp_transport", "tcp", stage.url("loop")],
    );
    await stage.until("publisher-joined", "loop");
    for (let i = 0; i < 8; i++) {
      const transport = i % 2 === 0 ? "tcp" : "udp";
      const { code, out } = await stage.ffmpeg(
        ...["-rtsp_transport", transport, "-i", stage.url("loop"), "-frames:v", "5", "-c", "copy"],
        ...["-f", "framemd5", "-"],
      );
      expect([code, packetsOf(out).length]).toEqual([0, 5]);
    }
    looping.child.kill("SIGTERM");
    await stage.until("publisher-left", "loop");
    await stage.until("reader-left", "loop", 8);
    await expect
      .poll(() => stage.relay.stats())
      .toMatchObject({
        connections: 0,
        sessions: 0,
        publishers: 0,
        readers: 0,
        streams: 0,
        routes: 0,
      });
  });
});
