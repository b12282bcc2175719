/** RTSP URLs: absolute ones, and request targets in every form that clients make. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  isStreamPath,
  parseRtspUrl,
  requestTarget,
  withoutPassword,
} from "../../../../src/layer1-app/relay/protocol/rtsp-url.ts";

describe("parseRtspUrl", () => {
  it("reads user, password, host, port, path and query", () => {
    expect(parseRtspUrl("rtsp://ad%40min:p@ss:w@cam.lan:8554/a%20b/c?x=1&y")).toEqual({
      scheme: "rtsp",
      user: "ad@min",
      password: "p@ss:w",
      host: "cam.lan",
      port: 8554,
      path: "a b/c",
      query: "x=1&y",
      origin: "rtsp://cam.lan:8554",
      target: "/a%20b/c?x=1&y",
    });
  });

  it.each([
    ["rtsp://h/p", "h", 554],
    ["rtsps://h/p", "h", 322],
    ["rtsp://[fe80::1%eth0]:99/p", "fe80::1%eth0", 99],
    ["rtsp://fe80::1/p", "fe80::1", 554],
    ["rtsp://rtsp://h:1/p", "h", 1],
    ["rtsp://h", "h", 554],
    ["RTSP://h:/p", "h", 554],
  ])("%s", (url, host, port) => {
    expect(parseRtspUrl(url)).toMatchObject({ host, port });
  });

  it.each([
    "",
    "*",
    "h/p",
    "http://h/p",
    "rtsp://",
    "rtsp:///p",
    "rtsp://h:0/",
    "rtsp://h:99999/",
    "rtsp://h /p",
  ])("refuses %j", (url) => {
    expect(parseRtspUrl(url)).toBeUndefined();
  });

  it("a password is not shown", () => {
    expect(withoutPassword("rtsp://u:se@cret@h/p")).toBe("rtsp://u:***@h/p");
    expect(withoutPassword("rtsp://h/p")).toBe("rtsp://h/p");
  });
});

describe("requestTarget", () => {
  it.each([
    ["rtsp://h/p/trackID=0?x=1", "p", "x=1", 0, "rtsp://h/p?x=1"],
    ["rtsp://h/p?x=1/trackID=0", "p", "x=1", 0, "rtsp://h/p?x=1"],
    ["rtsp://h/p?x=1/", "p", "x=1", undefined, "rtsp://h/p?x=1"],
    ["rtsp://h:8554/a/b/", "a/b", "", undefined, "rtsp://h:8554/a/b"],
    ["rtsp://h/p", "p", "", undefined, "rtsp://h/p"],
    ["rtsp://h/p/trackID=3/", "p", "", 3, "rtsp://h/p"],
    ["rtsp://h/p/streamid=1", "p", "", 1, "rtsp://h/p"],
    ["rtsp://h/p.sdp/trackid=1", "p", "", 1, "rtsp://h/p.sdp"],
    ["p/trackID=1", "p", "", 1, "/p"],
    ["/p", "p", "", undefined, "/p"],
    ["rtsp://u:p@h/p", "p", "", undefined, "rtsp://h/p"],
    ["rtsp://h", "", "", undefined, "rtsp://h"],
  ])("5a.6 %s", (url, path, query, track, base) => {
    expect(requestTarget(url)).toEqual({ path, query, track, base });
  });

  it.each([
    "*",
    "http://h/p",
    "rtsp://h/a/../b",
    "rtsp://h/a//b",
    "rtsp://h/a%0ab",
    `rtsp://h/${"a".repeat(256)}`,
  ])("refuses %j", (url) => {
    expect(requestTarget(url)).toBeUndefined();
  });
});

describe("properties", () => {
  it("any text: a target whose path a stream may have, or undefined", () => {
    const urlish = fc.stringMatching(/^rtsp:\/\/[a-z.:@[\]0-9]{0,20}[/?a-zA-Z=0-9%. ]{0,60}$/);
    fc.assert(
      fc.property(fc.oneof(fc.string(), urlish), (url) => {
        const target = requestTarget(url);
        if (target !== undefined) expect(isStreamPath(target.path)).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  it("both ways of putting the track beside a query give the same target", () => {
    const path = fc.stringMatching(/^[a-z0-9_-]{1,10}(\/[a-z0-9_-]{1,10}){0,3}$/);
    fc.assert(
      fc.property(path, fc.stringMatching(/^[a-z]{1,5}=[a-z0-9]{1,5}$/), fc.nat(15), (p, query, track) => {
        const first = requestTarget(`rtsp://h/${p}/trackID=${track}?${query}`);
        expect(first).toEqual(requestTarget(`rtsp://h/${p}?${query}/trackID=${track}`));
        expect(first?.track).toBe(track);
      }),
    );
  });
});
