/**
 * What the relay's parts share: the verbs, the engine, the tables, the counters and the log.
 *
 * Layer 1, relay. Only `relay.ts` makes one; the parts take it as their first argument.
 */

import type { Fanout, FanoutSocket } from "../../layer3-ip/fanout-types.ts";
import { ApoError } from "../errors.ts";
import type { Apo, Sockfd } from "../types.ts";
import type { RelayEvent } from "./log.ts";
import type { Ports } from "./ports.ts";
import type { Sessions } from "./session.ts";
import type { Settings } from "./settings.ts";
import type { Streams } from "./stream.ts";
import type { SourceStatus } from "./types.ts";

/** Every counter of the relay, with what it counts. */
export const counterNames = {
  requests: "RTSP requests answered",
  "requests.refused": "RTSP requests answered with 4xx or 5xx",
  "requests.malformed": "RTSP messages that could not be parsed",
  "garbage.bytes": "bytes between RTSP messages that were thrown away",
  "interleaved.unknown": "$ frames on a channel that no track has",
  "interleaved.short": "$ frames from a publisher too short to be RTP",
  "datagrams.strangers": "datagrams from addresses that no session knows",
  "datagrams.learned": "NAT ports learned from a first packet",
  "rtcp.received": "RTCP compounds from readers and publishers",
  "rtcp.malformed": "RTCP that made no sense",
  "rtcp.reports": "sender reports to readers on TCP, and rounds of them to readers on UDP",
  "slow.readers": "times a TCP reader went over its budget",
  "slow.packets": "packets not sent to slow TCP readers",
  "slow.disconnected": "TCP readers disconnected for taking nothing",
  "sessions.timeout": "sessions ended for silence",
  "sessions.stolen": "requests for a session from another address",
  "connections.idle": "connections closed for having no session and no request",
  "sends.failed": "sendto refused (the connection had just ended, or its queue was full)",
} as const;

export type CounterName = keyof typeof counterNames;

/** What a source gave with its `expect`. */
export interface ExpectedSource {
  readonly wanted: (() => void) | undefined;
  readonly status: (() => SourceStatus) | undefined;
}

export class Core {
  readonly apo: Apo;
  readonly fanout: Fanout;
  readonly rtpSocket: FanoutSocket;
  readonly rtcpSocket: FanoutSocket;
  readonly settings: Settings;
  readonly counters: Record<CounterName, number>;
  /** The SSRC of our own receiver reports. */
  readonly ssrc: number;
  // Set once by relay.ts, right after construction: the tables need the core themselves.
  streams!: Streams;
  sessions!: Sessions;
  ports!: Ports;
  /** Paths whose source is on its way, with what to call when somebody asks, and for its numbers. */
  readonly expected = new Map<string, ExpectedSource>();
  readonly #timers = new Set<NodeJS.Timeout>();

  constructor(
    apo: Apo,
    fanout: Fanout,
    sockets: { rtp: FanoutSocket; rtcp: FanoutSocket },
    settings: Settings,
    ssrc: number,
  ) {
    this.apo = apo;
    this.fanout = fanout;
    this.rtpSocket = sockets.rtp;
    this.rtcpSocket = sockets.rtcp;
    this.settings = settings;
    this.ssrc = ssrc;
    this.counters = Object.fromEntries(Object.keys(counterNames).map((name) => [name, 0])) as Record<
      CounterName,
      number
    >;
  }

  /** Runs `task` after `ms`, at once if that is 0; not at all once the relay has closed. */
  later(ms: number, task: () => void): void {
    if (ms === 0) {
      task();
      return;
    }
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      task();
    }, ms);
    this.#timers.add(timer);
  }

  /** Forgets what `later` was told. */
  cancelTimers(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  now(): number {
    return this.settings.now();
  }

  count(name: CounterName, by = 1): void {
    this.counters[name] += by;
  }

  info(event: RelayEvent, text: string, fields: Record<string, string | number> = {}): void {
    this.settings.log({ level: "info", event, text, fields });
  }

  warn(event: RelayEvent, text: string, fields: Record<string, string | number> = {}): void {
    this.settings.log({ level: "warn", event, text, fields });
  }

  /** `sendto` to peers that may be gone: that is counted, and `closed` tells the rest. */
  send(to: Sockfd | readonly Sockfd[], bytes: Uint8Array): void {
    try {
      this.apo.sendto(to, bytes)?.catch(this.#failed);
    } catch (error) {
      this.#failed(error);
    }
  }

  readonly #failed = (error: unknown): void => {
    if (!(error instanceof ApoError)) throw error;
    this.count("sends.failed");
  };

  /** Closes a connection once what was sent is out. */
  closeConnection(sockfd: Sockfd, reset = false): void {
    this.apo.close(sockfd, { reset }).catch(this.#failed);
  }
}
