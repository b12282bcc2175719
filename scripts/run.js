/**
 * `node scripts/run.js TASK [ARGS]`: what npm's scripts call. Makes the checkout ready first, then runs the
 * task with a Node that runs TypeScript.
 *
 * Plain JavaScript for Node >= 18, no dependencies: it runs before anything is installed.
 */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { makeReady } from "./lib/bootstrap.js";
import { chooseNode, root } from "./lib/paths.js";
import { PlainError, runMain } from "./lib/say.js";
import { run } from "./lib/spawn.js";

const tasks = {
  start: { run: (args) => node(["src/cli/apo.ts", "relay", "--demo", ...args]) },
  test: { run: (args) => node([tool("vitest/vitest.mjs"), "run", "--configLoader=native", ...args]) },
  check: { native: false, run: (args) => node(["scripts/check.js", ...args]) },
  format: { native: false, run: (args) => node(["scripts/check.js", "--write", ...args]) },
  example: { native: false, run: runExample },
  bench: { run: (args) => node(["bench/main.ts", ...args]) },
  build: { native: false, run: buildDist },
  "build:native": { run: () => 0 },
  docs: { native: false, run: (args) => node([tool("typedoc/bin/typedoc"), ...args]) },
  "test:asan": { native: false, run: (args) => node(["scripts/native-tests.js", ...args]) },
  "test:packed": { native: false, run: (args) => node(["scripts/packed-smoke.js", ...args]) },
  fuzz: { native: false, run: (args) => node(["scripts/native-fuzz.js", ...args]) },
};

function tool(path) {
  return join("node_modules", path);
}

/** Runs the chosen Node in the root of the checkout; it is also the `node` of everything that this starts. */
function node(args) {
  const program = chooseNode();
  const path = `${dirname(program)}${delimiter}${join(root, "node_modules", ".bin")}`;
  const env = { ...process.env, PATH: `${path}${delimiter}${process.env.PATH ?? ""}` };
  return run(program, args, { cwd: root, env });
}

/** `npm run example -- echo 7007`: a name of examples/ and its arguments. */
function runExample([name, ...args]) {
  const folder = join(root, "examples");
  const names = readdirSync(folder).filter((file) => file.endsWith(".ts"));
  if (names.includes(`${name}.ts`)) return node([join("examples", `${name}.ts`), ...args]);
  const known = names.map((file) => file.slice(0, -3)).join(", ");
  throw new PlainError(`usage: npm run example -- NAME [ARGS]; the names are ${known}.`);
}

async function buildDist(args) {
  if (!existsSync(join(root, "src", "index.ts"))) throw new PlainError("src/index.ts is not there to build.");
  rmSync(join(root, "dist"), { recursive: true, force: true });
  return node([tool("typescript/bin/tsc"), "-p", "tsconfig.build.json", ...args]);
}

await runMain(async () => {
  const [name, ...args] = process.argv.slice(2);
  const task = Object.hasOwn(tasks, name ?? "") ? tasks[name] : undefined;
  if (!task) throw new PlainError(`no task "${name ?? ""}"; there are ${Object.keys(tasks).join(", ")}.`);
  await makeReady({ native: task.native ?? true });
  return task.run(args);
});
