/**
 * Makes a fresh clone ready: packages installed, addon built; quick when nothing is missing.
 *
 * Plain JavaScript for Node >= 18, no dependencies: it runs before anything is installed.
 */

import { buildNative, headersDir, nativeIsBuilt } from "../build-native.js";
import { installPackages, missingPackage, restoreHeaders } from "./installed.js";
import { withLock } from "./lock.js";
import { PlainError, say } from "./say.js";

/** Installs and builds what is missing; with `native: false` the addon is left alone. */
export async function makeReady({ native = true } = {}) {
  if (process.platform !== "linux") {
    throw new PlainError(`apo runs on Linux only; this is ${process.platform}.`);
  }
  if (!missingPackage() && (!native || nativeIsBuilt())) return;
  await withLock(async () => {
    // Looked at again: who held the lock before us may have done it all.
    const missing = missingPackage();
    if (missing) await installPackages(missing);
    if (native && !nativeIsBuilt()) {
      if (!headersDir()) await restoreHeaders();
      say("building the native addon (C++, usually under a minute).");
      await buildNative();
    }
    say("ready.");
  });
}
