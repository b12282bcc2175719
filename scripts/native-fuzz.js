/**
 * `npm run fuzz -- NAME|all [SECONDS]`: libFuzzer on native/rawsock/fuzz/NAME_fuzz.cc with ASan and UBSan.
 *
 * Seeds are read from native/rawsock/fuzz/corpus/NAME; what is found on the way is kept in .cache, a crash
 * as crash-… in the current folder. `all` shows libFuzzer's words only of a target that failed. The last line
 * counts targets. Plain JavaScript, no dependencies.
 */
import { existsSync, mkdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { addressSanitizer, compiler, findCompiler, nativeFiles } from "./lib/native-compile.js";
import { cacheDir, nativeDir } from "./lib/paths.js";
import { PlainError, runMain, say } from "./lib/say.js";
import { capture, run } from "./lib/spawn.js";

const shownLines = 80;

async function main() {
  const [wanted, secondsText = "60"] = process.argv.slice(2);
  const targets = nativeFiles("fuzz", "_fuzz.cc").map((path) => [basename(path, "_fuzz.cc"), path]);
  const names = targets.map(([name]) => name);
  const chosen = wanted === "all" ? targets : targets.filter(([name]) => name === wanted);
  const seconds = Number(secondsText);
  if (chosen.length === 0 || !(seconds > 0)) {
    throw new PlainError(
      `usage: npm run fuzz -- NAME|all [SECONDS]; the targets are ${names.join(", ") || "none"}.`,
    );
  }
  const command = await findCompiler(["clang++"]);
  if (!command) throw new PlainError("fuzzing needs clang: `apt install clang libclang-rt-dev`.");
  const tools = compiler({ command, name: "asan", flags: addressSanitizer(command) });

  const quiet = wanted === "all";
  const programs = [];
  for (const [name, path] of chosen) programs.push([name, await tools.link(path, ["-fsanitize=fuzzer"])]);
  let failed = 0;
  // Each target keeps one processor busy.
  const runOne = async () => {
    for (let next = programs.shift(); next; next = programs.shift()) {
      if (!(await survives(...next, { seconds, quiet }))) failed++;
    }
  };
  await Promise.all(Array.from({ length: quiet ? availableParallelism() : 1 }, runOne));
  console.log(`${chosen.length - failed} passed, ${failed} failed`);
  return failed ? 1 : 0;
}

async function survives(name, program, { seconds, quiet }) {
  const found = join(cacheDir, "fuzz", name);
  const seeds = join(nativeDir, "fuzz", "corpus", name);
  mkdirSync(found, { recursive: true });
  const args = [
    `-max_total_time=${seconds}`,
    "-timeout=10",
    "-rss_limit_mb=2048",
    "-print_final_stats=1",
    found,
  ];
  if (existsSync(seeds)) args.push(seeds);
  if (!quiet) return ended(name, await run(program, args, { stdio: ["ignore", 2, 2] }));
  const { code, text } = await capture(program, args);
  if (code !== 0) process.stderr.write(`${text.trimEnd().split("\n").slice(-shownLines).join("\n")}\n`);
  return ended(name, code, /number_of_executed_units: (\d+)/.exec(text)?.[1]);
}

function ended(name, code, runs) {
  const result = code === 0 ? `ok${runs ? `, ${runs} runs` : ""}` : `FAILED (exit code ${code})`;
  say(`fuzz ${name}: ${result}`);
  return code === 0;
}

await runMain(main);
