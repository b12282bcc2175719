/**
 * The options of links, as a user gives them to `createRuntime`, and which link each is for.
 *
 * Layer 3, passed on by the layers above. What a link's own options must be is checked in its own file; what all raw
 * links share, in `link-settings.ts`.
 */

import { ApoError } from "../../layer1-app/errors.ts";
import type { GuardOptions } from "../guard.ts";

/** Where packets come from and go to. */
export type LinkKind = "host" | "mem" | "fd" | "tun" | "packet" | "xdp";
export const linkKinds: readonly LinkKind[] = ["host", "mem", "fd", "tun", "packet", "xdp"];
/** The links whose packets pass the native thread and not the kernel's TCP and UDP. */
export type RawLinkKind = Exclude<LinkKind, "host">;

/** A route to what is not on the link itself. */
export interface LinkRoute {
  /** A prefix: "198.51.100.0/24"; "0.0.0.0/0" and "::/0" are everything. */
  readonly to: string;
  /** The gateway: an address on the link. */
  readonly via: string;
}

/** What a link is opened with. An option of another link is refused. */
export interface LinkOptions {
  /**
   * Raw links: this runtime's own addresses with their prefixes, as "10.0.0.1/24, fd00::1/64". Required, but for xdp:
   * it shares the interface's addresses with the kernel.
   */
  readonly address?: string;
  /** Raw links but xdp: whole prefixes whose every address is ours, too, as "10.1.0.0/16, fd00:1::/64". */
  readonly prefixes?: string;
  /** Raw links but mem: the longest IP packet, in bytes (what the link's device has). */
  readonly mtu?: number;
  /** Raw links but mem: how many native threads share the link's packets, each with a queue of its own (1). */
  readonly queues?: number;
  /** Raw links: a file that every packet is written to, as pcapng; what was dropped with its reason. */
  readonly pcap?: string;
  /** Raw links: what is dropped before a worker sees it (`apo.guard` changes it while running). */
  readonly guard?: GuardOptions;
  /** mem: the wire, made by `createWire()`; two runtimes with the same wire reach each other. */
  readonly wire?: unknown;
  /** fd: the file descriptor that IP packets are read from and written to, one a read. It stays the caller's. */
  readonly fd?: number;
  /** fd: whether each packet follows a `virtio_net_hdr`, of 10 bytes (true) or 12 (false: none). */
  readonly vnetHeader?: boolean | 12;
  /** tun: the device's name; "%d" in it is replaced by the first free number ("apo%d"). */
  readonly device?: string;
  /** tun: the kernel's address on the device (the next free one of our prefix). */
  readonly hostAddress?: string;
  /** packet, xdp: the network interface. */
  readonly interface?: string;
  /** packet: our own hardware address (one of our own making). */
  readonly mac?: string;
  /** packet: the routers of what is not on the link: one an IP version, as "192.0.2.1, 2001:db8::1". */
  readonly gateway?: string;
  /** packet: routes beside those through the gateways; the longest prefix wins. */
  readonly routes?: readonly LinkRoute[];
  /** xdp: in the driver ("native"), before it ("generic"), or the best that works ("auto"). */
  readonly xdpMode?: "auto" | "native" | "generic";
  /** xdp: whether the network card itself writes to our memory ("auto": when it can). */
  readonly zeroCopy?: "auto" | boolean;
}

const raw: readonly LinkKind[] = ["mem", "fd", "tun", "packet", "xdp"];
// A wire has an MTU of its own, and one queue for each runtime.
const rawButMem = raw.filter((kind) => kind !== "mem");

/** Which links an option is for. */
export const linksOfOption: Readonly<Record<keyof LinkOptions, readonly LinkKind[]>> = {
  address: ["mem", "fd", "tun", "packet"],
  prefixes: ["mem", "fd", "tun", "packet"],
  mtu: rawButMem,
  queues: rawButMem,
  pcap: raw,
  guard: raw,
  wire: ["mem"],
  fd: ["fd"],
  vnetHeader: ["fd"],
  device: ["tun"],
  hostAddress: ["tun"],
  interface: ["packet", "xdp"],
  mac: ["packet"],
  gateway: ["packet"],
  routes: ["packet"],
  xdpMode: ["xdp"],
  zeroCopy: ["xdp"],
};

export const linkOptionNames = Object.keys(linksOfOption) as (keyof LinkOptions)[];

/** An option that is not what it must be: `wanted` says what, as in "a whole number from 1 to 8". */
export function refuseOption(name: keyof LinkOptions | "link", value: unknown, wanted: string): ApoError {
  const shown =
    typeof value === "string" || typeof value === "object" ? JSON.stringify(value) : String(value);
  return new ApoError("EINVAL", `createRuntime: ${name} must be ${wanted}, not ${shown.slice(0, 80)}`);
}

/** Throws `EINVAL` for an option that is for another link than `kind`. */
export function checkOptionsBelong(kind: LinkKind, options: LinkOptions): void {
  for (const name of linkOptionNames) {
    const links = linksOfOption[name];
    if (options[name] === undefined || links.includes(kind)) continue;
    const others = links.map((link) => `"${link}"`).join(", ");
    const why = kind === "xdp" && name === "address" ? ': "xdp" shares the addresses of its interface' : "";
    const meant = links.length > 1 ? `links ${others}` : `link ${others}`;
    throw new ApoError("EINVAL", `createRuntime: ${name} is for ${meant}, and this is link "${kind}"${why}`);
  }
}

/** A whole number from `least` to `most`, or `unset` when it was not given. Throws `EINVAL`. */
export function wholeOption(
  options: LinkOptions,
  name: "mtu" | "queues" | "fd",
  least: number,
  most: number,
): number | undefined {
  const value = options[name];
  if (value === undefined) return undefined;
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw refuseOption(name, value, `a whole number from ${least} to ${most}`);
}
