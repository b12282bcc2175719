/** URLs of users, redirects, Content-Base and control attributes. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  followRedirect,
  mendBase,
  parseCameraUrl,
  resolveControl,
} from "../../../../src/layer1-app/relay/client/camera-url.ts";
import { RtspFailure } from "../../../../src/layer1-app/relay/client/failure.ts";

describe("a user's URL", () => {
  test("credentials are percent-decoded and never in requests", () => {
    const url = parseCameraUrl("rtsp://ad%40min:p%3Aa%2Fss%25@cam.local:8554/s?x=1&y=2");
    expect(url.credentials).toEqual({ user: "ad@min", password: "p:a/ss%" });
    expect(url.request).toBe("rtsp://cam.local:8554/s?x=1&y=2");
    expect([url.host, url.port]).toEqual(["cam.local", 8554]);
  });

  test("default port, no path, IPv6 with and without brackets", () => {
    expect(parseCameraUrl("rtsp://10.0.0.9").request).toBe("rtsp://10.0.0.9/");
    expect(parseCameraUrl("rtsp://10.0.0.9").port).toBe(554);
    expect(parseCameraUrl("rtsp://[fe80::1]:8554/p")).toMatchObject({ host: "fe80::1", port: 8554 });
    expect(parseCameraUrl("rtsp://fe80::1/p").request).toBe("rtsp://[fe80::1]/p");
  });

  test("nonsense is refused without showing a password", () => {
    for (const text of [
      "http://u:geheim@h/",
      "rtsp://",
      "rtspu://u:geheim@h/x",
      "u:geheim@h",
      "rtsp://h:99999/",
    ]) {
      const failure = (() => {
        try {
          parseCameraUrl(text);
        } catch (error) {
          return error as RtspFailure;
        }
        return undefined;
      })();
      expect(failure).toBeInstanceOf(RtspFailure);
      expect(failure?.message).not.toContain("geheim");
    }
  });

  test("any credentials survive encoding", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), fc.string(), (user, password) => {
        fc.pre(user.isWellFormed() && password.isWellFormed());
        const url = parseCameraUrl(`rtsp://${encodeURIComponent(user)}:${encodeURIComponent(password)}@h/p`);
        expect(url.credentials).toEqual({ user, password });
        expect(url.request).toBe("rtsp://h/p");
      }),
    );
  });
});

describe("redirects", () => {
  const from = parseCameraUrl("rtsp://u:p@a:554/x");
  test("keep the credentials, unless the new URL has its own", () => {
    expect(followRedirect(from, "rtsp://b/y")).toMatchObject({
      host: "b",
      credentials: { user: "u", password: "p" },
    });
    expect(followRedirect(from, "rtsp://v:q@b/y").credentials).toEqual({ user: "v", password: "q" });
    expect(followRedirect(from, "/other").request).toBe("rtsp://a:554/other");
  });
  test("from rtsps to rtsp, to nowhere and to HTTP are refused", () => {
    const secure = parseCameraUrl("rtsps://a/x");
    for (const [base, to] of [
      [secure, "rtsp://a/x"],
      [from, undefined],
      [from, "http://a/"],
    ] as const) {
      expect(() => followRedirect(base, to)).toThrow(RtspFailure);
    }
  });
});

describe("Content-Base as cameras write it", () => {
  const request = "rtsp://10.0.0.9:554/live";
  test.each([
    ["missing", undefined, request],
    ["as it should be", "rtsp://10.0.0.9:554/live/", "rtsp://10.0.0.9:554/live/"],
    ["the scheme twice", "rtsp://rtsp://10.0.0.9/live/", "rtsp://10.0.0.9/live/"],
    ["no scheme", "10.0.0.9:554/live/", "rtsp://10.0.0.9:554/live/"],
    ["a path alone", "/live/", "rtsp://10.0.0.9:554/live/"],
    ["IPv6 without brackets", "rtsp://fe80::5054:ff:fe12/live/", "rtsp://10.0.0.9:554/live/"],
    ["with credentials", "rtsp://u:p@10.0.0.9/live/", "rtsp://10.0.0.9/live/"],
    ["a query and a slash", "rtsp://10.0.0.9/live?c=1/", "rtsp://10.0.0.9/live?c=1/"],
    ["nonsense", "Media Presentation", request],
  ])("%s", (_what, contentBase, expected) => {
    expect(mendBase(contentBase, request)).toBe(expected);
  });
});

describe("control attributes", () => {
  const base = "rtsp://h/live/";
  test.each([
    [base, undefined, base],
    [base, "*", base],
    [base, "trackID=0", "rtsp://h/live/trackID=0"],
    ["rtsp://h/live", "trackID=0", "rtsp://h/live/trackID=0"],
    [base, "/trackID=0", "rtsp://h/live/trackID=0"],
    ["rtsp://h/", "/trackID=0", "rtsp://h/trackID=0"],
    ["rtsp://h/p?channel=1/", "trackID=0", "rtsp://h/p?channel=1/trackID=0"],
    [base, "rtsp://other:55/abs/track1", "rtsp://other:55/abs/track1"],
    [base, "rtsp://u:p@h/track1", "rtsp://h/track1"],
    [base, "rtsp://rtsp://h/track1", "rtsp://h/track1"],
    [base, "?ctype=video", "rtsp://h/live/?ctype=video"],
  ])("%s and %s", (from, control, expected) => {
    expect(resolveControl(from, control)).toBe(expected);
  });

  test("never a double slash behind the scheme, whatever the control", () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[/a-zA-Z0-9=_-]{1,20}$/), (control) => {
        const resolved = resolveControl(base, control.replace(/\/{2,}/g, "/"));
        expect(resolved.replace("rtsp://", "")).not.toContain("//");
      }),
    );
  });
});
