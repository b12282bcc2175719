/**
 * A pull: one session with a camera however many readers there are, made anew for as long as it takes.
 *
 * Layer 1, relay/client. It decides when to try again and over what; `PullSession` is a single try.
 */

import { ApoError } from "../../errors.ts";
import type { Apo } from "../../types.ts";
import type { RelayLog } from "../log.ts";
import { withoutPassword } from "../protocol/rtsp-url.ts";
import type { Expectation, Relay, SourceStatus } from "../types.ts";
import { Backoff, type BackoffOptions } from "./backoff.ts";
import { type CameraUrl, parseCameraUrl } from "./camera-url.ts";
import { asFailure, RtspFailure } from "./failure.ts";
import { type Keepalive, PullSession, type PullSessionOptions } from "./pull-session.ts";

/** What `startPull` takes. Times are milliseconds. */
export interface PullOptions {
  /** The path that readers ask for. */
  readonly name: string;
  /** The camera: `rtsp://user:password@host:554/path`, user and password percent-encoded. */
  readonly url: string;
  /**
   * "auto" (the default): TCP, and UDP where the camera refuses it. "udp": UDP, and TCP where it is refused
   * or no packet comes. "tcp": nothing else.
   */
  readonly transport?: "auto" | "udp" | "tcp";
  /**
   * "auto": GET_PARAMETER and OPTIONS in turn where the camera has both. For cameras that cannot bear one of
   * them.
   */
  readonly keepalive?: Keepalive;
  /** How long to wait for a connection and for each answer (10,000). */
  readonly timeoutMs?: number;
  /** Silence after which the session is given up (10,000). */
  readonly stallMs?: number;
  /** The same before the first packet (5,000). */
  readonly firstPacketMs?: number;
  /** How long readers are kept while the camera is away (30,000). */
  readonly keepMs?: number;
  /** Playing for so long makes the next failure count as the first (60,000). */
  readonly stableMs?: number;
  readonly backoff?: BackoffOptions;
  readonly log?: RelayLog;
}

/** How a pull is doing; `RelayStats.sources` has it too. */
export type PullStatus = SourceStatus;
type PullState = SourceStatus["state"];

/** A running pull. */
export interface Pull extends AsyncDisposable {
  readonly name: string;
  status(): PullStatus;
  /** Says TEARDOWN to the camera and BYE to the readers. Idempotent. */
  stop(): Promise<void>;
}

/** A reader who asks for a camera that is away shortens the wait, but tries are never closer than this. */
const WANTED_MS = 5_000;

/**
 * Pulls a camera into a relay, and goes on until it is stopped. Failures are logged in plain sentences and
 * tried again after a while; only what cannot ever work is thrown.
 *
 * @example
 * const pull = startPull(apo, relay, { name: "yard", url: "rtsp://admin:secret@10.0.0.9/stream1" });
 *
 * @throws ApoError EINVAL (the URL, the name, a name that has a source already), ENOTSUP (rtsps://).
 */
export function startPull(apo: Apo, relay: Relay, options: PullOptions): Pull {
  let url: CameraUrl;
  try {
    url = parseCameraUrl(options.url);
  } catch (error) {
    throw new ApoError("EINVAL", `pull ${options.name}: ${asFailure(error).message}`);
  }
  if (url.scheme === "rtsps") {
    throw new ApoError("ENOTSUP", `pull ${options.name}: rtsps:// (RTSP over TLS) is not supported yet`);
  }
  return new RunningPull(apo, relay, options, url);
}

class RunningPull implements Pull {
  readonly name: string;
  readonly #apo: Apo;
  readonly #relay: Relay;
  readonly #options: PullOptions;
  readonly #url: CameraUrl;
  readonly #backoff: Backoff;
  readonly #expectation: Expectation;
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;
  #state: PullState = "connecting";
  #transport: "tcp" | "udp";
  #session: PullSession | undefined;
  #attempts = 0;
  #sessions = 0;
  #lastFailure: RtspFailure | undefined;
  #lastAttemptMs = 0;
  #wake: (() => void) | undefined;
  /** The other transport was tried since the last wait: it is not done again before the next one. */
  #switched = false;
  /** The last session played, and no packet came. */
  #silent = false;

