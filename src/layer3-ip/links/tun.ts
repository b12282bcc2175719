/**
 * The `tun` link: a TUN device of our own, through which the kernel reaches our addresses.
 *
 * Layer 3, pure: which address the kernel gets, and words for what failed. The device is made by
 * native/rawsock/links/tun_device.cc; what a step means is said there.
 */

import { getSystemErrorName } from "node:util";
import { ApoError } from "../../layer1-app/errors.ts";
import { formatAddress } from "../address.ts";
import { type IpPrefix, parsePrefix, prefixContains } from "../ip-prefix.ts";
import type { LinkFailure, NativeSettings } from "./link-module.ts";
import { type LinkOptions, refuseOption } from "./link-options.ts";

const defaultDevice = "apo%d";
/** IFNAMSIZ, without the byte that ends the name. */
const deviceNameMax = 15;
/** How far from our address a free one is looked for. */
const candidatesMax = 256;

export function settings(options: LinkOptions): NativeSettings {
  const { device = defaultDevice } = options;
  if (typeof device !== "string" || !isDeviceName(device)) {
    throw refuseOption(
      "device",
      device,
      `a name of 1 to ${deviceNameMax} characters without spaces, "/" and ":", with at most one "%d"`,
    );
  }
  return { device, hostAddress: hostAddresses(options).map(textOf).join(", ") };
}

function isDeviceName(name: string): boolean {
  const plain = name.replace("%d", "");
  return (
    name.length <= deviceNameMax &&
    /^[\x21-\x7e]+$/.test(name) &&
    !/[/:%]/.test(plain) &&
    !/^\.\.?$/.test(name)
  );
}

/** The kernel's addresses on the device: as given, or one in each prefix of ours that has one to spare. */
function hostAddresses(options: LinkOptions): IpPrefix[] {
  const own = parseList(options.address);
  const whole = parseList(options.prefixes);
  const ours = (prefix: IpPrefix): boolean =>
    own.some((one) => sameWords(one, prefix)) || whole.some((one) => covers(one, prefix));
  const { hostAddress } = options;
  if (hostAddress !== undefined) {
    if (typeof hostAddress !== "string" || parseList(hostAddress).length === 0) {
      throw refuseOption("hostAddress", hostAddress, 'the kernel\'s address on the device, as "10.0.0.2/24"');
    }
    return splitList(hostAddress).map((text) => {
      const prefix = givenHostAddress(text, own);
      if (!ours(prefix)) return prefix;
      throw refuseOption("hostAddress", text, "an address that is not our own: it is the kernel's");
    });
  }
  const found: IpPrefix[] = [];
  for (const one of own) {
    if (found.some((other) => other.prefixBits === one.prefixBits && covers(other, one))) continue;
    const free = nextFree(one, ours);
    if (free) found.push(free);
  }
  return found;
}

/** Without a prefix of its own, it has that of the address of ours which it is near to. */
function givenHostAddress(text: string, own: readonly IpPrefix[]): IpPrefix {
  const prefix = parsePrefix(text);
  if (text.includes("/")) return prefix;
  const near = own.find((one) => covers(one, prefix));
  return near ? { ...prefix, prefixBits: near.prefixBits } : prefix;
}

/** The nearest address of the same prefix, upwards first, that is not ours and may be a host's. */
function nextFree(own: IpPrefix, ours: (prefix: IpPrefix) => boolean): IpPrefix | undefined {
  const bits = own.version6 ? 128 : 32;
  const hosts = 1n << BigInt(bits - own.prefixBits);
  const start = numberOf(own) & (hosts - 1n);
  const base = numberOf(own) - start;
  // The first address is the network's (IPv4) or any router's (IPv6, RFC 4291 2.6.1), the last one IPv4's broadcast;
  // a prefix of two addresses has neither (RFC 3021, RFC 6164).
  const first = hosts > 2n ? 1n : 0n;
  const last = !own.version6 && hosts > 2n ? hosts - 2n : hosts - 1n;
  for (const step of [1n, -1n]) {
    for (let i = 1n; i <= candidatesMax; i += 1n) {
      const host = start + i * step;
      if (host < first || host > last) break;
      const candidate = prefixOf(base + host, own);
      if (!ours(candidate)) return candidate;
    }
  }
  return undefined;
}

