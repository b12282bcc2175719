/**
 * `npm run bench -- NAME`: runs one bench and reports its rows. See `--help`.
 *
 * A bench is a folder beside this file with an index.ts; adding one is adding the folder. Whatever a bench started
 * ends with it, at Ctrl-C too.
 */
import { killAllChildren, stopAllChildren } from "./lib/children.ts";
import { runCommandLine } from "./lib/command-line.ts";

for (const [signal, status] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.once(signal, () => {
    process.stderr.write(`${signal}: stopping\n`);
    void stopAllChildren().then(() => process.exit(status));
  });
}
process.on("exit", killAllChildren);

process.exitCode = await runCommandLine(process.argv.slice(2), {
  folder: import.meta.dirname,
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
});
await stopAllChildren();
