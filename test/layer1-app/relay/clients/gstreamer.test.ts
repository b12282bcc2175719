/** GStreamer reads over UDP and TCP what FFmpeg publishes, and publishes itself; pictures equal the source's. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { have, makeClip, packetsOf, picturesOf, Stage } from "./support.ts";

const all =
  have("ffmpeg", "-version") &&
  ["rtspsrc", "rtph264depay", "h264parse", "h265parse"].every((element) => have("gst-inspect-1.0", element));

describe.skipIf(!all)("GStreamer", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start();
  });
  afterAll(async () => {
    await stage?.close();
  });

  it.each(["h264", "h265"] as const)("rtspsrc: %s over UDP and TCP, picture for picture", async (codec) => {
    const file = await makeClip(stage, codec, codec === "h264");
    const published = await stage.publish(codec, file, codec === "h264" ? "tcp" : "udp");
    const outputs = await Promise.all(
      ["tcp", "udp"].map(async (transport) => {
        const output = join(stage.folder, `${transport}.${codec}`);
        const { code, out, err } = await stage.run(
          "gst-launch-1.0",
          ...["-q", "rtspsrc", `location=${stage.url(codec)}`, `protocols=${transport}`, "name=s"],
          ...["s.", "!", "application/x-rtp,media=video", "!", `rtp${codec}depay`, "!", `${codec}parse`, "!"],
          ...[
            `video/x-${codec},stream-format=byte-stream,alignment=au`,
            "!",
            "filesink",
            `location=${output}`,
          ],
        ).finished;
        expect({ code, out, err }).toEqual({ code: 0, out: "", err: "" });
        return output;
      }),
    );
    expect(await published.finished).toMatchObject({ code: 0, err: "" });
    const expected = await picturesOf(stage, file);
    expect(expected).toHaveLength(125);
    for (const output of outputs) expect(await picturesOf(stage, output)).toEqual(expected);
  });

  const sink = have("gst-inspect-1.0", "rtspclientsink") && have("gst-inspect-1.0", "x264enc");
  it.skipIf(!sink).each(["tcp", "udp"])("5a.24 rtspclientsink publishes over %s", async (transport) => {
    const path = `sink-${transport}`;
    const publishing = stage.run(
      "gst-launch-1.0",
      ...["-q", "rtspclientsink", "name=k", `location=${stage.url(path)}`, `protocols=${transport}`],
      ...[
        "videotestsrc",
        "is-live=true",
        "num-buffers=75",
        "!",
        "video/x-raw,width=320,height=180,framerate=25/1",
      ],
      ...[
        "!",
        "x264enc",
        "tune=zerolatency",
        "key-int-max=300",
        "option-string=scenecut=0",
        "!",
        "h264parse",
        "!",
        "k.",
      ],
    );
    await stage.until("publisher-joined", path);
    const { code, out } = await stage.ffmpeg(
      ...["-rtsp_transport", "tcp", "-i", stage.url(path), "-c", "copy", "-f", "framemd5", "-"],
    );
    // The sink asks its encoder for a key frame as it starts: the first two pictures are ones, and a reader that
    // comes after the second starts there.
    expect(code).toBe(0);
    expect([74, 75]).toContain(packetsOf(out).length);
    // How it takes its leave (PAUSE and TEARDOWN, or just its end) is a race inside the sink.
    await publishing.finished;
  });
});
