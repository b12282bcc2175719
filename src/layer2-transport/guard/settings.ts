/**
 * The options of the guard's second half (`guard.tcp` of `createRuntime`), checked, and as a worker gets them.
 *
 * Layer 2, pure. Words for users are here; the rules are in the files beside. All settings are numbers: they cross
 * threads.
 */

import { ApoError } from "../../layer1-app/errors.ts";

/** `guard.tcp`: what one source may take up, and from when on something is an attack. 0 is "no limit" or "never". */
export interface TcpGuardOptions {
  /** SYNs a second of one listener, beyond those that were completed, from which on handshakes keep nothing (1,000). */
  readonly floodSyns?: number;
  /** Handshakes with a record, from which on they keep nothing (4,096). */
  readonly halfOpen?: number;
  /** Connections that one source may have (0: as many as it likes while memory lasts). */
  readonly sourceConnections?: number;
  /** Connections that one network may have (0). */
  readonly networkConnections?: number;
  /** New connections a second of one source (0). */
  readonly sourceRate?: number;
  /** New connections a second of one network (0). */
  readonly networkRate?: number;
  /** What a source is, in bits of an IPv4 address (32), and of an IPv6 address (64). */
  readonly sourceBits4?: number;
  readonly sourceBits6?: number;
  /** What a network is, in bits of an IPv4 address (24), and of an IPv6 address (48). */
  readonly networkBits4?: number;
  readonly networkBits6?: number;
  /** Milliseconds for which a peer may take nothing of what is queued for it, before it counts as slow (20,000). */
  readonly stallMs?: number;
  /** New connections a second of one network that are an alarm (2,000). */
  readonly alarmConnections?: number;
  /** Resets, stray segments, false cookies a second that are an alarm, each kind for itself (1,000). */
  readonly alarmStrays?: number;
  /** Slow peers at once that are an alarm (256). */
  readonly alarmSlow?: number;
  /** Milliseconds for which an offender is blocked the first time; each time after that twice as long (60,000). */
  readonly blockMs?: number;
}

/** As a worker gets them, with the ceiling on memory. */
export interface TcpGuardSettings extends Required<TcpGuardOptions> {
  /** Bytes that all workers together may keep for connections. */
  readonly memoryBytes: number;
}

interface Range {
  readonly unset: number;
  readonly least: number;
  readonly most: number;
}

const most = 2 ** 31 - 1;
const count = (unset: number): Range => ({ unset, least: 0, most });
const bits = (unset: number, highest: number): Range => ({ unset, least: 1, most: highest });

const ranges: Readonly<Record<keyof TcpGuardOptions, Range>> = {
  floodSyns: count(1000),
  halfOpen: count(4096),
  sourceConnections: count(0),
  networkConnections: count(0),
  sourceRate: count(0),
  networkRate: count(0),
  sourceBits4: bits(32, 32),
  sourceBits6: bits(64, 64),
  networkBits4: bits(24, 32),
  networkBits6: bits(48, 64),
  stallMs: { unset: 20_000, least: 100, most },
  alarmConnections: count(2000),
  alarmStrays: count(1000),
  alarmSlow: count(256),
  blockMs: count(60_000),
};

export const tcpGuardNames = Object.keys(ranges) as (keyof TcpGuardOptions)[];

/** Fills in the defaults. Throws `EINVAL`. */
export function checkTcpGuardOptions(options: TcpGuardOptions, memoryBytes: number): TcpGuardSettings {
  if (typeof options !== "object" || options === null) {
    throw new ApoError("EINVAL", `guard.tcp: an object with some of ${tcpGuardNames.join(", ")} is needed`);
  }
  const strange = Object.keys(options).find((name) => !(name in ranges));
  if (strange !== undefined) {
    const known = tcpGuardNames.join(", ");
    throw new ApoError("EINVAL", `guard.tcp: unknown option "${strange}": there are ${known}`);
  }
  const filled = {} as Record<keyof TcpGuardOptions, number>;
  for (const name of tcpGuardNames) {
    const { unset, least, most: highest } = ranges[name];
    const value = options[name] ?? unset;
    if (!Number.isInteger(value) || value < least || value > highest) {
      const range = `a whole number from ${least} to ${highest}`;
      throw new ApoError("EINVAL", `guard.tcp: ${name} must be ${range}, not ${value}`);
    }
    filled[name] = value;
  }
  for (const version of [4, 6] as const) {
    const source = filled[`sourceBits${version}`];
    const network = filled[`networkBits${version}`];
    if (network <= source) continue;
    throw new ApoError(
      "EINVAL",
      `guard.tcp: networkBits${version} (${network}) must not exceed sourceBits${version} (${source}): ` +
        "a network has several sources",
    );
  }
  return { ...filled, memoryBytes };
}
