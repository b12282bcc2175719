/**
 * The publisher of a bench: a synthetic H.264 stream at the pace of a camera, from the sink's side of the network.
 */
import { Child } from "./children.ts";
import type { StreamTools } from "./compile.ts";
import type { Network } from "./netns.ts";

export const framesPerSecond = 25;
/** Frames from one key frame to the next. */
export const groupFrames = 50;

/** What was sent. `lateUs`: the most that a frame was behind its time. */
export interface Sent {
  readonly frames: number;
  readonly packets: number;
  readonly bytes: number;
  readonly unsent: number;
  readonly lateUs: number;
}

export interface PublisherOptions {
  /** "raw": bare RTP to ADDRESS:PORT. Otherwise ANNOUNCE and RECORD at a URL, media by UDP or interleaved. */
  readonly mode: "raw" | "udp" | "tcp";
  readonly target: string;
  readonly kbitPerSecond: number;
}

export interface Publisher {
  /** Sends so many frames, at 25 a second. */
  send(frames: number): Promise<Sent>;
  /** Sends until `pause`, which ends with a whole GOP. */
  start(): void;
  pause(): Promise<Sent>;
  stop(): Promise<void>;
}

export async function startPublisher(
  tools: StreamTools,
  network: Network,
  options: PublisherOptions,
): Promise<Publisher> {
  const args = [options.mode, options.target, String(options.kbitPerSecond)];
  const child = new Child(network.inSink([tools.publisher, ...args]), { name: "the publisher" });
  await child.answer<{ ready: string }>();
  return {
    send: (frames) => child.ask<Sent>(`send ${frames}`),
    start: () => child.tell("send"),
    pause: () => child.ask<Sent>("stop"),
    stop: () => child.stop(),
  };
}
