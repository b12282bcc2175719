/** The `packet` link's options, and words for failures. */
import { constants } from "node:os";
import { expect, test } from "vitest";
import { ApoError } from "../../../src/layer1-app/errors.ts";
import type { LinkOptions } from "../../../src/layer3-ip/links/link-options.ts";
import { explain, settings } from "../../../src/layer3-ip/links/packet.ts";

const { errno } = constants;
const address = "10.0.0.1/24";

test("the interface", () => {
  expect(settings({ address, interface: "eth0" })).toEqual({ interface: "eth0", mac: "" });
  expect(() => settings({ address })).toThrow(/link "packet" needs interface: .*`ip link`/);
  for (const device of ["", "sixteen-letters!", 7]) {
    const call = () => settings({ address, interface: device } as unknown as LinkOptions);
    expect(call).toThrow(ApoError);
    expect(call).toThrow(/interface must be the name of a network interface/);
  }
});

test("the hardware address", () => {
  const given = (mac: string) => settings({ address, interface: "eth0", mac }).mac;
  expect(given("interface")).toBe("interface");
  expect(given("02:00:5E:10:00:01")).toBe("02:00:5e:10:00:01");
  const wrong = ["eth0", "03:00:5e:10:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:5e:10:00", 7];
  for (const mac of wrong) {
    const call = () => settings({ address, interface: "eth0", mac } as unknown as LinkOptions);
    expect(call, String(mac)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    expect(call).toThrow(/mac must be a hardware address such as/);
  }
});

test.each<[number, string, string, RegExp]>([
  [errno.EPERM, "socket(AF_PACKET)", "EACCES", /setcap cap_net_raw\+ep/],
  [errno.ENODEV, "interface", "ENOENT", /there is none of that name here .*`ip link`/],
  [errno.EPROTOTYPE, "interface", "ENOTSUP", /no Ethernet/],
  [errno.EMSGSIZE, "mtu", "EINVAL", /cannot carry an mtu of 9000/],
  [errno.EADDRINUSE, "address", "EADDRINUSE", /the kernel itself has one of 10\.0\.0\.1\/24/],
  [errno.ENETDOWN, "bind", "EIO", /ip link set eth7 up/],
  [errno.EMFILE, "socket(AF_PACKET)", "ENFILE", /ulimit -n/],
  [errno.ENOMEM, "PACKET_RX_RING", "EIO", /fewer `queues`/],
  [errno.EAFNOSUPPORT, "socket(AF_PACKET)", "ENOTSUP", /modprobe af_packet/],
  [errno.EIO, "PACKET_VERSION", "EIO", /PACKET_VERSION: EIO/],
])("errno %i at %s", (number, step, code, words) => {
  const error = explain({ errno: number, step }, { address, interface: "eth7", mtu: 9000 });
  expect(error.code).toBe(code);
  expect(error.message).toMatch(words);
  expect(error.message).toMatch(/"eth7"/);
});
