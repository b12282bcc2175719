/**
 * The checks that the options of `createRuntime` and `opens` share, and their words.
 *
 * Layer 1, pure. Every error names the option, what it was, and what it must be.
 */

import { ApoError } from "./errors.ts";

/** A whole number from `least` to `most`, or `unset`. Throws `EINVAL`. */
export function whole(
  verb: string,
  name: string,
  value: unknown,
  unset: number | undefined,
  least: number,
  most: number,
): number {
  if (value === undefined && unset !== undefined) return unset;
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most)
    return value as number;
  throw invalid(verb, name, value, `a whole number from ${least} to ${most}`);
}

/** The error that an option's value is not what it must be. */
export function invalid(verb: string, name: string, value: unknown, wanted: string): ApoError {
  const shown = typeof value === "string" ? JSON.stringify(value) : show(value);
  return new ApoError("EINVAL", `${verb}: ${name} must be ${wanted}, not ${shown}`);
}

function show(value: unknown): string {
  if (typeof value === "object" && value !== null) {
    try {
      return JSON.stringify(value).slice(0, 80);
    } catch {
      return "an object";
    }
  }
  return String(value);
}

/** Refuses options that are not known, with the known one that was perhaps meant. Throws `EINVAL`. */
export function checkNames(verb: string, options: object, known: readonly string[]): void {
  if (typeof options !== "object" || options === null) {
    throw new ApoError("EINVAL", `${verb} takes an object of options, not ${show(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    const hint = near ? `did you mean ${near}?` : `there are ${known.join(", ")}`;
    throw new ApoError("EINVAL", `${verb}: unknown option ${JSON.stringify(name)}: ${hint}`);
  }
}

/** The known name that is at most two edits away. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const close = known.map((other) => ({
    other,
    edits: editsBetween(name.toLowerCase(), other.toLowerCase()),
  }));
  close.sort((a, b) => a.edits - b.edits);
  const best = close[0];
  return best && best.edits <= 2 ? best.other : undefined;
}

function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const swap = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
