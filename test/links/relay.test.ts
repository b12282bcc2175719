/**
 * The relay on raw links: its RTSP over our TCP, its media over our UDP, with FFmpeg at the kernel's end publishing and
 * reading over both.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { closeNamespaces, describeInNamespaces, type Namespace } from "../support/netns.ts";
import type { LinkPlan } from "./kernel-suite.ts";
import { packetPlan, tunPlan, xdpPlan } from "./link-plans.ts";

const root = join(import.meta.dirname, "../..");
const started: ChildProcess[] = [];
const transports = ["udp", "tcp"] as const;

function begin(namespace: Namespace, command: readonly [string, ...string[]]): ChildProcess {
  const [program, ...args] = namespace.command([...command]);
  const child = spawn(program as string, args, { stdio: ["ignore", "pipe", "pipe"] });
  started.push(child);
  return child;
}

/** Resolves when the child has said it; rejects with all that it said when it ends before. */
function says(child: ChildProcess, pattern: RegExp): Promise<void> {
  return new Promise((resolve, reject) => {
    let all = "";
    const take = (bytes: Buffer): void => {
      all += bytes.toString();
      if (pattern.test(all)) resolve();
    };
    child.stdout?.on("data", take);
    child.stderr?.on("data", take);
    child.once("exit", (code) => reject(new Error(`it ended (${code}) without "${pattern}": ${all}`)));
  });
}

function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once("exit", () => resolve()));
}

function relayArguments(options: Readonly<Record<string, unknown>>): string[] {
  const flags = ["link", "address", "interface", "gateway"];
  return flags.flatMap((flag) => (options[flag] === undefined ? [] : [`--${flag}`, String(options[flag])]));
}

const picture = [
  "-f",
  "lavfi",
  "-i",
  "testsrc=size=160x120:rate=25",
  "-c:v",
  "libx264",
  "-preset",
  "ultrafast",
];
const quick = ["-tune", "zerolatency", "-g", "25", "-pix_fmt", "yuv420p"];

afterEach(async () => {
  for (const child of started) child.kill("SIGTERM");
  await Promise.all(started.splice(0).map(ended));
  await closeNamespaces();
});

function describeRelay(plan: LinkPlan): void {
  const body = (): void => {
    test.each(transports)(
      "FFmpeg publishes over %s, and reads over both",
      { timeout: 120_000 },
      async (way) => {
        const joined = await plan.join();
        const node = process.execPath;
        const relay = begin(joined.inside, [
          node,
          join(root, "src/cli/apo.ts"),
          "relay",
          ...relayArguments(joined.options as unknown as Record<string, unknown>),
        ]);
        await says(relay, /RTSP on port 8554/);
        const published = says(relay, /publishes cam/);
        const url = `rtsp://${plan.own[0]}:8554/cam`;
        const publisher = ["-v", "error", "-re", ...picture, ...quick, "-t", "60", "-f", "rtsp"];
        begin(joined.near, ["ffmpeg", ...publisher, "-rtsp_transport", way, url]);
        await published;
        for (const transport of transports) {
          const read = ["-v", "error", "-rtsp_transport", transport, "-i", url, "-frames:v", "25"];
          const md5 = await joined.near.run("ffmpeg", ...read, "-f", "framemd5", "-");
          const frames = md5.split("\n").filter((line) => /^0,/.test(line));
          expect(frames.length).toBe(25);
        }
      },
    );
  };
  describeInNamespaces(`the relay on ${plan.name}`, body, { programs: ["ffmpeg"] });
}

for (const plan of [tunPlan, packetPlan, xdpPlan]) describeRelay(plan);
