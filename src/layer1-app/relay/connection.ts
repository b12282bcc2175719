/**
 * One RTSP connection: its peer, its sessions, and which of its `$` channels belongs to whom.
 *
 * Layer 1, relay. It knows no methods and no media.
 */

import type { Peer, Sockfd } from "../types.ts";
import type { Session } from "./session.ts";
import { plainAddress } from "./settings.ts";

/** Takes what arrives on a channel. */
export interface ChannelSink {
  /** RTP packets are pushed in runs; anything else comes a packet at a time. */
  readonly push?: (bytes: Uint8Array, offsets: Uint32Array, count: number) => void;
  readonly packet?: (bytes: Uint8Array) => void;
}

export class Connection {
  readonly sockfd: Sockfd;
  readonly address: string;
  readonly port: number;
  /** Where the peer reached us: for `o=` in descriptions. */
  readonly localAddress: string;
  readonly sessions = new Set<Session>();
  /** The session of the last request: what a request without a Session header is about. */
  current: Session | undefined;
  /** The latest session of it that its stream's end has ended: taking leave of that one is no error. */
  over = "";
  /** It was read over this connection: when the client does not hang up by itself, the connection is closed then. */
  closeAtMs = Number.POSITIVE_INFINITY;
  lastRequestMs: number;
  garbageBytes = 0;
  closing = false;
  readonly #channels: (ChannelSink | undefined)[] = new Array<ChannelSink | undefined>(256).fill(undefined);

  constructor(sockfd: Sockfd, peer: Peer, nowMs: number) {
    this.sockfd = sockfd;
    this.address = plainAddress(peer.address);
    this.port = peer.port;
    this.localAddress = plainAddress(peer.localAddress);
    this.lastRequestMs = nowMs;
  }

  channel(number: number): ChannelSink | undefined {
    return this.#channels[number];
  }

  /** Are both channels nobody's, and different? */
  free(pair: readonly [number, number]): boolean {
    return (
      pair[0] !== pair[1] && this.#channels[pair[0]] === undefined && this.#channels[pair[1]] === undefined
    );
  }

  /** The lowest free pair that starts even, or undefined when all are taken. */
  freePair(): readonly [number, number] | undefined {
    for (let first = 0; first < 256; first += 2) if (this.free([first, first + 1])) return [first, first + 1];
    return undefined;
  }

  claim(pair: readonly [number, number], rtp: ChannelSink, rtcp: ChannelSink): void {
    this.#channels[pair[0]] = rtp;
    this.#channels[pair[1]] = rtcp;
  }

  unclaim(pair: readonly [number, number]): void {
    this.#channels[pair[0]] = undefined;
    this.#channels[pair[1]] = undefined;
  }

  forget(session: Session): void {
    this.sessions.delete(session);
    if (this.current === session) this.current = undefined;
  }
}
