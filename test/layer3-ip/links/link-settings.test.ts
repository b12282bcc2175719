/** What all raw links share of their options: addresses, whole prefixes; what is refused, word for word. */
import { describe, expect, test } from "vitest";
import type { LinkOptions } from "../../../src/layer3-ip/links/link-options.ts";
import { checkLinkOptions } from "../../../src/layer3-ip/links/link-settings.ts";
import { createWire } from "../../../src/layer3-ip/links/mem.ts";

const mem = (options: object) => checkLinkOptions("mem", { wire: createWire(), ...options } as LinkOptions);

test("addresses and whole prefixes are read, with or without blanks", () => {
  const { addresses, prefixes, routes, queues, native } = mem({
    address: "10.0.0.1/24,fd00::1/64 ",
    prefixes: "10.1.0.0/16, fd00:1::/64",
  });
  const bare = (list: typeof addresses) => list.map(({ text, prefixBits }) => `${text}/${prefixBits}`);
  expect(bare(addresses)).toEqual(["10.0.0.1/24", "fd00::1/64"]);
  expect(bare(prefixes)).toEqual(["10.1.0.0/16", "fd00:1::/64"]);
  expect([routes, queues]).toEqual([[], 1]);
  expect(native).toMatchObject({ queues: 1, wire: expect.any(Number) });
  expect(mem({ address: "10.0.0.1" }).addresses[0]?.prefixBits).toBe(32);
});

describe("refused", () => {
  const many = Array.from({ length: 65 }, (_, i) => `10.0.0.${i + 1}/24`).join(",");
  test.each([
    [{}, 'createRuntime: link "mem" needs address: our own on the link, as "10.0.0.1/24, fd00::1/64"'],
    [
      { address: " , " },
      'createRuntime: link "mem" needs address: our own on the link, as "10.0.0.1/24, fd00::1/64"',
    ],
    [{ address: 7 }, 'createRuntime: address must be text such as "10.0.0.1/24, fd00::1/64", not 7'],
    [{ address: many }, "createRuntime: address and prefixes have 65 entries; at most 64"],
    [{ address: "10.0.0.1/24", pcap: "" }, 'createRuntime: pcap must be the path of a file, not ""'],
    [{ address: "10.0.0.1/24", wire: 5 }, 'link "mem" needs `wire`, which `createWire()` makes'],
    [
      { address: "10.0.0.1/24", mtu: 1500 },
      'createRuntime: mtu is for links "fd", "tun", "packet", "xdp", and this is link "mem"',
    ],
  ])("%j", (options, message) => {
    expect(() => mem(options)).toThrow(expect.objectContaining({ code: "EINVAL", message }));
  });
});
