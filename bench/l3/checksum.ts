/**
 * The Internet checksum of the native code, over bytes that are in the cache.
 */
import { loadNative } from "../../src/layer3-ip/native.ts";
import { type Row, row } from "../lib/bench.ts";
import { median } from "../lib/stats.ts";
import type { Effort, Part } from "./part.ts";

const sizes = [64, 1500, 65_536] as const;
const mark = { op: ">=", target: 10 } as const;
/** Bytes summed a measurement: some ten milliseconds. */
const bytesInAll = 2 ** 28;

export const checksumPart: Part = {
  name: "checksum",
  async measure({ rounds }: Effort): Promise<Row[]> {
    const { benchChecksum } = loadNative();
    return sizes.map((size) => {
      const bytes = Uint8Array.from({ length: size }, (_, i) => (i * 7919) & 0xff);
      const times = Math.ceil(bytesInAll / size);
      const rates: number[] = [];
      for (let round = 0; round <= rounds; round += 1) {
        const begun = process.hrtime.bigint();
        benchChecksum(bytes, times);
        const ns = Number(process.hrtime.bigint() - begun);
        if (round > 0) rates.push((size * times) / ns);
      }
      const marked = size === 65_536 ? mark : undefined;
      return row(`checksum of ${size} bytes`, median(rates), "GB/s", marked);
    });
  },
};
