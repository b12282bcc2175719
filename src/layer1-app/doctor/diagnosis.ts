/**
 * Which links a machine and user can run, what each lacks, and the command that grants it.
 *
 * Layer 1, pure: facts in (`facts.ts`), words out.
 */

import { constants } from "node:os";
import type { LinkKind, LinkProbe } from "../../layer2-transport/index.ts";
import type { Capability, SystemFacts } from "./facts.ts";

/** One thing that a link needs. */
export interface Need {
  readonly what: string;
  readonly met: boolean;
  /** What was found instead, when it is not met. */
  readonly found?: string;
  /** A command or a sentence that helps, when it is not met. */
  readonly fix?: string;
}

/** One link's state. */
export interface LinkDiagnosis {
  readonly link: LinkKind;
  readonly runs: boolean;
  readonly needs: readonly Need[];
  /** What it can and cannot do here, for one that runs. */
  readonly notes: readonly string[];
}

/** What the kernel counts as locked for one AF_XDP socket: the small frames of its thread's share of the pool. */
const xdpLockedBytes = 16 * 2 ** 20;
const { EPERM, EACCES, ENOENT, EAFNOSUPPORT } = constants.errno;
/** What an XDP link needs, so that one command grants it all. */
const forXdp: readonly Capability[] = ["cap_net_admin", "cap_net_raw", "cap_bpf", "cap_ipc_lock"];
const multiQueueFlag = 0x0100;
const virtioHeaderFlag = 0x4000;

/** Every link, in the order of `linkKinds`. */
export function diagnose(facts: SystemFacts): LinkDiagnosis[] {
  return [
    report("host", [], ["the kernel's own TCP and UDP"]),
    report("mem", [addon(facts)], ["a wire between runtimes of one process"]),
    report("fd", [addon(facts)], ["a file descriptor that carries IP packets"]),
    report("tun", [addon(facts), ...tunNeeds(facts)], tunNotes(facts)),
    report("packet", [addon(facts), ...packetNeeds(facts)], ["any Ethernet interface"]),
    report("xdp", [addon(facts), ...xdpNeeds(facts)], xdpNotes(facts)),
  ];
}

/** The one command that grants what all links need, if this process does not have it yet. */
export function grantAll(facts: SystemFacts): string | undefined {
  const missing = forXdp.filter((name) => !facts.capabilities.includes(name));
  if (missing.length === 0 || facts.noNewPrivileges) return undefined;
  if (missing.some((name) => !facts.obtainable.includes(name))) return undefined;
  return setcap(facts, forXdp);
}

function report(link: LinkKind, needs: readonly Need[], notes: readonly string[]): LinkDiagnosis {
  const runs = needs.every(({ met }) => met);
  // Without the addon nothing else could be tried: its absence is the one thing to tell.
  const told = needs[0]?.met === false ? needs.slice(0, 1) : needs;
  return { link, runs, needs: told, notes: runs ? notes : [] };
}

function addon({ addonError }: SystemFacts): Need {
  if (addonError === undefined) return { what: "the native addon", met: true };
  const fix = "npm run build:native (installed: npm rebuild apo-runtime)";
  const found = addonError.split(": ")[0] ?? addonError;
  return { what: "the native addon", met: false, found, fix };
}

function tunNeeds(facts: SystemFacts): Need[] {
  const opened = facts.probe?.tunOpen ?? 0;
  const what = "/dev/net/tun, readable and writable";
  let device: Need = { what, met: opened === 0 };
  if (opened === EACCES || opened === EPERM) {
    device = { ...device, found: "this user may not open it", fix: "sudo chmod 666 /dev/net/tun" };
  } else if (opened !== 0) {
    const found = opened === ENOENT ? "it is not there" : `it does not open (${errorName(opened)})`;
    device = { ...device, found, fix: "sudo modprobe tun (in a container: --device /dev/net/tun)" };
  }
  return [device, capability(facts, "to make a device and give it addresses", ["cap_net_admin"])];
}

function tunNotes({ probe, kernel }: SystemFacts): string[] {
  const flags = probe?.tunFlags ?? 0;
  const offload = (flags & virtioHeaderFlag) !== 0;
  return [
    offload ? "TCP segmentation and checksum offload" : "no offload: each packet is handed over alone",
    ...(offload ? [since(kernel, 6, 2, "UDP segmentation offload")] : []),
    (flags & multiQueueFlag) !== 0 ? "several queues" : "one queue only",
  ];
}

function packetNeeds(facts: SystemFacts): Need[] {
  return [socketNeed(facts, "packetSocket", "AF_PACKET", ["cap_net_raw"], "sudo modprobe af_packet")];
}

