/**
 * Real clients against a real relay: tools, clips made once a file, processes that end with the test.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LogEntry, RelayEvent } from "../../../../src/layer1-app/relay/log.ts";
import { createRelay } from "../../../../src/layer1-app/relay/relay.ts";
import type { Relay, RelayOptions } from "../../../../src/layer1-app/relay/types.ts";
import { createRuntime } from "../../../../src/layer1-app/runtime.ts";
import type { Apo } from "../../../../src/layer1-app/types.ts";

/** Is the program there? If not, a line says what is skipped. */
export function have(program: string, ...args: string[]): boolean {
  const there = spawnSync(program, args, { stdio: "ignore" }).status === 0;
  if (!there)
    process.stderr.write(`skipped: tests with ${program} ${args.join(" ")}, which is not installed\n`);
  return there;
}

/** Longest that a client may take, milliseconds. */
const PROCESS_MS = 40_000;

export interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** A relay on free ports of 127.0.0.1, and everything that a test file starts. */
export class Stage {
  readonly folder = mkdtempSync(join(tmpdir(), "apo-relay-"));
  readonly log: LogEntry[] = [];
  readonly apo: Apo;
  readonly relay: Relay;
  readonly #children = new Set<ChildProcess>();
  readonly #watchers = new Set<() => void>();

  private constructor(apo: Apo, relay: Relay) {
    this.apo = apo;
    this.relay = relay;
  }

  static async start(options: RelayOptions = {}): Promise<Stage> {
    const apo = await createRuntime({ workers: 1 });
    let stage: Stage | undefined;
    const relay = await createRelay(apo, {
      address: "127.0.0.1",
      port: 0,
      rtpPort: 0,
      log: (entry) => stage?.heard(entry),
      ...options,
    });
    stage = new Stage(apo, relay);
    return stage;
  }

  url(path: string): string {
    return `${this.relay.url}/${path}`;
  }

  heard(entry: LogEntry): void {
    this.log.push(entry);
    for (const watcher of [...this.#watchers]) watcher();
  }

  /** Resolves when the log has `event` about `path` (again, if `times` is more than 1). */
  async until(event: RelayEvent, path: string, times = 1): Promise<void> {
    const count = () => this.log.filter((one) => one.event === event && one.fields.path === path).length;
    await this.#wait(() => count() >= times, `${event} ${path}`);
  }

  async #wait(done: () => boolean, what: string): Promise<void> {
    if (done()) return;
    await new Promise<void>((resolve, reject) => {
      const finish = (): void => {
        clearTimeout(timer);
        this.#watchers.delete(watcher);
      };
      const watcher = (): void => {
        if (!done()) return;
        finish();
        resolve();
      };
      const timer = setTimeout(() => {
        finish();
        reject(new Error(`the log never said ${what}:\n${this.log.map(({ text }) => text).join("\n")}`));
      }, PROCESS_MS);
      this.#watchers.add(watcher);
    });
  }

  /** Starts a program; it is killed at the end of the test file, or when it takes too long. */
  run(
    program: string,
    ...args: string[]
  ): { readonly child: ChildProcess; readonly finished: Promise<Finished> } {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], timeout: PROCESS_MS });
    this.#children.add(child);
    let out = "";
    let err = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      out += chunk.toString("latin1");
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    const finished = once(child, "close").then(([code]) => {
      this.#children.delete(child);
      return { code: code as number | null, out, err };
    });
    return { child, finished };
  }

  ffmpeg(...args: string[]): Promise<Finished> {
    return this.run("ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error", "-y", ...args).finished;
  }

  /** Publishes a file at the speed of time; resolves when it is live. */
  async publish(
    path: string,
    file: string,
    transport: "tcp" | "udp",
  ): Promise<{ readonly finished: Promise<Finished> }> {
    const finished = this.ffmpeg(
      ...["-re", "-i", file, "-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, this.url(path)],
    );
    await this.until("publisher-joined", path);
    return { finished };
  }

  /** Every packet of a stream that FFmpeg reads until its end, as "stream size md5". */
  async read(path: string, transport: "tcp" | "udp"): Promise<string[]> {
    const { code, out, err } = await this.ffmpeg(
      ...["-rtsp_transport", transport, "-i", this.url(path), "-c", "copy", "-f", "framemd5", "-"],
    );
    if (code !== 0) throw new Error(`ffmpeg ended with ${code}: ${err}`);
    return packetsOf(out);
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await this.relay.close();
    await this.apo.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Size and MD5 of each packet in framemd5's output, a stream at a time. */
export function packetsOf(framemd5: string): string[] {
  return framemd5
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split(",").map((part) => part.trim()))
    .map((parts) => `${parts[0]} ${parts[4]} ${parts[5]}`)
    .sort((left, right) => Number(left[0]) - Number(right[0]));
}

/** MD5 of each decoded picture of a file. */
export async function picturesOf(stage: Stage, file: string): Promise<string[]> {
  const { code, out, err } = await stage.ffmpeg(
    ...["-i", file, "-map", "0:v", "-vsync", "passthrough", "-f", "framemd5", "-"],
  );
  if (code !== 0) throw new Error(`ffmpeg ended with ${code}: ${err}`);
  return packetsOf(out);
}

const H264 = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "100", "-sc_threshold", "0"];
const H265 = ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1"];
const X265 = ["-x265-params", "log-level=error:keyint=100:min-keyint=100:scenecut=0"];

/**
 * A clip of five seconds: a group of pictures of four seconds, so that a client that is slow to start on a busy machine
 * still gets all of it, and a quarter of a second one.
 */
export async function makeClip(stage: Stage, codec: "h264" | "h265", audio: boolean): Promise<string> {
  const file = join(stage.folder, `${codec}${audio ? "-aac" : ""}.mp4`);
  const { code, err } = await stage.ffmpeg(
    ...["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"],
    ...(audio ? ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-c:a", "aac"] : []),
    ...["-t", "5", ...(codec === "h264" ? H264 : [...H265, ...X265]), file],
  );
  if (code !== 0) throw new Error(`ffmpeg could not make ${file}: ${err}`);
  return file;
}
