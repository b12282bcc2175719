/** The `tun` link's options: the device's name, the address that the kernel gets, and words for failures. */
import { constants } from "node:os";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ApoError } from "../../../src/layer1-app/errors.ts";
import { parsePrefix, prefixContains } from "../../../src/layer3-ip/ip-prefix.ts";
import type { LinkOptions } from "../../../src/layer3-ip/links/link-options.ts";
import { explain, settings } from "../../../src/layer3-ip/links/tun.ts";

const { errno } = constants;

test("the device's name", () => {
  expect(settings({ address: "10.0.0.1/24" }).device).toBe("apo%d");
  expect(settings({ address: "10.0.0.1/24", device: "tun-7" }).device).toBe("tun-7");
  for (const device of ["", "a/b", "a b", "a:b", "%d%d", "%s", "sixteen-letters!", "..", 7]) {
    const call = () => settings({ address: "10.0.0.1/24", device } as unknown as LinkOptions);
    expect(call).toThrow(ApoError);
    expect(call).toThrow(/device must be a name/);
  }
});

describe("the kernel's address", () => {
  test.each<[string, string]>([
    ["10.0.0.1/24", "10.0.0.2/24"],
    ["10.0.0.254/24", "10.0.0.253/24"],
    ["10.0.0.1/24, 10.0.0.2/24", "10.0.0.3/24"],
    ["10.0.0.1/24, 10.1.0.1/16", "10.0.0.2/24, 10.1.0.2/16"],
    ["10.0.0.0/31", "10.0.0.1/31"],
    ["10.0.0.1/31", "10.0.0.0/31"],
    ["10.0.0.2/30", "10.0.0.1/30"],
    ["10.0.0.1/32", ""],
    ["255.255.255.1/24", "255.255.255.2/24"],
    ["fd00::1/64", "fd00::2/64"],
    ["fd00::/127", "fd00::1/127"],
    ["fd00::ffff:ffff:ffff:ffff/64", "fd00::ffff:ffff:ffff:fffe/64"],
    ["10.0.0.1/24, fd00::1/64", "10.0.0.2/24, fd00::2/64"],
  ])("beside %s is %j", (address, expected) => {
    expect(settings({ address }).hostAddress).toBe(expected);
  });

  test("is none where the whole prefix is ours, and beside one that is", () => {
    expect(settings({ address: "10.0.0.1/24", prefixes: "10.0.0.0/24" }).hostAddress).toBe("");
    expect(settings({ address: "10.0.0.1/24", prefixes: "10.0.0.0/29" }).hostAddress).toBe("10.0.0.8/24");
  });

  test("as given", () => {
    const address = "10.0.0.1/24, fd00::1/64";
    const given = (hostAddress: string) => settings({ address, hostAddress }).hostAddress;
    expect(given("10.0.0.9")).toBe("10.0.0.9/24");
    expect(given("192.0.2.1/31, fd00::9")).toBe("192.0.2.1/31, fd00::9/64");
    expect(given("192.0.2.1")).toBe("192.0.2.1/32");
  });

  test.each([["10.0.0.1"], ["10.1.2.3/8"], ["10.0.0.300"], [""], [7]])("%j is refused", (hostAddress) => {
    const options = { address: "10.0.0.1/24", prefixes: "10.1.0.0/16", hostAddress };
    expect(() => settings(options as LinkOptions)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  });

  test("is never ours, always near us", () => {
    const byte = fc.integer({ min: 0, max: 255 });
    const address = fc.tuple(byte, byte, byte, byte, fc.integer({ min: 8, max: 32 }));
    fc.assert(
      fc.property(fc.array(address, { minLength: 1, maxLength: 6 }), (list) => {
        const own = list.map(([a, b, c, d, bits]) => `${a}.${b}.${c}.${d}/${bits}`);
        const found = String(settings({ address: own.join(", ") }).hostAddress);
        for (const text of found === "" ? [] : found.split(", ")) {
          const host = parsePrefix(text);
          const ours = own.map((one) => parsePrefix(one));
          expect(ours.some((one) => one.words[0] === host.words[0])).toBe(false);
          expect(ours.some((one) => prefixContains(one, host.words))).toBe(true);
        }
      }),
    );
  });
});

test.each<[number, string, string, RegExp]>([
  [errno.EACCES, "open /dev/net/tun", "EACCES", /setcap cap_net_admin\+ep/],
  [errno.EPERM, "TUNSETIFF", "EACCES", /run as root, or .*setcap/],
  [errno.EPERM, "device up", "EACCES", /device up: EPERM/],
  [errno.ENOENT, "open /dev/net/tun", "ENOTSUP", /modprobe tun/],
  [errno.EBUSY, "TUNSETIFF", "EADDRINUSE", /another process uses it/],
  [errno.EINVAL, "TUNSETIFF", "EINVAL", /no TUN device, or one for a single queue/],
  [errno.E2BIG, "TUNSETIFF", "EINVAL", /as many queues/],
  [errno.EADDRINUSE, "address", "EADDRINUSE", /the kernel itself has one of 10\.0\.0\.1\/24/],
  [errno.EEXIST, "route", "EADDRINUSE", /another route/],
  [errno.EACCES, "hostAddress", "ENOTSUP", /disable_ipv6=0/],
  [errno.EINVAL, "mtu", "EINVAL", /MTU of 65535/],
  [errno.EMFILE, "epoll_create1", "ENFILE", /ulimit -n/],
  [errno.EIO, "TUNSETVNETHDRSZ", "EIO", /TUNSETVNETHDRSZ: EIO/],
])("errno %i at %s", (number, step, code, words) => {
  const error = explain({ errno: number, step }, { address: "10.0.0.1/24", device: "tun7", mtu: 65_535 });
  expect(error.code).toBe(code);
  expect(error.message).toMatch(words);
  expect(error.message).toMatch(/"tun7"/);
});
