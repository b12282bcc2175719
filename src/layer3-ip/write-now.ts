/**
 * One write to a descriptor of the kernel's, without waiting: what the `host` link asks of the addon.
 *
 * Layer 3. It knows nothing of sockets or streams; whoever calls it owns the descriptor.
 */

import { loadNative } from "./native.ts";

/** Bytes that the kernel took, or a negative errno. */
export type WriteNow = (fd: number, bytes: Uint8Array) => number;

/** The addon's function; undefined when the addon is not there, since the `host` link does without it. */
export function loadWriteNow(): WriteNow | undefined {
  try {
    return loadNative().writeNow;
  } catch {
    return undefined;
  }
}
