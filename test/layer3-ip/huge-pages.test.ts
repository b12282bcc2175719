/** Advice on huge pages: the kernel has it, for the words named and no others. */
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { preferHugePages } from "../../src/layer3-ip/huge-pages.ts";
import { loadNative } from "../../src/layer3-ip/native.ts";

const words = 2 ** 24;

/** Bytes of this process that are advised to be in huge pages. */
function advisedBytes(): number {
  let sum = 0;
  for (const area of readFileSync("/proc/self/smaps", "utf8").split(/(?=^[0-9a-f]+-[0-9a-f]+ )/m)) {
    const kilobytes = Number(/^Size: +(\d+) kB/m.exec(area)?.[1] ?? 0);
    if (/^VmFlags:.* hg\b/m.test(area)) sum += kilobytes * 1024;
  }
  return sum;
}

describe("huge pages", () => {
  const isThere = existsSync("/sys/kernel/mm/transparent_hugepage");
  test.skipIf(!isThere)("are asked for where they are wanted, to a page", () => {
    const memory = new SharedArrayBuffer(words * 4);
    const before = advisedBytes();
    expect(preferHugePages(memory, words / 4, words / 2)).toBe(true);
    const advised = advisedBytes() - before;
    expect(advised).toBeLessThanOrEqual(words * 2);
    expect(advised).toBeGreaterThan(words * 2 - 3 * 4096);
    expect(new Int32Array(memory)[words / 2]).toBe(0);
  });

  test("are not for small tables", () => {
    expect(preferHugePages(new ArrayBuffer(4 * 4096), 0, 4096)).toBe(false);
  });

  test("words that are not there are refused", () => {
    const { preferHugePages: native } = loadNative();
    const few = new Uint32Array(new SharedArrayBuffer(4096));
    expect(() => native(few, 0, 1025)).toThrow(/outside/);
    expect(() => native(few, 1025, 0)).toThrow(/outside/);
    expect(native(few, 1024, 0)).toBe(0);
    expect(() => native([] as unknown as Uint32Array, 0, 0)).toThrow(TypeError);
  });
});
