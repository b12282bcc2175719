/** The Transport header in all the ways that peers write it. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  buildTransport,
  formatSsrc,
  parseTransport,
  type TransportSpec,
} from "../../../../src/layer1-app/relay/protocol/transport-header.ts";

describe("parseTransport", () => {
  it("5a.9 reads the alternatives in order", () => {
    const specs = parseTransport(
      "RTP/AVP/UDP;unicast;client_port=5000-5001,RTP/AVP/UDP;multicast,RTP/AVP/TCP;unicast;interleaved=0-1",
    );
    expect(specs.map((spec) => [spec.lower, spec.delivery])).toEqual([
      ["udp", "unicast"],
      ["udp", "multicast"],
      ["tcp", "unicast"],
    ]);
    expect(specs[0]?.clientPort).toEqual([5000, 5001]);
    expect(specs[2]?.interleaved).toEqual([0, 1]);
  });

  it("5a.11 RTP/AVP and RTP/AVP/UDP are the same; mode may be quoted, PLAY, record or receive", () => {
    const modes = ['"PLAY"', "play", '"RECORD"', "record", "receive"].map(
      (mode) => parseTransport(`RTP/AVP;unicast;client_port=4-5;mode=${mode}`)[0],
    );
    expect(modes.map((spec) => spec?.mode)).toEqual(["play", "play", "record", "record", "record"]);
    expect(modes[0]).toEqual(parseTransport("RTP/AVP/UDP;unicast;client_port=4-5;mode=play")[0]);
  });

  it("5a.10 interleaved may be missing", () => {
    expect(parseTransport("RTP/AVP/TCP;unicast")[0]?.interleaved).toBeUndefined();
  });

  it("reads what cameras write: spaces before ssrc, decimals, single ports, slashes", () => {
    expect(parseTransport("RTP/AVP; unicast; client_port=6; ssrc=   1a2b")[0]).toMatchObject({
      clientPort: [6, 7],
      ssrc: 0x1a2b,
    });
    expect(parseTransport("RTP/AVP;ssrc=0x00ff")[0]?.ssrc).toBe(255);
    expect(parseTransport("RTP/AVP;ssrc=nonsense;source=10.0.0.1")[0]).toMatchObject({ source: "10.0.0.1" });
  });

  it.each(["", ";", "RTP", "RTP/AVP;client_port=70000-70001", "RTP/AVP/TCP;interleaved=256-257", "a/b/c/d"])(
    "leaves out %j",
    (value) => {
      expect(parseTransport(value)).toEqual([]);
    },
  );

  it("keeps the others when one alternative makes no sense", () => {
    expect(parseTransport("RTP/AVP;client_port=x,RTP/AVP/TCP;interleaved=2-3")).toHaveLength(1);
  });
});

const pair = (max: number) => fc.nat(max - 1).map((first) => [first, first + 1] as const);

describe("properties", () => {
  it("what is built parses back", () => {
    const spec: fc.Arbitrary<TransportSpec> = fc.record(
      {
        profile: fc.constantFrom("RTP/AVP", "RTP/SAVP", "RTP/AVPF"),
        lower: fc.constantFrom("udp", "tcp"),
        delivery: fc.constantFrom("unicast", "multicast"),
        interleaved: pair(255),
        clientPort: pair(65_535),
        serverPort: pair(65_535),
        ssrc: fc.nat(0xffff_ffff),
        mode: fc.constant("record"),
      },
      { requiredKeys: ["profile", "lower", "delivery"] },
    );
    fc.assert(
      fc.property(spec, (one) => {
        expect(parseTransport(buildTransport(one))).toEqual([one]);
      }),
    );
  });

  it("any text: a list, never a throw", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^RTP\/AVP[;,="a-z0-9_-]{0,80}$/)), (value) => {
        expect(parseTransport(value).length).toBeLessThanOrEqual(16);
      }),
      { numRuns: 500 },
    );
  });

  it("5a.11 an SSRC is eight upper-case digits without 0x", () => {
    fc.assert(
      fc.property(fc.nat(0xffff_ffff), (ssrc) => {
        expect(formatSsrc(ssrc)).toMatch(/^[0-9A-F]{8}$/);
        expect(Number.parseInt(formatSsrc(ssrc), 16)).toBe(ssrc);
      }),
    );
  });
});
