/** The `xdp` link against the kernel's own sockets at the other end of a wire: the address is the host's. */
import { expect, test } from "vitest";
import { startLinkApp } from "../support/link-app.ts";
import { createNamespace, joinByVeth } from "../support/netns.ts";
import { describeLink } from "./kernel-suite.ts";

const own = ["10.66.0.1", "fd66::1"] as const;

describeLink({
  name: "xdp",
  own,
  host: ["10.66.0.2", "fd66::2"],
  async join() {
    const inside = await createNamespace();
    const near = await createNamespace();
    await joinByVeth(
      { namespace: inside, device: "card0", addresses: ["10.66.0.1/24", "fd66::1/64"] },
      { namespace: near, device: "out0", addresses: ["10.66.0.2/24", "fd66::2/64"] },
    );
    await inside.ip("route", "add", "default", "via", "10.66.0.2");
    await inside.ip("-6", "route", "add", "default", "via", "fd66::2");
    return { inside, near, options: { link: "xdp", interface: "card0" }, device: "out0" };
  },
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
