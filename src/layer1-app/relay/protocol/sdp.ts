/**
 * Session descriptions (RFC 8866, as RTSP uses them): reading a publisher's or a camera's, writing the readers'.
 *
 * Layer 1, relay/protocol: pure. Media attributes are carried over as they are, since any codec passes; only what
 * belongs to one hop (addresses, ports, control, direction) is written anew. It is lenient where cameras are
 * wrong without harm (`t=`, several `s=`, odd `c=`), and exact about what the relay needs: the `m=` lines.
 */

/** Most media that a description may have. */
export const MEDIA_MAX = 16;

/** One medium of a description. */
export interface SdpMedia {
  /** "video", "audio", "application" ... */
  readonly type: string;
  readonly port: number;
  /** "RTP/AVP", "RTP/SAVP", "RTP/AVPF" ... upper case. */
  readonly protocol: string;
  /** Payload types, the first being the one that is meant. */
  readonly formats: readonly number[];
  /** Of the first format: "H264", "MPEG4-GENERIC" ... upper case; "" if nobody says. */
  readonly encoding: string;
  /** RTP clock of the first format, Hz. */
  readonly clockRate: number;
  /** Parameters of the first format's `a=fmtp`, "" if none. */
  readonly fmtp: string;
  /** `a=control` as written, undefined if none. */
  readonly control: string | undefined;
  /** "sendonly", "recvonly" ... if the medium says so (a back channel does). */
  readonly direction: string | undefined;
  /** Every line of the medium after `m=`, as written. */
  readonly lines: readonly string[];
}

export interface Sdp {
  /** `s=`, "" if none. */
  readonly name: string;
  /** The session's `a=control`. */
  readonly control: string | undefined;
  /** `a=range`, such as "npt=0-30.5". */
  readonly range: string | undefined;
  /** Session-level lines, as written. */
  readonly lines: readonly string[];
  readonly media: readonly SdpMedia[];
}

/** What is wrong with a description, and in which line. */
export class SdpError extends Error {
  override readonly name = "SdpError";
}

/** RFC 3551's static payload types that are still met. */
const staticTypes: Readonly<Record<number, readonly [encoding: string, clockRate: number]>> = {
  0: ["PCMU", 8000],
  3: ["GSM", 8000],
  4: ["G723", 8000],
  5: ["DVI4", 8000],
  6: ["DVI4", 16_000],
  7: ["LPC", 8000],
  8: ["PCMA", 8000],
  9: ["G722", 8000],
  10: ["L16", 44_100],
  11: ["L16", 44_100],
  12: ["QCELP", 8000],
  13: ["CN", 8000],
  14: ["MPA", 90_000],
  15: ["G728", 8000],
  16: ["DVI4", 11_025],
  17: ["DVI4", 22_050],
  18: ["G729", 8000],
  25: ["CELB", 90_000],
  26: ["JPEG", 90_000],
  28: ["NV", 90_000],
  31: ["H261", 90_000],
  32: ["MPV", 90_000],
  33: ["MP2T", 90_000],
  34: ["H263", 90_000],
};

/**
 * Reads a description.
 * @throws SdpError that names the line and what is wrong with it.
 */
export function parseSdp(text: string): Sdp {
  const session: string[] = [];
  const media: { head: string; number: number; lines: string[] }[] = [];
  let number = 0;
  for (const raw of text.split("\n")) {
    number++;
    const line = raw.replace(/[\r\0]+$/, "").trimStart();
    if (line === "") continue;
    if (!/^[a-zA-Z]=/.test(line)) throw new SdpError(`SDP line ${number} is not of the form x=value`);
    if (line.startsWith("m=")) {
      if (media.length >= MEDIA_MAX) throw new SdpError(`SDP has more than ${MEDIA_MAX} m= lines`);
      media.push({ head: line, number, lines: [] });
    } else (media.at(-1)?.lines ?? session).push(line);
  }
  if (session.length === 0 && media.length === 0) throw new SdpError("SDP is empty");
  if (media.length === 0) throw new SdpError("SDP has no m= line: there is nothing to play");
  return {
    name: session.find((line) => line.startsWith("s="))?.slice(2) ?? "",
    control: attribute(session, "control"),
    range: attribute(session, "range"),
    lines: session,
    media: media.map((entry) => parseMedia(entry.head, entry.number, entry.lines)),
  };
}

