/**
 * The `apo` command: finds the sub-command and runs it.
 *
 * The command line's face: it may use the public interface and the apps of layer 1, nothing below. Exit codes: 0 done
 * or stopped by a signal, 1 it could not be done, 2 the command line is wrong.
 */

import { readFileSync } from "node:fs";
import { doctorCommand } from "./doctor.ts";
import { relayCommand } from "./relay.ts";
import { runCommand } from "./run.ts";
import { simCommand } from "./sim.ts";
import { suggest, UsageError } from "./usage.ts";

/** One sub-command. */
export interface Command {
  readonly name: string;
  /** One line for `apo --help`. */
  readonly summary: string;
  readonly help: string;
  /** Resolves with the exit code. Throws UsageError, or ApoError for what could not be done. */
  run(args: readonly string[]): Promise<number>;
}

const commands: readonly Command[] = [relayCommand, runCommand, doctorCommand, simCommand];

/** What `apo --help` prints. */
export const help = `Usage: apo COMMAND [OPTIONS]

Commands:
${commands.map(({ name, summary }) => `  ${name.padEnd(10)} ${summary}`).join("\n")}

Options:
  --help      this text; apo COMMAND --help for a command's own
  --version   the version

Examples:
  apo relay --demo                                  serve a test clip, and say how to play it
  apo relay --pull cam=rtsp://user:pass@10.0.0.9/1  one stream from a camera, for any number of readers
  apo run app.ts --link tun --address 10.64.0.1/24  an app on a TUN device of its own
  apo doctor                                        which links run here
`;

function version(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** Runs a command line (without the program's name); resolves with the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const [first, ...rest] = args;
  try {
    if (first === undefined || first === "--help" || first === "-h" || first === "help") {
      process.stdout.write(help);
      return first === undefined ? 2 : 0;
    }
    if (first === "--version" || first === "-v") {
      process.stdout.write(`${version()}\n`);
      return 0;
    }
    const command = commands.find(({ name }) => name === first);
    if (command === undefined) {
      const known = [...commands.map(({ name }) => name), "--help", "--version"];
      throw new UsageError(`there is no command "${first}"${suggest(first, known)}`);
    }
    const own = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest;
    if (own.includes("--help") || own.includes("-h")) {
      process.stdout.write(command.help);
      return 0;
    }
    return await command.run(rest);
  } catch (error) {
    if (error instanceof UsageError) {
      const command = error.command === "" ? "apo" : `apo ${error.command}`;
      process.stderr.write(`${command}: ${error.message}\nTry: ${command} --help\n`);
      return 2;
    }
    if (!(error instanceof Error) || !("code" in error)) throw error;
    process.stderr.write(`apo: ${error.message}\n`);
    return 1;
  }
}

if (process.argv[1] !== undefined && import.meta.filename === process.argv[1]) {
  process.exitCode = await main(process.argv.slice(2));
}
