/** RTP and RTCP: golden bytes both ways, and any bytes survived. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { buildFrame, walkFrames } from "../../../../src/layer1-app/relay/protocol/interleaved.ts";
import {
  buildGoodbye,
  buildReceiverReport,
  buildSenderReport,
  buildSourceDescription,
  compound,
  looksLikeRtcp,
  msFromNtp,
  ntpFromMs,
  ntpMiddle,
  parseRtcp,
} from "../../../../src/layer1-app/relay/protocol/rtcp.ts";
import {
  buildPunch,
  parseRtpHeader,
  payloadOctets,
} from "../../../../src/layer1-app/relay/protocol/rtp-packet.ts";

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
const uint32 = fc.nat(0xffff_ffff);

describe("RTCP golden bytes", () => {
  it("a sender report", () => {
    const golden = hex("80c80006 11223344 e0000001 80000000 0001e240 0000000a 00000064");
    const info = {
      ntpSeconds: 0xe0000001,
      ntpFraction: 0x80000000,
      rtpTime: 123_456,
      packets: 10,
      octets: 100,
    };
    expect(buildSenderReport(0x11223344, info)).toEqual(golden);
    expect(parseRtcp(golden)).toEqual([{ kind: "sr", ssrc: 0x11223344, info, blocks: [] }]);
  });

  it("a receiver report with a negative loss", () => {
    const golden = hex("81c90007 00000001 00000002 40fffffe 00010005 00000007 12345678 00010000");
    const block = {
      ssrc: 2,
      fractionLost: 0x40,
      lost: -2,
      extendedSeq: 0x10005,
      jitter: 7,
      lastReport: 0x12345678,
      delay: 0x10000,
    };
    expect(buildReceiverReport(1, [block])).toEqual(golden);
    expect(parseRtcp(golden)).toEqual([{ kind: "rr", ssrc: 1, blocks: [block] }]);
  });

  it("a compound with SDES and BYE", () => {
    const bytes = compound(buildReceiverReport(1), buildSourceDescription(1, "ab"), buildGoodbye(1, "bye"));
    expect(bytes).toEqual(
      hex("80c90001 00000001 81ca0003 00000001 01026162 00000000 81cb0002 00000001 03627965"),
    );
    expect(parseRtcp(bytes)).toEqual([
      { kind: "rr", ssrc: 1, blocks: [] },
      { kind: "sdes", names: [{ ssrc: 1, cname: "ab" }] },
      { kind: "bye", ssrcs: [1], reason: "bye" },
    ]);
  });

  it("stops at what cannot be believed", () => {
    const good = buildReceiverReport(1);
    expect(parseRtcp(compound(good, hex("80c9ffff 00000001")))).toHaveLength(1);
    expect(parseRtcp(hex("00c90001 00000001"))).toEqual([]);
    expect(parseRtcp(hex("9fc90001 00000001"))).toEqual([]); // 31 blocks, none there.
    expect(parseRtcp(hex("cefaedfe"))).toEqual([]);
  });

  it("tells RTCP from RTP", () => {
    expect(looksLikeRtcp(buildReceiverReport(1))).toBe(true);
    expect(looksLikeRtcp(buildPunch(1))).toBe(false);
  });
});

describe("RTP", () => {
  it("reads CSRCs, an extension and padding", () => {
    const packet = hex("b1e00102 00000003 00000004 00000009 bede0001 aaaaaaaa 0102 0302 03");
    expect(parseRtpHeader(packet)).toEqual({
      marker: true,
      payloadType: 96,
      seq: 0x102,
      timestamp: 3,
      ssrc: 4,
      payloadStart: 24,
      payloadBytes: 2,
    });
    expect(payloadOctets(packet, 0, packet.length)).toBe(2);
  });

  it.each([
    "",
    "80",
    "40600000 00000000 00000000",
    "90600000 00000000 00000001 00000001",
    "a0600000 00000000 000000ff",
  ])("refuses %j", (text) => {
    expect(parseRtpHeader(hex(text))).toBeUndefined();
  });

  it("any bytes: a payload inside the packet, or undefined", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.boolean(), (bytes, version2) => {
        if (version2 && bytes.length > 0) bytes[0] = 0x80 | ((bytes[0] ?? 0) & 0x3f);
        const header = parseRtpHeader(bytes);
        if (header === undefined) return;
        expect(header.payloadBytes).toBeGreaterThanOrEqual(0);
        expect(header.payloadStart + header.payloadBytes).toBeLessThanOrEqual(bytes.length);
        expect(payloadOctets(bytes, 0, bytes.length)).toBe(header.payloadBytes);
      }),
      { numRuns: 1000 },
    );
  });
});

describe("properties", () => {
  it("reports parse back", () => {
    const block = fc.record({
      ssrc: uint32,
      fractionLost: fc.nat(255),
      lost: fc.integer({ min: -0x80_0000, max: 0x7f_ffff }),
      extendedSeq: uint32,
      jitter: uint32,
      lastReport: uint32,
      delay: uint32,
    });
    fc.assert(
      fc.property(uint32, fc.array(block, { maxLength: 31 }), (ssrc, blocks) => {
        expect(parseRtcp(buildReceiverReport(ssrc, blocks))).toEqual([{ kind: "rr", ssrc, blocks }]);
      }),
    );
  });

  it("descriptions and goodbyes of any text parse back", () => {
    fc.assert(
      fc.property(uint32, fc.string({ maxLength: 60, unit: "grapheme-ascii" }), (ssrc, cname) => {
        const bytes = compound(buildSourceDescription(ssrc, cname), buildGoodbye(ssrc, cname));
        expect(bytes.length % 4).toBe(0);
        expect(parseRtcp(bytes)).toEqual([
          { kind: "sdes", names: [{ ssrc, cname }] },
          { kind: "bye", ssrcs: [ssrc], reason: cname },
        ]);
      }),
    );
  });

  it("any bytes: a list, never a throw", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 199, max: 206 }), (bytes, type) => {
        if (bytes.length > 4) {
          bytes[0] = 0x80 | ((bytes[0] ?? 0) & 0x1f);
          bytes[1] = type;
          bytes[2] = 0;
        }
        expect(parseRtcp(bytes).length).toBeLessThanOrEqual(50);
      }),
      { numRuns: 2000 },
    );
  });

  it("NTP time and milliseconds go both ways within a microsecond", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 2_000_000_000_000, noNaN: true }), (ms) => {
        const { ntpSeconds, ntpFraction } = ntpFromMs(ms);
        expect(Math.abs(msFromNtp(ntpSeconds, ntpFraction) - ms)).toBeLessThan(0.001);
      }),
    );
    expect(ntpMiddle(0xaaaa1234, 0x5678bbbb)).toBe(0x12345678);
  });

  it("$ frames are walked back in order; a cut one is left", () => {
    const frames = fc.array(fc.tuple(fc.nat(255), fc.uint8Array({ maxLength: 50 })), { maxLength: 10 });
    fc.assert(
      fc.property(frames, fc.nat(3), (list, missing) => {
        const bytes = compound(...list.map(([channel, payload]) => buildFrame(channel, payload)));
        const seen: [number, number[]][] = [];
        const end = walkFrames(bytes.subarray(0, bytes.length - missing), (channel, start, length) => {
          seen.push([channel, [...bytes.subarray(start, start + length)]]);
        });
        expect(seen).toEqual(list.slice(0, seen.length).map(([channel, payload]) => [channel, [...payload]]));
        expect(end).toBeLessThanOrEqual(bytes.length);
        if (missing === 0) expect(seen).toHaveLength(list.length);
      }),
    );
  });
});
