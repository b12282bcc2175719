/**
 * `apo relay`: the RTSP/RTP relay from the command line.
 *
 * The command line's own; it starts a runtime, a relay on it, and the sources that were asked for.
 */

import { environmentOptions, variableOf } from "../layer1-app/environment.ts";
import { ApoError } from "../layer1-app/errors.ts";
import { startPull } from "../layer1-app/relay/client/pull-source.ts";
import { startDemo } from "../layer1-app/relay/demo.ts";
import { jsonLog, lineLog, type RelayLog } from "../layer1-app/relay/log.ts";
import { createRelay } from "../layer1-app/relay/relay.ts";
import type { Relay, RelayOptions } from "../layer1-app/relay/types.ts";
import { createRuntime } from "../layer1-app/runtime.ts";
import type { Apo } from "../layer1-app/types.ts";
import type { Command } from "./apo.ts";
import { checkEnvironment, flagOf, textFor } from "./link-flags.ts";
import { readBytes, readNumber, readOptions, UsageError } from "./usage.ts";

const help = `Usage: apo relay [OPTIONS]

Serves RTSP: whoever publishes a path (RTSP ANNOUNCE, as FFmpeg and GStreamer do) has it read by any number of
players, over UDP or TCP. Media pass untouched.

A camera of your own:
  --pull NAME=URL   read URL once and serve it as rtsp://HOST:PORT/NAME; may be given several times

Options:
  --port PORT       RTSP over TCP (8554)
  --rtp-port PORT   RTP over UDP, even; RTCP takes the next one (8000)
  --address ADDR    local address of all ports (every address of the machine)
  --demo            publish a test clip at /demo, and say how to play it
  --workers N       worker threads for connections (half the cores)
  --budget SIZE     what may wait for a TCP reader before it skips to the next key frame (4M)
  --cache SIZE      most that is kept of a track since its last key frame (16M)
  --link LINK       fd, tun, packet or xdp instead of the host's sockets, with the options that apo run has for it:
                    --address (the link's own then), --prefixes, --mtu, --queues, --pcap, --fd, --vnet-header,
                    --device, --host-address, --interface, --mac, --gateway, --routes, --xdp-mode, --zero-copy
  --stats           a line of numbers every ten seconds
  --json-log        log lines as JSON
  --help            this text

Examples:
  apo relay
  apo relay --link tun --address 10.64.0.1/24 --demo
  apo relay --pull cam=rtsp://user:pass@10.0.0.9/stream1
  ffmpeg -re -i film.mp4 -c copy -f rtsp rtsp://127.0.0.1:8554/film
  ffplay -rtsp_transport tcp rtsp://127.0.0.1:8554/film

Exit codes: 0 stopped by a signal, 1 it could not start (a port is taken), 2 a wrong option.
`;

const options = {
  port: { type: "string" },
  "rtp-port": { type: "string" },
  address: { type: "string" },
  pull: { type: "string", multiple: true },
  demo: { type: "boolean" },
  workers: { type: "string" },
  budget: { type: "string" },
  cache: { type: "string" },
  stats: { type: "boolean" },
  "json-log": { type: "boolean" },
} as const;

/** Of `--link`, and taken only with it: they become environment variables, as `apo run`'s do. */
const linkOptions = environmentOptions.filter(
  (option) => !["link", "address", "workers", "appWorkers", "poolBytes", "memoryBytes"].includes(option),
);
const allOptions = {
  ...options,
  link: { type: "string" },
  ...Object.fromEntries(linkOptions.map((option) => [flagOf(option), { type: "string" as const }])),
} as const;

/** What `--stats` writes this often. */
const STATS_MS = 10_000;

/**
 * Memory a thread may use for what waits for readers: a slow one holds its budget of frames, a third full each. It is
 * address space until it is used.
 */
const POOL_BYTES = 256 << 20;

/** A `--pull` as it was meant. */
export interface PullArgument {
  readonly path: string;
  readonly url: string;
}

