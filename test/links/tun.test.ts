/** The `tun` link against the kernel's own sockets; and what is left of its device. */
import { expect, test } from "vitest";
import { createNamespace } from "../support/netns.ts";
import { describeLink } from "./kernel-suite.ts";

describeLink({
  name: "tun",
  own: ["10.64.0.1", "fd64::1"],
  host: ["10.64.0.2", "fd64::2"],
  async join() {
    const near = await createNamespace();
    const options = { link: "tun", address: "10.64.0.1/24, fd64::1/64" } as const;
    return { inside: near, near, options, device: "apo0" };
  },
  also(setting) {
    test("its facts: the device, the MTU, our addresses", async () => {
      const { link } = await setting().app.ask({ do: "link" });
      expect(link).toEqual({
        kind: "tun",
        device: "apo0",
        mtu: 1500,
        addresses: ["10.64.0.1/24", "fd64::1/64"],
        prefixes: [],
      });
      expect(await setting().near.ip("link", "show", "apo0")).toContain("mtu 1500");
    });
  },
});
