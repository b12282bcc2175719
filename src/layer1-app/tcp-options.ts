/**
 * The TCP options that an app gives: their names as engineers know them, their limits, and what `host` cannot do.
 *
 * Layer 1, pure. The same names serve `createRuntime({ tcp })`, `opens` and `tune`; what each means is in layer 2's
 * `tcp/options.ts`.
 */

import {
  congestionControls,
  defaultTcpOptions,
  handshakeOptions,
  type TcpOptions,
  tcpOptionNames,
  tcpOptionWord,
} from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import { checkNames, invalid, whole } from "./option-checks.ts";
import type { TcpSettings } from "./types.ts";

type NumberName = { [K in keyof TcpOptions]: TcpOptions[K] extends number ? K : never }[keyof TcpOptions];
type SwitchName = { [K in keyof TcpOptions]: TcpOptions[K] extends boolean ? K : never }[keyof TcpOptions];

const mostMs = 2 ** 31 - 1;
/** The least and the most of each number. */
const limits: Readonly<Record<NumberName, readonly [number, number]>> = {
  maxseg: [0, 65_495],
  recvBuffer: [4096, 2 ** 30],
  keepaliveIdleMs: [1, mostMs],
  keepaliveIntervalMs: [1, mostMs],
  keepaliveProbes: [1, 15],
  userTimeoutMs: [0, mostMs],
  lingerMs: [-1, mostMs],
  initialWindow: [1, 1000],
  initialRtoMs: [1, 120_000],
  minRtoMs: [1, 120_000],
  label: [0, 0xf_ffff],
  dscp: [0, 63],
  ttl: [1, 255],
  synRetries: [0, 15],
  synBacklog: [1, 2 ** 20],
  maxRetries: [1, 30],
  finTimeoutMs: [1, mostMs],
  timeWaitMs: [0, mostMs],
};
/** A segment of fewer bytes than this is mostly header: an attack on the sender, or a mistake (Linux has the same). */
const leastMaxseg = 88;
const switches: readonly SwitchName[] = ["nodelay", "cork", "quickack", "fastOpen", "ecn"];
const keepaliveNames = ["idleMs", "intervalMs", "probes"] as const;
/** Options whose name for apps is another than inside. */
const givenNames: Partial<Record<keyof TcpOptions, keyof TcpSettings>> = { label: "flowLabel" };
const innerKeepalive: readonly string[] = ["keepaliveIdleMs", "keepaliveIntervalMs", "keepaliveProbes"];

/** Every name that an app may use, but for `sendBuffer`, which is `sendlen`. */
export const tcpSettingNames: readonly string[] = tcpOptionNames
  .filter((name) => !innerKeepalive.includes(name))
  .map((name) => givenNames[name] ?? name);

/** What holds on the `host` link: its keepalive has always been on. */
export const hostTcpOptions: TcpOptions = {
  ...defaultTcpOptions,
  keepalive: true,
  keepaliveIdleMs: 60_000,
};

/** What `given` says, over what holds already. Throws `EINVAL`; on `host` `ENOTSUP` for what the kernel hides. */
export function checkTcpSettings(
  verb: string,
  given: TcpSettings,
  base: TcpOptions,
  isHost: boolean,
): TcpOptions {
  if (isHost) refuseOnHost(verb, given);
  const options: Record<string, unknown> = { ...base };
  for (const name of switches) options[name] = toggle(verb, name, given[name], base[name]);
  for (const name of Object.keys(limits) as NumberName[]) {
    if (innerKeepalive.includes(name)) continue;
    const shown = givenNames[name] ?? name;
    const value = (given as Record<string, unknown>)[shown];
    options[name] = whole(verb, shown, value, base[name], limits[name][0], limits[name][1]);
  }
  const { maxseg } = options;
  if (maxseg !== 0 && (maxseg as number) < leastMaxseg) {
    throw invalid(verb, "maxseg", maxseg, `0 (what the MTU allows) or at least ${leastMaxseg}`);
  }
  const { congestion = base.congestion } = given;
  if (!congestionControls.includes(congestion)) {
    throw invalid(verb, "congestion", congestion, congestionControls.map((one) => `"${one}"`).join(" or "));
  }
  options.congestion = congestion;
  if (given.keepalive !== undefined) Object.assign(options, checkKeepalive(verb, given.keepalive));
  return options as unknown as TcpOptions;
}

