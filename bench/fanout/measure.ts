/**
 * One measurement: one server, one number of readers, one window of the stream.
 *
 * The publisher pauses before and after the window until nothing moves any more, so that what it sent and what
 * the sink counted can be compared packet by packet. Knows nothing of rounds, medians or marks.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { StreamTools } from "../lib/compile.ts";
import { type CpuUse, cpuBetween, snapshotCpu } from "../lib/cpu-time.ts";
import type { Network } from "../lib/netns.ts";
import { framesPerSecond, type Publisher, type Sent, startPublisher } from "../lib/publisher.ts";
import { type Counts, firstPort, type Sink, startReaders, startUdpSink } from "../lib/sink.ts";
import { percentile } from "../lib/stats.ts";
import { type References, type ServerName, startServer } from "./servers.ts";

export interface Scenario {
  readonly server: ServerName;
  readonly transport: "udp" | "tcp";
  readonly readers: number;
  /** How the stream reaches the relay. */
  readonly publish: "udp" | "tcp";
  /** False: UDP super-packets are cut up before the veth device, as a NIC without the offload would want. */
  readonly segmentation: boolean;
}

export interface Setting {
  readonly network: Network;
  readonly tools: StreamTools;
  readonly references: References;
  /** Frames before the window, with all readers there, and in it: whole GOPs. */
  readonly warmUpFrames: number;
  readonly windowFrames: number;
  say(line: string): void;
}

export interface Measured {
  readonly nsPerPacket: number;
  readonly packetsPerSecond: number;
  /** Of one core, over the time from the first packet to the last delivered. */
  readonly corePercent: number;
  readonly lossPercent: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly bytesPerReader: number;
  /** Wire packets a kernel packet; NaN where the sink cannot tell. */
  readonly packetsPerSend: number;
  readonly sampleGaps: number;
  readonly use: CpuUse;
  readonly windowSeconds: number;
}

const kbitPerSecond = 4000;
const pollMs = 100;
const quietPolls = 3;
const drainMs = 15_000;

/** Something else disturbed the measurement; another one may do. */
export class Disturbed extends Error {}

/** Measures once. Everything that it started is stopped when it returns or throws. */
export async function measure(scenario: Scenario, setting: Setting): Promise<Measured> {
  const stops: (() => Promise<void>)[] = [];
  try {
    return await measureWith(scenario, setting, stops);
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
}

async function measureWith(
  scenario: Scenario,
  setting: Setting,
  stops: (() => Promise<void>)[],
): Promise<Measured> {
  const { network, tools } = setting;
  const server = await startServer(scenario.server, { ...scenario, network, references: setting.references });
  stops.push(server.stop);
  const { transport, readers } = scenario;
  const udpSink = transport === "udp" ? await startUdpSink(tools, network, readers, setting.say) : undefined;
  if (udpSink) stops.push(udpSink.stop);
  const publisher = await startPublisher(tools, network, { ...server.publish, kbitPerSecond });
  stops.push(publisher.stop);
  await publisher.send(framesPerSecond / 5); // a description and a first key frame exist before anybody asks
  const residentBefore = snapshotCpu(server.pid).residentBytes;
  publisher.start();
  const sink = udpSink ?? (await readersOf(scenario, setting, server.url, stops));
  if (udpSink && scenario.server === "relay") await readersOf(scenario, setting, server.url, stops);
  await publisher.pause();
  await publisher.send(setting.warmUpFrames);
  server.check();
  return window(server.pid, sink, publisher, { scenario, setting, residentBefore });
}

async function readersOf(
  { transport, readers, server }: Scenario,
  { tools, network }: Setting,
  url: string,
  stops: (() => Promise<void>)[],
): Promise<Sink> {
  const sessions = await startReaders(tools, network, {
    transport: server === "net" ? "raw" : transport,
    url,
    readers,
  });
  stops.push(sessions.stop);
  return sessions;
}

interface WindowOptions {
  readonly scenario: Scenario;
  readonly setting: Setting;
  readonly residentBefore: number;
}

async function window(
  pid: number,
  sink: Sink,
  publisher: Publisher,
  options: WindowOptions,
): Promise<Measured> {
  const { scenario, setting, residentBefore } = options;
  await untilQuiet(sink);
  await sink.resetSamples();
  const before = await sink.read();
  const cpuBefore = snapshotCpu(pid);
  const begun = performance.now();
  const sent = await publisher.send(setting.windowFrames);
  const quiet = await untilQuiet(sink);
  const cpuAfter = snapshotCpu(pid);
  // The last change is known to a poll's length; a server that keeps up is done with the publisher.
  const nominal = setting.windowFrames / framesPerSecond;
  const windowSeconds = Math.max(nominal, (quiet.lastChange - begun - pollMs) / 1000);
  const use = cpuBetween(cpuBefore, cpuAfter);
  const residentBytes = cpuAfter.residentBytes - residentBefore;
  return judge({
    before,
    after: quiet.counts,
    sent,
    use,
    windowSeconds,
    residentBytes,
    readers: scenario.readers,
  });
}

export interface Evidence {
  readonly before: Counts;
  readonly after: Counts;
  readonly sent: Sent;
  readonly use: CpuUse;
  readonly windowSeconds: number;
  readonly residentBytes: number;
  readonly readers: number;
}

/**
 * From counters to figures. Throws when readers were thrown out or nothing arrived, and `Disturbed` when more arrived
 * than was sent (a backlog from before the window): those are no measurements.
 */
export function judge(evidence: Evidence): Measured {
  const { before, after, sent, use, windowSeconds, readers } = evidence;
  const delivered = after.packets - before.packets;
  const kernelPackets = after.skbs - before.skbs;
  if ((after.closed ?? 0) > 0) throw new Error(`the server closed ${after.closed} of ${readers} readers`);
  if ((after.garbage ?? 0) > 0) throw new Error(`${after.garbage} bytes were neither a frame nor a reply`);
  if (delivered === 0) throw new Error(`no packet reached the sink (ports from ${firstPort} on)`);
  const expected = sent.packets * readers;
  if (delivered > expected)
    throw new Disturbed(`${delivered} packets were counted where ${expected} were due`);
  const delays = after.samples.delaysUs;
  return {
    nsPerPacket: use.cpuNs / delivered,
    packetsPerSecond: delivered / windowSeconds,
    corePercent: use.cpuNs / windowSeconds / 1e7,
    lossPercent: (100 * (expected - delivered)) / expected,
    p50Ms: percentile(delays, 0.5) / 1000,
    p99Ms: percentile(delays, 0.99) / 1000,
    bytesPerReader: evidence.residentBytes / readers,
    packetsPerSend: kernelPackets > 0 ? delivered / kernelPackets : Number.NaN,
    sampleGaps: after.samples.gaps,
    use,
    windowSeconds,
  };
}

/** Waits until the sink's count has stood still for a while; when it last moved (performance.now). */
async function untilQuiet(sink: Sink): Promise<{ counts: Counts; lastChange: number }> {
  let counts = await sink.read();
  let lastChange = performance.now();
  const deadline = lastChange + drainMs;
  for (let still = 0; still < quietPolls && performance.now() < deadline; ) {
    await sleep(pollMs);
    const next = await sink.read();
    still = next.packets === counts.packets ? still + 1 : 0;
    if (still === 0) lastChange = performance.now();
    counts = next;
  }
  return { counts, lastChange };
}
