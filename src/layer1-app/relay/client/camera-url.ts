/**
 * The URLs of a session with a camera: what to connect to, what to ask for, and how a relative `a=control`
 * becomes the URL of SETUP, whatever the camera wrote into Content-Base.
 *
 * Layer 1, relay/client: pure.
 */

import { parseRtspUrl } from "../protocol/rtsp-url.ts";
import type { Credentials } from "./auth.ts";
import { RtspFailure } from "./failure.ts";

/** A URL taken apart for a client. */
export interface CameraUrl {
  readonly host: string;
  readonly port: number;
  readonly scheme: "rtsp" | "rtsps";
  /** As it goes into requests: no user, no password, no fragment. */
  readonly request: string;
  readonly credentials: Credentials | undefined;
}

/**
 * Takes a user's or a redirect's URL apart. User name and password are percent-decoded.
 * @throws RtspFailure "unsupported", naming what is wrong and never the password.
 */
export function parseCameraUrl(text: string): CameraUrl {
  const url = parseRtspUrl(text.trim());
  if (url === undefined) {
    throw new RtspFailure(
      "unsupported",
      "this is no RTSP URL; one looks like rtsp://user:password@host:554/path",
    );
  }
  if (url.scheme === "rtspu") {
    throw new RtspFailure("unsupported", "rtspu:// (requests over UDP) is not supported; use rtsp://");
  }
  return {
    host: url.host,
    port: url.port,
    scheme: url.scheme,
    request: `${bracketBare(url.origin, url.host)}${url.target}`,
    credentials: url.user === undefined ? undefined : { user: url.user, password: url.password ?? "" },
  };
}

/** An IPv6 address without brackets gets them. */
function bracketBare(origin: string, host: string): string {
  if (!host.includes(":") || origin.includes("[")) return origin;
  return `${origin.slice(0, origin.indexOf("://"))}://[${host}]`;
}

/**
 * Where a redirect leads: absolute or relative to `from`, with `from`'s credentials unless it has its own.
 * @throws RtspFailure "redirect" when it leads from rtsps:// to rtsp:// or nowhere.
 */
export function followRedirect(from: CameraUrl, location: string | undefined): CameraUrl {
  if (location === undefined || location.trim() === "") {
    throw new RtspFailure("redirect", "the server redirects without saying where to");
  }
  const text = location.trim();
  let to: CameraUrl;
  try {
    to = parseCameraUrl(text.startsWith("/") ? `${originOf(from.request)}${text}` : text);
  } catch {
    throw new RtspFailure("redirect", "the server redirects to something that is no RTSP URL");
  }
  if (from.scheme === "rtsps" && to.scheme === "rtsp") {
    throw new RtspFailure(
      "redirect",
      "the server redirects from rtsps:// to rtsp://, which would lose encryption",
    );
  }
  return to.credentials === undefined ? { ...to, credentials: from.credentials } : to;
}

/** "rtsp://host:port" of a URL that `parseCameraUrl` made. */
function originOf(request: string): string {
  return /^[a-z]+:\/\/[^/?]*/i.exec(request)?.[0] ?? request;
}

/**
 * The URL that relative controls are resolved against: Content-Base, or Content-Location, or the request's
 * URL. Cameras write the scheme twice, leave it out, or forget an IPv6 address's brackets; what cannot be
 * mended falls back to the request's URL.
 */
export function mendBase(contentBase: string | undefined, request: string): string {
  const text = (contentBase ?? "").trim().replace(/^["<]|[">]$/g, "");
  if (text === "") return request;
  if (text.startsWith("/")) return `${originOf(request)}${text}`;
  const withScheme = /^[a-z]+:\/\//i.test(text) ? text : `rtsp://${text}`;
  if (withScheme !== text && !/^(\[[0-9a-f:.]+\]|[\w-]+\.[\w.-]+|localhost)(:\d+)?([/?]|$)/i.test(text))
    return request;
  const url = parseRtspUrl(withScheme);
  if (url === undefined) return request;
  // Without brackets an IPv6 address and its port cannot be told apart: whom we reached is known, though.
  const bare = url.host.includes(":") && !url.origin.includes("[");
  return `${bare ? originOf(request) : url.origin}${url.target}`;
}

/**
 * The URL of a control attribute. Like what most clients do and cameras expect, a relative one is put at the
 * end of the base, behind its query too, with exactly one slash between.
 */
export function resolveControl(base: string, control: string | undefined): string {
  const text = (control ?? "").trim();
  if (text === "" || text === "*") return base;
  if (/^rtsps?:\/\//i.test(text)) {
    const url = parseRtspUrl(text);
    return url === undefined ? base : `${url.origin}${url.target}`;
  }
  if (text.startsWith("?")) return `${base}${text}`;
  return `${base.replace(/\/+$/, "")}/${text.replace(/^\/+/, "")}`;
}
