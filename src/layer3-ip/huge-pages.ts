/**
 * Huge pages for tables that are looked up at random: without them, half of a lookup among millions goes into finding
 * the page.
 *
 * Layer 3. Advice to the kernel and no more: nothing is touched by it, and where it is not taken (no addon, or
 * /sys/kernel/mm/transparent_hugepage/enabled says "never") all goes on as before, slower.
 */

import { loadNative } from "./native.ts";

/** Below this a huge page would cost more memory than it is worth. */
const leastWords = 2 ** 20;

/** Asks for huge pages where `count` words from `first` on lie. False: it is not done. */
export function preferHugePages(
  memory: ArrayBuffer | SharedArrayBuffer,
  first: number,
  count: number,
): boolean {
  if (count < leastWords) return false;
  try {
    return loadNative().preferHugePages(new Uint32Array(memory), first, count) === 0;
  } catch {
    return false;
  }
}