function numberOf(prefix: IpPrefix): bigint {
  const words = prefix.version6 ? [...prefix.words] : [prefix.words[0] as number];
  return words.reduce((sum, word) => (sum << 32n) | BigInt(word >>> 0), 0n);
}

function prefixOf(address: bigint, like: IpPrefix): IpPrefix {
  const words = new Int32Array(4);
  const count = like.version6 ? 4 : 1;
  for (let i = 0; i < count; i += 1) {
    words[i] = Number(BigInt.asIntN(32, address >> BigInt(32 * (count - 1 - i))));
  }
  const { version6, prefixBits } = like;
  return { text: formatAddress(words, 0, version6), version6, prefixBits, words };
}

function sameWords(a: IpPrefix, b: IpPrefix): boolean {
  return a.version6 === b.version6 && a.words.every((word, i) => word === b.words[i]);
}

function covers(prefix: IpPrefix, address: IpPrefix): boolean {
  return prefix.version6 === address.version6 && prefixContains(prefix, address.words);
}

function textOf(prefix: IpPrefix): string {
  return `${prefix.text}/${prefix.prefixBits}`;
}

function splitList(text: string | undefined): string[] {
  const parts = (text ?? "").split(",").map((part) => part.trim());
  return parts.filter((part) => part !== "");
}

function parseList(text: string | undefined): IpPrefix[] {
  return splitList(text).map((part) => parsePrefix(part));
}

const grant =
  'run as root, or let node do it: sudo setcap cap_net_admin+ep "$(readlink -f "$(command -v node)")"';

export function explain(failure: LinkFailure, options: LinkOptions): ApoError {
  const { errno, step } = failure;
  const name = getSystemErrorName(-errno);
  const what = `createRuntime: TUN device "${options.device ?? defaultDevice}"`;
  const told = toldOf(name, step, options);
  if (told) return new ApoError(told.code, `${what}: ${told.words}`);
  if (name === "EPERM" || name === "EACCES") {
    return new ApoError("EACCES", `${what}: this user may not set one up (${step}: ${name}); ${grant}`);
  }
  if (name === "EMFILE" || name === "ENFILE") {
    return new ApoError("ENFILE", `${what}: no descriptor is left for it (raise \`ulimit -n\`)`);
  }
  return new ApoError("EIO", `${what} could not be set up: ${step}: ${name}`);
}

interface Told {
  readonly code: ApoError["code"];
  readonly words: string;
}

/** What one errno of one step means; undefined where the step does not matter. */
function toldOf(name: string, step: string, options: LinkOptions): Told | undefined {
  switch (`${step} ${name}`) {
    case "open /dev/net/tun ENOENT":
    case "open /dev/net/tun ENODEV":
    case "open /dev/net/tun ENXIO":
      return {
        code: "ENOTSUP",
        words:
          "there is no /dev/net/tun here: sudo modprobe tun (a container needs --device /dev/net/tun and " +
          "--cap-add NET_ADMIN)",
      };
    case "TUNSETIFF EBUSY":
      return {
        code: "EADDRINUSE",
        words:
          'another process uses it: end that one, or take another name (device: "apo%d" takes a free one)',
      };
    case "TUNSETIFF EINVAL":
      return {
        code: "EINVAL",
        words:
          "there is an interface of that name, and it is no TUN device, or one for a single queue " +
          "(ip tuntap add … mode tun multi_queue)",
      };
    case "TUNSETIFF E2BIG":
      return { code: "EINVAL", words: "it has as many queues already as it can have" };
    case "address EADDRINUSE":
      return {
        code: "EADDRINUSE",
        words: `the kernel itself has one of ${options.address}: our addresses must be ours alone`,
      };
    case "route EEXIST":
      return {
        code: "EADDRINUSE",
        words:
          "the kernel has another route to one of our addresses or prefixes: see `ip route`, `ip -6 route`",
      };
    case "hostAddress EACCES":
    case "hostAddress EOPNOTSUPP":
      return {
        code: "ENOTSUP",
        words:
          "IPv6 is switched off here: sysctl net.ipv6.conf.all.disable_ipv6=0, or give IPv4 addresses only",
      };
    case "mtu EINVAL":
      return { code: "EINVAL", words: `the device cannot have an MTU of ${options.mtu}` };
    default:
      return undefined;
  }
}
