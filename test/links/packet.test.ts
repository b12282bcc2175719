/** The `packet` link against the kernel's own sockets at the other end of a wire: an address that is not the host's. */
import { expect, test } from "vitest";
import { createNamespace, joinByVeth } from "../support/netns.ts";
import { describeLink } from "./kernel-suite.ts";

describeLink({
  name: "packet",
  own: ["10.65.0.1", "fd65::1"],
  host: ["10.65.0.2", "fd65::2"],
  async join() {
    const inside = await createNamespace();
    const near = await createNamespace();
    await joinByVeth(
      { namespace: inside, device: "card0" },
      { namespace: near, device: "out0", addresses: ["10.65.0.2/24", "fd65::2/64"] },
    );
    const options = {
      link: "packet",
      interface: "card0",
      address: "10.65.0.1/24, fd65::1/64",
      gateway: "10.65.0.2, fd65::2",
    } as const;
    return { inside, near, options, device: "out0" };
  },
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
