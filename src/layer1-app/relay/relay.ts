/**
 * The relay: publishers in, readers out, over RTSP/RTP.
 *
 * Layer 1: an app on `Apo` with nothing privileged about it. This file makes the parts and takes them apart;
 * `docs/relay.md` is the operator's guide.
 */

import { randomBytes } from "node:crypto";
import type { Fanout, FanoutSocket } from "../../layer3-ip/fanout-types.ts";
import { ApoError, type ErrorCode } from "../errors.ts";
import type { Apo } from "../types.ts";
import { Core } from "./core.ts";
import { Ports } from "./ports.ts";
import { isStreamPath } from "./protocol/rtsp-url.ts";
import { publish } from "./publication.ts";
import { sweepReports } from "./reports.ts";
import { RtspServer } from "./server.ts";
import { Sessions } from "./session.ts";
import { type Settings, settle } from "./settings.ts";
import { Streams } from "./stream.ts";
import type {
  Expectation,
  Publication,
  PublishOptions,
  Relay,
  RelayOptions,
  RelayStats,
  SourceStatus,
} from "./types.ts";

/** How often a pair of ports is tried for when any will do: the one after a free even port may be taken. */
const PAIR_TRIES = 64;

class RunningRelay implements Relay {
  readonly #core: Core;
  readonly #server: RtspServer;
  readonly #timer: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  constructor(core: Core, server: RtspServer) {
    this.#core = core;
    this.#server = server;
    const { sweepMs } = core.settings;
    this.#timer = sweepMs === 0 ? undefined : setInterval(() => this.sweep(), sweepMs);
    // A relay whose runtime is closed under it has nothing left to sweep.
    void core.apo.closed.then(() => clearInterval(this.#timer));
    core.fanout.events = {
      datagram: (event) => core.ports.onDatagram(event),
      frames: (event) => core.streams.track(event.track)?.audience.onFrames(event),
      failed: (error) => core.warn("alarm", `the media engine failed: ${error.message}`),
    };
  }

  get port(): number {
    return this.#server.port;
  }

  get url(): string {
    const { address } = this.#core.settings;
    const any = address === "" || address === "::" || address === "0.0.0.0";
    // On a raw link nobody is at 127.0.0.1.
    const own = this.#core.apo.link().addresses[0]?.replace(/\/.*/, "") ?? "127.0.0.1";
    const one = any ? own : address;
    const host = one.includes(":") ? `[${one}]` : one;
    return `rtsp://${host}:${this.port}`;
  }

  get fanout(): Fanout {
    return this.#core.fanout;
  }

  get rtpSocket(): FanoutSocket {
    return this.#core.rtpSocket;
  }

  get rtcpSocket(): FanoutSocket {
    return this.#core.rtcpSocket;
  }

  publish(options: PublishOptions): Publication {
    if (this.#closing !== undefined) throw new ApoError("ECLOSED", "relay: it has been closed");
    return publish(this.#core, options);
  }

  expect(path: string, wanted?: () => void, status?: () => SourceStatus): Expectation {
    if (path === "" || !isStreamPath(path)) {
      throw new ApoError("EINVAL", `relay: "${path}" cannot be a stream's path`);
    }
    if (this.#core.expected.has(path)) {
      throw new ApoError("EINVAL", `relay: "${path}" has a source already`);
    }
    this.#core.expected.set(path, { wanted, status });
    return { withdraw: () => void this.#core.expected.delete(path) };
  }

  stats(): RelayStats {
    const core = this.#core;
    return {
      connections: this.#server.connections,
      sessions: core.sessions.size,
      publishers: [...core.streams].filter((stream) => stream.source !== undefined).length,
      readers: core.sessions.count("read"),
      streams: core.streams.size,
      waiting: core.streams.waiting,
      routes: core.ports.size,
      sources: [...core.expected.values()].flatMap(({ status }) => status?.() ?? []),
      counters: { ...core.counters },
    };
  }

  sweep(): void {
    const core = this.#core;
    const nowMs = core.now();
    for (const session of core.sessions.all()) {
      const reason = session.state === "ended" ? undefined : session.overdue(nowMs);
      if (reason === undefined) continue;
      const { connection, lower } = session;
      session.end(reason);
      // What a TCP reader did not take is thrown away with its connection; a publisher may still have a word to say.
      if (session.kind === "read" && lower === "tcp" && connection !== undefined)
        core.closeConnection(connection.sockfd, true);
    }
    for (const stream of [...core.streams]) {
      if (stream.source === undefined && nowMs >= stream.keepUntilMs) {
        core.streams.remove(stream, "its source did not come back");
      } else sweepReports(core, stream, nowMs);
    }
    core.streams.sweepWaiters(nowMs);
    core.ports.sweep(nowMs);
    this.#server.sweep(nowMs);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const core = this.#core;
    clearInterval(this.#timer);
    core.cancelTimers();
    core.streams.sweepWaiters(Number.POSITIVE_INFINITY);
    for (const stream of [...core.streams]) {
      stream.source?.replaced("the relay closes");
      core.streams.remove(stream, "the relay closes");
    }
    for (const session of core.sessions.all()) session.end("the relay closes");
    await this.#server.close();
    await core.fanout.close();
    core.info("closed", "relay closed");
  }
}

/**
 * Starts a relay on a runtime.
 *
 * @example
 * const relay = await createRelay(await createRuntime(), { port: 8554 });
 * console.log(`${relay.url}/cam`); // publish to it, then read it as often as you like
 *
 * @throws ApoError EINVAL (an option), EADDRINUSE, EACCES, EADDRNOTAVAIL (a port or the address).
 */
export async function createRelay(apo: Apo, options: RelayOptions = {}): Promise<Relay> {
  const settings = settle(options);
  const fanout = await apo.fanout({ holdMs: settings.holdMs });
  try {
    const sockets = await openPair(fanout, settings).catch((error: unknown) => {
      throw portError(error, `UDP ports ${settings.rtpPort} and ${settings.rtpPort + 1} (RTP and RTCP)`);
    });
    const core = new Core(apo, fanout, sockets, settings, randomBytes(4).readUInt32BE());
    core.streams = new Streams(core);
    core.sessions = new Sessions();
    core.ports = new Ports(core);
    const server = new RtspServer(core);
    await server.listen().catch((error: unknown) => {
      throw portError(error, `TCP port ${settings.port} (RTSP)`);
    });
    const relay = new RunningRelay(core, server);
    core.info(
      "listening",
      `RTSP on port ${relay.port}, RTP/RTCP on ports ${sockets.rtp.port}-${sockets.rtcp.port}`,
      {
        port: relay.port,
        rtpPort: sockets.rtp.port,
      },
    );
    return relay;
  } catch (error) {
    await fanout.close();
    throw error;
  }
}

/** Says which ports could not be had, and why, in words. */
function portError(error: unknown, ports: string): unknown {
  if (!(error instanceof ApoError)) return error;
  const reasons: Partial<Record<ErrorCode, string>> = {
    EADDRINUSE: "taken by another program",
    EACCES: "not allowed to this user",
    EINVAL: "not to be had: that is not an IP address",
    EADDRNOTAVAIL: "not to be had: the address is not this machine's",
  };
  const reason = reasons[error.code];
  if (reason === undefined) return error;
  return new ApoError(error.code, `relay: ${ports}: ${reason}`, { cause: error });
}

/** An even port for RTP and the next for RTCP. */
async function openPair(
  fanout: Fanout,
  settings: Settings,
): Promise<{ rtp: FanoutSocket; rtcp: FanoutSocket }> {
  const { address, rtpPort } = settings;
  if (rtpPort !== 0) {
    const rtp = await fanout.openSocket({ address, port: rtpPort });
    return { rtp, rtcp: await fanout.openSocket({ address, port: rtpPort + 1 }) };
  }
  for (let i = 0; i < PAIR_TRIES; i++) {
    const rtp = await fanout.openSocket({ address, port: 0 });
    if (rtp.port % 2 === 0) {
      try {
        return { rtp, rtcp: await fanout.openSocket({ address, port: rtp.port + 1 }) };
      } catch (error) {
        if (!(error instanceof ApoError && error.code === "EADDRINUSE")) throw error;
      }
    }
    fanout.closeSocket(rtp.id);
  }
  throw new ApoError("EADDRINUSE", `relay: no free pair of UDP ports was found in ${PAIR_TRIES} tries`);
}
