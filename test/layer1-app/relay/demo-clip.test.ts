/** The clip file, whole and damaged, and the endless stream that is made of it. */

import { readFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ClipError, DEMO_CLIP_URL, parseClip, readClip } from "../../../src/layer1-app/relay/demo-clip.ts";
import { LoopPlayer } from "../../../src/layer1-app/relay/demo-loop.ts";
import { walkFrames } from "../../../src/layer1-app/relay/protocol/interleaved.ts";
import { parseRtcp } from "../../../src/layer1-app/relay/protocol/rtcp.ts";
import { parseRtpHeader } from "../../../src/layer1-app/relay/protocol/rtp-packet.ts";

const original = readFileSync(DEMO_CLIP_URL);

/** A damaged copy; `mend` writes the checksum that fits the damage. */
function damaged(change: (bytes: Buffer) => Buffer, mend: boolean): Buffer {
  const bytes = change(Buffer.from(original));
  if (mend && bytes.length >= 12) bytes.writeUInt32BE(crc32(bytes.subarray(12)), 8);
  return bytes;
}

describe("the bundled clip", () => {
  test("is what docs/demo-clip.md says: 8 s, H.264 and AAC, both tracks as long as the loop", async () => {
    const clip = await readClip();
    expect(clip.loopMicros).toBe(8_000_000);
    expect(clip.tracks.map(({ clockRate, loopTicks }) => loopTicks / clockRate)).toEqual([8, 8]);
    expect(clip.sdp).toContain("H264/90000");
    expect(clip.sdp).toContain("mpeg4-generic/48000");
    expect(clip.tracks.reduce((sum, track) => sum + track.packets, 0)).toBe(clip.count);
    expect(original.length).toBeLessThan(500_000);
  });

  test("has no packet over 1,200 bytes, and a key frame each second", async () => {
    const clip = await readClip();
    const keyTimes: number[] = [];
    for (let i = 0; i < clip.count; i++) {
      const at = (clip.start[i] as number) + 4;
      expect((clip.start[i + 1] as number) - at).toBeLessThanOrEqual(1200);
      const type = (clip.frames[at + 12] as number) & 31;
      if (clip.track[i] === 0 && type === 7) keyTimes.push(clip.dueMicros[i] as number);
    }
    expect(keyTimes).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((second) => second * 1e6));
  });
});

describe("a damaged file is refused", () => {
  test("every cut", () => {
    fc.assert(
      fc.property(fc.nat(original.length - 1), fc.boolean(), (length, mend) => {
        expect(() => parseClip(damaged((bytes) => bytes.subarray(0, length), mend))).toThrow(ClipError);
      }),
    );
  });

  test("every flipped bit, by the checksum", () => {
    fc.assert(
      fc.property(fc.nat(original.length - 1), fc.nat(7), (at, bit) => {
        const flip = (bytes: Buffer) => {
          bytes[at] = (bytes[at] as number) ^ (1 << bit);
          return bytes;
        };
        expect(() => parseClip(damaged(flip, false))).toThrow(ClipError);
      }),
    );
  });

  test("any change with a checksum that fits: refused, or every bound holds", () => {
    const change = fc.record({ at: fc.oneof(fc.nat(1200), fc.nat(original.length - 1)), value: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = damaged((copy) => {
          for (const { at, value } of changes) copy[at] = value;
          return copy;
        }, true);
        let clip: ReturnType<typeof parseClip>;
        try {
          clip = parseClip(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(ClipError);
          return;
        }
        expect(clip.start[clip.count]).toBe(clip.frames.length);
        expect(
          clip.dueMicros.every((due, i) => due >= (clip.dueMicros[i - 1] ?? 0) && due < clip.loopMicros),
        ).toBe(true);
        expect(clip.track.every((track) => track < clip.tracks.length)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test("any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(() => parseClip(bytes)).toThrow(ClipError);
      }),
    );
  });

  test("the text names the file and what to do", async () => {
    await expect(readClip(new URL(import.meta.url))).rejects.toThrow(/demo-clip\.test\.ts: not a clip/);
    expect(() => parseClip(damaged((bytes) => bytes.fill(0, 500, 600), false))).toThrow(
      /fetch the file again/,
    );
  });
});

describe("the loop", () => {
  /** What a player sends in `seconds`, asked every 40 ms. */
  async function play(seconds: number, restartAfter = Number.POSITIVE_INFINITY) {
    const player = new LoopPlayer(await readClip(), () => 0xffff_f000);
    const packets: { track: number; seq: number; timestamp: number; ssrc: number }[] = [];
    let from = 0;
    player.restart(1_000_000);
    for (let micros = 0; micros <= seconds * 1e6; micros += 40_000) {
      if (micros >= restartAfter * 1e6 && from === 0) {
        from = micros;
        player.restart(1_000_000 + micros / 1000);
      }
      for (let run = player.take(micros - from); run.length > 0; run = player.take(micros - from)) {
        walkFrames(run, (channel, start, length) => {
          const header = parseRtpHeader(run.subarray(start, start + length));
          if (header === undefined) throw new Error("no RTP");
          packets.push({ track: channel / 2, ...header });
        });
      }
    }
    return { player, packets };
  }

  test("numbers follow each other and times go up by the clock, over four turns and both wraps", async () => {
    const { packets } = await play(32);
    for (const [track, step] of [
      [0, 3600],
      [1, 1024],
    ] as const) {
      const own = packets.filter((packet) => packet.track === track);
      expect(new Set(own.map((packet) => packet.ssrc)).size).toBe(1);
      const seqs = own.map((packet, i) => (packet.seq - (own[i - 1]?.seq ?? packet.seq - 1)) & 0xffff);
      expect(new Set(seqs)).toEqual(new Set([1]));
      const steps = own.map(
        (packet, i) => (packet.timestamp - (own[i - 1]?.timestamp ?? packet.timestamp)) >>> 0,
      );
      expect(new Set(steps)).toEqual(new Set([0, step]));
    }
    expect(packets.filter((packet) => packet.track === 1)).toHaveLength(1501);
  });

  test("a day later both tracks and their reports still say the same time", async () => {
    const player = new LoopPlayer(await readClip(), () => 7);
    const day = 86_400e6;
    player.restart(0.5);
    const read = (frames: Uint8Array) => {
      const infos: { rtpTime: number; ntpSeconds: number }[] = [];
      walkFrames(frames, (_channel, start, length) => {
        for (const packet of parseRtcp(frames.subarray(start, start + length))) {
          if (packet.kind === "sr") infos.push(packet.info);
        }
      });
      return infos;
    };
    const [video, audio] = read(player.reports(day));
    expect(video?.rtpTime).toBe((7 + 86_400 * 90_000) % 2 ** 32);
    expect(audio?.rtpTime).toBe((7 + 86_400 * 48_000) % 2 ** 32);
    expect(video?.ntpSeconds).toBe(audio?.ntpSeconds);
  });

  test("a new session starts on a key frame, numbers go on, times leap by the time between", async () => {
    const { packets } = await play(12, 5.04);
    const video = packets.filter((packet) => packet.track === 0);
    const leaps = video.filter(
      (packet, i) => i > 0 && ((packet.seq - (video[i - 1]?.seq as number)) & 0xffff) !== 1,
    );
    expect(leaps).toEqual([]);
    const span = ((video.at(-1)?.timestamp as number) - (video[0]?.timestamp as number)) >>> 0;
    expect(Math.abs(span - 12 * 90_000)).toBeLessThanOrEqual(3600);
  });
});
