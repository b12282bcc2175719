/** The `packet` link against the kernel's own sockets at the other end of a wire: an address that is not the host's. */
import { expect, test } from "vitest";
import { describeLink } from "./kernel-suite.ts";
import { packetPlan } from "./link-plans.ts";

describeLink({
  ...packetPlan,
  also(setting) {
    test("the host has none of our addresses, and its neighbours see a card of our own", async () => {
      const { inside, near, app } = setting();
      const { link } = await app.ask({ do: "link" });
      expect(link).toMatchObject({ kind: "packet", device: "card0", mtu: 1500 });
      expect(await inside.ip("addr", "show", "card0")).not.toContain("10.65.0.1");
      const ours = /lladdr (\S+)/.exec(await near.ip("neigh", "show", "10.65.0.1"))?.[1];
      expect(ours).toMatch(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
    });
  },
});