/** `sendBuffer` and `sendlen` are the same; both may be given when they agree. Undefined: neither. */
export function checkSendBuffer(verb: string, sendBuffer: unknown, sendlen: unknown): number | undefined {
  if (sendBuffer !== undefined && sendlen !== undefined && sendBuffer !== sendlen) {
    throw new ApoError("EINVAL", `${verb}: sendBuffer is another name of sendlen: give one of them`);
  }
  const name = sendBuffer === undefined ? "sendlen" : "sendBuffer";
  const value = sendBuffer ?? sendlen;
  return value === undefined ? undefined : whole(verb, name, value, undefined, 1, 2 ** 31 - 1);
}

/** The options given of a TCP connection that stands: pairs of place and word. Throws as `checkTcpSettings` does. */
export function checkTuning(given: TcpSettings, isHost: boolean): [number, number][] {
  checkNames("tune", given, [...tcpSettingNames, "sendBuffer"]);
  const late = handshakeOptions.find((name) => (given as Record<string, unknown>)[name] !== undefined);
  if (late) {
    throw new ApoError(
      "EINVAL",
      `tune: ${late} matters only while a connection is made: give it to opens or createRuntime`,
    );
  }
  const checked = checkTcpSettings("tune", given, defaultTcpOptions, isHost);
  const pairs: [number, number][] = [];
  for (const [place, name] of tcpOptionNames.entries()) {
    if (!isGiven(given, name)) continue;
    pairs.push([place, tcpOptionWord(checked[name])]);
  }
  const sendlen = checkSendBuffer("tune", given.sendBuffer, undefined);
  if (sendlen !== undefined) pairs.push([tcpOptionNames.length, sendlen]);
  return pairs;
}

function isGiven(given: TcpSettings, name: keyof TcpOptions): boolean {
  if (innerKeepalive.includes(name)) {
    const { keepalive } = given;
    if (typeof keepalive !== "object") return false;
    const part = name.replace("keepalive", "");
    return (keepalive as Record<string, unknown>)[part[0]?.toLowerCase() + part.slice(1)] !== undefined;
  }
  return (given as Record<string, unknown>)[givenNames[name] ?? name] !== undefined;
}

function toggle(verb: string, name: string, value: unknown, unset: boolean): boolean {
  if (value === undefined) return unset;
  if (typeof value !== "boolean") throw invalid(verb, name, value, "true or false");
  return value;
}

function checkKeepalive(verb: string, keepalive: unknown): Partial<TcpOptions> {
  if (typeof keepalive === "boolean") return { keepalive };
  if (typeof keepalive !== "object" || keepalive === null) {
    throw invalid(verb, "keepalive", keepalive, "true, false or { idleMs, intervalMs, probes }");
  }
  checkNames(`${verb}: keepalive`, keepalive, keepaliveNames);
  const options: Record<string, unknown> = { keepalive: true };
  for (const name of keepaliveNames) {
    const value = (keepalive as Record<string, unknown>)[name];
    if (value === undefined) continue;
    const inner = `keepalive${name[0]?.toUpperCase()}${name.slice(1)}` as NumberName;
    options[inner] = whole(verb, `keepalive.${name}`, value, undefined, limits[inner][0], limits[inner][1]);
  }
  return options;
}

/** On the host link the kernel has the connection, and node:net reaches these of its options alone. */
function refuseOnHost(verb: string, given: TcpSettings): void {
  const reachable = ["nodelay", "keepalive", "sendBuffer"];
  const names = Object.keys(given) as (keyof TcpSettings)[];
  let strange: string | undefined = names.find(
    (name) => tcpSettingNames.includes(name) && !reachable.includes(name) && given[name] !== undefined,
  );
  const { keepalive } = given;
  if (typeof keepalive === "object" && keepalive !== null) {
    if (keepalive.intervalMs !== undefined) strange ??= "keepalive.intervalMs";
    if (keepalive.probes !== undefined) strange ??= "keepalive.probes";
  }
  if (strange === undefined) return;
  throw new ApoError(
    "ENOTSUP",
    `${verb}: link "host" cannot set ${strange}, the kernel has its connections (there: nodelay, ` +
      "keepalive: { idleMs }, sendBuffer): leave it out, or use a raw link (mem, fd, tun, packet, xdp)",
  );
}
