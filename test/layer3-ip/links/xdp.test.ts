/** The `xdp` link's options, and what its failures are called. */
import { constants } from "node:os";
import { describe, expect, test } from "vitest";
import { ApoError } from "../../../src/layer1-app/errors.ts";
import type { LinkOptions } from "../../../src/layer3-ip/links/link-options.ts";
import { explain, settings } from "../../../src/layer3-ip/links/xdp.ts";

const { errno } = constants;

describe("options", () => {
  test("what the native half is told", () => {
    expect(settings({ interface: "eth0" })).toEqual({ interface: "eth0", xdpMode: "auto", zeroCopy: "auto" });
    expect(settings({ interface: "eth0", xdpMode: "generic", zeroCopy: false })).toEqual({
      interface: "eth0",
      xdpMode: "generic",
      zeroCopy: "no",
    });
    expect(settings({ interface: "eth0", xdpMode: "native", zeroCopy: true, mtu: 1776 })).toEqual({
      interface: "eth0",
      xdpMode: "native",
      zeroCopy: "yes",
    });
  });

  test.each<[options: object, words: RegExp]>([
    [{}, /link "xdp" needs interface/],
    [{ interface: "" }, /interface must be the name/],
    [{ interface: "a/b" }, /interface must be the name/],
    [{ interface: "sixteen-letters!" }, /interface must be the name/],
    [{ interface: 7 }, /interface must be the name/],
    [{ interface: "eth0", xdpMode: "fast" }, /xdpMode must be "auto", "native" or "generic"/],
    [{ interface: "eth0", zeroCopy: "yes" }, /zeroCopy must be "auto", true or false/],
    [{ interface: "eth0", zeroCopy: true, xdpMode: "generic" }, /always copies/],
    [{ interface: "eth0", mtu: 9000 }, /mtu must be at most 1776/],
  ])("%j is refused", (options, words) => {
    const call = () => settings(options as LinkOptions);
    expect(call).toThrow(ApoError);
    expect(call).toThrow(words);
  });
});

describe("failures", () => {
  test.each<[step: string, number: number, code: string, words: RegExp]>([
    ["RTM_GETLINK", errno.ENODEV, "ENOENT", /there is no such interface/],
    ["hardware type", errno.EPROTOTYPE, "EINVAL", /no Ethernet interface/],
    ["interface state", errno.ENETDOWN, "ENOTSUP", /sudo ip link set eth0 up/],
    ["MTU 9000", errno.EMSGSIZE, "EMSGSIZE", /MTU 9000 is more than the 1776 bytes.*set eth0 mtu 1500/],
    ["RTM_GETADDR", errno.EADDRNOTAVAIL, "EADDRNOTAVAIL", /no IP address/],
    ["RTM_GETADDR", errno.E2BIG, "ENOTSUP", /more than 64/],
    ["socket(AF_XDP)", errno.EPERM, "EACCES", /setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock\+ep/],
    ["socket(AF_XDP)", errno.EAFNOSUPPORT, "ENOTSUP", /CONFIG_XDP_SOCKETS/],
    ["bpf(BPF_MAP_CREATE) apo_ports", errno.EPERM, "EACCES", /BPF_MAP_CREATE.*setcap/],
    ["bpf(BPF_PROG_LOAD)", errno.EPERM, "EACCES", /setcap/],
    ["bpf(BPF_PROG_LOAD): R5 !read_ok", errno.EACCES, "EACCES", /R5 !read_ok/],
    ["bpf(BPF_LINK_CREATE)", errno.EBUSY, "EADDRINUSE", /ip link show eth0.*xdp off/],
    ["bpf(BPF_LINK_CREATE)", errno.EEXIST, "EADDRINUSE", /xdpgeneric off/],
    ["bpf(BPF_LINK_CREATE)", errno.EOPNOTSUPP, "ENOTSUP", /"generic"/],
    ["start", errno.EBUSY, "EADDRINUSE", /another program has an AF_XDP socket/],
    ["start", errno.EOPNOTSUPP, "ENOTSUP", /leave zeroCopy out/],
    ["start", errno.ENOBUFS, "ENOBUFS", /ulimit -l/],
    ["start", errno.ENOMEM, "ENOBUFS", /poolBytes/],
    ["start", errno.EMFILE, "ENFILE", /ulimit -n/],
    ["start", errno.EFAULT, "EIO", /start: EFAULT/],
  ])("%s: %i", (step, number, code, words) => {
    const error = explain({ errno: number, step }, { interface: "eth0" });
    expect(error).toBeInstanceOf(ApoError);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(words);
    expect(error.message).toContain('interface "eth0"');
  });
});
