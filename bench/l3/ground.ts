/**
 * Where the device paths are measured: namespaces joined by a veth pair, the programs, and how each link and its C
 * loop are started there.
 */
import { Child, type Command, runToEnd } from "../lib/children.ts";
import type { Workshop } from "../lib/compile.ts";
import type { Network } from "../lib/netns.ts";
import { CannotRun } from "./part.ts";
import type { StationOptions } from "./station.ts";

const sources = {
  tun_loop: ["tun_loop.c", "loop.c"],
  packet_loop: ["packet_loop.c", "loop.c"],
  xdp_loop: ["xdp_loop.c", "loop.c"],
  generator: ["generator.c", "loop.c"],
  wake: ["wake.c"],
  meter: ["meter.c", "loop.c", "../../lib/tools/tcx_counter.c"],
} as const;

export type Programs = Readonly<Record<keyof typeof sources, string>>;

export async function compilePrograms(workshop: Workshop): Promise<Programs> {
  const programs: Partial<Record<keyof typeof sources, string>> = {};
  for (const [name, files] of Object.entries(sources)) {
    const paths = files.map((file) => `${import.meta.dirname}/reference/${file}`);
    programs[name as keyof typeof sources] = await workshop.compile(name, paths);
  }
  return programs as Programs;
}

export interface Ground {
  readonly network: Network;
  readonly programs: Programs;
}

/** Starts a program in one of the two namespaces and waits for its first line. Throws `CannotRun` with its words. */
export async function start(ground: Ground, where: "server" | "sink", command: Command): Promise<Child> {
  const { network } = ground;
  const inside = where === "server" ? network.inServer(command) : network.inSink(command);
  const child = new Child(inside, { name: command[0].slice(command[0].lastIndexOf("/") + 1) });
  try {
    await child.answer<{ ready: boolean }>();
  } catch (error) {
    await child.stop();
    throw new CannotRun((error as Error).message.replaceAll(/\s+/g, " ").slice(0, 300));
  }
  return child;
}

/** A station (our link, our worker) in the server's namespace. */
export function startStation(ground: Ground, options: StationOptions): Promise<Child> {
  const program = `${import.meta.dirname}/station.ts`;
  return start(ground, "server", [process.execPath, program, JSON.stringify(options)]);
}

/** `ip ARGS…` in a namespace. */
export function ip({ network }: Ground, where: "server" | "sink", ...args: string[]): Promise<string> {
  const command: Command = ["ip", ...args];
  return runToEnd(where === "server" ? network.inServer(command) : network.inSink(command));
}

/** The hardware address of an interface. */
export async function macOf(ground: Ground, where: "server" | "sink", device: string): Promise<string> {
  const [link] = JSON.parse(await ip(ground, where, "-json", "link", "show", device)) as [
    { address: string },
  ];
  return link.address;
}

/** Round trips of pings to `address`, in microseconds. Throws `CannotRun` without `ping` or an answer. */
export async function pings(ground: Ground, from: "server" | "sink", address: string): Promise<number[]> {
  const command: Command = ["ping", "-n", "-i", "0.005", "-c", "200", "-W", "2", address];
  const inside = from === "server" ? ground.network.inServer(command) : ground.network.inSink(command);
  const text = await runToEnd(inside).catch((error: Error) => {
    throw new CannotRun(`ping did not do: ${error.message.slice(0, 200)}`);
  });
  return [...text.matchAll(/time=([\d.]+) ms/g)].map((match) => 1000 * Number(match[1]));
}
