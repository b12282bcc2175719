/**
 * `npm run test:asan`: native/rawsock/test/*_test.cc, each a program of its own, under AddressSanitizer and
 * UndefinedBehaviorSanitizer (`-- --thread` for ThreadSanitizer; further words pick the tests that have one of them
 * in their names).
 *
 * The last line counts the programs: `N passed, N failed`. Plain JavaScript, no dependencies.
 */
import { basename } from "node:path";
import { addressSanitizer, compiler, findCompiler, nativeFiles } from "./lib/native-compile.js";
import { PlainError, runMain, say } from "./lib/say.js";
import { capture } from "./lib/spawn.js";

const testTimeoutMs = 120_000;

async function main() {
  const args = process.argv.slice(2);
  const thread = args.includes("--thread");
  const words = args.filter((arg) => !arg.startsWith("--"));
  const command = await findCompiler(["clang++", "g++"]);
  if (!command) throw new PlainError("the sanitizer run needs a C++ compiler: `apt install clang` (or g++).");
  const tools = compiler(
    thread
      ? { command, name: "tsan", flags: ["-fsanitize=thread", "-fno-sanitize-recover=all"] }
      : { command, name: "asan", flags: addressSanitizer(command) },
  );
  const tests = nativeFiles("test", "_test.cc").filter(
    (path) => words.length === 0 || words.some((word) => path.includes(word)),
  );
  if (tests.length === 0) throw new PlainError(`no native test matches ${words.join(" or ")}.`);

  let failed = 0;
  for (const path of tests) if (!(await passes(tools, path))) failed++;
  console.log(`${tests.length - failed} passed, ${failed} failed`);
  return failed ? 1 : 0;
}

async function passes(tools, path) {
  const name = basename(path, ".cc");
  try {
    const program = await tools.link(path);
    const { code, text } = await capture(program, [], { timeout: testTimeoutMs, killSignal: "SIGKILL" });
    say(`${name}: ${code === 0 ? "ok" : `FAILED (${code === 137 ? "ran too long" : `exit code ${code}`})`}`);
    if (code !== 0) process.stderr.write(`${text.trimEnd()}\n`);
    return code === 0;
  } catch (error) {
    say(`${name}: FAILED\n${error.message}`);
    return false;
  }
}

await runMain(main);
