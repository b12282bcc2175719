/**
 * `apo run`: runs an app unchanged on another link.
 *
 * The command line's own. Its options become environment variables, which `createRuntime` takes its defaults from, in
 * this process, its worker threads and its children.
 */

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { environmentOptions, variableOf } from "../layer1-app/environment.ts";
import { ApoError } from "../layer1-app/errors.ts";
import type { Command } from "./apo.ts";
import { checkEnvironment, flagOf, textFor } from "./link-flags.ts";
import { readArguments, UsageError } from "./usage.ts";

const help = `Usage: apo run FILE [OPTIONS] [-- ARGUMENTS]

Runs an app (a JavaScript or TypeScript module that calls createRuntime) with other defaults: on another link, and with
its packets captured. What the app itself asks for wins.

Options:
  --link LINK          host, fd, tun, packet or xdp (host); apo doctor says which run here
  --address LIST       own addresses, as "10.64.0.1/24, fd64::1/64" (fd, tun, packet)
  --prefixes LIST      whole prefixes that are ours, too (fd, tun, packet)
  --mtu BYTES          the longest IP packet (the device's)
  --queues N           native threads, each with a queue of its own (1)
  --pcap FILE          write every packet to FILE, as pcapng, what is dropped with its reason
  --fd NUMBER          fd: the descriptor, such as 3 with 3<>…
  --vnet-header YES    fd: packets follow a virtio_net_hdr: true (10 bytes), 12 or false (false)
  --device NAME        tun: the device's name (apo%d: the first free number)
  --host-address ADDR  tun: the kernel's address on it (the next free one of our prefix)
  --interface NAME     packet, xdp: the network interface
  --mac ADDR           packet: our hardware address (one of our own making)
  --gateway LIST       packet: routers, as "192.0.2.1, 2001:db8::1"
  --routes LIST        packet: further routes, as "198.51.100.0/24 via 192.0.2.9"
  --xdp-mode MODE      xdp: native, generic or auto (auto)
  --zero-copy YES      xdp: true, false or auto (auto)
  --workers N          layer-2 worker threads (half the cores)
  --app-workers N      app worker threads (half the cores)
  --pool-bytes SIZE    frame pool a thread, such as 64M (64M)
  --memory-bytes SIZE  what TCP connections of a raw link may keep (half the machine's memory)
  --help               this text

Each option is an environment variable as well, of the same name: --link tun is APO_LINK=tun, --host-address is
APO_HOST_ADDRESS.

Examples:
  apo run examples/udp-echo.ts --link tun --address 10.64.0.1/24
  apo run udp-echo.ts --link packet --interface eth0 --address 192.0.2.10/24 --pcap echo.pcapng -- 7007

Exit codes: the app's own; 1 it could not start, 2 a wrong option.
`;

const options = Object.fromEntries(
  environmentOptions.map((option) => [flagOf(option), { type: "string" as const }]),
);

/** The command line, understood. */
export interface RunArguments {
  /** The app's file, absolute. */
  readonly file: string;
  readonly args: readonly string[];
  /** Variables to be set. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Reads `apo run`'s arguments; `environment` is what is set already. Throws UsageError. */
export function readRunArguments(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>> = {},
): RunArguments {
  const cut = args.indexOf("--");
  const own = cut < 0 ? args : args.slice(0, cut);
  const { values, positionals } = readArguments("run", options, own);
  const [file, stray] = positionals;
  if (file === undefined) throw new UsageError("it takes the file of an app", "run");
  if (stray !== undefined) {
    throw new UsageError(`"${stray}" belongs to no option: the app's own arguments follow --`, "run");
  }
  const set: Record<string, string> = {};
  for (const option of environmentOptions) {
    const text = values[flagOf(option)] as string | undefined;
    if (text !== undefined) set[variableOf(option)] = textFor("run", option, text);
  }
  checkEnvironment("run", { ...environment, ...set });
  return { file: resolve(file), args: cut < 0 ? [] : args.slice(cut + 1), environment: set };
}

async function run(args: readonly string[]): Promise<number> {
  const { file, args: rest, environment } = readRunArguments(args, process.env);
  if (!existsSync(file)) throw new UsageError(`there is no file "${file}"`, "run");
  Object.assign(process.env, environment);
  // The app finds its own name and arguments where Node would have put them.
  process.argv.splice(1, process.argv.length, file, ...rest);
  try {
    await import(pathToFileURL(file).href);
  } catch (error) {
    if (!(error instanceof ApoError)) throw error;
    process.stderr.write(`apo: ${error.message}\n`);
    process.exit(1); // What it had started must not keep it alive.
  }
  return typeof process.exitCode === "number" ? process.exitCode : 0;
}

export const runCommand: Command = {
  name: "run",
  summary: "run an app unchanged on another link, its packets captured",
  help,
  run,
};
