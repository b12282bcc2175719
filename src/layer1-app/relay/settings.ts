/**
 * The relay's limits and times in one place: the options with their defaults filled in.
 *
 * Layer 1, relay.
 */

import { ApoError } from "../errors.ts";
import type { RelayOptions } from "./types.ts";

/** Every option, decided. */
export type Settings = Required<RelayOptions>;

/** Sent in the `Server` header and as the CNAME of reports. */
export const SERVER_NAME = "apo";
/** Clients are told a timeout this much shorter than the real one: some send their keepalive at the very end of it. */
export const TIMEOUT_MARGIN_MS = 5_000;
/** Receiver reports go to publishers this often: some give up after five seconds without one. */
export const RECEIVER_REPORT_MS = 4_000;
/** A publisher on UDP whose RTSP connection is lost ends after so long without a packet. */
export const PUBLISHER_ORPHAN_MS = 5_000;
/**
 * After BYE, a TCP reader has so long to hang up by itself: GStreamer plays its two seconds of jitter buffer first, and
 * more on a machine that has no time for it, and takes a connection that has ended meanwhile for an error.
 */
export const FAREWELL_MS = 15_000;
/** A NAT's port is learned within so long after SETUP or PLAY, and then never again. */
export const LEARNING_MS = 30_000;
/** Bytes of garbage that a connection may send in all. */
export const GARBAGE_BYTES_MAX = 65_536;
/** Sessions that one connection may hold. */
export const SESSIONS_PER_CONNECTION_MAX = 16;
/** DESCRIBE requests that may wait for sources, in all. */
export const WAITING_MAX = 1_024;
/** Connections at once, in units of 256. */
export const BACKLOG = 32;

const defaults: Settings = {
  port: 8554,
  address: "",
  rtpPort: 8000,
  budgetBytes: 4 * 1024 * 1024,
  stallMs: 10_000,
  sessionTimeoutMs: 65_000,
  orphanMs: 20_000,
  connectionIdleMs: 60_000,
  reportMs: 5_000,
  describeHoldMs: 8_000,
  lingerMs: 100,
  cacheBytes: 16 * 1024 * 1024,
  holdMs: 5,
  sessionsMax: 8_192,
  readersMax: 5_000,
  streamsMax: 1_024,
  log: () => {},
  now: Date.now,
  sweepMs: 1_000,
};

/**
 * Fills in the defaults.
 * @throws ApoError EINVAL for an unknown option or a value that cannot be.
 */
export function settle(options: RelayOptions): Settings {
  const settings: Record<string, unknown> = { ...defaults };
  for (const [name, value] of Object.entries(options)) {
    if (!(name in defaults)) throw new ApoError("EINVAL", `relay: there is no option "${name}"`);
    if (value === undefined) continue;
    const standard = defaults[name as keyof Settings];
    if (typeof value !== typeof standard) {
      throw new ApoError("EINVAL", `relay: option "${name}" must be a ${typeof standard}`);
    }
    if (typeof value === "number" && !(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) {
      throw new ApoError("EINVAL", `relay: option "${name}" must be 0 or more, not ${value}`);
    }
    settings[name] = value;
  }
  const settled = settings as unknown as Settings;
  for (const name of ["port", "rtpPort"] as const) {
    const value = settled[name];
    if (!Number.isInteger(value) || value > 65_535) {
      throw new ApoError("EINVAL", `relay: option "${name}" must be a port number, not ${value}`);
    }
  }
  if (settled.rtpPort % 2 !== 0) {
    throw new ApoError(
      "EINVAL",
      `relay: the RTP port must be even (RTCP takes the next), not ${settled.rtpPort}`,
    );
  }
  return settled;
}

/** One form for an address: IPv4 in IPv6 clothes is IPv4. */
export function plainAddress(address: string): string {
  return /^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(address) ? address.slice(7) : address;
}

/** "10.0.0.1:5000" or "[::1]:5000". */
export function endpoint(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