/** The command line, understood. */
export interface RelayArguments {
  readonly relay: RelayOptions;
  readonly workers: number | undefined;
  readonly pulls: readonly PullArgument[];
  readonly demo: boolean;
  readonly stats: boolean;
  readonly json: boolean;
  /** Variables to be set: the link and its options. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Reads `apo relay`'s options. Throws UsageError. */
export function readRelayArguments(args: readonly string[]): RelayArguments {
  const values = readOptions("relay", allOptions, args);
  const environment = readLink(values);
  const relay: { -readonly [K in keyof RelayOptions]: RelayOptions[K] } = {};
  const pulls = readPulls(values.pull ?? []);
  const demo = values.demo ?? false;
  if (demo && pulls.some(({ path }) => path === "demo")) {
    throw new UsageError('"demo" is the path of --demo: give --pull another name', "relay");
  }
  if (values.port !== undefined) relay.port = readNumber("relay", "port", values.port, 0, 65_535);
  if (values["rtp-port"] !== undefined) {
    relay.rtpPort = readNumber("relay", "rtp-port", values["rtp-port"], 0, 65_534);
    if (relay.rtpPort % 2 !== 0) {
      throw new UsageError(
        `--rtp-port takes an even port (RTCP is the next one), not ${relay.rtpPort}`,
        "relay",
      );
    }
  }
  // On a raw link every address of ours is the link's.
  if (values.address !== undefined && environment.APO_LINK === undefined) relay.address = values.address;
  if (values.budget !== undefined) relay.budgetBytes = readBytes("relay", "budget", values.budget);
  if (values.cache !== undefined) relay.cacheBytes = readBytes("relay", "cache", values.cache);
  return {
    relay,
    workers: values.workers === undefined ? undefined : readNumber("relay", "workers", values.workers, 1, 16),
    pulls,
    demo,
    stats: values.stats ?? false,
    json: values["json-log"] ?? false,
    environment,
  };
}

interface LinkValues {
  readonly link?: string | undefined;
  readonly [option: string]: unknown;
}

/** The variables for `--link` and its options. */
function readLink(values: LinkValues): Record<string, string> {
  const set: Record<string, string> = {};
  const isRaw = values.link !== undefined && values.link !== "host";
  for (const option of ["link", "address", ...linkOptions] as const) {
    const text = values[flagOf(option)];
    if (typeof text !== "string") continue;
    if (!isRaw && option !== "link" && option !== "address") {
      throw new UsageError(`--${flagOf(option)} is an option of a raw link: give --link too`, "relay");
    }
    if (isRaw) set[variableOf(option)] = textFor("relay", option, text);
  }
  if (isRaw) checkEnvironment("relay", set);
  return set;
}

function readPulls(texts: readonly string[]): PullArgument[] {
  const pulls: PullArgument[] = [];
  for (const text of texts) {
    const equals = text.indexOf("=");
    const path = equals < 0 ? "" : text.slice(0, equals).replace(/^\/+|\/+$/g, "");
    const url = text.slice(equals + 1);
    if (path === "" || !/^rtsps?:\/\/[^/]/i.test(url)) {
      throw new UsageError("--pull takes NAME=URL, such as cam=rtsp://user:pass@10.0.0.9/stream1", "relay");
    }
    if (pulls.some((pull) => pull.path === path)) throw new UsageError(`--pull has "${path}" twice`, "relay");
    pulls.push({ path, url });
  }
  return pulls;
}

async function run(args: readonly string[]): Promise<number> {
  const given = readRelayArguments(args);
  Object.assign(process.env, given.environment);
  const write = (line: string): void => void process.stdout.write(`${line}\n`);
  const log = given.json ? jsonLog(write) : lineLog(write);
  const stopped = stopSignal(); // From here on: a signal while it starts must not leave anything behind.
  // Not `await using`: Node 22 cannot read it, and what strips the types does not rewrite it.
  const apo = await createRuntime({
    poolBytes: POOL_BYTES,
    ...(given.workers && { workers: given.workers }),
  });
  try {
    await serve(apo, given, log, write, stopped);
  } finally {
    await apo.close();
  }
  return 0;
}

async function serve(
  apo: Apo,
  given: RelayArguments,
  log: RelayLog,
  write: (line: string) => void,
  stopped: Promise<void>,
): Promise<void> {
  const relay = await startRelay(apo, { ...given.relay, log });
  const sources: Source[] = [];
  const stats = given.stats ? setInterval(() => write(statsLine(relay, given.json)), STATS_MS) : undefined;
  try {
    await startSources(sources, { apo, relay, given, log });
    await stopped;
  } finally {
    clearInterval(stats);
    await Promise.all(sources.map((source) => source.stop()));
    await relay.close();
  }
}

async function startRelay(apo: Apo, settings: RelayOptions): Promise<Relay> {
  try {
    return await createRelay(apo, settings);
  } catch (error) {
    if (!(error instanceof ApoError) || error.code !== "EADDRINUSE") throw error;
    const option = error.message.includes("UDP") ? "--rtp-port" : "--port";
    throw new ApoError(error.code, `${error.message}; choose another with ${option}`, { cause: error });
  }
}

interface Source {
  stop(): Promise<void>;
}

/** Starts what was asked for: each pull, and the demo with a word on how to play it. */
async function startSources(
  sources: Source[],
  { apo, relay, given, log }: { apo: Apo; relay: Relay; given: RelayArguments; log: RelayLog },
): Promise<void> {
  for (const pull of given.pulls) sources.push(pullOne(apo, relay, pull, log));
  if (!given.demo) return;
  const url = `${relay.url}/demo`;
  sources.push(await startDemo(apo, { url, log }));
  if (!given.json) process.stdout.write(howToPlay(url));
}

/** A URL that cannot ever work is a fault of the command line. */
function pullOne(apo: Apo, relay: Relay, { path, url }: PullArgument, log: RelayLog): Source {
  try {
    return startPull(apo, relay, { name: path, url, log });
  } catch (error) {
    if (error instanceof ApoError) throw new UsageError(error.message, "relay");
    throw error;
  }
}

function howToPlay(url: string): string {
  return `
  The demo is at ${url}
  Play it with one of

    ffplay -rtsp_transport tcp ${url}
    vlc ${url}
    gst-launch-1.0 playbin uri=${url}

  Ctrl-C ends it.

`;
}

/** The first of SIGINT and SIGTERM; a second one ends the process at once, as it would without us. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    const stop = (): void => {
      process.off("SIGINT", stop);
      process.off("SIGTERM", stop);
      resolve();
    };
    process.on("SIGINT", stop);
    process.on("SIGTERM", stop);
  });
}

function statsLine(relay: Relay, json: boolean): string {
  const { counters, sources, ...now } = relay.stats();
  const engine = relay.fanout.counters();
  if (json) return JSON.stringify({ event: "stats", ...now, sources, counters, engine });
  const parts = Object.entries(now).map(([name, value]) => `${name} ${value}`);
  const drops = Object.entries(engine).filter(([name, value]) => name.startsWith("drop.") && value > 0);
  const sent = `sent ${engine["send.packets"] ?? 0} packets over UDP`;
  const dropped = drops.map(([name, value]) => `${name.slice(5)} ${value}`).join(", ");
  const pulls = sources.map(({ name, state, packets }) => `; pull ${name} ${state}, ${packets} packets`);
  return `${parts.join(", ")}; ${sent}${dropped === "" ? "" : `; dropped: ${dropped}`}${pulls.join("")}`;
}

export const relayCommand: Command = {
  name: "relay",
  summary: "an RTSP/RTP relay: publish a stream once, have it read by many",
  help,
  run,
};
