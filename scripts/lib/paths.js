/**
 * Where things are in a checkout, and which Node runs the sources.
 *
 * Plain JavaScript for Node >= 18, no dependencies: it runs before anything is installed.
 */
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const nativeDir = join(root, "native", "rawsock");
export const cacheDir = join(root, ".cache");

/** The Node that the dev dependency `node` brings. */
export const bundledNode = join(root, "node_modules", "node", "bin", "node");

/** Node runs TypeScript by itself from 22.18, and in the 23 line from 23.6. */
export function runsTypeScript(version) {
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  if (major === 22) return minor >= 18;
  if (major === 23) return minor >= 6;
  return major > 23;
}

/** The Node to run the sources with: this one when it is new enough, else the bundled one. */
export function chooseNode() {
  return runsTypeScript(process.version) ? process.execPath : bundledNode;
}

/** The npm that started us, run by `node`, else the one on the PATH: a command and its first arguments. */
export function npmCommand(node = process.execPath) {
  const path = process.env.npm_execpath;
  if (path && existsSync(path) && /npm-cli\.c?js$/.test(path)) return [node, path];
  return ["npm"];
}

/** The files of the addon itself whose names match, sorted: not its build, its tests or its fuzz targets. */
export function addonFiles(pattern, folder = nativeDir) {
  const files = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isFile() && pattern.test(entry.name)) files.push(path);
    const isPart = folder !== nativeDir || !["build", "test", "fuzz"].includes(entry.name);
    if (entry.isDirectory() && isPart) files.push(...addonFiles(pattern, path));
  }
  return files.sort();
}
