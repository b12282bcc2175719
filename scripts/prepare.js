/**
 * npm's `prepare` step: builds dist/, so that a checkout, or a git URL, can be a dependency as it is.
 *
 * Runs after `npm install` in a checkout and before a package is packed. Without the compiler (an install of an app's
 * own dependencies only) there is nothing to build with, and nothing to say. Plain JavaScript, no dependencies.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { root } from "./lib/paths.js";

const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
if (existsSync(compiler) && existsSync(join(root, "src", "index.ts"))) {
  const { status } = spawnSync(process.execPath, [compiler, "-p", "tsconfig.build.json"], {
    cwd: root,
    stdio: "inherit",
  });
  process.exitCode = status ?? 1;
}
