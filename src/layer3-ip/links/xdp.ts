/**
 * The `xdp` link: AF_XDP on a network interface whose addresses we share with the kernel.
 *
 * Layer 3, pure: its options, and words for what failed. Its native half is native/rawsock/links/xdp_link.cc; what a
 * step means is said there and in xdp_interface.cc.
 */

import { getSystemErrorName } from "node:util";
import { ApoError, type ErrorCode } from "../../layer1-app/errors.ts";
import type { LinkFailure, NativeSettings } from "./link-module.ts";
import { type LinkOptions, refuseOption } from "./link-options.ts";

/** IFNAMSIZ, without the byte that ends the name. */
const interfaceNameMax = 15;
/** What a 2,048-byte frame has room for; mirrored in xdp_interface.h. */
const mtuMax = 1776;
const modes = ["auto", "native", "generic"];

export function settings(options: LinkOptions): NativeSettings {
  const { interface: name, xdpMode = "auto", zeroCopy = "auto", mtu } = options;
  if (name === undefined) {
    throw new ApoError(
      "EINVAL",
      'createRuntime: link "xdp" needs interface: the network interface, as "eth0" (`ip link` lists them)',
    );
  }
  if (typeof name !== "string" || !isInterfaceName(name)) {
    throw refuseOption("interface", name, 'the name of a network interface, as "eth0"');
  }
  if (!modes.includes(xdpMode)) throw refuseOption("xdpMode", xdpMode, '"auto", "native" or "generic"');
  if (zeroCopy !== "auto" && typeof zeroCopy !== "boolean") {
    throw refuseOption("zeroCopy", zeroCopy, '"auto", true or false');
  }
  if (zeroCopy === true && xdpMode === "generic") {
    throw refuseOption("zeroCopy", zeroCopy, '"auto" or false with xdpMode "generic", which always copies');
  }
  if (mtu !== undefined && mtu > mtuMax) {
    throw refuseOption("mtu", mtu, `at most ${mtuMax} on link "xdp": its frames hold no more`);
  }
  return { interface: name, xdpMode, zeroCopy: zeroCopy === "auto" ? "auto" : zeroCopy ? "yes" : "no" };
}

function isInterfaceName(name: string): boolean {
  return (
    name.length > 0 && name.length <= interfaceNameMax && /^[\x21-\x7e]+$/.test(name) && !/[/:]/.test(name)
  );
}

const capabilities = "cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock";
const grant = `run as root, or let node do it: sudo setcap ${capabilities}+ep "$(readlink -f "$(command -v node)")"`;

export function explain(failure: LinkFailure, options: LinkOptions): ApoError {
  const { errno, step } = failure;
  const name = getSystemErrorName(-errno);
  const what = `createRuntime: XDP on interface "${options.interface}"`;
  const told = toldOf(name, step, options);
  if (told) return new ApoError(told.code, `${what}: ${told.words}`);
  if (name === "EPERM" || name === "EACCES") {
    return new ApoError("EACCES", `${what}: this user may not do that (${step}: ${name}); ${grant}`);
  }
  if (name === "EMFILE" || name === "ENFILE") {
    return new ApoError("ENFILE", `${what}: no descriptor is left for it (raise \`ulimit -n\`)`);
  }
  return new ApoError("EIO", `${what} could not be set up: ${step}: ${name}`);
}

interface Told {
  readonly code: ErrorCode;
  readonly words: string;
}

/** What one errno of one step means; undefined where the step does not matter. */
function toldOf(name: string, step: string, options: LinkOptions): Told | undefined {
  const device = options.interface;
  if (name === "EMSGSIZE") {
    const fix = `sudo ip link set ${device} mtu 1500`;
    const words = `its ${step} is more than the ${mtuMax} bytes that a frame holds: ${fix}`;
    return { code: "EMSGSIZE", words };
  }
  switch (`${step} ${name}`) {
    case "RTM_GETLINK ENODEV":
      return { code: "ENOENT", words: "there is no such interface (`ip link` lists them)" };
    case "hardware type EPROTOTYPE":
      return {
        code: "EINVAL",
        words: 'it is no Ethernet interface; for loopback and tunnels use link "tun", "mem" or "host"',
      };
    case "interface state ENETDOWN":
    case "start ENETDOWN":
      return { code: "ENOTSUP", words: `it is down: sudo ip link set ${device} up` };
    case "RTM_GETADDR EADDRNOTAVAIL":
      return {
        code: "EADDRNOTAVAIL",
        words:
          "it has no IP address that could be shared: " +
          `sudo ip addr add ADDRESS/BITS dev ${device}, or use link "packet"`,
      };
    case "RTM_GETADDR E2BIG":
      return { code: "ENOTSUP", words: "it has more than 64 addresses" };
    case "socket(AF_XDP) EAFNOSUPPORT":
      return { code: "ENOTSUP", words: "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS, Linux 5.9 or newer)" };
    case "bpf(BPF_LINK_CREATE) EBUSY":
    case "bpf(BPF_LINK_CREATE) EEXIST":
      return {
        code: "EADDRINUSE",
        words:
          `another XDP program is on it: \`ip link show ${device}\` shows it; end the program that attached it, ` +
          `or remove it by sudo ip link set ${device} xdp off (xdpgeneric off, for one in generic mode)`,
      };
    case "bpf(BPF_LINK_CREATE) ENOTSUP":
      return { code: "ENOTSUP", words: 'its driver has no XDP: leave xdpMode out, or say "generic"' };
    case "start EBUSY":
      return {
        code: "EADDRINUSE",
        words: "another program has an AF_XDP socket on one of its RX queues (`ss --xdp` lists them)",
      };
    case "start ENOTSUP":
    case "start EINVAL":
      return { code: "ENOTSUP", words: "its driver cannot do that without a copy: leave zeroCopy out" };
    case "start ENOBUFS":
      return {
        code: "ENOBUFS",
        words: `the memory of its frames is over the limit of locked memory: raise \`ulimit -l\`, or ${grant}`,
      };
    case "start ENOMEM":
      return {
        code: "ENOBUFS",
        words:
          "the frames are too few for its RX queues: raise poolBytes, or have fewer RX queues (ethtool -L)",
      };
    default:
      return undefined;
  }
}
