/** Copies between shared memory and elsewhere, of all lengths and alignments, against a loop. */
import { expect, test } from "vitest";
import { copyBytes } from "../../src/layer3-ip/copy-bytes.ts";

const random = new Uint8Array(20_000).map((_, i) => (i * 7919) >>> 3);
const lengths = [0, 1, 15, 16, 17, 18, 63, 2047, 2048, 2049, 2050, 4095, 4096, 4097, 9000];

function filled(shared: boolean): Uint8Array {
  const bytes = new Uint8Array(shared ? new SharedArrayBuffer(20_000) : new ArrayBuffer(20_000));
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = random[i] as number;
  return bytes;
}

test.each([
  [true, true],
  [false, true],
  [true, false],
])("from %s to %s shared memory: these bytes, and no others", (sourceShared, targetShared) => {
  const source = filled(sourceShared);
  for (const length of lengths) {
    for (const [from, to] of [
      [0, 0],
      [1, 0],
      [3, 52],
      [8, 17],
    ] as const) {
      const target = filled(targetShared).fill(255);
      copyBytes(source, from, target, to, length);
      const wanted = new Uint8Array(target.length).fill(255);
      for (let i = 0; i < length; i += 1) wanted[to + i] = random[from + i] as number;
      expect(Buffer.compare(target, wanted), `${length} bytes from ${from} to ${to}`).toBe(0);
    }
  }
});

test("a whole array", () => {
  const source = filled(false).slice(0, 3001);
  const target = filled(true).fill(0);
  copyBytes(source, 0, target, 5, source.length);
  expect(Buffer.compare(target.slice(5, 3006), source)).toBe(0);
  expect(target[3006]).toBe(0);
});

test("within one array", () => {
  const bytes = filled(true);
  copyBytes(bytes, 0, bytes, 10_001, 9000);
  expect(Buffer.compare(bytes.slice(10_001, 19_001), random.slice(0, 9000))).toBe(0);
});
