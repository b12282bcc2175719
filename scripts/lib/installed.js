/**
 * Are the packages that package-lock.json names installed? And if not: install them.
 *
 * npm leaves `node_modules/.package-lock.json` behind when an install has come to its end; comparing the
 * two costs a millisecond. Plain JavaScript for Node >= 18, no dependencies.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { bundledNode, cacheDir, npmCommand, root, runsTypeScript } from "./paths.js";
import { PlainError, say } from "./say.js";
import { run } from "./spawn.js";

const quiet = ["--loglevel=error", "--no-audit", "--no-fund"];
/** npm leaves out optional packages without a word when its Node is older than they ask; vitest's are such. */
const [oldestMajor, oldestMinor] = [20, 19];

/** Undefined when all is there, else what is missing, in words. */
export function missingPackage() {
  const hidden = readPackages(join(root, "node_modules", ".package-lock.json"));
  if (!hidden) return "no packages are installed yet";
  const wanted = readPackages(join(root, "package-lock.json"));
  if (!wanted) return undefined;
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === "" || entry.optional || entry.peer) continue;
    const found = hidden[path];
    if (!found) return `${path} is missing`;
    if (found.version !== entry.version) return `${path} is ${found.version}, not ${entry.version}`;
  }
  if (!runsTypeScript(process.version) && !existsSync(bundledNode)) return "the bundled Node is missing";
  return undefined;
}

function readPackages(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8")).packages;
  } catch {
    return undefined;
  }
}

/** Installs the packages with npm: `ci`, or `install` when the lock file and package.json disagree. */
export async function installPackages(reason) {
  say(`${reason}: running npm ci (first time only, usually under a minute).`);
  const node = isOld(process.version) ? await fetchNode() : undefined;
  const flags = ["--include=dev", ...quiet];
  let code = await npm(["ci", ...flags], { node });
  if (code !== 0 && code < 128) {
    say("npm ci did not succeed (its words are above); trying npm install instead.");
    code = await npm(["install", ...flags], { node });
  }
  if (code !== 0) {
    throw new PlainError(
      `npm could not install the packages (exit code ${code}, its words are above). ` +
        "Check the network and the npm registry (`npm ping`), then run the same command again.",
    );
  }
  if (runsTypeScript(process.version) || existsSync(bundledNode)) return;
  say(`this Node is ${process.version}, too old to run TypeScript; fetching the bundled one.`);
  await npm(["rebuild", "node", "--loglevel=error"], { node });
  if (existsSync(bundledNode)) return;
  throw new PlainError(
    `this Node is ${process.version} and npm did not install the bundled one (is npm's ignore-scripts ` +
      "set?). Run `npm rebuild node --ignore-scripts=false`, or use Node 22.18 or newer.",
  );
}

/** A later `npm install` prunes the headers that came with the bundled Node: its install step brings them back. */
export async function restoreHeaders() {
  if (process.env.npm_config_nodedir || !existsSync(bundledNode)) return;
  await npm(["rebuild", "node", "--loglevel=error"]);
}

function isOld(version) {
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor);
}

/** The Node that the lock file names, installed apart for npm itself to run on. */
async function fetchNode() {
  const cwd = join(cacheDir, "node");
  const program = join(cwd, "node_modules", "node", "bin", "node");
  if (existsSync(program)) return program;
  say(`this Node is ${process.version}: fetching a newer one for npm to run on.`);
  const version = readPackages(join(root, "package-lock.json"))?.["node_modules/node"]?.version ?? "24";
  mkdirSync(cwd, { recursive: true });
  const manifest = { private: true, dependencies: { node: version }, allowScripts: { node: true } };
  writeFileSync(join(cwd, "package.json"), JSON.stringify(manifest));
  await npm(["install", "--no-package-lock", ...quiet], { cwd });
  // Without it npm does what it can, and says what it could not.
  return existsSync(program) ? program : undefined;
}

/** npm's own report is progress: it goes to stderr, so that stdout stays the command's. */
function npm(args, { cwd = root, node } = {}) {
  const [command, ...first] = npmCommand(node);
  const env = { ...process.env, APO_INSTALL_STEP: "skip" };
  if (node) env.PATH = `${dirname(node)}${delimiter}${env.PATH ?? ""}`;
  return run(command, [...first, ...args], { cwd, env, stdio: ["ignore", 2, 2] });
}
