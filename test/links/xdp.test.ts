/** The `xdp` link against the kernel's own sockets at the other end of a wire: the address is the host's. */
import { expect, test } from "vitest";
import { startLinkApp } from "../support/link-app.ts";
import { describeLink } from "./kernel-suite.ts";
import { xdpPlan } from "./link-plans.ts";

describeLink({
  ...xdpPlan,
  also(setting) {
    test("the host's own sockets keep the ports that we have not opened", async () => {
      const { inside, app, kernel } = setting();
      const { link } = await app.ask({ do: "link" });
      expect(link).toMatchObject({ kind: "xdp", device: "card0" });
      expect(link.addresses).toEqual(expect.arrayContaining(["10.66.0.1/24", "fd66::1/64"]));
      const host = await startLinkApp(inside, { link: "host" });
      const { port } = await host.ask({ do: "echo", port: 0 });
      const { text } = await kernel.ask({ do: "ask", to: `10.66.0.1:${port}`, text: "the host's" });
      expect(text).toBe("the host's");
      expect((await host.ask({ do: "received" })).datagrams).toBe(1);
    });
  },
});
