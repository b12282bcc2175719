/**
 * Where a bench's traffic runs: two network namespaces joined by a veth pair, or loopback for an ordinary user.
 *
 * A namespace is held open by a `cat` whose stdin is ours: when the bench ends, however it ends, `cat` ends, and
 * the kernel takes the namespace and its interfaces away. Nothing is named where another process could see it.
 */
import { Child, type Command, runToEnd } from "./children.ts";

const serverAddress = "10.77.0.1";
const sinkAddress = "10.77.0.2";
const serverInterface = "server0";
const sinkInterface = "sink0";

export interface Network {
  readonly kind: "netns" | "loopback";
  /** Where the server under test listens; readers and publishers call it from the sink's side. */
  readonly serverAddress: string;
  readonly sinkAddress: string;
  /** The interface that the server's packets come out of; "lo" on loopback. */
  readonly sinkInterface: string;
  inServer(command: Command): Command;
  inSink(command: Command): Command;
  /** Whether `setUdpSegmentation` can work: in namespaces, with ethtool installed. */
  readonly canSetSegmentation: boolean;
  /** UDP segmentation on the server's interface (as made: on). Throws on loopback. */
  setUdpSegmentation(on: boolean): Promise<void>;
  close(): Promise<void>;
}

/** Namespaces when allowed (root), else loopback; `say` hears which and why. */
export async function createNetwork(say: (line: string) => void): Promise<Network> {
  if (process.getuid?.() !== 0) {
    say("not root: no network namespaces of our own, so everything runs on loopback");
    return loopback();
  }
  try {
    return await namespaces(await hasEthtool(say));
  } catch (error) {
    say(`no network namespaces here, so everything runs on loopback (${(error as Error).message})`);
    return loopback();
  }
}

export function loopback(): Network {
  const address = "127.0.0.1";
  return {
    kind: "loopback",
    serverAddress: address,
    sinkAddress: address,
    sinkInterface: "lo",
    inServer: (command) => command,
    inSink: (command) => command,
    canSetSegmentation: false,
    setUdpSegmentation: () => Promise.reject(new Error("loopback's offloads are everybody's: left alone")),
    close: () => Promise.resolve(),
  };
}

function enter(holder: Child, command: Command): Command {
  return ["nsenter", `--net=/proc/${holder.pid}/ns/net`, "--", ...command];
}

async function openNamespace(name: string): Promise<Child> {
  const holder = new Child(["unshare", "--net", "--", "cat"], { name });
  await holder.ask<{ held: boolean }>('{"held":true}'); // `cat` answers only once it is inside
  return holder;
}

async function hasEthtool(say: (line: string) => void): Promise<boolean> {
  try {
    await runToEnd(["ethtool", "--version"]);
    return true;
  } catch {
    say("no ethtool: what it costs when a device cannot segment UDP is not measured");
    return false;
  }
}

async function namespaces(canSetSegmentation: boolean): Promise<Network> {
  const server = await openNamespace("the server's namespace");
  const sink = await openNamespace("the sink's namespace");
  const ip = (holder: Child, ...args: string[]) => runToEnd(enter(holder, ["ip", ...args]));
  const pair = ["link", "add", serverInterface, "type", "veth"];
  await ip(server, ...pair, "peer", "name", sinkInterface, "netns", String(sink.pid));
  await ip(server, "addr", "add", `${serverAddress}/24`, "dev", serverInterface);
  await ip(sink, "addr", "add", `${sinkAddress}/24`, "dev", sinkInterface);
  for (const [holder, name] of [
    [server, serverInterface],
    [sink, sinkInterface],
  ] as const) {
    await ip(holder, "link", "set", "lo", "up");
    await ip(holder, "link", "set", name, "up");
  }
  return {
    kind: "netns",
    serverAddress,
    sinkAddress,
    sinkInterface,
    canSetSegmentation,
    inServer: (command) => enter(server, command),
    inSink: (command) => enter(sink, command),
    async setUdpSegmentation(on) {
      const state = on ? "on" : "off";
      await runToEnd(enter(server, ["ethtool", "-K", serverInterface, "tx-udp-segmentation", state]));
    },
    async close() {
      await server.stop();
      await sink.stop();
    },
  };
}
