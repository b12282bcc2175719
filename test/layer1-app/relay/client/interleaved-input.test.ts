/** Interleaved frames sorted by track: any frames, on any channels. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { InterleavedInput } from "../../../../src/layer1-app/relay/client/interleaved-input.ts";
import { buildFrame } from "../../../../src/layer1-app/relay/protocol/interleaved.ts";
import { rtpPacket } from "./fake-camera.ts";

function collect(): { input: InterleavedInput; rtp: string[][]; rtcp: string[][] } {
  const rtp: string[][] = [[], []];
  const rtcp: string[][] = [[], []];
  const input = new InterleavedInput({
    packets(track, bytes, offsets, count) {
      for (let i = 0; i < count; i++) {
        const start = offsets[2 * i] as number;
        rtp[track]?.push(
          Buffer.from(bytes.subarray(start, start + (offsets[2 * i + 1] as number))).toString("hex"),
        );
      }
    },
    report: (track, bytes) => void rtcp[track]?.push(Buffer.from(bytes).toString("hex")),
  });
  return { input, rtp, rtcp };
}

test("packets are sorted by track, each track's in order; the rest is counted", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ channel: fc.nat(9), length: fc.nat(60) }), { maxLength: 1500 }),
      (frames) => {
        const { input, rtp, rtcp } = collect();
        expect(input.assign(0, [4, 5])).toBe(true);
        expect(input.assign(1, [1, 0])).toBe(true);
        const expected = { rtp: [[], []] as string[][], rtcp: [[], []] as string[][], ignored: 0 };
        const run = frames.map(({ channel, length }, seq) => {
          const payload = length < 12 ? new Uint8Array(length) : rtpPacket(96, seq, 0, length);
          const hex = Buffer.from(payload).toString("hex");
          const track = channel === 4 || channel === 5 ? 0 : channel < 2 ? 1 : -1;
          if (track < 0) expected.ignored += 1;
          else if (channel === 5 || channel === 0) expected.rtcp[track]?.push(hex);
          else if (length < 12) expected.ignored += 1;
          else expected.rtp[track]?.push(hex);
          return buildFrame(channel, payload);
        });
        input.take(Buffer.concat(run));
        expect({ rtp, rtcp, ignored: input.ignored }).toEqual(expected);
        expect(input.received).toBe(expected.rtp.flat().length);
      },
    ),
    { numRuns: 50 },
  );
});

test("a channel belongs to one track only", () => {
  const { input } = collect();
  expect(input.assign(0, [0, 1])).toBe(true);
  expect(input.assign(1, [1, 2])).toBe(false);
  expect(input.assign(1, [2, 2])).toBe(false);
  expect(input.assign(1, [2, 3])).toBe(true);
});
