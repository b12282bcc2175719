/**
 * Are the packages that package-lock.json names installed? And if not: install them.
 *
 * npm leaves `node_modules/.package-lock.json` behind when an install has come to its end; comparing the
 * two costs a millisecond. Plain JavaScript for Node >= 18, no dependencies.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { bundledNode, npmCommand, root, runsTypeScript } from "./paths.js";
import { PlainError, say } from "./say.js";
import { run } from "./spawn.js";

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
  const env = { ...process.env, APO_INSTALL_STEP: "skip" };
  const flags = ["--include=dev", "--loglevel=error", "--no-audit", "--no-fund"];
  say(`${reason}: running npm ci (first time only, usually under a minute).`);
  let code = await npm(["ci", ...flags], env);
  if (code !== 0 && code < 128) {
    say("npm ci did not succeed (its words are above); trying npm install instead.");
    code = await npm(["install", ...flags], env);
  }
  if (code !== 0) {
    throw new PlainError(
      `npm could not install the packages (exit code ${code}, its words are above). ` +
        "Check the network and the npm registry (`npm ping`), then run the same command again.",
    );
  }
  if (runsTypeScript(process.version) || existsSync(bundledNode)) return;
  say(`this Node is ${process.version}, too old to run TypeScript; fetching the bundled one.`);
  await npm(["rebuild", "node", "--loglevel=error"], env);
  if (existsSync(bundledNode)) return;
  throw new PlainError(
    `this Node is ${process.version} and npm did not install the bundled one (is npm's ignore-scripts ` +
      "set?). Run `npm rebuild node --ignore-scripts=false`, or use Node 22.18 or newer.",
  );
}

function npm(args, env) {
  const [command, ...first] = npmCommand();
  // npm's own report is progress: it goes to stderr, so that stdout stays the command's.
  return run(command, [...first, ...args], { cwd: root, env, stdio: ["ignore", 2, 2] });
}
