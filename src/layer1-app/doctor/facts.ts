/**
 * What `apo doctor` knows of the machine, the user and the build: read and tried, not judged.
 *
 * Layer 1, Linux. What it means for each link is in `diagnosis.ts`.
 */

import { readFileSync } from "node:fs";
import { release, userInfo } from "node:os";
import { type LinkProbe, probeLinks } from "../../layer2-transport/index.ts";

/** The capabilities that links need, with their bit (linux/capability.h). */
export const capabilityBits = {
  cap_net_admin: 12,
  cap_net_raw: 13,
  cap_ipc_lock: 14,
  cap_sys_admin: 21,
  cap_bpf: 39,
} as const;
export type Capability = keyof typeof capabilityBits;

export interface SystemFacts {
  /** Node's version, and the program itself: what `setcap` is run on. */
  readonly node: string;
  readonly nodePath: string;
  /** "6.18.44-1-amd64" */
  readonly kernel: string;
  readonly user: string;
  /** The process's effective capabilities among those that matter. */
  readonly capabilities: readonly Capability[];
  /** Those that a program with file capabilities could get: the bounding set. */
  readonly obtainable: readonly Capability[];
  /** File capabilities have no effect (`no_new_privs`). */
  readonly noNewPrivileges: boolean;
  /** Bytes that the process may lock in memory (`ulimit -H -l`); Infinity: no limit. */
  readonly memlockBytes: number;
  /** What was tried with the addon; undefined without one, and `addonError` says why. */
  readonly probe: LinkProbe | undefined;
  readonly addonError: string | undefined;
}

/** Reads and tries everything. Never throws: what cannot be read counts as what a user without rights has. */
export function readSystemFacts(): SystemFacts {
  const status = readText("/proc/self/status");
  const facts = {
    node: process.version,
    nodePath: process.execPath,
    kernel: release(),
    user: userName(),
    capabilities: capabilitiesOf(status, "CapEff"),
    obtainable: capabilitiesOf(status, "CapBnd"),
    noNewPrivileges: /^NoNewPrivs:\s*1$/m.test(status),
    memlockBytes: memlockOf(readText("/proc/self/limits")),
  };
  try {
    return { ...facts, probe: probeLinks(), addonError: undefined };
  } catch (error) {
    return { ...facts, probe: undefined, addonError: (error as Error).message };
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function userName(): string {
  const uid = process.getuid?.() ?? -1;
  try {
    return `${userInfo().username} (uid ${uid})`;
  } catch {
    return `uid ${uid}`; // It has no entry among the users: usual in containers.
  }
}

/** The capabilities in a mask of /proc/PID/status, such as "CapEff:\t000001ffffffffff". */
export function capabilitiesOf(status: string, mask: "CapEff" | "CapBnd"): Capability[] {
  const digits = new RegExp(`^${mask}:\\s*([0-9a-f]+)$`, "m").exec(status)?.[1];
  const bits = BigInt(`0x${digits ?? "0"}`);
  const names = Object.keys(capabilityBits) as Capability[];
  return names.filter((name) => (bits >> BigInt(capabilityBits[name])) & 1n);
}

/** The hard limit of locked memory in /proc/PID/limits: the link raises its own as far as that. */
export function memlockOf(limits: string): number {
  const hard = /^Max locked memory\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  return hard === "unlimited" ? Number.POSITIVE_INFINITY : Number(hard ?? 0);
}
