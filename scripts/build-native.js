/**
 * Builds the addon `native/rawsock` with node-gyp: npm's install step, and what `npm test` and
 * `npm start` call when the C++ sources have changed.
 *
 * It works in a checkout and in an installed package. As npm's install step it never fails for want of a
 * compiler: the `host` link needs no addon, and whatever does says so when it is used.
 * Plain JavaScript for Node >= 18, no dependencies.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, cpus } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { addonFiles, bundledNode, chooseNode, nativeDir, npmCommand, root } from "./lib/paths.js";
import { PlainError, runMain, say } from "./lib/say.js";
import { run } from "./lib/spawn.js";

const addon = join(nativeDir, "build", "Release", "rawsock.node");
const stampFile = join(nativeDir, "build", "apo-stamp");
const sourceFile = /\.(cc|h|gyp|gypi)$/;

/** True when the addon was built from these very sources. */
export function nativeIsBuilt() {
  return existsSync(addon) && readText(stampFile) === stamp();
}

/** Builds the addon; throws a plain error that names what is missing. */
export async function buildNative() {
  requireTools();
  const node = existsSync(bundledNode) ? bundledNode : process.execPath;
  const gyp = findNodeGyp();
  const wanted = stamp();
  const args = [...gyp.args, "configure", "build", "--loglevel=error", `--jobs=${parallelism()}`];
  const headers = headersDir();
  if (headers) args.push(`--nodedir=${headers}`);
  rmSync(stampFile, { force: true });
  const env = { ...process.env, PATH: `${dirname(node)}${delimiter}${process.env.PATH ?? ""}` };
  const command = gyp.isScript ? node : gyp.command;
  const code = await run(command, args, { cwd: nativeDir, env, stdio: ["ignore", 2, 2] });
  if (code !== 0 || !existsSync(addon)) {
    throw new PlainError(
      `the native addon could not be built (node-gyp ended with ${code}, the compiler's words are above).` +
        (headers ? "" : " Without Node's headers on the machine node-gyp downloads them: is the network up?"),
    );
  }
  mkdirSync(dirname(stampFile), { recursive: true });
  writeFileSync(stampFile, wanted);
}

/** A hash of all that the addon is made from: sources, headers, this script, Node's ABI, the machine. */
function stamp() {
  const hash = createHash("sha256");
  hash.update(`${process.arch} ${abi()}\n`);
  for (const path of addonFiles(sourceFile)) {
    hash.update(`${path.slice(nativeDir.length)}\n`).update(readFileSync(path));
  }
  hash.update(readFileSync(fileURLToPath(import.meta.url)));
  return hash.digest("hex");
}

/** The ABI number of the Node that will load the addon; the bundled one's is part of its version. */
function abi() {
  const node = chooseNode();
  return node === bundledNode
    ? (readText(join(root, "node_modules", "node", "package.json"))?.match(/"version": "([^"]*)"/)?.[1] ??
        "none")
    : process.versions.modules;
}

/** Throws one sentence that names the packages when a tool is not there. */
function requireTools() {
  const missing = [];
  if (!works(process.env.CXX ?? "g++")) missing.push("a C++ compiler");
  if (!works("make")) missing.push("make");
  if (!works(process.env.PYTHON ?? process.env.npm_config_python ?? "python3")) missing.push("Python 3");
  if (missing.length === 0) return;
  throw new PlainError(
    `${listOf(missing)} ${missing.length === 1 ? "is" : "are"} needed to build the native addon: ` +
      "`apt install g++ make python3` on Debian or Ubuntu (`dnf install gcc-c++ make python3`, " +
      "`apk add g++ make python3 linux-headers`, `pacman -S gcc make python` elsewhere), then run this again.",
  );
}

function works(command) {
  // CXX may carry arguments ("ccache g++"): the first word is the program.
  return spawnSync(command.split(" ")[0], ["--version"], { stdio: "ignore" }).status === 0;
}

function listOf(words) {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** node-gyp: our dev dependency, else the one that npm carries. */
function findNodeGyp() {
  const require = createRequire(import.meta.url);
  const places = [
    () => require.resolve("node-gyp/bin/node-gyp.js"),
    () => process.env.npm_config_node_gyp,
    () => join(dirname(dirname(npmCommand().at(-1))), "node_modules", "node-gyp", "bin", "node-gyp.js"),
  ];
  for (const place of places) {
    try {
      const path = place();
      if (path && existsSync(path)) return { isScript: true, args: [path] };
    } catch {
      // Not there: the next place.
    }
  }
  return { isScript: false, command: "node-gyp", args: [] };
}

/**
 * The folder with Node's headers, or undefined to let node-gyp find or fetch them. Any Node's from 18.17 on will
 * do: the addon uses Node-API only.
 */
export function headersDir() {
  if (process.env.npm_config_nodedir) return undefined;
  const modules = join(root, "node_modules");
  const bundled = `node-linux-${process.arch}`;
  const places = [
    join(modules, "node", "node_modules", bundled),
    join(modules, bundled),
    // Node's own archives and most distributions put the headers beside the program.
    dirname(dirname(process.execPath)),
  ];
  return places.find((place) => existsSync(join(place, "include", "node", "node_api.h")));
}

function parallelism() {
  return typeof availableParallelism === "function" ? availableParallelism() : cpus().length;
}

function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** npm's install step. */
async function main() {
  if (process.env.APO_INSTALL_STEP === "skip") return;
  if (process.platform !== "linux") {
    say("runs on Linux only; the native addon was not built.");
    return;
  }
  if (nativeIsBuilt()) return;
  say("building the native addon.");
  try {
    await buildNative();
  } catch (error) {
    if (!(error instanceof PlainError)) throw error;
    say(error.message);
    say("the install goes on without the addon: the host link works, the relay and the other links do not.");
  }
}

// Through a symlink argv names the link and import.meta.url the file: compare what both lead to.
if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await runMain(main);
