#!/usr/bin/env node
/**
 * The `apo` command: runs dist/ when installed, the sources in a checkout.
 *
 * Plain JavaScript, so that a Node too old for the rest still says what is wrong.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chooseNode, root, runsTypeScript } from "../scripts/lib/paths.js";
import { PlainError, runMain } from "../scripts/lib/say.js";
import { run } from "../scripts/lib/spawn.js";

await runMain(async () => {
  const source = join(root, "src", "cli", "apo.ts");
  const program = existsSync(source) ? source : join(root, "dist", "cli", "apo.js");
  if (program === source) {
    const { makeReady } = await import("../scripts/lib/bootstrap.js");
    await makeReady();
    if (!runsTypeScript(process.version)) return run(chooseNode(), [source, ...process.argv.slice(2)]);
  } else if (!runsTypeScript(process.version)) {
    throw new PlainError(`needs Node 22.18 or newer; this is ${process.version} (${process.execPath}).`);
  }
  // The program finds itself where Node would have put it, had it been started directly.
  process.argv[1] = program;
  await import(pathToFileURL(program).href);
  return undefined;
});
