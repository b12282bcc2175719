/**
 * How the scripts speak: plain sentences on stderr, so that a command's own output stays clean on stdout.
 *
 * Plain JavaScript for Node >= 18, no dependencies: it runs before anything is installed.
 */

/** One line of progress or advice. */
export function say(text) {
  process.stderr.write(`apo: ${text}\n`);
}

/** An error whose message is all that the user needs: no stack is shown for it. */
export class PlainError extends Error {}

/** Runs a script's main function; a plain error ends it with one line and exit code 1. */
export async function runMain(main) {
  try {
    const code = await main();
    if (code) process.exitCode = code;
  } catch (error) {
    say(error instanceof PlainError ? error.message : (error?.stack ?? String(error)));
    process.exitCode = 1;
  }
}
