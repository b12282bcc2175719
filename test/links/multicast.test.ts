/**
 * Multicast against the kernel's own sockets at the other end of each link, and its bridge, which listens in on what
 * we tell the network (IGMP and MLD snooping).
 */
import { afterAll, expect, test } from "vitest";
import { type LinkApp, startLinkApp } from "../support/link-app.ts";
import {
  addAddress,
  closeNamespaces,
  describeInNamespaces,
  eventually,
  hasProgram,
  type Namespace,
} from "../support/netns.ts";
import type { LinkPlan } from "./kernel-suite.ts";
import { packetPlan, tunPlan, xdpPlan } from "./link-plans.ts";

afterAll(closeNamespaces);

const groups = ["239.7.7.7", "ff15::77"] as const;
const port = 5000;

/** Sends a datagram of the kernel's from `from` to the group. */
const sendScript = `
const [from, group, port, text] = process.argv.slice(1);
const socket = require("node:dgram").createSocket(from.includes(":") ? "udp6" : "udp4");
socket.bind(0, from, () => {
  socket.setMulticastInterface(from.includes(":") ? "::%" + process.env.DEVICE : from);
  socket.setMulticastTTL(4);
  socket.send(text, Number(port), group, () => socket.close());
});
`;
/** A member of the kernel's: says when it has joined, then what it hears. */
const hearScript = `
const [own, group, port] = process.argv.slice(1);
const socket = require("node:dgram").createSocket({ type: own.includes(":") ? "udp6" : "udp4", reuseAddr: true });
socket.on("message", (bytes) => console.log(JSON.stringify({ text: String(bytes) })));
socket.bind(Number(port), () => {
  socket.addMembership(group, own.includes(":") ? "::%" + process.env.DEVICE : own);
  console.log(JSON.stringify({ joined: true }));
});
`;

function node(device: string, script: string, ...args: string[]): [string, ...string[]] {
  return ["env", `DEVICE=${device}`, process.execPath, "-e", script, ...args];
}

async function datagrams(app: LinkApp): Promise<number> {
  return (await app.ask({ do: "received" })).datagrams;
}

/** Behind a bridge that listens in, where the link has an Ethernet. */
async function bridge(near: Namespace, device: string, addresses: readonly string[]): Promise<string> {
  const options = "mcast_snooping 1 mcast_querier 1 mcast_igmp_version 3 mcast_mld_version 2".split(" ");
  await near.ip("link", "add", "br0", "type", "bridge", ...options);
  await near.ip("addr", "flush", "dev", device);
  await near.ip("link", "set", device, "master", "br0");
  await near.ip("link", "set", "br0", "up");
  for (const address of addresses) await addAddress(near, "br0", address);
  return "br0";
}

function describeMulticast(plan: LinkPlan, prefixes: readonly string[]): void {
  const onEthernet = plan.name !== "tun";
  describeInNamespaces(`multicast on ${plan.name}`, () => {
    test("is received and sent, by members alone, and the network is told of them", async () => {
      const { inside, near, options, device: wire } = await plan.join();
      const device = onEthernet ? await bridge(near, wire, prefixes) : wire;
      const app = await startLinkApp(inside, options);
      await eventually(`${device} is there`, async () => (await near.ip("link", "show")).includes(device));
      if (!onEthernet) {
        await near.ip("route", "add", "239.0.0.0/8", "dev", device);
        await near.ip("-6", "route", "add", "ff15::/16", "dev", device, "table", "local");
      }
      const unwanted = { group: groups[0], source: "10.9.9.9" };
      await app.ask({ do: "sink", port, join: groups });
      await app.ask({ do: "sink", port: port + 1, join: [unwanted] });
      if (onEthernet && hasProgram("bridge")) {
        const told = async (): Promise<string> => near.run("bridge", "mdb", "show");
        for (const group of groups) {
          await eventually(`the bridge knows ${group}`, async () => (await told()).includes(group));
        }
      }
      for (const [i, group] of groups.entries()) {
        const from = plan.host[i] as string;
        const before = await datagrams(app);
        await eventually(`a datagram to ${group} comes here`, async () => {
          await near.run(...node(device, sendScript, from, group, String(port), "hello"));
          await near.run(...node(device, sendScript, from, group, String(port + 1), "unwanted"));
          return (await datagrams(app)) > before;
        });
        const member = near.start(node(device, hearScript, from, group, String(port + 2)), "a member");
        expect(await member.answer<object>()).toEqual({ joined: true });
        const to = group.includes(":") ? `[${group}]:${port + 2}` : `${group}:${port + 2}`;
        await app.ask({ do: "send", to, text: `from ${plan.name}` });
        expect(await member.answer<object>()).toEqual({ text: `from ${plan.name}` });
        await member.stop();
      }
      await app.ask({ do: "close", port });
      const after = await datagrams(app);
      for (const [i, group] of groups.entries()) {
        await near.run(...node(device, sendScript, plan.host[i] as string, group, String(port), "gone"));
      }
      // Whatever is asked later comes later, too.
      await near.run("ping", "-c", "1", plan.own[0]);
      expect(await datagrams(app)).toBe(after);
      await app.stop();
    });
  });
}

describeMulticast(tunPlan, []);
describeMulticast(packetPlan, ["10.65.0.2/24", "fd65::2/64"]);
describeMulticast(xdpPlan, ["10.66.0.2/24", "fd66::2/64"]);
