/**
 * The `Transport` header (RFC 2326 12.39): several alternatives in a request, exactly one in a response.
 *
 * Layer 1, relay/protocol: pure, direction-neutral. Cameras write spaces and quotes in odd places; unknown
 * parameters are kept apart and never refuse a transport.
 */

/** One transport alternative. Port and channel pairs are [first, second]. */
export interface TransportSpec {
  /** Upper case, without the lower transport: "RTP/AVP", "RTP/SAVP", "RTP/AVPF", "RAW/RAW" ... */
  readonly profile: string;
  readonly lower: "udp" | "tcp";
  readonly delivery: "unicast" | "multicast";
  readonly interleaved?: readonly [number, number];
  readonly clientPort?: readonly [number, number];
  readonly serverPort?: readonly [number, number];
  /** Multicast's port pair. */
  readonly port?: readonly [number, number];
  readonly mode?: "play" | "record";
  /** As a number, where it could be read as hexadecimal. */
  readonly ssrc?: number;
  readonly source?: string;
  readonly destination?: string;
  readonly ttl?: number;
}

/** Most alternatives that are looked at. */
const ALTERNATIVES_MAX = 16;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * The alternatives of a header, in order of preference. Those that make no sense are left out, so that one odd
 * alternative does not spoil the others; an empty list is the caller's 461 (or 400).
 */
export function parseTransport(value: string): TransportSpec[] {
  const specs: TransportSpec[] = [];
  for (const text of splitOutsideQuotes(value, ",").slice(0, ALTERNATIVES_MAX)) {
    const spec = parseOne(text.trim());
    if (spec !== undefined) specs.push(spec);
  }
  return specs;
}

function parseOne(text: string): TransportSpec | undefined {
  const [protocol = "", ...parameters] = splitOutsideQuotes(text, ";").map((part) => part.trim());
  const match = /^([A-Z0-9]+\/[A-Z0-9]+)(?:\/(TCP|UDP))?$/i.exec(protocol);
  if (match === null) return undefined;
  const spec: Mutable<TransportSpec> = {
    profile: (match[1] ?? "").toUpperCase(),
    lower: match[2]?.toUpperCase() === "TCP" ? "tcp" : "udp",
    delivery: "unicast", // RFC 2326's default is multicast; every client that leaves it out means unicast.
  };
  for (const parameter of parameters) {
    const equals = parameter.indexOf("=");
    const name = (equals < 0 ? parameter : parameter.slice(0, equals)).trim().toLowerCase();
    const value = equals < 0 ? "" : unquote(parameter.slice(equals + 1).trim());
    if (!takeParameter(spec, name, value)) return undefined;
  }
  return spec;
}

/** False when the parameter is one that matters and its value makes no sense. */
function takeParameter(spec: Mutable<TransportSpec>, name: string, value: string): boolean {
  switch (name) {
    case "unicast":
    case "multicast":
      spec.delivery = name;
      return true;
    case "interleaved":
      return setPair(parsePair(value, 255), (pair) => {
        spec.interleaved = pair;
      });
    case "client_port":
      return setPair(parsePair(value, 65_535), (pair) => {
        spec.clientPort = pair;
      });
    case "server_port":
      return setPair(parsePair(value, 65_535), (pair) => {
        spec.serverPort = pair;
      });
    case "port":
      return setPair(parsePair(value, 65_535), (pair) => {
        spec.port = pair;
      });
    case "mode":
      spec.mode = /^(record|receive)$/i.test(value) ? "record" : "play";
      return true;
    case "ssrc": {
      const hex = /^(?:0x)?([0-9a-f]{1,8})$/i.exec(value);
      if (hex !== null) spec.ssrc = Number.parseInt(hex[1] ?? "0", 16);
      return true; // Dahua writes decimals, Hikvision spaces: an odd SSRC is no reason to refuse.
    }
    case "source":
      if (value !== "") spec.source = value;
      return true;
    case "destination":
      if (value !== "") spec.destination = value;
      return true;
    case "ttl":
      if (/^\d{1,3}$/.test(value)) spec.ttl = Number(value);
      return true;
    default:
      return true;
  }
}

function setPair(
  pair: readonly [number, number] | undefined,
  set: (pair: readonly [number, number]) => void,
): boolean {
  if (pair === undefined) return false;
  set(pair);
  return true;
}

/** "a-b", or "a" alone (then b = a + 1). */
function parsePair(value: string, max: number): readonly [number, number] | undefined {
  const match = /^\s*(\d{1,5})\s*(?:[-/]\s*(\d{1,5}))?\s*$/.exec(value);
  if (match === null) return undefined;
  const first = Number(match[1]);
  const second = match[2] === undefined ? first + 1 : Number(match[2]);
  return first <= max && second <= max ? [first, second] : undefined;
}

function unquote(value: string): string {
  return value.replace(/^"(.*)"$/, "$1").trim();
}

function splitOutsideQuotes(text: string, separator: string): string[] {
  const parts: string[] = [];
  let start = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"') quoted = !quoted;
    else if (text[i] === separator && !quoted) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

/** Writes one alternative. The lower transport is written for TCP only: `RTP/AVP` is what everybody knows for UDP. */
export function buildTransport(spec: TransportSpec): string {
  const parts = [spec.lower === "tcp" ? `${spec.profile}/TCP` : spec.profile, spec.delivery];
  if (spec.destination !== undefined) parts.push(`destination=${spec.destination}`);
  if (spec.source !== undefined) parts.push(`source=${spec.source}`);
  if (spec.interleaved !== undefined) parts.push(`interleaved=${spec.interleaved.join("-")}`);
  if (spec.port !== undefined) parts.push(`port=${spec.port.join("-")}`);
  if (spec.clientPort !== undefined) parts.push(`client_port=${spec.clientPort.join("-")}`);
  if (spec.serverPort !== undefined) parts.push(`server_port=${spec.serverPort.join("-")}`);
  if (spec.ttl !== undefined) parts.push(`ttl=${spec.ttl}`);
  if (spec.ssrc !== undefined) parts.push(`ssrc=${formatSsrc(spec.ssrc)}`);
  if (spec.mode === "record") parts.push("mode=record");
  return parts.join(";");
}

/** Eight upper-case hexadecimal digits, no "0x". */
export function formatSsrc(ssrc: number): string {
  return (ssrc >>> 0).toString(16).toUpperCase().padStart(8, "0");
}
