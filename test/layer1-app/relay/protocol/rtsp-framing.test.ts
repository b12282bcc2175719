/** The framing of RTSP connections: any split gives the same pieces, garbage is stepped over, limits hold. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { buildFrame } from "../../../../src/layer1-app/relay/protocol/interleaved.ts";
import {
  classify,
  RTSP_RECVLEN,
  rtspFraming,
} from "../../../../src/layer1-app/relay/protocol/rtsp-framing.ts";
import {
  buildRequest,
  buildResponse,
  HEADER_BYTES_MAX,
} from "../../../../src/layer1-app/relay/protocol/rtsp-message.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (piece: Uint8Array): string => new TextDecoder("latin1").decode(piece);

function join(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Feeds chunks as a connection would; returns the pieces and what is left waiting. */
function cutUp(chunks: readonly Uint8Array[]): { pieces: Uint8Array[]; rest: Uint8Array } {
  const pieces: Uint8Array[] = [];
  let rest: Uint8Array = new Uint8Array(0);
  for (const chunk of chunks) {
    rest = join([rest, chunk]);
    for (;;) {
      const length = rtspFraming(rest);
      expect(length).toBeGreaterThanOrEqual(0);
      expect(length).toBeLessThanOrEqual(Math.min(rest.length, RTSP_RECVLEN));
      if (length === 0) break;
      pieces.push(rest.slice(0, length));
      rest = rest.subarray(length);
    }
  }
  return { pieces, rest };
}

const options = bytes("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n");

describe("rtspFraming", () => {
  it("cuts pipelined messages, bodies and runs of $ frames", () => {
    const announce = buildRequest({ method: "ANNOUNCE", url: "rtsp://h/p", body: "v=0\r\n\r\n$" });
    const frames = join([buildFrame(0, bytes("abc")), buildFrame(1, bytes("")), buildFrame(0, bytes("$"))]);
    const { pieces, rest } = cutUp([join([options, announce, frames, options])]);
    expect(pieces.map(text)).toEqual([options, announce, frames, options].map(text));
    expect(pieces.map(classify)).toEqual(["message", "message", "interleaved", "message"]);
    expect(rest.length).toBe(0);
  });

  it("5a.3 garbage between messages is stepped over", () => {
    const { pieces } = cutUp([
      join([options, bytes("\r\n\0\u0001garbage"), options, bytes("zzz\r\n"), options]),
    ]);
    const messages = pieces.filter((piece) => classify(piece) === "message").map(text);
    expect(messages).toEqual([options, options, options].map(text));
  });

  it("5a.3 a line of text that is no request is garbage, an unknown method is a message", () => {
    const { pieces } = cutUp([
      join([bytes("hello there world\r\n"), bytes("FLY * RTSP/1.0\r\nCSeq: 2\r\n\r\n")]),
    ]);
    expect(classify(pieces[0] ?? options)).toBe("garbage");
    expect(text(pieces.at(-1) ?? options)).toMatch(/^FLY/);
    expect(classify(pieces.at(-1) ?? options)).toBe("message");
  });

  it("headers without an end are handed on at the limit, and not before", () => {
    const start = bytes("OPTIONS * RTSP/1.0\r\nX: ");
    const almost = join([start, new Uint8Array(HEADER_BYTES_MAX - start.length).fill(0x61)]);
    expect(rtspFraming(almost)).toBe(0);
    const over = join([almost, bytes("b")]);
    expect(rtspFraming(over)).toBe(over.length);
    expect(classify(over)).toBe("message");
  });

  it("a body that is too long, or of no length, ends the message at its headers", () => {
    for (const length of ["99999999", "-1", "x", "0"]) {
      const head = bytes(`ANNOUNCE * RTSP/1.0\r\nContent-Length: ${length}\r\n\r\n`);
      expect(rtspFraming(join([head, bytes("abc")]))).toBe(head.length);
    }
  });

  it("waits for the rest of a $ frame of any length", () => {
    const frame = buildFrame(2, new Uint8Array(65_535));
    expect(rtspFraming(frame.subarray(0, 3))).toBe(0);
    expect(rtspFraming(frame.subarray(0, frame.length - 1))).toBe(0);
    expect(rtspFraming(frame)).toBe(frame.length);
    expect(rtspFraming(join([frame, frame]))).toBe(frame.length); // Two are longer than RTSP_RECVLEN.
  });
});

const piece = fc.oneof(
  fc.constant(options),
  fc
    .tuple(fc.constantFrom("PLAY", "GET_PARAMETER", "FLY"), fc.uint8Array({ maxLength: 200 }))
    .map(([method, body]) => buildRequest({ method, url: "rtsp://h/p", headers: [["CSeq", "1"]], body })),
  fc
    .uint8Array({ maxLength: 100 })
    .map((body) => buildResponse({ status: 200, headers: [["CSeq", "1"]], body })),
  fc
    .tuple(fc.nat(255), fc.uint8Array({ maxLength: 300 }))
    .map(([channel, body]) => buildFrame(channel, body)),
);

describe("properties", () => {
  it("any split of well-formed pieces gives them all, in order", () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.array(fc.nat(2000)), (parts, cuts) => {
        const all = join(parts);
        const points = [0, ...cuts.map((cut) => cut % (all.length + 1)).sort((a, b) => a - b), all.length];
        const chunks = points.slice(1).map((point, i) => all.subarray(points[i], point));
        const { pieces, rest } = cutUp(chunks);
        expect(rest.length).toBe(0);
        expect(text(join(pieces))).toBe(text(all));
        // $ frames may come joined or apart; messages never.
        const messages = (list: readonly Uint8Array[]) => list.filter((p) => p[0] !== 0x24).map(text);
        expect(messages(pieces)).toEqual(messages(parts));
      }),
      { numRuns: 300 },
    );
  });

  it("any bytes: never throws, never stalls with more than a message's worth", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 3000 }), piece), { maxLength: 20 }),
        (parts) => {
          const { rest } = cutUp(parts);
          expect(rest.length).toBeLessThanOrEqual(RTSP_RECVLEN);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("5a.3 behind garbage without $ or a letter of a method, the next request is found", () => {
    const noise = fc.uint8Array({ maxLength: 400 }).map((raw) => raw.map((byte) => (byte % 32) + 1));
    fc.assert(
      fc.property(noise, (raw) => {
        const { pieces } = cutUp([join([raw, options])]);
        expect(text(pieces.at(-1) ?? raw)).toBe(text(options));
      }),
    );
  });
});
