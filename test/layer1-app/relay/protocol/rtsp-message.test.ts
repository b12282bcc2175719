/** RTSP messages: what is taken, what is refused with which status, and that what is built parses back. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  BODY_BYTES_MAX,
  buildRequest,
  buildResponse,
  HEADER_BYTES_MAX,
  HEADER_LINES_MAX,
  parseRtspMessage,
  parseSessionHeader,
  RtspHeaders,
  RtspSyntaxError,
} from "../../../../src/layer1-app/relay/protocol/rtsp-message.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function refusal(text: string | Uint8Array): RtspSyntaxError {
  try {
    parseRtspMessage(typeof text === "string" ? bytes(text) : text);
  } catch (error) {
    if (error instanceof RtspSyntaxError) return error;
    throw error;
  }
  throw new Error("it was taken");
}

describe("requests", () => {
  it("reads a request with a body", () => {
    const request = parseRtspMessage(
      bytes("ANNOUNCE rtsp://h/p RTSP/1.0\r\nCSeq: 7\r\ncontent-LENGTH: 3\r\n\r\nv=0"),
    );
    if (request.kind !== "request") throw new Error("not a request");
    expect(request.method).toBe("ANNOUNCE");
    expect(request.url).toBe("rtsp://h/p");
    expect(request.version).toBe("RTSP/1.0");
    expect(new TextDecoder().decode(request.body)).toBe("v=0");
  });

  it("5a.1 OPTIONS of no URL means the server", () => {
    for (const line of ["OPTIONS RTSP/1.0", "OPTIONS  RTSP/1.0", "OPTIONS * RTSP/1.0"]) {
      expect(parseRtspMessage(bytes(`${line}\r\nCSeq: 1\r\n\r\n`))).toMatchObject({
        method: "OPTIONS",
        url: "*",
      });
    }
    expect(refusal("DESCRIBE RTSP/1.0\r\nCSeq: 1\r\n\r\n").status).toBe(400);
  });

  it("5a.2 header names are read in any case", () => {
    const request = parseRtspMessage(bytes("PLAY * RTSP/1.0\r\ncseq: 1\r\nSESSION : abc\r\n\r\n"));
    expect(request.headers.get("CSeq")).toBe("1");
    expect(request.headers.get("session")).toBe("abc");
  });

  it("takes bare line feeds and folded lines", () => {
    const request = parseRtspMessage(bytes("OPTIONS * RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP;\n unicast\n\n"));
    expect(request.headers.get("Transport")).toBe("RTP/AVP; unicast");
  });

  it.each([
    ["OPTIONS *\r\nCSeq: 3\r\n\r\n", 400, "3"],
    ["OPTIONS * HTSP/1.0\r\nCSeq: 3\r\n\r\n", 400, "3"],
    ["OPTIONS a b RTSP/1.0\r\nCSeq: 3\r\n\r\n", 400, "3"],
    ["OPTIONS * RTSP/1.0\r\nCSeq: 3\r\nno colon\r\n\r\n", 400, "3"],
    ["OPTIONS * RTSP/1.0\r\nCSeq: 3\r\nContent-Length: -1\r\n\r\n", 400, "3"],
    ["OPTIONS * RTSP/1.0\r\nCSeq: 3\r\nContent-Length: 1e3\r\n\r\n", 400, "3"],
    ["OPTIONS * RTSP/1.0\r\nCSeq: 3\r\nContent-Length: 10\r\n\r\nabc", 400, "3"],
    [`OPTIONS * RTSP/1.0\r\nCSeq: 3\r\nContent-Length: ${BODY_BYTES_MAX + 1}\r\n\r\n`, 413, "3"],
    ["OPTIONS * RTSP/1.0\r\nCSeq: 3\r\n", 400, undefined],
    ["RTSP/1.0 OK\r\nCSeq: 3\r\n\r\n", 400, "3"],
    ["", 400, undefined],
  ])("refuses %j with %d", (text, status, cseq) => {
    const error = refusal(text);
    expect(error.status).toBe(status);
    expect(error.cseq).toBe(cseq);
  });

  it("refuses headers beyond its limits with 413", () => {
    const long = `OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: ${"x".repeat(HEADER_BYTES_MAX)}\r\n\r\n`;
    expect(refusal(long).status).toBe(413);
    expect(refusal(new Uint8Array(HEADER_BYTES_MAX + 1).fill(0x41)).status).toBe(413);
    const many = `OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n${"X: y\r\n".repeat(HEADER_LINES_MAX)}\r\n`;
    expect(refusal(many)).toMatchObject({ status: 413, cseq: "1" });
  });
});

describe("responses", () => {
  it("reads a status line with and without a reason", () => {
    const response = parseRtspMessage(bytes("RTSP/1.0 461 Unsupported Transport\r\nCSeq: 1\r\n\r\n"));
    expect(response).toMatchObject({ kind: "response", status: 461, reason: "Unsupported Transport" });
    expect(parseRtspMessage(bytes("RTSP/1.0 200\r\n\r\n"))).toMatchObject({ status: 200, reason: "" });
  });

  it("5a.2 writes CSeq exactly so, and the standard phrase", () => {
    const text = new TextDecoder().decode(buildResponse({ status: 455, headers: [["CSeq", "9"]] }));
    expect(text).toBe("RTSP/1.0 455 Method Not Valid in This State\r\nCSeq: 9\r\n\r\n");
  });

  it("a value from a peer cannot start a header line of its own", () => {
    const built = buildResponse({ status: 400, reason: "a\r\nX: 1", headers: [["CSeq", "1\r\n\r\nGET"]] });
    expect(new TextDecoder().decode(built)).toBe("RTSP/1.0 400 a X: 1\r\nCSeq: 1 GET\r\n\r\n");
  });
});

describe("headers", () => {
  it("keep their order, and set replaces in place", () => {
    const headers = new RtspHeaders().append("A", "1").append("B", "2").append("a", "3");
    headers.set("A", "4");
    expect([...headers]).toEqual([
      ["A", "4"],
      ["B", "2"],
    ]);
    expect(headers.getAll("b")).toEqual(["2"]);
  });

  it("5a.4 Session with spaces and a timeout anywhere", () => {
    expect(parseSessionHeader("       708345999;timeout=60")).toEqual({
      id: "708345999",
      timeoutSeconds: 60,
    });
    expect(parseSessionHeader("ab ; timeout = 30 ")).toEqual({ id: "ab", timeoutSeconds: 30 });
    expect(parseSessionHeader("ab")).toEqual({ id: "ab", timeoutSeconds: undefined });
  });
});

const token = fc.stringMatching(/^[A-Za-z][A-Za-z0-9-]{0,15}$/);
const value = fc.stringMatching(/^[!-~]([ -~]{0,30}[!-~])?$/);

describe("properties", () => {
  it("what is built parses back", () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[A-Z_]{1,20}$/),
        fc.stringMatching(/^[!-~]{1,60}$/),
        fc.array(fc.tuple(token, value), { maxLength: 20 }),
        fc.uint8Array({ maxLength: 2000 }),
        (method, url, headers, body) => {
          const kept = headers.filter(([name]) => name.toLowerCase() !== "content-length");
          const message = parseRtspMessage(buildRequest({ method, url, headers: kept, body }));
          if (message.kind !== "request") throw new Error("not a request");
          expect([message.method, message.url]).toEqual([method, url]);
          expect([...message.headers].filter(([name]) => name !== "Content-Length")).toEqual(kept);
          expect([...message.body]).toEqual([...body]);
        },
      ),
    );
  });

  it("anything either parses or is refused as an RtspSyntaxError", () => {
    const lines = fc.array(fc.oneof(fc.string(), value, fc.constant("CSeq: 1")), { maxLength: 10 });
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 300 }),
          lines.map((all) => bytes(`PLAY * RTSP/1.0\r\n${all.join("\r\n")}\r\n\r\n`)),
        ),
        (input) => {
          try {
            parseRtspMessage(input);
          } catch (error) {
            if (!(error instanceof RtspSyntaxError)) throw error;
            expect([400, 413]).toContain(error.status);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});
