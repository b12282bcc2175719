/**
 * Whose is a datagram? One pair of UDP ports serves every reader and publisher, so they are told apart by where
 * a datagram comes from; a port behind a NAT is learned from its first packet.
 *
 * Layer 1, relay. The rules, in order: the exact client_port; the payload type of a publisher at the same
 * address; a reader at the same address whose port is not known for sure, the latest session first, its tracks in
 * the order of their SETUP, told by SSRC where the datagram is a report. What is left is a stranger: dropped, counted.
 */

import type { DatagramEvent } from "../../layer3-ip/fanout-types.ts";
import type { Core } from "./core.ts";
import { Summary } from "./log.ts";
import { parseRtcp } from "./protocol/rtcp.ts";
import { parseRtpHeader } from "./protocol/rtp-packet.ts";
import { endpoint, LEARNING_MS, plainAddress } from "./settings.ts";

export type Lane = "rtp" | "rtcp";

/** One end that datagrams may come from. */
export interface Route {
  /** A datagram came from exactly this end. */
  heard(lane: Lane, bytes: Uint8Array): void;
}

/** One track of a UDP reader, as far as its ports are concerned. */
export interface ReaderRoute extends Route {
  /** The track's SSRC, 0 while unknown. */
  ssrc(): number;
  learned(lane: Lane, port: number): void;
}

/** The UDP tracks of one reading session, until their ports are known. */
export interface Learner {
  readonly address: string;
  /** In the order of SETUP. */
  readonly tracks: readonly { readonly route: ReaderRoute; readonly known: Record<Lane, boolean> }[];
  /** Learning ends then. */
  untilMs: number;
}

/** A publisher's UDP tracks: RTP may come from another port than it said. */
export interface SourceRoute {
  readonly address: string;
  /** True if the packet was its own: it has been handed on. */
  claimRtp(payloadType: number, port: number, bytes: Uint8Array): boolean;
  claimRtcp(ssrc: number, bytes: Uint8Array): boolean;
}

export class Ports {
  readonly #core: Core;
  readonly #routes: Record<Lane, Map<string, Route[]>> = { rtp: new Map(), rtcp: new Map() };
  readonly #learners = new Map<string, Learner[]>();
  readonly #sources = new Map<string, SourceRoute[]>();
  readonly #strangers = new Summary();

  constructor(core: Core) {
    this.#core = core;
  }

  get size(): number {
    return this.#routes.rtp.size + this.#routes.rtcp.size + this.#learners.size + this.#sources.size;
  }

  addRoute(lane: Lane, address: string, port: number, route: Route): void {
    addTo(this.#routes[lane], `${address} ${port}`, route);
  }

  removeRoute(lane: Lane, address: string, port: number, route: Route): void {
    removeFrom(this.#routes[lane], `${address} ${port}`, route);
  }

  addLearner(learner: Learner): void {
    removeFrom(this.#learners, learner.address, learner);
    learner.untilMs = this.#core.now() + LEARNING_MS;
    addTo(this.#learners, learner.address, learner);
  }

  removeLearner(learner: Learner): void {
    removeFrom(this.#learners, learner.address, learner);
  }

  addSource(source: SourceRoute): void {
    addTo(this.#sources, source.address, source);
  }

  removeSource(source: SourceRoute): void {
    removeFrom(this.#sources, source.address, source);
  }

  /** A datagram that the engine knows no source for. */
  onDatagram(event: DatagramEvent): void {
    const lane = event.socket === this.#core.rtpSocket.id ? "rtp" : "rtcp";
    const address = plainAddress(event.address);
    const exact = this.#routes[lane].get(`${address} ${event.port}`)?.at(-1);
    if (exact !== undefined) {
      exact.heard(lane, event.bytes);
      return;
    }
    if (this.#claim(lane, address, event) || this.#learn(lane, address, event)) return;
    this.#core.count("datagrams.strangers");
    this.#tell(this.#strangers.add(1, this.#core.now()), endpoint(address, event.port));
  }

  sweep(nowMs: number): void {
    this.#tell(this.#strangers.due(nowMs), "");
    for (const list of [...this.#learners.values()]) {
      for (const learner of [...list]) if (learner.untilMs <= nowMs) this.removeLearner(learner);
    }
  }

  #claim(lane: Lane, address: string, event: DatagramEvent): boolean {
    const sources = this.#sources.get(address);
    if (sources === undefined) return false;
    if (lane === "rtp") {
      const header = parseRtpHeader(event.bytes);
      if (header === undefined || header.payloadBytes === 0) return false; // A punch, not media.
      return sources.some((source) => source.claimRtp(header.payloadType, event.port, event.bytes));
    }
    const report = parseRtcp(event.bytes)[0];
    if (report?.kind !== "sr") return false;
    return sources.some((source) => source.claimRtcp(report.ssrc, event.bytes));
  }

  #learn(lane: Lane, address: string, event: DatagramEvent): boolean {
    const learners = this.#learners.get(address);
    if (learners === undefined) return false;
    const reported = lane === "rtcp" ? reportedSsrc(event.bytes) : 0;
    for (let i = learners.length - 1; i >= 0; i--) {
      const learner = learners[i];
      if (learner === undefined || learner.untilMs <= this.#core.now()) continue;
      const open = learner.tracks.filter((track) => !track.known[lane]);
      const track = reported === 0 ? open[0] : open.find((one) => one.route.ssrc() === reported);
      if (track === undefined) continue;
      track.known[lane] = true;
      this.#core.count("datagrams.learned");
      track.route.learned(lane, event.port);
      track.route.heard(lane, event.bytes);
      if (learner.tracks.every((one) => one.known.rtp && one.known.rtcp)) this.removeLearner(learner);
      return true;
    }
    return false;
  }

  #tell(count: number, latest: string): void {
    if (count === 0) return;
    const from = latest === "" ? "" : `, the latest from ${latest}`;
    this.#core.warn("strangers", `${count} datagrams from strangers dropped${from}`, { count });
  }
}

/** The SSRC that a receiver report is about, 0 if it is none or about nobody. */
function reportedSsrc(bytes: Uint8Array): number {
  for (const packet of parseRtcp(bytes)) {
    if (packet.kind === "rr" || packet.kind === "sr") return packet.blocks[0]?.ssrc ?? 0;
  }
  return 0;
}

function addTo<T>(map: Map<string, T[]>, key: string, value: T): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

function removeFrom<T>(map: Map<string, T[]>, key: string, value: T): void {
  const list = map.get(key);
  const at = list?.indexOf(value) ?? -1;
  if (list === undefined || at < 0) return;
  list.splice(at, 1);
  if (list.length === 0) map.delete(key);
}
