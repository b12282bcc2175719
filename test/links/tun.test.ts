/** The `tun` link against the kernel's own sockets; and what is left of its device. */
import { expect, test } from "vitest";
import { describeLink } from "./kernel-suite.ts";
import { tunPlan } from "./link-plans.ts";

describeLink({
  ...tunPlan,
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
