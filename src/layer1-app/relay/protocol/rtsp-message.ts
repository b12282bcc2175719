/**
 * One RTSP 1.0 message (RFC 2326 sections 4 to 7): its parts, parsing from bytes and writing to bytes.
 *
 * Layer 1, relay/protocol: pure, direction-neutral (requests and responses), no sockets, no clock. It is lenient
 * in what it takes (bare LF, folded lines, any case of header names) and exact in what it writes.
 */

/** Longest start line plus headers that is taken, bytes. */
export const HEADER_BYTES_MAX = 16_384;
/** Longest body that is taken, bytes. */
export const BODY_BYTES_MAX = 65_536;
/** Most header lines that are taken. */
export const HEADER_LINES_MAX = 128;

const EMPTY = new Uint8Array(0);
const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** Header fields in the order they came; names compare without case, and go out as they were set. */
export class RtspHeaders {
  readonly #lines: { name: string; value: string }[] = [];

  /** The first value of `name`, or undefined. */
  get(name: string): string | undefined {
    const lower = name.toLowerCase();
    return this.#lines.find((line) => line.name.toLowerCase() === lower)?.value;
  }

  /** Every value of `name`, in order (`WWW-Authenticate` comes several times). */
  getAll(name: string): string[] {
    const lower = name.toLowerCase();
    return this.#lines.filter((line) => line.name.toLowerCase() === lower).map((line) => line.value);
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  /** Sets `name` to one value, in the place of the first of that name. */
  set(name: string, value: string): this {
    const lower = name.toLowerCase();
    const first = this.#lines.findIndex((line) => line.name.toLowerCase() === lower);
    if (first < 0) return this.append(name, value);
    this.#lines[first] = { name, value };
    for (let i = this.#lines.length - 1; i > first; i--) {
      if (this.#lines[i]?.name.toLowerCase() === lower) this.#lines.splice(i, 1);
    }
    return this;
  }

  append(name: string, value: string): this {
    this.#lines.push({ name, value });
    return this;
  }

  /** Continues the last value (a folded line, RFC 2326 4.2 by way of HTTP). */
  extendLast(text: string): boolean {
    const last = this.#lines.at(-1);
    if (last === undefined) return false;
    last.value = `${last.value} ${text}`;
    return true;
  }

  get size(): number {
    return this.#lines.length;
  }

  *[Symbol.iterator](): IterableIterator<readonly [name: string, value: string]> {
    for (const line of this.#lines) yield [line.name, line.value];
  }
}

export interface RtspRequest {
  readonly kind: "request";
  readonly method: string;
  /** As it was sent: absolute, relative, or "*". */
  readonly url: string;
  /** "RTSP/1.0" as a rule; the server answers 505 to others. */
  readonly version: string;
  readonly headers: RtspHeaders;
  /** A view of the bytes parsed; copy it to keep it. */
  readonly body: Uint8Array;
}

export interface RtspResponse {
  readonly kind: "response";
  readonly version: string;
  readonly status: number;
  readonly reason: string;
  readonly headers: RtspHeaders;
  readonly body: Uint8Array;
}

export type RtspMessage = RtspRequest | RtspResponse;

/** What is wrong with a message, with the status that a server answers to it. */
export class RtspSyntaxError extends Error {
  override readonly name = "RtspSyntaxError";
  readonly status: number;
  /** The CSeq of the message, where it could still be read: the answer carries it. */
  readonly cseq: string | undefined;

  constructor(status: number, message: string, cseq?: string) {
    super(message);
    this.status = status;
    this.cseq = cseq;
  }
}

/** Where the header block ends: the offset after its empty line, or -1. Takes CR LF and bare LF. */
export function findHeaderEnd(bytes: Uint8Array, from = 0): number {
  let i = from;
  for (;;) {
    i = bytes.indexOf(0x0a, i);
    if (i < 0) return -1;
    if (bytes[i + 1] === 0x0a) return i + 2;
    if (bytes[i + 1] === 0x0d && bytes[i + 2] === 0x0a) return i + 3;
    i++;
  }
}

/**
 * The Content-Length that a header block announces: 0 where there is none, -1 where it is no number.
 * It looks at the block's text only, so the framing can ask before the message is parsed.
 */
export function contentLengthOf(headerText: string): number {
  const match = /(?:^|\n)content-length[ \t]*:[ \t]*([^\r\n]*)/i.exec(headerText);
  if (match === null) return 0;
  const digits = (match[1] ?? "").trim();
  return /^\d{1,10}$/.test(digits) ? Number(digits) : -1;
}

/**
 * Parses exactly one message, as the framing cut it out.
 * @throws RtspSyntaxError with the status to answer (400, 413, 505) and the CSeq if there was one.
 */
export function parseRtspMessage(bytes: Uint8Array): RtspMessage {
  const headerEnd = findHeaderEnd(bytes);
  if (headerEnd < 0) throw unfinished(bytes);
  if (headerEnd > HEADER_BYTES_MAX) throw new RtspSyntaxError(413, "Headers Too Large");
  const lines = decoder.decode(bytes.subarray(0, headerEnd)).split("\n");
  const headers = parseHeaders(lines);
  const cseq = headers.get("CSeq");
  const body = takeBody(bytes.subarray(headerEnd), headers, cseq);
  const startLine = (lines[0] ?? "").trim();
  if (startLine.startsWith("RTSP/")) return parseStatusLine(startLine, headers, body, cseq);
  const parts = startLine.split(/[ \t]+/);
  // There are clients that ask OPTIONS of no URL at all: they mean the server.
  if (parts.length === 2 && parts[0] === "OPTIONS" && parts[1]?.startsWith("RTSP/")) parts.splice(1, 0, "*");
  const [method, url, version] = parts;
  if (method === undefined || url === undefined || version === undefined || parts.length > 3) {
    throw new RtspSyntaxError(400, "Bad Request: the request line is not METHOD URL RTSP/1.0", cseq);
  }
  if (!/^(RTSP|HTTP)\/\d+\.\d+$/.test(version)) {
    throw new RtspSyntaxError(400, "Bad Request: the request line does not end in RTSP/1.0", cseq);
  }
  return { kind: "request", method, url, version, headers, body };
}

function parseStatusLine(
  line: string,
  headers: RtspHeaders,
  body: Uint8Array,
  cseq: string | undefined,
): RtspResponse {
  const match = /^(RTSP\/\d+\.\d+)[ \t]+(\d{3})(?:[ \t]+(.*))?$/.exec(line);
  if (match === null) throw new RtspSyntaxError(400, "Bad Request: the status line makes no sense", cseq);
  const [, version = "", status = "", reason = ""] = match;
  return { kind: "response", version, status: Number(status), reason, headers, body };
}

function parseHeaders(lines: readonly string[]): RtspHeaders {
  const headers = new RtspHeaders();
  let wrong: string | undefined;
  for (let i = 1; i < lines.length; i++) {
    const raw = (lines[i] ?? "").replace(/\r$/, "");
    if (raw === "") continue;
    if (raw[0] === " " || raw[0] === "\t") {
      if (!headers.extendLast(raw.trim())) wrong ??= "the first header line is folded";
      continue;
    }
    const colon = raw.indexOf(":");
    const name = colon < 0 ? "" : raw.slice(0, colon).trim();
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
      wrong ??= `header line ${i} is not Name: value`;
      continue;
    }
    if (headers.size >= HEADER_LINES_MAX) {
      throw new RtspSyntaxError(413, "Too Many Headers", headers.get("CSeq"));
    }
    headers.append(name, raw.slice(colon + 1).trim());
  }
  if (wrong !== undefined) throw new RtspSyntaxError(400, `Bad Request: ${wrong}`, headers.get("CSeq"));
  return headers;
}

function takeBody(rest: Uint8Array, headers: RtspHeaders, cseq: string | undefined): Uint8Array {
  const text = headers.get("Content-Length");
  if (text === undefined) return EMPTY;
  if (!/^\d{1,10}$/.test(text)) {
    throw new RtspSyntaxError(400, "Bad Request: Content-Length is not a number", cseq);
  }
  const length = Number(text);
  if (length > BODY_BYTES_MAX) {
    throw new RtspSyntaxError(413, `Request Entity Too Large: at most ${BODY_BYTES_MAX} bytes`, cseq);
  }
  if (rest.length < length) throw new RtspSyntaxError(400, "Bad Request: the body is cut short", cseq);
  return rest.subarray(0, length);
}

function unfinished(bytes: Uint8Array): RtspSyntaxError {
  if (bytes.length > HEADER_BYTES_MAX) return new RtspSyntaxError(413, "Headers Too Large");
  return new RtspSyntaxError(400, "Bad Request: the headers have no end");
}

/** What `buildRequest` takes; CSeq belongs into `headers`. */
export interface RequestParts {
  readonly method: string;
  readonly url: string;
  readonly headers?: Iterable<readonly [name: string, value: string]>;
  readonly body?: Uint8Array | string;
}

/** What `buildResponse` takes. */
export interface ResponseParts {
  readonly status: number;
  /** The standard phrase of the status if left out. */
  readonly reason?: string;
  readonly headers?: Iterable<readonly [name: string, value: string]>;
  readonly body?: Uint8Array | string;
}

/** The bytes of a request. Content-Length is added where there is a body. */
export function buildRequest(parts: RequestParts): Uint8Array {
  return build(`${parts.method} ${parts.url} RTSP/1.0`, parts.headers, parts.body);
}

/** The bytes of a response. Content-Length is added where there is a body. */
export function buildResponse(parts: ResponseParts): Uint8Array {
  const reason = parts.reason ?? reasonPhrases[parts.status] ?? "Unknown";
  return build(`RTSP/1.0 ${parts.status} ${reason}`, parts.headers, parts.body);
}

function build(
  startLine: string,
  headers: Iterable<readonly [string, string]> | undefined,
  body: Uint8Array | string | undefined,
): Uint8Array {
  const content = typeof body === "string" ? encoder.encode(body) : (body ?? EMPTY);
  let text = `${oneLine(startLine)}\r\n`;
  for (const [name, value] of headers ?? []) text += `${name}: ${oneLine(value)}\r\n`;
  if (content.length > 0) text += `Content-Length: ${content.length}\r\n`;
  const head = encoder.encode(`${text}\r\n`);
  if (content.length === 0) return head;
  const bytes = new Uint8Array(head.length + content.length);
  bytes.set(head);
  bytes.set(content, head.length);
  return bytes;
}

/** A value that came from a peer must not be able to start a line of its own. */
function oneLine(text: string): string {
  return text.replace(/[\r\n\0]+/g, " ");
}

/** The standard reason phrases (RFC 2326 section 11). */
export const reasonPhrases: Readonly<Record<number, string>> = {
  100: "Continue",
  200: "OK",
  301: "Moved Permanently",
  302: "Moved Temporarily",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  406: "Not Acceptable",
  408: "Request Time-out",
  413: "Request Entity Too Large",
  414: "Request-URI Too Large",
  415: "Unsupported Media Type",
  451: "Parameter Not Understood",
  453: "Not Enough Bandwidth",
  454: "Session Not Found",
  455: "Method Not Valid in This State",
  456: "Header Field Not Valid for Resource",
  457: "Invalid Range",
  459: "Aggregate Operation Not Allowed",
  460: "Only Aggregate Operation Allowed",
  461: "Unsupported Transport",
  500: "Internal Server Error",
  501: "Not Implemented",
  503: "Service Unavailable",
  505: "RTSP Version Not Supported",
  551: "Option Not Supported",
};

/** The value of a `Session` header: `id;timeout=60`, spaces anywhere (RFC 2326 12.37). */
export function parseSessionHeader(value: string): { id: string; timeoutSeconds: number | undefined } {
  const [id = "", ...parameters] = value.split(";").map((part) => part.trim());
  for (const parameter of parameters) {
    const match = /^timeout\s*=\s*(\d{1,6})$/i.exec(parameter);
    if (match !== null) return { id, timeoutSeconds: Number(match[1]) };
  }
  return { id, timeoutSeconds: undefined };
}
