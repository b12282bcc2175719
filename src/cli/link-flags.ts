/**
 * A link's options on the command line: they become the environment variables that `createRuntime` reads.
 *
 * The command line's own; `apo run` and `apo relay` take them.
 */

import {
  type EnvironmentOption,
  environmentOptions,
  optionsOfEnvironment,
} from "../layer1-app/environment.ts";
import { ApoError } from "../layer1-app/errors.ts";
import { checkRuntimeOptions } from "../layer1-app/runtime-options.ts";
import { readBytes, UsageError } from "./usage.ts";

/** The option as the command line writes it: --host-address. */
export function flagOf(option: string): string {
  return option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** An option's text as its variable has it. */
export function textFor(command: string, option: EnvironmentOption, text: string): string {
  if (text === "") throw new UsageError(`--${flagOf(option)} takes a value`, command);
  return option === "poolBytes" || option === "memoryBytes"
    ? String(readBytes(command, flagOf(option), text))
    : text;
}

/** What cannot be right for any app is a fault of the command line. */
export function checkEnvironment(
  command: string,
  environment: Readonly<Record<string, string | undefined>>,
): void {
  const defaults = optionsOfEnvironment(environment);
  if (defaults.link === "mem") {
    throw new UsageError(
      'link "mem" joins the runtimes of one process: an app makes its wire by itself, with createWire()',
      command,
    );
  }
  try {
    checkRuntimeOptions(defaults);
  } catch (error) {
    if (!(error instanceof ApoError) || error.code !== "EINVAL") throw error;
    throw new UsageError(inFlags(error.message), command);
  }
}

/** The message of `createRuntime` in the words of the command line. */
function inFlags(message: string): string {
  const [first = "", ...rest] = message.replace(/^createRuntime: /, "").split(" ");
  const known = (environmentOptions as readonly string[]).includes(first);
  return [known ? `--${flagOf(first)}` : first, ...rest].join(" ");
}
