/**
 * Programs that the tests of pulls and of the demo run: by name, with an end, and told when they are not
 * there.
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";

const told = new Set<string>();

/** True, with one line saying so, when the program is not installed. */
export function toolMissing(name: string): boolean {
  const missing = spawnSync(name, ["-version"]).error !== undefined;
  if (missing && !told.has(name)) console.log(`skipped: what needs ${name}, since it is not installed`);
  told.add(name);
  return missing;
}

export interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a program to its end, or to `deadlineMs`. */
export async function run(name: string, args: readonly string[], deadlineMs = 50_000): Promise<Finished> {
  const child = spawn(name, args, { stdio: ["ignore", "pipe", "pipe"], timeout: deadlineMs });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, out, err };
}

/** Starts a program that is ended by disposing of it. */
export function startTool(
  name: string,
  args: readonly string[],
): AsyncDisposable & { readonly child: ChildProcess } {
  const child = spawn(name, args, { stdio: ["ignore", "ignore", "ignore"] });
  return {
    child,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "close");
    },
  };
}
