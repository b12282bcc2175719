/**
 * RTSP URLs as clients really write them: the stream's path, its query, and the track at the end in each of the
 * forms that clients make out of a Content-Base and a relative control attribute.
 *
 * Layer 1, relay/protocol: pure. The path it gives is decoded, without slashes at its ends.
 */

/** Longest URL that is looked at, characters. */
const URL_MAX = 2048;
/** Longest path of a stream, characters. */
export const PATH_MAX = 255;

/** The parts of an absolute URL. */
export interface RtspUrl {
  readonly scheme: "rtsp" | "rtsps" | "rtspu";
  readonly user: string | undefined;
  readonly password: string | undefined;
  /** Without brackets. */
  readonly host: string;
  readonly port: number;
  /** Decoded, without leading or trailing slashes. */
  readonly path: string;
  /** Without "?". */
  readonly query: string;
  /** Scheme, host and port as written, without user and password: the start of Content-Base. */
  readonly origin: string;
  /** Path and query as written, with the leading slash. */
  readonly target: string;
}

/** Parses an absolute URL; undefined when it is none. Twice-written schemes (`rtsp://rtsp://h/p`) are mended. */
export function parseRtspUrl(text: string): RtspUrl | undefined {
  if (text.length > URL_MAX) return undefined;
  const match = /^(rtspu?|rtsps):\/\/(?:rtsps?:\/\/)?([^/?#\s]*)([/?][^#\s]*)?(?:#\S*)?$/i.exec(text);
  if (match === null) return undefined;
  const scheme = (match[1] ?? "").toLowerCase() as RtspUrl["scheme"];
  const authority = match[2] ?? "";
  const at = authority.lastIndexOf("@"); // A password may hold "@": the last one counts.
  const credentials = at < 0 ? undefined : authority.slice(0, at);
  const hostPort = authority.slice(at + 1);
  const host = parseHost(hostPort);
  if (host === undefined) return undefined;
  const target = match[3] ?? "/";
  const { path, query } = splitTarget(target);
  const colon = credentials?.indexOf(":") ?? -1;
  return {
    scheme,
    user:
      credentials === undefined ? undefined : decode(colon < 0 ? credentials : credentials.slice(0, colon)),
    password: credentials === undefined || colon < 0 ? undefined : decode(credentials.slice(colon + 1)),
    host: host.name,
    port: host.port ?? (scheme === "rtsps" ? 322 : 554),
    path,
    query,
    origin: `${match[1] ?? ""}://${hostPort}`,
    target,
  };
}

function parseHost(text: string): { name: string; port: number | undefined } | undefined {
  const bracketed = /^\[([0-9a-f:.]+(?:%[\w.-]+)?)\](?::(\d{1,5}))?$/i.exec(text);
  const plain = bracketed ?? /^([^:[\]]+)(?::(\d{0,5}))?$/.exec(text);
  // An IPv6 address without brackets has no place for a port; some cameras write it so.
  const bare = plain ?? /^([0-9a-f]*:[0-9a-f:.]+)$/i.exec(text);
  if (bare === null) return undefined;
  const port = bare[2] === undefined || bare[2] === "" ? undefined : Number(bare[2]);
  if (port !== undefined && (port === 0 || port > 65_535)) return undefined;
  return { name: bare[1] ?? "", port };
}

function splitTarget(target: string): { path: string; query: string } {
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  return { path: trimSlashes(decode(path)), query: mark < 0 ? "" : target.slice(mark + 1) };
}

function trimSlashes(text: string): string {
  return text.replace(/^\/+|\/+$/g, "");
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // Not percent-encoded UTF-8: taken as written.
  }
}

/** What a request's URL asks for. */
export interface RequestTarget {
  /** The stream's path, decoded, no slashes at its ends, without a trailing ".sdp". */
  readonly path: string;
  readonly query: string;
  /** The number in `trackID=N` (also `streamid=N`), if there. */
  readonly track: number | undefined;
  /** The URL without its track, as written and without a slash at its end: what RTP-Info and Content-Base build on. */
  readonly base: string;
}

const TRACK = /\/?(?:trackid|streamid)=(\d{1,4})\/?$/i;

/**
 * Reads the URL of a request: absolute or relative, with the track before the query (`p/trackID=0?x=1`, GStreamer),
 * behind it (`p?x=1/trackID=0`, FFmpeg), or missing. Undefined for "*", nonsense, or a path that no stream may have.
 */
export function requestTarget(url: string): RequestTarget | undefined {
  if (url === "*" || url.length > URL_MAX) return undefined;
  const absolute = parseRtspUrl(url);
  if (absolute === undefined && /^[a-z][a-z0-9+.-]*:\/\//i.test(url)) return undefined;
  const origin = absolute?.origin ?? "";
  const target = absolute?.target ?? (url.startsWith("/") ? url : `/${url}`);
  const mark = target.indexOf("?");
  let before = mark < 0 ? target : target.slice(0, mark);
  let query = mark < 0 ? "" : target.slice(mark + 1);
  let track: number | undefined;
  const inQuery = TRACK.exec(query);
  if (inQuery !== null) {
    track = Number(inQuery[1]);
    query = query.slice(0, inQuery.index);
  }
  const inPath = TRACK.exec(before);
  if (inPath !== null) {
    track ??= Number(inPath[1]);
    before = before.slice(0, inPath.index);
  }
  query = query.replace(/\/+$/, "");
  const path = trimSlashes(decode(before)).replace(/\.sdp$/i, "");
  if (!isStreamPath(path)) return undefined;
  const base = `${origin}${before.replace(/\/+$/, "")}${mark < 0 ? "" : `?${query}`}`;
  return { path, query, track, base };
}

/** May a stream have this path? Printable, no empty or dot segments, at most `PATH_MAX` characters. "" is allowed. */
export function isStreamPath(path: string): boolean {
  if (path.length > PATH_MAX) return false;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused.
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(path)) return false;
  return (
    path === "" || path.split("/").every((segment) => segment !== "" && segment !== "." && segment !== "..")
  );
}

/** A URL that may be shown in a log: its password is gone. */
export function withoutPassword(url: string): string {
  return url.replace(/^([a-z]+:\/\/)([^/?#]*)@/i, (_, scheme: string, credentials: string) => {
    const colon = credentials.indexOf(":");
    return `${scheme}${colon < 0 ? credentials : `${credentials.slice(0, colon)}:***`}@`;
  });
}
