/**
 * Reading a sub-command's options with words for what is wrong.
 *
 * The command line's own; it knows no command.
 */

import { type ParseArgsOptionsConfig, parseArgs } from "node:util";

/** The command line is wrong: told to the user, exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  readonly command: string;

  constructor(message: string, command = "") {
    super(message);
    this.command = command;
  }
}

/** ` (did you mean "relay"?)` if one of `known` is close to `word`; otherwise "". */
export function suggest(word: string, known: readonly string[]): string {
  let best = "";
  let least = 3; // Further off, it is another word.
  for (const candidate of known) {
    const steps = distance(word, candidate);
    if (steps < least) {
      best = candidate;
      least = steps;
    }
  }
  return best === "" ? "" : ` (did you mean "${best}"?)`;
}

/** How many letters must be put in, taken out or changed. */
function distance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, i) => i);
  for (let i = 1; i <= left.length; i++) {
    const next = [i];
    for (let j = 1; j <= right.length; j++) {
      const change = (row[j - 1] ?? 0) + (left[i - 1] === right[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, change));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}

/** The values of a command that takes options only; what is wrong is thrown as a UsageError. */
export function readOptions<T extends ParseArgsOptionsConfig>(
  command: string,
  options: T,
  args: readonly string[],
) {
  const { values, positionals } = readArguments(command, options, args);
  const [word] = positionals;
  if (word !== undefined) throw new UsageError(`"${word}" belongs to no option`, command);
  return values;
}

/** The values of a command's options, and the words beside them; what is wrong is thrown as a UsageError. */
export function readArguments<T extends ParseArgsOptionsConfig>(
  command: string,
  options: T,
  args: readonly string[],
) {
  const known = Object.keys(options).map((name) => `--${name}`);
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true });
  } catch (error) {
    if (!(error instanceof Error) || !("code" in error)) throw error;
    if (error.code === "ERR_PARSE_ARGS_UNKNOWN_OPTION") {
      const given = args.find((one) => one.startsWith("-") && !known.includes(one.split("=")[0] ?? "")) ?? "";
      const word = given.split("=")[0] ?? "";
      throw new UsageError(`there is no option "${word}"${suggest(word, known)}`, command);
    }
    throw new UsageError(error.message.split(/[.\n]/)[0] ?? error.message, command);
  }
}

/** A whole number from `least` to `most`. */
export function readNumber(
  command: string,
  option: string,
  text: string,
  least: number,
  most: number,
): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new UsageError(`--${option} takes a whole number from ${least} to ${most}, not "${text}"`, command);
}

const units: Readonly<Record<string, number>> = { "": 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/** Bytes, such as "65536", "512k" or "4M". */
export function readBytes(command: string, option: string, text: string): number {
  const match = /^(\d{1,12})([kmg]?)$/i.exec(text);
  const bytes = Number(match?.[1]) * (units[(match?.[2] ?? "").toLowerCase()] ?? 1);
  if (match !== null && bytes > 0 && bytes <= 2 ** 40) return bytes;
  throw new UsageError(`--${option} takes a size such as 512k or 4M, not "${text}"`, command);
}
