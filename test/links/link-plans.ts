/** How the links that need privileges are joined to a kernel, for all suites: addresses, devices, options. */
import { createNamespace, joinByVeth } from "../support/netns.ts";
import type { LinkPlan } from "./kernel-suite.ts";

export const tunPlan: LinkPlan = {
  name: "tun",
  own: ["10.64.0.1", "fd64::1"],
  host: ["10.64.0.2", "fd64::2"],
  async join() {
    const near = await createNamespace();
    const options = { link: "tun", address: "10.64.0.1/24, fd64::1/64" } as const;
    return { inside: near, near, options, device: "apo0" };
  },
};

export const packetPlan: LinkPlan = {
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
};

export const xdpPlan: LinkPlan = {
  name: "xdp",
  own: ["10.66.0.1", "fd66::1"],
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
};