  constructor(apo: Apo, relay: Relay, options: PullOptions, url: CameraUrl) {
    this.name = options.name;
    this.#apo = apo;
    this.#relay = relay;
    this.#options = options;
    this.#url = url;
    this.#transport = options.transport === "udp" ? "udp" : "tcp";
    this.#backoff = new Backoff(options.backoff);
    this.#expectation = relay.expect(
      options.name,
      () => this.#onWanted(),
      () => this.status(),
    );
    this.#done = this.#run();
  }

  status(): PullStatus {
    const failure = this.#lastFailure;
    return {
      name: this.name,
      url: withoutPassword(this.#options.url),
      state: this.#state,
      transport: this.#transport,
      attempts: this.#attempts,
      sessions: this.#sessions,
      packets: this.#session?.packets ?? 0,
      ignored: this.#session?.ignored ?? 0,
      readers: this.#session?.publication?.readers ?? 0,
      lastFailure: failure && { code: failure.code, text: failure.message },
    };
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    this.#wake?.();
    await this.#session?.stop();
    await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(): Promise<void> {
    try {
      while (!this.#abort.signal.aborted) {
        const failure = await this.#try();
        this.#lastFailure = failure;
        if (this.#abort.signal.aborted) break;
        if (failure.code === "replaced") {
          this.#say("warn", `${failure.message}; it is not pulled any more`);
          break;
        }
        if (this.#switch(failure)) continue;
        await this.#wait(failure);
      }
    } finally {
      this.#state = "stopped";
      this.#expectation.withdraw();
    }
  }

  /** One session, from the first connection to its end. */
  async #try(): Promise<RtspFailure> {
    this.#state = "connecting";
    this.#attempts += 1;
    this.#lastAttemptMs = performance.now();
    try {
      const opening = PullSession.open(this.#apo, this.#relay, this.#sessionOptions());
      this.#session = await this.#unlessStopped(opening);
    } catch (error) {
      return asFailure(error);
    }
    if (this.#session === undefined) return new RtspFailure("stopped", "the pull was stopped");
    this.#state = "playing";
    this.#sessions += 1;
    const startMs = performance.now();
    const media = this.#session.trackCount === 1 ? "one track" : `${this.#session.trackCount} tracks`;
    this.#say("info", `${this.#where()} plays over ${this.#transport.toUpperCase()}, ${media}`);
    const failure = await this.#session.ended;
    this.#silent = !this.#session.anyPacket;
    if (!this.#silent) this.#switched = false;
    this.#session = undefined;
    if (performance.now() - startMs >= (this.#options.stableMs ?? 60_000)) this.#backoff.reset();
    return failure;
  }

  /** The session, or undefined when the pull is stopped meanwhile; a session that comes too late is ended. */
  async #unlessStopped(opening: Promise<PullSession>): Promise<PullSession | undefined> {
    const { signal } = this.#abort;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const stopped = () => resolve(undefined);
    signal.addEventListener("abort", stopped);
    try {
      const session = await Promise.race([opening, promise]);
      if (session === undefined) opening.then((late) => late.stop()).catch(() => {});
      return session;
    } finally {
      signal.removeEventListener("abort", stopped);
    }
  }

  #sessionOptions(): PullSessionOptions {
    const options = this.#options;
    return {
      url: this.#url,
      transport: this.#transport,
      keepalive: options.keepalive ?? "auto",
      timeoutMs: options.timeoutMs ?? 10_000,
      stallMs: options.stallMs ?? 10_000,
      firstPacketMs: options.firstPacketMs ?? 5_000,
      keepMs: options.keepMs ?? 30_000,
      random: options.backoff?.random ?? Math.random,
      signal: this.#abort.signal,
      publish: (sdp, handlers) =>
        this.#relay.publish({
          path: this.name,
          sdp,
          from: `pull ${withoutPassword(options.url)}`,
          ...handlers,
        }),
      note: (text) => this.#say("warn", `${this.#where()}: ${text}`),
    };
  }

  /** Is it worth trying the other transport at once? At most once between two waits. */
  #switch(failure: RtspFailure): boolean {
    if (this.#switched || this.#options.transport === "tcp") return false;
    const silent = failure.code === "stalled" && this.#transport === "udp" && this.#silent;
    if (failure.code !== "transport" && !silent) return false;
    this.#switched = true;
    this.#transport = this.#transport === "udp" ? "tcp" : "udp";
    this.#say("warn", `${this.#where()}: ${failure.message}; trying ${this.#transport.toUpperCase()}`);
    return true;
  }

  async #wait(failure: RtspFailure): Promise<void> {
    // Cameras lock accounts, and what is not supported today will not be in a second.
    const slow = failure.code === "unauthorized" || failure.code === "unsupported";
    const waitMs = slow ? this.#backoff.nextSlow() : this.#backoff.next();
    this.#say(
      "warn",
      `${this.#where()}: ${failure.message}; trying again in ${(waitMs / 1000).toFixed(1)} s`,
    );
    this.#state = "waiting";
    this.#switched = false;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, waitMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#abort.signal.aborted) this.#wake();
    });
    this.#wake = undefined;
  }

  /** A reader asks for the path while nobody publishes it: no need to wait out the whole backoff. */
  #onWanted(): void {
    const code = this.#lastFailure?.code;
    if (code === "unauthorized" || code === "unsupported") return;
    if (performance.now() - this.#lastAttemptMs >= WANTED_MS) this.#wake?.();
  }

  #where(): string {
    return `pull ${this.name} (${withoutPassword(this.#options.url)})`;
  }

  #say(level: "info" | "warn", text: string): void {
    this.#options.log?.({ level, event: "source", text, fields: { path: this.name, state: this.#state } });
  }
}
