/** The simulation's packet work against the native thread's, byte for byte; and that merging undoes cutting. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  checksumAdd,
  checksumFinish,
  ipHeaderBytes,
  load16,
  tcpFlag,
  tcpSegments,
  writeIpHeader,
  writePartialChecksum,
  writeTcpChecksum,
} from "../../../src/layer2-transport/simulation/packet-bytes.ts";
import { ipLength, refusalOf } from "../../../src/layer2-transport/simulation/packet-check.ts";
import { MergedPacket } from "../../../src/layer2-transport/simulation/packet-merge.ts";
import { loadNative } from "../../../src/layer3-ip/native.ts";

const { ip } = loadNative();

interface Given {
  readonly version6: boolean;
  readonly flags: number;
  readonly options: number;
  readonly payload: number;
  readonly seed: number;
}

const given = fc.record({
  version6: fc.boolean(),
  flags: fc.constantFrom(tcpFlag.ack, tcpFlag.ack | tcpFlag.psh, tcpFlag.ack | tcpFlag.fin, 0x98),
  options: fc.constantFrom(0, 12, 24),
  payload: fc.integer({ min: 0, max: 9000 }),
  seed: fc.nat(),
});

/** A TCP packet of random content, its checksum partial. */
function packetOf({ version6, flags, options, payload, seed }: Given): Uint8Array {
  const header = ipHeaderBytes(version6);
  const packet = new Uint8Array(header + 20 + options + payload);
  let word = seed | 1;
  for (let i = 0; i < packet.length; i += 1) {
    word = (Math.imul(word, 1_664_525) + 1_013_904_223) | 0;
    packet[i] = word >>> 24;
  }
  packet[header] = 0x12; // no port is 0
  packet[header + 2] = 0x34;
  packet[header + 12] = (5 + options / 4) << 4;
  packet[header + 13] = flags;
  packet.fill(1, header + 20, header + 20 + options);
  const fields = { version6, protocol: 6, hopLimit: 64, trafficClass: 3, label: 0x12345 };
  writeIpHeader(packet, 0, fields, packet.length - header);
  writePartialChecksum(packet, 0, version6, packet.length);
  return packet;
}

describe("packet bytes", () => {
  test("the checksum is the native one", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
        expect(checksumFinish(checksumAdd(0, bytes, 0, bytes.length))).toBe(ip.checksum(bytes, 0));
      }),
    );
  });

  test("a whole checksum is what the native thread makes of a partial one", () => {
    fc.assert(
      fc.property(given, (one) => {
        const partial = packetOf(one);
        const whole = partial.slice();
        writeTcpChecksum(whole, 0, one.version6, whole.length);
        expect(ip.completeChecksum(partial)).toBe(true);
        expect(Buffer.from(whole).equals(partial)).toBe(true);
        expect(refusalOf(whole)).toBe("");
      }),
    );
  });

  test("a super-packet is cut up as the native thread does it", () => {
    fc.assert(
      fc.property(given, fc.integer({ min: 500, max: 1460 }), (one, segmentBytes) => {
        const packet = packetOf(one);
        const native = ip.segment(packet, one.version6 ? 3 : 2, segmentBytes);
        const own = tcpSegments(packet, segmentBytes);
        expect(own.map((bytes) => Buffer.from(bytes).toString("hex"))).toEqual(
          native?.map((bytes) => bytes.toString("hex")),
        );
      }),
    );
  });

  test("what was cut up is merged again, with its length, flags and all its data", () => {
    fc.assert(
      fc.property(given, fc.integer({ min: 500, max: 1460 }), (one, segmentBytes) => {
        fc.pre(one.payload > segmentBytes);
        const packet = packetOf(one);
        const [first, ...rest] = tcpSegments(packet, segmentBytes);
        const merged = new MergedPacket(first as Uint8Array);
        for (const segment of rest) expect(merged.take(segment)).toBe(true);
        expect(merged.gsoBytes).toBe(segmentBytes);
        expect(Buffer.from(merged.whole()).equals(packet)).toBe(true);
      }),
    );
  });

  test("what does not go on where the other ended is not merged", () => {
    const base: Given = { version6: false, flags: tcpFlag.ack, options: 12, payload: 3000, seed: 5 };
    const [first, second, third] = tcpSegments(packetOf(base), 1000) as [Uint8Array, Uint8Array, Uint8Array];
    expect(new MergedPacket(first).take(third)).toBe(false);
    expect(new MergedPacket(first).take(first)).toBe(false);
    for (const at of [1, 8, 12, 20, 32, 35]) {
      const other = second.slice(); // traffic class, hop limit, source, port, header length, window
      other[at] = (other[at] as number) ^ 1;
      expect(new MergedPacket(first).take(other), `byte ${at}`).toBe(false);
    }
    const pushed = first.slice();
    pushed[33] = (pushed[33] as number) | tcpFlag.psh;
    expect(new MergedPacket(pushed).take(second)).toBe(false);
    expect(new MergedPacket(first).take(second)).toBe(true);
  });
});

describe("the input check", () => {
  const good = (version6: boolean) => {
    const packet = packetOf({ version6, flags: tcpFlag.ack, options: 12, payload: 100, seed: 9 });
    writeTcpChecksum(packet, 0, version6, packet.length);
    return packet;
  };

  // What no checksum covers in an IPv6 header: traffic class, flow label, hop limit.
  const uncovered = (bit: number) => (bit >= 4 && bit < 32) || (bit >= 56 && bit < 64);

  test.each([false, true])("refuses every single flipped bit (IPv6: %s)", (version6) => {
    const packet = good(version6);
    expect(refusalOf(packet)).toBe("");
    for (let bit = 0; bit < packet.length * 8; bit += 1) {
      const at = bit >> 3;
      const mask = 0x80 >> (bit & 7);
      const other = packet.slice();
      other[at] = (other[at] as number) ^ mask;
      if (version6 && at < 8 && uncovered(bit)) continue;
      expect(refusalOf(other), `bit ${bit}`).not.toBe("");
    }
  });

  test("cuts off what a link has put behind the packet", () => {
    const packet = good(false);
    const longer = new Uint8Array(packet.length + 6);
    longer.set(packet);
    expect(refusalOf(longer)).toBe("");
    expect(ipLength(longer)).toBe(packet.length);
    expect(refusalOf(packet.subarray(0, packet.length - 1))).toBe("rx.dropped.header");
  });

  test.each([
    [0, "rx.dropped.tcpNull"],
    [0x29, "rx.dropped.tcpXmas"],
    [0x03, "rx.dropped.tcpSynFin"],
    [0x06, "rx.dropped.tcpSynRst"],
    [0x01, "rx.dropped.tcpFin"],
  ])("flags %i: %s", (flags, reason) => {
    const packet = packetOf({ version6: true, flags, options: 0, payload: 0, seed: 1 });
    writeTcpChecksum(packet, 0, true, packet.length);
    expect(refusalOf(packet)).toBe(reason);
    expect(load16(packet, 4)).toBe(20);
  });
});
