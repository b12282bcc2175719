/**
 * What this process may do of what the links need, by trying it in the native addon.
 *
 * Layer 3, passed on for `apo doctor`.
 */

import { loadNative, type NativeLinkProbe } from "../native.ts";

export type LinkProbe = NativeLinkProbe;

/** Tries what leaves no trace. Throws `ENATIVE` when there is no addon to try it with. */
export function probeLinks(): LinkProbe {
  return loadNative().probeLinks();
}
