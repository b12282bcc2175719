/**
 * The Node flags that a worker thread is started with.
 *
 * Layer 1. A worker inherits the flags of its process, and refuses to start with those that speak of the main script:
 * `node --input-type=module -e '...'` would otherwise have no runtime.
 */

/** Flags whose value follows as a word of its own. */
const withValue = /^(?:-e|-p|-pe|--eval|--print|--input-type)$/;
const aboutMainScript =
  /^(?:-e|-p|-pe|-c|-i|--eval|--print|--check|--interactive|--input-type|--watch)(?:=|$)/;

/** `flags` without those that a worker does not take; for `execArgv`. */
export function workerFlags(flags: readonly string[] = process.execArgv): string[] {
  const kept: string[] = [];
  for (let i = 0; i < flags.length; i += 1) {
    const flag = flags[i] as string;
    if (!aboutMainScript.test(flag)) kept.push(flag);
    else if (withValue.test(flag)) i += 1;
  }
  return kept;
}
