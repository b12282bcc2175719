/**
 * The receivers of a bench: thousands that cost next to nothing, and a few real ones that measure.
 *
 * UDP receivers are counted by a BPF program at ingress, or, where that is refused, by sockets whose filter drops
 * everything. TCP readers are one process that counts interleaved packets.
 */
import { Child } from "./children.ts";
import type { StreamTools } from "./compile.ts";
import type { Network } from "./netns.ts";

/** First of the receivers' ports: even ones for RTP, the next for RTCP. Below the kernel's ephemeral range. */
export const firstPort = 20_000;

/** Counters since the start (packets) or the last reset (samples). */
export interface Counts {
  readonly packets: number;
  /** What the kernel carried; a GSO super-packet is one. 0 when the sink cannot tell. */
  readonly skbs: number;
  /** Fewest and most packets of one receiver. */
  readonly least: number;
  readonly most: number;
  /** TCP only: sessions that the server closed, bytes that were neither frame nor reply. */
  readonly closed?: number;
  readonly garbage?: number;
  readonly samples: {
    readonly receivers: number;
    readonly packets: number;
    readonly gaps: number;
    readonly reordered: number;
    readonly delaysUs: readonly number[];
  };
}

export interface Sink {
  readonly kind: "tcx" | "socket" | "tcp";
  read(): Promise<Counts>;
  resetSamples(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Which of `readers` are real: the middle of each third, as a fan-out serves them in some order and the last one
 * waits longest. Few, because a packet that goes up the stack to a socket costs the sender's CPU too.
 */
export function samplePositions(readers: number): number[] {
  return [...new Set([1, 3, 5].map((sixths) => Math.floor((sixths * readers) / 6)))];
}

/** Port pairs for `readers` receivers of UDP. */
export async function startUdpSink(
  tools: StreamTools,
  network: Network,
  readers: number,
  say: (line: string) => void,
): Promise<Sink> {
  const samples = samplePositions(readers).map((index) => String(firstPort + 2 * index));
  const ports = [String(firstPort), String(2 * readers), ...samples];
  if (network.kind === "netns") {
    const command = network.inSink([tools.udp_sink, "tcx", network.sinkInterface, ...ports]);
    const child = new Child(command, { name: "the UDP sink" });
    const answer = await child.answer<{ ready?: string; refused?: string }>();
    if (answer.ready) return sinkOf(child, "tcx");
    await child.stop();
    say("the kernel refuses a program at tcx ingress: receivers are sockets with a dropping filter instead");
  }
  const command = network.inSink([tools.udp_sink, "socket", network.sinkAddress, ...ports]);
  const child = new Child(command, { name: "the UDP sink" });
  await child.answer<{ ready: string }>();
  return sinkOf(child, "socket");
}

export interface ReadersOptions {
  /** "raw": TCP connections without RTSP, for references. */
  readonly transport: "udp" | "tcp" | "raw";
  readonly url: string;
  readonly readers: number;
}

/** RTSP sessions, all playing when this resolves. For UDP, media go to a sink that is already there. */
export async function startReaders(
  tools: StreamTools,
  network: Network,
  options: ReadersOptions,
): Promise<Sink> {
  const { transport, url, readers } = options;
  const samples = transport === "udp" ? [] : samplePositions(readers).map(String);
  const port = transport === "udp" ? firstPort : 0;
  const args = [transport, url, String(readers), String(port), ...samples];
  const child = new Child(network.inSink([tools.rtsp_readers, ...args]), { name: "the readers" });
  await child.answer<{ ready: string; setupMs: number }>();
  return sinkOf(child, "tcp");
}

function sinkOf(child: Child, kind: Sink["kind"]): Sink {
  return {
    kind,
    read: () => child.ask<Counts>("read"),
    resetSamples: async () => {
      await child.ask<object>("reset");
    },
    stop: () => child.stop(),
  };
}
