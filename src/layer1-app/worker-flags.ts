/**
 * The Node flags that a worker thread is started with.
 *
 * Layer 1. A worker inherits the flags of its process, and dies of those that speak of the main script:
 * `node --input-type=module -e '...'` would otherwise have no runtime. Flags that are given to it by name must be such
 * as a thread may have of its own (V8's are the whole process's, and hold anyway), so then only those pass that change
 * how modules are found and read.
 */

const aboutMainScript = /^(?:-e|-p|-pe|-c|-i|--eval|--print|--check|--interactive|--input-type)(?:=|$)/;
const modulesOwn = [
  ...["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions"],
  ...["--enable-source-maps", "--no-warnings", "--experimental-strip-types", "--no-experimental-strip-types"],
];
const withValue = /^(?:-r|--require|--import|--loader|--experimental-loader|-C|--conditions)$/;

/** What to give a worker as `execArgv`; undefined: let it inherit. */
export function workerFlags(flags: readonly string[] = process.execArgv): string[] | undefined {
  if (!flags.some((flag) => aboutMainScript.test(flag))) return undefined;
  const kept: string[] = [];
  for (let i = 0; i < flags.length; i += 1) {
    const flag = flags[i] as string;
    if (!modulesOwn.includes(flag.replace(/=.*$/, ""))) continue;
    kept.push(flag);
    if (withValue.test(flag) && i + 1 < flags.length) kept.push(flags[++i] as string);
  }
  return kept;
}
