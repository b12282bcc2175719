/** Session descriptions: what is read, what is refused and why, and what readers get. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  buildReaderSdp,
  parseSdp,
  SdpError,
  sameMedia,
} from "../../../../src/layer1-app/relay/protocol/sdp.ts";

const camera = [
  "v=0",
  "o=- 1 1 IN IP4 10.0.0.9",
  "s=Camera",
  "c=IN IP4 10.0.0.9",
  "t=0 0",
  "a=control:*",
  "a=range:npt=0-",
  "m=video 5000 RTP/AVP 96",
  "c=IN IP4 10.0.0.9",
  "b=AS:4000",
  "a=rtpmap:96 H264/90000",
  "a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0IAH6tAUB7Q,aM48gA==; profile-level-id=42001F",
  "a=framerate:25",
  "a=control:rtsp://10.0.0.9/stream/track1",
  "a=recvonly",
  "m=audio 0 RTP/AVP 8",
  "a=control:trackID=2",
].join("\r\n");

const problem = (text: string): string => {
  try {
    parseSdp(text);
  } catch (error) {
    if (error instanceof SdpError) return error.message;
    throw error;
  }
  return "taken";
};

describe("parseSdp", () => {
  it("reads media, their first format and 5a.24 their absolute control", () => {
    const sdp = parseSdp(camera);
    expect(sdp.media).toHaveLength(2);
    expect(sdp.media[0]).toMatchObject({
      type: "video",
      protocol: "RTP/AVP",
      formats: [96],
      encoding: "H264",
      clockRate: 90_000,
      control: "rtsp://10.0.0.9/stream/track1",
      direction: "recvonly",
    });
    expect(sdp.media[0]?.fmtp).toMatch(/^packetization-mode=1/);
    expect(sdp.media[1]).toMatchObject({ encoding: "PCMA", clockRate: 8000, control: "trackID=2" });
    expect(sdp).toMatchObject({ name: "Camera", control: "*", range: "npt=0-" });
  });

  it("takes what is wrong without harm: t= of nonsense, several s=, bare line feeds, a NUL at the end", () => {
    const sdp = parseSdp("v=0\ns=a\ns=b\nt=now\nc=nonsense\nm=whatever 0 RTP/AVP 98\na=rtpmap:98 X/0\n\0");
    expect(sdp.media[0]).toMatchObject({ type: "whatever", encoding: "", clockRate: 90_000 });
  });

  it.each([
    ["", "SDP is empty"],
    ["v=0\r\ns=-\r\n", "SDP has no m= line: there is nothing to play"],
    ["v=0\r\nhello\r\n", "SDP line 2 is not of the form x=value"],
    ["v=0\r\nm=video x RTP/AVP 96", "SDP line 2: m= has no port number"],
    ["v=0\r\nm=video 0", "SDP line 2: m= has no protocol"],
    ["v=0\r\nm=video 0 RTP/AVP", "SDP line 2: m= has no RTP payload type (0 to 127)"],
    ["v=0\r\nm=video 0 RTP/AVP 200", "SDP line 2: m= has no RTP payload type (0 to 127)"],
    [`v=0\r\n${"m=audio 0 RTP/AVP 0\r\n".repeat(17)}`, "SDP has more than 16 m= lines"],
  ])("refuses %j", (text, message) => {
    expect(problem(text)).toBe(message);
  });
});

describe("buildReaderSdp", () => {
  it("5a.6 relative controls, and the media's own lines untouched", () => {
    expect(buildReaderSdp(parseSdp(camera), { address: "192.0.2.1", id: 5 })).toBe(
      [
        "v=0",
        "o=- 5 1 IN IP4 192.0.2.1",
        "s=Camera",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        "m=video 0 RTP/AVP 96",
        "b=AS:4000",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0IAH6tAUB7Q,aM48gA==; profile-level-id=42001F",
        "a=framerate:25",
        "a=control:trackID=0",
        "m=audio 0 RTP/AVP 8",
        "a=control:trackID=1",
        "",
      ].join("\r\n"),
    );
  });

  it("5a.20 keeps the fmtp with SPS and PPS", () => {
    const sdp = buildReaderSdp(parseSdp(camera), { address: "::1", id: 1 });
    expect(sdp).toContain("sprop-parameter-sets=Z0IAH6tAUB7Q,aM48gA==");
    expect(sdp).toContain("c=IN IP6 ::");
  });
});

describe("sameMedia", () => {
  it("compares what a decoder was set up with", () => {
    const other = camera.replace("s=Camera", "s=Other").replace("10.0.0.9", "10.0.0.8");
    expect(sameMedia(parseSdp(camera), parseSdp(other))).toBe(true);
    expect(sameMedia(parseSdp(camera), parseSdp(camera.replace("Z0IAH6", "Z0IAH7")))).toBe(false);
    expect(sameMedia(parseSdp(camera), parseSdp(camera.replace(/m=audio[\s\S]*$/, "")))).toBe(false);
  });
});

describe("properties", () => {
  const line = fc.oneof(
    fc.string({ maxLength: 60 }),
    fc.stringMatching(/^[a-z]=[ -~]{0,60}$/),
    fc.stringMatching(/^m=(video|audio) \d{1,6} RTP\/AVP( \d{1,3}){0,4}$/),
    fc.stringMatching(/^a=(rtpmap|fmtp|control):\d{0,4}[ -~]{0,40}$/),
  );

  it("any text: read, or refused as an SdpError; what readers get reads back with the same media", () => {
    fc.assert(
      fc.property(fc.array(line, { maxLength: 40 }), (lines) => {
        const text = lines.join("\r\n");
        if (problem(text) !== "taken") return;
        const sdp = parseSdp(text);
        const again = parseSdp(buildReaderSdp(sdp, { address: "127.0.0.1", id: 1 }));
        expect(sameMedia(sdp, again)).toBe(true);
        expect(again.media.map((media) => media.control)).toEqual(sdp.media.map((_, i) => `trackID=${i}`));
      }),
      { numRuns: 1000 },
    );
  });
});
