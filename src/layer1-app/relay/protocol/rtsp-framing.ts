/**
 * Cuts an RTSP connection's bytes into messages: an RTSP message with its body, or a run of whole `$` frames
 * (RFC 2326 10.12), or bytes to throw away.
 *
 * Layer 1, relay/protocol: pure and without state, so `classify` tells from a message's own bytes what it is. It
 * never throws: what is too long is handed on as it is, for the app to answer 413 or 400 before it closes.
 */

import { BODY_BYTES_MAX, contentLengthOf, findHeaderEnd, HEADER_BYTES_MAX } from "./rtsp-message.ts";

/** The longest message that the framing makes: what `recvlen` must be for an RTSP connection, bytes. */
export const RTSP_RECVLEN = 131_072;

const DOLLAR = 0x24;
const LF = 0x0a;
const TOKEN_MAX = 32;
const latin1 = new TextDecoder("latin1");

/** Words that start a message; used to find the next one behind garbage. */
const STARTS = [
  "OPTIONS",
  "DESCRIBE",
  "SETUP",
  "PLAY",
  "PAUSE",
  "TEARDOWN",
  "GET_PARAMETER",
  "SET_PARAMETER",
  "ANNOUNCE",
  "RECORD",
  "REDIRECT",
  "RTSP/1.",
] as const;
const startBytes: readonly Uint8Array[] = STARTS.map((word) =>
  new TextEncoder().encode(word.endsWith(".") ? word : `${word} `),
);
const startLetters = new Set(startBytes.map((word) => word[0]));

/** What a message of this framing is. */
export type RtspPiece = "interleaved" | "message" | "garbage";

/** Tells what `rtspFraming` cut out. */
export function classify(bytes: Uint8Array): RtspPiece {
  if (bytes[0] === DOLLAR) return "interleaved";
  return startOf(bytes) === "message" ? "message" : "garbage";
}

/**
 * The `FramingFunction` of RTSP connections, in both directions.
 * @returns the length of the first piece, or 0 when more must arrive.
 */
export function rtspFraming(bytes: Uint8Array): number {
  if (bytes.length === 0) return 0;
  if (bytes[0] === DOLLAR) return interleavedRun(bytes);
  switch (startOf(bytes)) {
    case "message":
      return messageLength(bytes);
    case "more":
      return 0;
    default:
      return garbageLength(bytes);
  }
}

/** Whole `$` frames at the start, together: one message for as many as have arrived. */
function interleavedRun(bytes: Uint8Array): number {
  let end = 0;
  while (end + 4 <= bytes.length && bytes[end] === DOLLAR) {
    const next = end + 4 + (((bytes[end + 2] ?? 0) << 8) | (bytes[end + 3] ?? 0));
    if (next > bytes.length || next > RTSP_RECVLEN) break;
    end = next;
  }
  return end;
}

function messageLength(bytes: Uint8Array): number {
  const headerEnd = findHeaderEnd(bytes);
  if (headerEnd < 0) return bytes.length > HEADER_BYTES_MAX ? cut(bytes) : 0;
  if (headerEnd > HEADER_BYTES_MAX) return Math.min(headerEnd, RTSP_RECVLEN);
  const body = contentLengthOf(latin1.decode(bytes.subarray(0, headerEnd)));
  // The parser refuses the message for its Content-Length; without a length that can be kept to, it ends here.
  if (body <= 0 || body > BODY_BYTES_MAX) return headerEnd;
  return bytes.length < headerEnd + body ? 0 : headerEnd + body;
}

function cut(bytes: Uint8Array): number {
  return Math.min(bytes.length, RTSP_RECVLEN);
}

/** Does a message start here? A request of any method word counts if its line looks like one. */
function startOf(bytes: Uint8Array): "message" | "more" | "no" {
  const known = knownStart(bytes, 0);
  if (known !== "no") return known === "whole" ? "message" : "more";
  let i = 0;
  while (i < bytes.length && i <= TOKEN_MAX && isToken(bytes[i] ?? 0)) i++;
  if (i === 0 || i > TOKEN_MAX) return "no";
  if (i === bytes.length) return "more";
  if (bytes[i] !== 0x20) return "no";
  const lineEnd = bytes.indexOf(LF, i);
  if (lineEnd < 0) return bytes.length > HEADER_BYTES_MAX ? "no" : "more";
  return /[ \t](RTSP|HTTP)\//.test(latin1.decode(bytes.subarray(i, Math.min(lineEnd, HEADER_BYTES_MAX))))
    ? "message"
    : "no";
}

function isToken(byte: number): boolean {
  return (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a) || byte === 0x5f;
}

/** Is one of `STARTS` at `at`, whole or cut off by the end of the bytes? */
function knownStart(bytes: Uint8Array, at: number): "whole" | "part" | "no" {
  if (!startLetters.has(bytes[at])) return "no";
  for (const word of startBytes) {
    let i = 0;
    while (i < word.length && at + i < bytes.length && bytes[at + i] === word[i]) i++;
    if (i === word.length) return "whole";
    if (at + i === bytes.length) return "part";
  }
  return "no";
}

/** Everything up to the next byte that a message could start with: `$`, a word of `STARTS`, or a new line. */
function garbageLength(bytes: Uint8Array): number {
  const end = cut(bytes);
  for (let i = 1; i < end; i++) {
    if (bytes[i] === DOLLAR || bytes[i - 1] === LF || knownStart(bytes, i) !== "no") return i;
  }
  return end;
}
