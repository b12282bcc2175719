/**
 * `npm run check`: format, lint, types, docs. `npm run format` (`--write`) puts right what can be put right.
 *
 * Every step runs even when one before it failed; the last line counts them: `N passed, N failed`.
 * Plain JavaScript, run by the Node that scripts/run.js chose.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { nativeDir, root } from "./lib/paths.js";
import { runMain, say } from "./lib/say.js";
import { capture } from "./lib/spawn.js";

const shownLines = 80;
const script = (path, ...args) => [process.execPath, [join("node_modules", path), ...args]];

async function main() {
  const write = process.argv.includes("--write");
  const biome = ["check", "--error-on-warnings", ...(write ? ["--write"] : []), "."];
  const clang = write ? ["-i"] : ["--dry-run", "-Werror"];
  const steps = [
    ["format and lint", script("@biomejs/biome/bin/biome", ...biome)],
    [
      "C++ format",
      (await clangFormatIsThere()) ? ["clang-format", [...clang, ...cppFiles(nativeDir)]] : undefined,
    ],
  ];
  if (!write) {
    steps.push(["types", script("typescript/bin/tsc", "-p", "tsconfig.json")]);
    steps.push(["docs", script("typedoc/bin/typedoc", "--logLevel", "Warn")]);
  }
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const [name, command] of steps) counts[await step(name, command)]++;
  const skipped = counts.skipped ? `, ${counts.skipped} skipped` : "";
  console.log(`${counts.passed} passed, ${counts.failed} failed${skipped}`);
  return counts.failed ? 1 : 0;
}

async function step(name, command) {
  if (!command) {
    say(`${name}: skipped, clang-format is not installed (\`apt install clang-format\`).`);
    return "skipped";
  }
  const { code, text } = await capture(command[0], command[1], { cwd: root });
  say(`${name}: ${code === 0 ? "ok" : "FAILED"}`);
  if (code !== 0) process.stderr.write(beginning(text));
  return code === 0 ? "passed" : "failed";
}

/** Enough of a long list to begin with. */
function beginning(text) {
  const lines = text.trimEnd().split("\n");
  const rest = lines.length - shownLines;
  return `${lines.slice(0, shownLines).join("\n")}\n${rest > 0 ? `… and ${rest} more lines.\n` : ""}`;
}

async function clangFormatIsThere() {
  return capture("clang-format", ["--version"]).then(
    ({ code }) => code === 0,
    () => false,
  );
}

function cppFiles(folder) {
  const files = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && entry.name !== "build" && entry.name !== "corpus")
      files.push(...cppFiles(path));
    else if (/\.(cc|h)$/.test(entry.name)) files.push(path);
  }
  return files;
}

await runMain(main);
