/**
 * The options that all raw links share, checked, and put together with the link's own for the native half.
 *
 * Layer 3.
 */

import { ApoError } from "../../layer1-app/errors.ts";
import { checkGuardOptions } from "../guard.ts";
import { addressWords, type IpPrefix, parsePrefix, prefixContains } from "../ip-prefix.ts";
import { linkModule } from "./index.ts";
import type { NativeSettings } from "./link-module.ts";
import {
  checkOptionsBelong,
  type LinkOptions,
  linksOfOption,
  type RawLinkKind,
  refuseOption,
  wholeOption,
} from "./link-options.ts";

/** Addresses and whole prefixes of one link, together; mirrored in ip/ip_address.h. */
const ownAddressesMax = 64;
const routesMax = 64;
const queuesMax = 16;
const mtuMin = 1280;
const mtuMax = 65_535;

/** A raw link's options, checked. */
export interface LinkSettings {
  readonly kind: RawLinkKind;
  readonly options: LinkOptions;
  /** For the native half: the link's own settings and the common ones. */
  readonly native: NativeSettings;
  /** Our own addresses with their prefixes; none on a link that shares the kernel's. */
  readonly addresses: readonly IpPrefix[];
  /** Whole prefixes that are ours. */
  readonly prefixes: readonly IpPrefix[];
  readonly routes: readonly { readonly to: IpPrefix; readonly via: IpPrefix }[];
  /** How many native threads. */
  readonly queues: number;
  readonly pcap: string | undefined;
}

/** Checks a raw link's options. Throws `EINVAL`, and `ENOTSUP` when the build does not have the link. */
export function checkLinkOptions(kind: RawLinkKind, options: LinkOptions): LinkSettings {
  checkOptionsBelong(kind, options);
  const module = linkModule(kind);
  const addresses = readAddresses(kind, options);
  const prefixes = readList("prefixes", options.prefixes);
  const own = addresses.length + prefixes.length;
  if (own > ownAddressesMax) {
    throw new ApoError(
      "EINVAL",
      `createRuntime: address and prefixes have ${own} entries; at most ${ownAddressesMax}`,
    );
  }
  const queues = wholeOption(options, "queues", 1, queuesMax) ?? 1;
  const mtu = wholeOption(options, "mtu", mtuMin, mtuMax);
  const { pcap } = options;
  if (pcap !== undefined && (typeof pcap !== "string" || pcap === "")) {
    throw refuseOption("pcap", pcap, "the path of a file");
  }
  if (options.guard !== undefined) checkGuardOptions(options.guard);
  const native = { ...module.settings(options), queues, ...(mtu === undefined ? {} : { mtu }) };
  return { kind, options, native, addresses, prefixes, routes: readRoutes(options, addresses), queues, pcap };
}

function readAddresses(kind: RawLinkKind, options: LinkOptions): IpPrefix[] {
  const { address } = options;
  if (!linksOfOption.address.includes(kind)) return [];
  const addresses = readList("address", address);
  if (addresses.length > 0) return addresses;
  throw new ApoError(
    "EINVAL",
    `createRuntime: link "${kind}" needs address: our own on the link, as "10.0.0.1/24, fd00::1/64"`,
  );
}

/** "a, b" as prefixes. */
function readList(name: "address" | "prefixes", text: unknown): IpPrefix[] {
  if (text === undefined) return [];
  if (typeof text !== "string") throw refuseOption(name, text, 'text such as "10.0.0.1/24, fd00::1/64"');
  return splitList(text).map((part) => parsePrefix(part));
}

function splitList(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

/** `routes`, and a route to everything for each gateway; each way leads to an address that is on the link. */
function readRoutes(options: LinkOptions, addresses: readonly IpPrefix[]): LinkSettings["routes"] {
  const { gateway, routes = [] } = options;
  if (gateway !== undefined && typeof gateway !== "string") {
    throw refuseOption("gateway", gateway, 'an IP address, or "192.0.2.1, 2001:db8::1"');
  }
  const found = splitList(gateway ?? "").map((text) => {
    const via = readVia("gateway", text, addresses);
    return { to: parsePrefix(via.version6 ? "::/0" : "0.0.0.0/0"), via };
  });
  if (found.length === 2 && found[0]?.via.version6 === found[1]?.via.version6) {
    throw refuseOption("gateway", gateway, "one address an IP version");
  }
  if (!Array.isArray(routes) || routes.length > routesMax) {
    throw refuseOption("routes", routes, `a list of at most ${routesMax} routes { to, via }`);
  }
  for (const route of routes) {
    const { to, via } = (route ?? {}) as { to?: unknown; via?: unknown };
    if (typeof to !== "string" || typeof via !== "string") {
      throw refuseOption("routes", route, 'of routes as { to: "198.51.100.0/24", via: "192.0.2.1" }');
    }
    const one = { to: parsePrefix(to), via: readVia("routes", via, addresses) };
    if (one.to.version6 !== one.via.version6) throw refuseOption("routes", route, "of one IP version each");
    found.push(one);
  }
  return found;
}

function readVia(name: "gateway" | "routes", text: string, addresses: readonly IpPrefix[]): IpPrefix {
  const words = addressWords(text);
  if (!words) throw refuseOption(name, text, "an IP address");
  const via = parsePrefix(text);
  const near = addresses.filter((own) => own.version6 === via.version6);
  const linkLocal = via.version6 && (via.words[0] as number) >>> 22 === 0xfe80 >>> 6;
  if (linkLocal || near.some((own) => prefixContains(own, via.words))) return via;
  throw refuseOption(name, text, "an address on the link: within the prefix of one of ours");
}
