/**
 * The `fd` link: IP packets over a file descriptor that the user hands in, a TUN device's or a socket's that keeps
 * message boundaries.
 *
 * Layer 3, pure. Its native half is native/rawsock/links/fd_link.cc; what a step means is said there.
 */

import { getSystemErrorName } from "node:util";
import { ApoError } from "../../layer1-app/errors.ts";
import type { LinkFailure, NativeSettings } from "./link-module.ts";
import { type LinkOptions, refuseOption, wholeOption } from "./link-options.ts";

export function settings(options: LinkOptions): NativeSettings {
  const fd = wholeOption(options, "fd", 0, 2 ** 31 - 1);
  if (fd === undefined) {
    throw new ApoError(
      "EINVAL",
      'createRuntime: link "fd" needs fd: the descriptor of a TUN device, or of a SOCK_SEQPACKET or SOCK_DGRAM socket',
    );
  }
  const { vnetHeader = false, queues = 1 } = options;
  if (queues !== 1) throw refuseOption("queues", queues, "1: a descriptor is one queue");
  if (vnetHeader !== 12 && typeof vnetHeader !== "boolean") {
    throw refuseOption("vnetHeader", vnetHeader, "true (10 bytes), 12, or false");
  }
  return { fd, vnetHeaderBytes: vnetHeader === 12 ? 12 : vnetHeader ? 10 : 0 };
}

/** What `step` says of a descriptor that is open, but not of use. */
const unfit: Readonly<Record<string, string>> = {
  "kind of descriptor": "is neither a TUN device (one that TUNSETIFF has given a name) nor a socket",
  "type of socket": "is a socket without message boundaries: use SOCK_SEQPACKET or SOCK_DGRAM",
  TAP: "is a TAP device, which carries Ethernet frames: make it with IFF_TUN",
  IFF_NO_PI: "has four bytes before each packet: make the device with IFF_NO_PI",
  "no virtio_net_hdr": "has no virtio_net_hdr: leave vnetHeader out, or make the device with IFF_VNET_HDR",
  virtio_net_hdr: "has a virtio_net_hdr of another size: say vnetHeader: true for 10 bytes, 12 for 12",
};

export function explain(failure: LinkFailure, options: LinkOptions): ApoError {
  const { errno, step } = failure;
  const name = getSystemErrorName(-errno);
  const what = `createRuntime: fd ${options.fd}`;
  const words = unfit[step];
  if (words !== undefined) return new ApoError("EINVAL", `${what} ${words}`);
  if (name === "EBADF") return new ApoError("EINVAL", `${what} is not open in this process`);
  if (name === "EMFILE" || name === "ENFILE") {
    return new ApoError("ENFILE", `${what}: no descriptor is left for it (raise \`ulimit -n\`)`);
  }
  return new ApoError("EIO", `${what} cannot be used: ${step}: ${name}`);
}