function xdpNeeds(facts: SystemFacts): Need[] {
  const program = facts.probe?.xdpProgram ?? 0;
  const map = facts.probe?.bpfMap ?? 0;
  const what = "an XDP program loaded by bpf()";
  const error = map || program;
  const load: Need =
    error === 0
      ? { what, met: true }
      : {
          what,
          met: false,
          found: error === EPERM ? "this process may not" : `bpf() failed (${errorName(error)})`,
          fix:
            error === EPERM ? grant(facts, forXdp) : "a kernel with CONFIG_BPF_SYSCALL (any distribution's)",
        };
  return [
    socketNeed(facts, "xdpSocket", "AF_XDP", forXdp, "a kernel with CONFIG_XDP_SOCKETS (5.10 or newer)"),
    load,
    capability(facts, "to attach a program to an interface", forXdp),
    lockedMemory(facts),
  ];
}

function lockedMemory(facts: SystemFacts): Need {
  const { capabilities, memlockBytes } = facts;
  const met = capabilities.includes("cap_ipc_lock") || memlockBytes >= xdpLockedBytes;
  const what = `locked memory: ${xdpLockedBytes / 2 ** 20} MiB a queue, or CAP_IPC_LOCK`;
  if (met) return { what, met };
  const fix =
    'raise the limit: "* - memlock unlimited" in /etc/security/limits.conf (systemd: LimitMEMLOCK=infinity)';
  return { what, met, found: `${Math.floor(memlockBytes / 1024)} KiB (ulimit -H -l)`, fix };
}

function xdpNotes({ kernel }: SystemFacts): string[] {
  return [
    since(kernel, 6, 6, "packets longer than a page (multi-buffer)"),
    since(kernel, 6, 6, "tcx"),
    "zero-copy where the driver has it",
  ];
}

/** A socket of a family that is CAP_NET_RAW's to open. */
function socketNeed(
  facts: SystemFacts,
  tried: "packetSocket" | "xdpSocket",
  family: string,
  wanted: readonly Capability[],
  absent: string,
): Need {
  const errno = facts.probe?.[tried as keyof LinkProbe] ?? 0;
  const what = `an ${family} socket`;
  if (errno === 0) return { what, met: true };
  if (errno === EPERM || errno === EACCES) {
    return { what, met: false, found: "it takes CAP_NET_RAW", fix: grant(facts, wanted) };
  }
  const found = errno === EAFNOSUPPORT ? "this kernel does not have the family" : errorName(errno);
  return { what, met: false, found, fix: absent };
}

/** CAP_NET_ADMIN; what lacks it is granted `wanted`, of which it is the first. */
function capability(facts: SystemFacts, why: string, wanted: readonly Capability[]): Need {
  const what = `CAP_NET_ADMIN ${why}`;
  if (facts.capabilities.includes("cap_net_admin")) return { what, met: true };
  return { what, met: false, found: "this process does not have it", fix: grant(facts, wanted) };
}

/** How to come by capabilities here. */
function grant(facts: SystemFacts, wanted: readonly Capability[]): string {
  const lost = wanted.filter((name) => !facts.obtainable.includes(name));
  if (lost.length > 0) {
    const names = lost.map((name) => `--cap-add=${name.slice(4).toUpperCase()}`).join(" ");
    return `start the container with ${names} (systemd: CapabilityBoundingSet)`;
  }
  if (facts.noNewPrivileges) return "start it as root: no_new_privs is set, and setcap has no effect";
  // setcap replaces what a file had: what the process has already is named again.
  const kept = facts.capabilities.filter((name) => name !== "cap_sys_admin" && !wanted.includes(name));
  return setcap(facts, facts.user.startsWith("root ") ? wanted : [...kept, ...wanted]);
}

function setcap({ nodePath }: SystemFacts, names: readonly Capability[]): string {
  const path = /^[\w./@+-]+$/.test(nodePath) ? nodePath : `'${nodePath.replaceAll("'", `'\\''`)}'`;
  return `sudo setcap ${names.join(",")}+ep ${path}`;
}

function since(kernel: string, major: number, minor: number, what: string): string {
  const [have = 0, least = 0] = kernel.split(/[.-]/).map(Number);
  const there = have > major || (have === major && least >= minor);
  return there ? what : `no ${what}: that takes Linux ${major}.${minor}`;
}

function errorName(errno: number): string {
  const known = Object.entries(constants.errno).find(([, value]) => value === errno);
  return known?.[0] ?? `errno ${errno}`;
}
