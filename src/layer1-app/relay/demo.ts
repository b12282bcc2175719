/**
 * The demo: publishes a clip in a loop, through the relay's front door as any publisher would.
 *
 * Layer 1, relay. Sequence numbers and RTP times go on without a jump from turn to turn, and every packet's
 * time is counted from one start, so that nothing drifts however long it runs. One timer paces all tracks.
 */

import type { Apo } from "../types.ts";
import { Backoff } from "./client/backoff.ts";
import { parseCameraUrl } from "./client/camera-url.ts";
import { asFailure } from "./client/failure.ts";
import { RtspPublisher } from "./client/rtsp-publisher.ts";
import { type DemoClip, readClip } from "./demo-clip.ts";
import { LoopPlayer } from "./demo-loop.ts";
import type { RelayLog } from "./log.ts";
import { withoutPassword } from "./protocol/rtsp-url.ts";
import { parseSdp } from "./protocol/sdp.ts";

/** What `startDemo` takes. */
export interface DemoOptions {
  /** Where to publish: `rtsp://127.0.0.1:8554/demo`. */
  readonly url: string;
  /** The clip (the bundled one). */
  readonly clip?: DemoClip;
  readonly log?: RelayLog;
}

/** A running demo. */
export interface Demo extends AsyncDisposable {
  /** Sessions that came to recording so far. */
  readonly sessions: number;
  /** Stops publishing. Idempotent. */
  stop(): Promise<void>;
}

/** Sender reports of each track this often, microseconds. */
const REPORT_MICROS = 5_000_000;
/** What may wait in the connection: a relay that takes nothing for so many bytes is connected to anew. */
const QUEUED_MAX = 4 * 1024 * 1024;
/** A process that stood still for longer goes on from now and does not catch up, microseconds. */
const STALL_MICROS = 1_000_000;

/**
 * Publishes the clip until it is stopped; when the relay is away, it tries again by itself.
 * @throws ClipError for a damaged clip, the file system's error for a missing one, RtspFailure for a wrong
 * URL.
 */
export async function startDemo(apo: Apo, options: DemoOptions): Promise<Demo> {
  const clip = options.clip ?? (await readClip());
  const demo = new RunningDemo(apo, options, clip);
  await demo.started;
  return demo;
}

class RunningDemo implements Demo {
  readonly #apo: Apo;
  readonly #options: DemoOptions;
  readonly #clip: DemoClip;
  readonly #player: LoopPlayer;
  readonly #abort = new AbortController();
  readonly #backoff = new Backoff({ minMs: 250, maxMs: 5_000 });
  readonly #done: Promise<void>;
  readonly #url: ReturnType<typeof parseCameraUrl>;
  /** Resolves when the first try has come to something or to nothing. */
  readonly started: Promise<void>;
  #firstTry: () => void = () => {};
  sessions = 0;

  constructor(apo: Apo, options: DemoOptions, clip: DemoClip) {
    this.#apo = apo;
    this.#options = options;
    this.#clip = clip;
    this.#url = parseCameraUrl(options.url);
    this.#player = new LoopPlayer(clip);
    this.started = new Promise((resolve) => {
      this.#firstTry = resolve;
    });
    this.#done = this.#run();
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      let text: string;
      try {
        text = await this.#session();
      } catch (error) {
        text = asFailure(error).message;
      }
      this.#firstTry();
      if (signal.aborted) return;
      const waitMs = this.#backoff.next();
      this.#say("warn", `${text}; trying again in ${(waitMs / 1000).toFixed(1)} s`);
      await sleep(waitMs, signal);
    }
  }

  /** One session; resolves with why it ended. */
  async #session(): Promise<string> {
    const { signal } = this.#abort;
    const publisher = await RtspPublisher.open(this.#apo, {
      url: this.#url,
      sdp: parseSdp(this.#clip.sdp),
      description: this.#clip.sdp,
    });
    this.sessions += 1;
    this.#backoff.reset();
    this.#firstTry();
    const pacing = this.#pace(publisher, signal);
    const ended = await Promise.race([publisher.ended, pacing.ended]);
    pacing.stop();
    await publisher.stop();
    return typeof ended === "string" ? ended : ended.message;
  }

  /** Sends packets and reports as they fall due, until the connection takes no more or `signal` fires. */
  #pace(publisher: RtspPublisher, signal: AbortSignal): { ended: Promise<string>; stop(): void } {
    const { promise, resolve } = Promise.withResolvers<string>();
    const player = this.#player;
    let timer: NodeJS.Timeout | undefined;
    let reportAt = 0;
    let startMs = performance.now();
    player.restart(Date.now());
    const stop = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    };
    const onAbort = (): void => resolve("stopped");
    const tick = (): void => {
      let now = (performance.now() - startMs) * 1000;
      const late = now - player.nextDueMicros;
      if (late > STALL_MICROS) {
        startMs += late / 1000;
        now -= late;
        player.shift(late);
      }
      if (now >= reportAt) {
        publisher.send(player.reports(now));
        reportAt = now + REPORT_MICROS;
      }
      for (let frames = player.take(now); frames.length > 0; frames = player.take(now)) {
        if (publisher.send(frames) && publisher.queued <= QUEUED_MAX) continue;
        resolve("the relay takes no packets");
        return;
      }
      timer = setTimeout(tick, Math.max((player.nextDueMicros - now) / 1000, 1));
    };
    signal.addEventListener("abort", onAbort);
    tick();
    if (signal.aborted) onAbort();
    return { ended: promise, stop };
  }

  #say(level: "info" | "warn", text: string): void {
    const url = withoutPassword(this.#options.url);
    this.#options.log?.({ level, event: "source", text: `demo to ${url}: ${text}`, fields: {} });
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
