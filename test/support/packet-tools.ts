/**
 * What tests ask of ping and Wireshark's programs, run in a namespace, and their answers as values.
 *
 * Knows nothing of apo.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runToEnd } from "../../bench/lib/children.ts";
import type { Namespace } from "./netns.ts";

/** What ping told. Round trips in milliseconds; empty when nothing was answered. */
export interface PingResult {
  readonly sent: number;
  readonly received: number;
  readonly roundTripsMs: readonly number[];
  readonly text: string;
}

export interface PingOptions {
  /** 3 */
  readonly count?: number;
  /** Bytes of payload (56). */
  readonly size?: number;
  /** Milliseconds from one to the next (20). */
  readonly intervalMs?: number;
  /** What else ping takes, such as ["-M", "do"]. */
  readonly args?: readonly string[];
}

/** Pings an address (of either version) from the namespace. Does not throw when nothing answers. */
export async function ping(from: Namespace, address: string, options: PingOptions = {}): Promise<PingResult> {
  const { count = 3, size = 56, intervalMs = 20, args = [] } = options;
  const [program, ...rest] = from.command([
    "ping",
    "-n",
    ...["-c", String(count), "-s", String(size), "-i", String(intervalMs / 1000), "-W", "5"],
    ...args,
    address,
  ]);
  const child = spawn(program, rest, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LC_ALL: "C" },
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (bytes: Buffer) => {
      text += bytes.toString();
    });
  }
  await new Promise<void>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", () => resolve());
  });
  const totals = /(\d+) packets transmitted, (\d+) received/.exec(text);
  return {
    sent: Number(totals?.[1] ?? 0),
    received: Number(totals?.[2] ?? 0),
    roundTripsMs: [...text.matchAll(/time=([\d.]+) ms/g)].map((match) => Number(match[1])),
    text,
  };
}

/** A capture that is running. */
export interface Capture {
  readonly file: string;
  /** Ends it; the file is whole when this resolves. */
  stop(): Promise<void>;
  /** Ends it and removes the file. */
  remove(): Promise<void>;
}

/** What the capture's ring in the kernel may hold back before it hands over; nothing tells when it has. */
const blockTimeoutMs = 400;

/** Captures a device of the namespace into a pcapng file. Resolves when it is running. */
export async function capture(namespace: Namespace, device: string, filter = ""): Promise<Capture> {
  const folder = mkdtempSync(join(tmpdir(), "apo-capture-"));
  const file = join(folder, "capture.pcapng");
  const args = ["-q", "-i", device, "-w", file, ...(filter === "" ? [] : ["-f", filter])];
  const [program, ...rest] = namespace.command(["dumpcap", ...args]);
  const child = spawn(program, rest, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  let said = "";
  await new Promise<void>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => reject(new Error(`dumpcap ended with ${code}: ${said.trim()}`)));
    child.stderr.on("data", (bytes: Buffer) => {
      said += bytes.toString();
      if (/^File: /m.test(said)) resolve();
    });
  });
  let stopped: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, blockTimeoutMs));
    child.kill("SIGINT");
    await ended;
  };
  const stop = (): Promise<void> => {
    stopped ??= end();
    return stopped;
  };
  return {
    file,
    stop,
    async remove() {
      await stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const checks = ["ip", "udp", "tcp"].flatMap((protocol) => ["-o", `${protocol}.check_checksum:TRUE`]);

/** Fields of the frames in a capture file that match a display filter, one array a frame. */
export async function readCapture(file: string, fields: readonly string[], filter = ""): Promise<string[][]> {
  const columns = fields.flatMap((field) => ["-e", field]);
  const only = filter === "" ? [] : ["-Y", filter];
  const text = await runToEnd(["tshark", "-n", "-r", file, ...checks, ...only, "-T", "fields", ...columns]);
  const lines = text.split("\n").slice(0, -1);
  return lines.map((line) => line.split("\t"));
}

/**
 * What Wireshark objects to in a capture file: malformed packets and wrong checksums, one line each; empty when clean.
 * What the kernel itself sends carries no checksum yet where its device completes it: turn that off
 * (`withoutChecksumOffload`), or look at our own packets only, by `filter`.
 */
export async function objections(file: string, filter = ""): Promise<string[]> {
  const bad = '(_ws.expert.group == "Malformed" || _ws.expert.group == "Checksum")';
  const fields = ["frame.number", "_ws.col.Protocol", "_ws.col.Info", "_ws.expert.message"];
  const rows = await readCapture(file, fields, filter === "" ? bad : `${bad} && (${filter})`);
  return rows.map((row) => row.join(" | "));
}

/** How many frames of a capture file match. */
export async function countFrames(file: string, filter = ""): Promise<number> {
  return (await readCapture(file, ["frame.number"], filter)).length;
}

/** Has the kernel complete the checksums of what it sends on a device, so that captures show them whole. */
export async function withoutChecksumOffload(namespace: Namespace, device: string): Promise<void> {
  await namespace.run("ethtool", "-K", device, "tx", "off");
}