function parseMedia(head: string, number: number, lines: readonly string[]): SdpMedia {
  const [type = "", port = "", protocol = "", ...rest] = head.slice(2).trim().split(/\s+/);
  if (!/^\d{1,5}(\/\d{1,3})?$/.test(port)) {
    throw new SdpError(`SDP line ${number}: m= has no port number`);
  }
  if (!/^[\w/.-]+$/.test(protocol)) throw new SdpError(`SDP line ${number}: m= has no protocol`);
  const formats = rest.filter((format) => /^\d{1,3}$/.test(format)).map(Number);
  if (formats.length === 0 || formats.some((format) => format > 127)) {
    throw new SdpError(`SDP line ${number}: m= has no RTP payload type (0 to 127)`);
  }
  const format = formats[0] ?? 0;
  const map = rtpmap(lines, format);
  const known = staticTypes[format];
  return {
    type: type.toLowerCase(),
    port: Number.parseInt(port, 10),
    protocol: protocol.toUpperCase(),
    formats,
    encoding: map?.encoding ?? known?.[0] ?? "",
    clockRate: map?.clockRate ?? known?.[1] ?? (type.toLowerCase() === "audio" ? 8000 : 90_000),
    fmtp: attributeOf(lines, "fmtp", format) ?? "",
    control: attribute(lines, "control"),
    direction: lines
      .map((line) => /^a=(sendonly|recvonly|sendrecv|inactive)\s*$/.exec(line)?.[1])
      .find(Boolean),
    lines,
  };
}

function rtpmap(
  lines: readonly string[],
  format: number,
): { encoding: string; clockRate: number } | undefined {
  const value = attributeOf(lines, "rtpmap", format);
  const match = value === undefined ? null : /^([\w.+-]+)\s*\/\s*(\d{1,9})/.exec(value);
  if (match === null || Number(match[2]) === 0) return undefined;
  return { encoding: (match[1] ?? "").toUpperCase(), clockRate: Number(match[2]) };
}

function attribute(lines: readonly string[], name: string): string | undefined {
  const start = `a=${name}:`;
  return lines
    .find((line) => line.startsWith(start))
    ?.slice(start.length)
    .trim();
}

/** The value of `a=name:format ...`. */
function attributeOf(lines: readonly string[], name: string, format: number): string | undefined {
  for (const line of lines) {
    const match = /^a=(\w+):\s*(\d{1,3})\s+(.*)$/.exec(line);
    if (match !== null && match[1] === name && Number(match[2]) === format) return (match[3] ?? "").trim();
  }
  return undefined;
}

/** Attributes that belong to the publisher's hop and not to the readers'. */
const hopAttributes = [
  ...["control", "range", "rtcp", "rtcp-mux", "rtcp-mux-only", "rtcp-rsize", "source-filter", "candidate"],
  ...["crypto", "key-mgmt", "ice-\\S+", "fingerprint", "setup", "tool", "type", "charset"],
  ...["sendonly", "recvonly", "sendrecv", "inactive"],
];
const hopLine = new RegExp(`^(?:c=|b=|i=|k=|a=(?:${hopAttributes.join("|")})\\b)`);
/** Of those, what a reader may use all the same. */
const keptMediaLine = /^[bi]=/;

/**
 * The description for readers: the publisher's media with their attributes untouched, `a=control:trackID=N` for
 * the Nth, relative to Content-Base. `address` is only for `o=`; `id` must be the same for the same description.
 */
export function buildReaderSdp(sdp: Sdp, options: { address: string; id: number }): string {
  const family = options.address.includes(":") ? "IP6" : "IP4";
  const lines = [
    "v=0",
    `o=- ${options.id} 1 IN ${family} ${options.address}`,
    `s=${sdp.name.trim() === "" ? "-" : sdp.name}`,
    `c=IN ${family} ${family === "IP6" ? "::" : "0.0.0.0"}`,
    "t=0 0",
    "a=control:*",
    "a=range:npt=now-",
  ];
  for (const [index, media] of sdp.media.entries()) {
    lines.push(`m=${media.type} 0 ${media.protocol} ${media.formats.join(" ")}`);
    for (const line of media.lines) {
      if (!hopLine.test(line) || keptMediaLine.test(line)) lines.push(line);
    }
    lines.push(`a=control:trackID=${index}`);
  }
  return `${lines.join("\r\n")}\r\n`;
}

/** Do two descriptions have the same media, so that one's readers can go on with the other's packets? */
export function sameMedia(left: Sdp, right: Sdp): boolean {
  return (
    left.media.length === right.media.length &&
    left.media.every((media, i) => {
      const other = right.media[i];
      return other !== undefined && fingerprint(media) === fingerprint(other);
    })
  );
}

function fingerprint(media: SdpMedia): string {
  return [media.type, media.formats[0], media.encoding, media.clockRate, media.fmtp].join("|");
}
