/**
 * What the fan-out bench compares: the relay as users start it, two loops in C, two in Node.
 *
 * Each is started in the server's namespace and says where it wants the stream. Knows nothing of measuring.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Child, type Command } from "../lib/children.ts";
import type { Workshop } from "../lib/compile.ts";
import { listensOn } from "../lib/cpu-time.ts";
import type { Network } from "../lib/netns.ts";
import type { PublisherOptions } from "../lib/publisher.ts";
import { firstPort } from "../lib/sink.ts";

/** "net" serves TCP readers, the other references UDP receivers. */
export type ServerName = "relay" | "sendto" | "gso" | "dgram" | "net";

export interface Server {
  readonly name: ServerName;
  readonly pid: number;
  /** How and where the stream is published. */
  readonly publish: Pick<PublisherOptions, "mode" | "target">;
  /** Where readers call: an RTSP URL, or (naive TCP) just an address in one. */
  readonly url: string;
  /** Throws when it has ended. */
  check(): void;
  stop(): Promise<void>;
}

/** Compiled references: the paths of the programs. */
export interface References {
  readonly sendto: string;
  readonly gso: string;
}

const rtspPort = 18_554;
const rtpPort = 18_600;
const inputPort = 18_700;
const startMs = 60_000;
const reference = join(import.meta.dirname, "reference");
export const relayCommand = join(import.meta.dirname, "..", "..", "bin", "apo.js");

export async function compileReferences(workshop: Workshop): Promise<References> {
  const compile = (name: string) =>
    workshop.compile(
      name,
      [`${name}.c`, "loop.c"].map((file) => join(reference, file)),
    );
  return { sendto: await compile("sendto_loop"), gso: await compile("gso_loop") };
}

export interface StartOptions {
  readonly network: Network;
  readonly references: References;
  readonly readers: number;
  /** How the relay's publisher delivers; references hear bare UDP. */
  readonly publish: "udp" | "tcp";
}

/** Starts a server and waits until it listens. */
export async function startServer(name: ServerName, options: StartOptions): Promise<Server> {
  const { network } = options;
  const child = new Child(network.inServer(commandOf(name, options)), { name: titles[name] });
  try {
    if (name === "relay") await untilListening(child);
    else await child.answer<{ ready: string }>();
  } catch (error) {
    await child.stop();
    throw error;
  }
  const url = `rtsp://${network.serverAddress}:${rtspPort}/bench`;
  const raw = { mode: "raw", target: `${network.serverAddress}:${inputPort}` } as const;
  return {
    name,
    pid: child.pid,
    publish: name === "relay" ? { mode: options.publish, target: url } : raw,
    url,
    check: () => child.check(),
    stop: () => child.stop(),
  };
}

export const titles: Readonly<Record<ServerName, string>> = {
  relay: "relay",
  sendto: "C sendto loop",
  gso: "C GSO loop",
  dgram: "node:dgram loop",
  net: "node:net loop",
};

/** True once `apo relay` is there to be measured. */
export function relayExists(): boolean {
  const command = join(import.meta.dirname, "..", "..", "src", "cli", "apo.ts");
  return existsSync(relayCommand) && existsSync(command);
}

function commandOf(name: ServerName, { network, references, readers }: StartOptions): Command {
  const receivers = [network.sinkAddress, String(firstPort), String(readers)] as const;
  switch (name) {
    case "relay":
      return [relayCommand, "relay", "--port", String(rtspPort), "--rtp-port", String(rtpPort)];
    case "sendto":
      return [references.sendto, String(inputPort), ...receivers];
    case "gso":
      return [references.gso, String(inputPort), ...receivers];
    case "dgram":
      return [process.execPath, join(reference, "naive-dgram.ts"), String(inputPort), ...receivers];
    case "net":
      return [process.execPath, join(reference, "naive-net.ts"), String(inputPort), String(rtspPort)];
  }
}

async function untilListening(child: Child): Promise<void> {
  const deadline = Date.now() + startMs;
  while (!listensOn(child.pid, rtspPort)) {
    child.check();
    if (Date.now() > deadline)
      throw new Error(`the relay does not listen on port ${rtspPort} after ${startMs} ms`);
    await sleep(50);
  }
}
