/**
 * The `packet` link: a station of our own on a real Ethernet interface, beside the kernel's.
 *
 * Layer 3, pure but for the names of the interfaces that it offers when the wanted one is not there. The sockets are
 * native/rawsock/links/packet_sockets.cc's; what a step means is said there.
 */

import { networkInterfaces } from "node:os";
import { getSystemErrorName } from "node:util";
import { ApoError } from "../../layer1-app/errors.ts";
import type { LinkFailure, NativeSettings } from "./link-module.ts";
import { type LinkOptions, refuseOption } from "./link-options.ts";

/** IFNAMSIZ, without the byte that ends the name. */
const interfaceNameMax = 15;
/** A station's: the lowest bit of the first byte, a group's mark, is not set. */
const stationMac = /^[\da-f][02468ace](:[\da-f]{2}){5}$/i;

/** Checks `interface` and `mac`; addresses, routes and the numbers are checked for all links alike. */
export function settings(options: LinkOptions): NativeSettings {
  const { interface: device, mac = "" } = options;
  if (device === undefined) {
    throw new ApoError(
      "EINVAL",
      `createRuntime: link "packet" needs interface: the network interface to be on${offer()}`,
    );
  }
  if (typeof device !== "string" || device === "" || device.length > interfaceNameMax) {
    throw refuseOption("interface", device, `the name of a network interface${offer()}`);
  }
  if (typeof mac !== "string" || !(mac === "" || mac === "interface" || isStation(mac))) {
    throw refuseOption(
      "mac",
      mac,
      'a hardware address such as "02:00:5e:10:00:01" (no group\'s), or "interface" for the interface\'s own',
    );
  }
  return { interface: device, mac: mac.toLowerCase() };
}

function isStation(mac: string): boolean {
  return stationMac.test(mac) && !/^[0:]+$/.test(mac);
}

/** The names of this machine's interfaces that have an address; ` (there are "eth0", "wlan0")`. */
function offer(): string {
  const names = Object.keys(networkInterfaces()).filter((name) => name !== "lo");
  if (names.length === 0) return " (`ip link` lists them)";
  return ` (there are ${names.map((name) => JSON.stringify(name)).join(", ")}; \`ip link\` lists all)`;
}

const grant =
  'run as root, or let node do it: sudo setcap cap_net_raw+ep "$(readlink -f "$(command -v node)")"';

/** Words for a failure to open: what was wrong, and what to do about it. */
export function explain(failure: LinkFailure, options: LinkOptions): ApoError {
  const { errno, step } = failure;
  const name = getSystemErrorName(-errno);
  const device = options.interface ?? "";
  const what = `createRuntime: interface "${device}"`;
  switch (`${step} ${name}`) {
    case "interface ENODEV":
    case "interface ENXIO":
      return new ApoError("ENOENT", `${what}: there is none of that name here${offer()}`);
    case "interface EPROTOTYPE":
      return new ApoError(
        "ENOTSUP",
        `${what} is no Ethernet: link "packet" needs one (veth, a network card, a bridge); ` +
          'for anything else take link "tun"',
      );
    case "mtu EMSGSIZE":
      return new ApoError(
        "EINVAL",
        `${what} cannot carry an mtu of ${options.mtu ?? "that size"}: from 1280 to what \`ip link\` says of it`,
      );
    case "address EADDRINUSE":
      return new ApoError(
        "EADDRINUSE",
        `${what}: the kernel itself has one of ${options.address}: our addresses must be ours alone ` +
          '(link "xdp" shares the kernel\'s)',
      );
    case "bind ENETDOWN":
      return new ApoError("EIO", `${what} is down: sudo ip link set ${device} up`);
  }
  if (name === "EPERM" || name === "EACCES") {
    return new ApoError(
      "EACCES",
      `${what}: this user may not open a packet socket (${step}: ${name}); ${grant}`,
    );
  }
  if (name === "EAFNOSUPPORT") {
    return new ApoError("ENOTSUP", `${what}: this kernel has no packet sockets: sudo modprobe af_packet`);
  }
  if (name === "EMFILE" || name === "ENFILE") {
    return new ApoError("ENFILE", `${what}: no descriptor is left for its sockets (raise \`ulimit -n\`)`);
  }
  if (name === "ENOMEM") {
    return new ApoError("EIO", `${what}: no memory for its ring: 16 MiB a queue; ask for fewer \`queues\``);
  }
  return new ApoError("EIO", `${what} could not be opened: ${step}: ${name}`);
}
