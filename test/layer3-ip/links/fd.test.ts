/** The `fd` link's options, and what is said of descriptors that are of no use. */
import { constants } from "node:os";
import { expect, test } from "vitest";
import { ApoError } from "../../../src/layer1-app/errors.ts";
import { explain, settings } from "../../../src/layer3-ip/links/fd.ts";
import type { LinkOptions } from "../../../src/layer3-ip/links/link-options.ts";

const { errno } = constants;

test("settings", () => {
  expect(settings({ fd: 7 })).toEqual({ fd: 7, vnetHeaderBytes: 0 });
  expect(settings({ fd: 0, vnetHeader: false })).toEqual({ fd: 0, vnetHeaderBytes: 0 });
  expect(settings({ fd: 7, vnetHeader: true })).toEqual({ fd: 7, vnetHeaderBytes: 10 });
  expect(settings({ fd: 7, vnetHeader: 12, queues: 1 })).toEqual({ fd: 7, vnetHeaderBytes: 12 });
});

test.each<[object, RegExp]>([
  [{}, /needs fd/],
  [{ fd: -1 }, /fd must be a whole number/],
  [{ fd: 1.5 }, /fd must be a whole number/],
  [{ fd: "7" }, /fd must be a whole number/],
  [{ fd: 7, queues: 2 }, /queues must be 1/],
  [{ fd: 7, vnetHeader: 10 }, /vnetHeader must be true \(10 bytes\), 12, or false/],
  [{ fd: 7, vnetHeader: "yes" }, /vnetHeader must be/],
])("%j is refused", (options, words) => {
  const call = () => settings(options as LinkOptions);
  expect(call).toThrow(ApoError);
  expect(call).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(call).toThrow(words);
});

test.each<[number, string, string, RegExp]>([
  [errno.EBADF, "fcntl(F_DUPFD_CLOEXEC)", "EINVAL", /fd 7 is not open/],
  [errno.EMFILE, "fcntl(F_DUPFD_CLOEXEC)", "ENFILE", /ulimit -n/],
  [errno.ENOTSOCK, "kind of descriptor", "EINVAL", /neither a TUN device .* nor a socket/],
  [errno.EPROTOTYPE, "type of socket", "EINVAL", /SOCK_SEQPACKET or SOCK_DGRAM/],
  [errno.EPROTOTYPE, "TAP", "EINVAL", /IFF_TUN/],
  [errno.EPROTOTYPE, "IFF_NO_PI", "EINVAL", /IFF_NO_PI/],
  [errno.EPROTOTYPE, "no virtio_net_hdr", "EINVAL", /leave vnetHeader out/],
  [errno.EPROTOTYPE, "virtio_net_hdr", "EINVAL", /12 for 12/],
  [errno.EIO, "fcntl(O_NONBLOCK)", "EIO", /fcntl\(O_NONBLOCK\): EIO/],
])("errno %i at %s", (number, step, code, words) => {
  const error = explain({ errno: number, step }, { fd: 7 });
  expect(error.code).toBe(code);
  expect(error.message).toMatch(words);
});
