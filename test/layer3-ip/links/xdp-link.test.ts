/** A runtime on a veth interface that it shares with the kernel, and the kernel of another namespace beside it. */
import { afterEach, expect, test } from "vitest";
import type { RuntimeOptions } from "../../../src/layer1-app/types.ts";
import { type LinkApp, startLinkApp } from "../../support/link-app.ts";
import {
  closeNamespaces,
  createNamespace,
  describeInNamespaces,
  eventually,
  joinByVeth,
  type Namespace,
} from "../../support/netns.ts";
import {
  capture,
  objections,
  ping,
  readCapture,
  withoutChecksumOffload,
} from "../../support/packet-tools.ts";

const own4 = "10.20.0.1";
const own6 = "fd20::1";
const far4 = "10.20.0.2";
const far6 = "fd20::2";

interface Pair {
  /** Where the runtime is, beside its kernel: interface near0. */
  readonly near: Namespace;
  /** The other end, interface far0: a kernel alone. */
  readonly far: Namespace;
}

async function join(): Promise<Pair> {
  const near = await createNamespace();
  const far = await createNamespace();
  await joinByVeth(
    { namespace: near, device: "near0", addresses: [`${own4}/24`, `${own6}/64`] },
    { namespace: far, device: "far0", addresses: [`${far4}/24`, `${far6}/64`] },
  );
  return { near, far };
}

function openXdp(near: Namespace, options: Partial<RuntimeOptions> = {}): Promise<LinkApp> {
  return startLinkApp(near, { link: "xdp", interface: "near0", ...options } as RuntimeOptions);
}

const programOn = async (near: Namespace): Promise<boolean> =>
  (await near.ip("link", "show", "near0")).includes("xdp");

/** What becomes of a TCP connection of the kernel's: "connected", or an error's code. */
function connect(from: Namespace, host: string, port: number): Promise<string> {
  const program = `
    const socket = require("node:net").connect(${port}, ${JSON.stringify(host)});
    socket.on("connect", () => { process.stdout.write("connected"); socket.destroy(); });
    socket.on("error", (error) => process.stdout.write(error.code));
  `;
  return from.run(process.execPath, "-e", program);
}

const needs = { programs: ["ip", "ping"] };
const modes = ["generic", "native"] as const;

describeInNamespaces(
  "xdp",
  () => {
    afterEach(closeNamespaces);

    test.each(modes)("%s: echoes what the kernel of another machine sends", async (xdpMode) => {
      const { near, far } = await join();
      const app = await openXdp(near, { xdpMode });
      const { link } = await app.ask({ do: "link" });
      expect(link).toMatchObject({ kind: "xdp", device: "near0", mtu: 1500 });
      expect(link.addresses).toEqual(expect.arrayContaining([`${own4}/24`, `${own6}/64`]));
      await app.ask({ do: "echo", port: 7 });
      const kernel = await startLinkApp(far, { link: "host" });
      for (const to of [`${own4}:7`, `[${own6}]:7`]) {
        expect((await kernel.ask({ do: "ask", to, text: "hello" })).text).toBe("hello");
        // Fragments, in both directions, from 1,473 on.
        for (const bytes of [0, 1, 1472, 1473, 9000, 60_000]) {
          expect((await kernel.ask({ do: "ask", to, bytes })).bytes, await app.show()).toBe(bytes);
        }
      }
      const counters = await app.counters();
      expect(counters["layer3.rx.partialChecksums"]).toBeGreaterThan(0);
      expect(counters["layer3.rx.dropped.udpChecksum"]).toBe(0);
    });

    test.each(modes)("%s: is a client of the kernel of another machine", async (xdpMode) => {
      const { near, far } = await join();
      const app = await openXdp(near, { xdpMode });
      const kernel = await startLinkApp(far, { link: "host" });
      await kernel.ask({ do: "echo", port: 7777 });
      for (const to of [`${far4}:7777`, `[${far6}]:7777`]) {
        for (const bytes of [1, 1400, 20_000]) {
          expect((await app.ask({ do: "ask", to, bytes })).bytes, await app.show()).toBe(bytes);
        }
      }
      for (const to of [far4, far6]) {
        for (const bytes of [56, 1400]) expect((await app.ask({ do: "ping", to, bytes })).bytes).toBe(bytes);
      }
      // The error that the other kernel sends about our packet is ours.
      for (const to of [`${far4}:9`, `[${far6}]:9`]) {
        await expect(app.ask({ do: "ask", to, text: "?" })).rejects.toThrow(
          expect.objectContaining({ code: "ECONNREFUSED" }),
        );
      }
    });

    test.each(modes)("%s: the kernel goes on as before beside it", async (xdpMode) => {
      const { near, far } = await join();
      const app = await openXdp(near, { xdpMode });
      await app.ask({ do: "echo", port: 7 });
      const delivered = (await app.counters())["layer3.rx.packets"];
      for (const own of [own4, own6]) {
        for (const size of [56, 20_000]) {
          const { received, text } = await ping(far, own, { size });
          expect(received, text).toBe(3);
        }
      }
      const beside = await startLinkApp(near, { link: "host" });
      await beside.ask({ do: "echo", port: 8 });
      const kernel = await startLinkApp(far, { link: "host" });
      for (const to of [`${own4}:8`, `[${own6}]:8`]) {
        expect((await kernel.ask({ do: "ask", to, bytes: 3000 })).bytes).toBe(3000);
      }
      expect(await connect(far, own4, 80)).toBe("ECONNREFUSED");
      // None of that has come to us.
      expect((await app.counters())["layer3.rx.packets"]).toBe(delivered);
    });

    test("a port is one program's, whoever came first", async () => {
      const { near, far } = await join();
      const app = await openXdp(near);
      const beside = await startLinkApp(near, { link: "host" });
      await app.ask({ do: "echo", port: 7 });
      const taken = expect.objectContaining({ code: "EADDRINUSE" });
      await expect(beside.ask({ do: "echo", port: 7 })).rejects.toThrow(taken);
      await beside.ask({ do: "echo", port: 8 });
      await expect(app.ask({ do: "echo", port: 8 })).rejects.toThrow(taken);
      await beside.ask({ do: "close", port: 8 });
      await app.ask({ do: "echo", port: 8 });
      await app.ask({ do: "close", port: 7 });
      await beside.ask({ do: "echo", port: 7 });
      const kernel = await startLinkApp(far, { link: "host" });
      for (const port of [7, 8]) {
        expect((await kernel.ask({ do: "ask", to: `${own4}:${port}`, text: "whose?" })).text).toBe("whose?");
      }
    });

    test("every RX queue of the interface has a socket, however many threads there are", async () => {
      const near = await createNamespace();
      const far = await createNamespace();
      const channels = ["numrxqueues", "3", "numtxqueues", "3"];
      await near.ip(
        ...["link", "add", "near0", ...channels, "type", "veth"],
        ...["peer", "name", "far0", ...channels, "netns", String(far.pid)],
      );
      for (const [namespace, device, address] of [
        [near, "near0", own4],
        [far, "far0", far4],
      ] as const) {
        await namespace.ip("addr", "add", `${address}/24`, "dev", device);
        await namespace.ip("link", "set", device, "up");
      }
      const kernel = await startLinkApp(far, { link: "host" });
      for (const [queues, xdpMode] of [
        [1, "generic"],
        [2, "native"],
        [8, "auto"],
      ] as const) {
        const app = await openXdp(near, { queues, workers: 2, xdpMode });
        await app.ask({ do: "echo", port: 7 });
        for (let i = 0; i < 24; i += 1) {
          const { text } = await kernel.ask({ do: "ask", to: `${own4}:7`, text: `flow ${i}` });
          expect(text, await app.show()).toBe(`flow ${i}`);
        }
        await app.stop();
        expect(await programOn(near)).toBe(false);
      }
    });

    test.each(["stopped", "killed"])("leaves nothing behind when it is %s", async (how) => {
      const { near, far } = await join();
      const app = await openXdp(near);
      await app.ask({ do: "echo", port: 7 });
      expect(await programOn(near)).toBe(true);
      if (how === "stopped") await app.stop();
      else process.kill(app.child.pid, "SIGKILL");
      await eventually("the program is gone", async () => !(await programOn(near)));
      const beside = await startLinkApp(near, { link: "host" });
      await beside.ask({ do: "echo", port: 7 });
      const kernel = await startLinkApp(far, { link: "host" });
      expect((await kernel.ask({ do: "ask", to: `${own4}:7`, text: "hello" })).text).toBe("hello");
      await openXdp(near); // and the interface can be had again
    });

    test("says what is in the way", async () => {
      const { near, far } = await join();
      // (In native mode veth would not let the other end have a larger MTU.)
      await openXdp(near, { xdpMode: "generic" });
      await expect(openXdp(near)).rejects.toThrow(/another XDP program.*ip link show near0/);
      await expect(openXdp(near, { interface: "none0" })).rejects.toThrow(/no such interface/);
      await expect(openXdp(near, { interface: "lo" })).rejects.toThrow(/no Ethernet interface/);
      await expect(openXdp(near, { address: "10.0.0.1/24" })).rejects.toThrow(/shares the addresses/);
      await far.ip("link", "set", "far0", "mtu", "9000");
      const other = (): Promise<LinkApp> => openXdp(far, { interface: "far0" });
      await expect(other()).rejects.toThrow(/MTU 9000 is more than the 1776.*set far0 mtu 1500/);
      await far.ip("link", "set", "far0", "mtu", "1500");
      await far.ip("addr", "flush", "dev", "far0");
      await expect(other()).rejects.toThrow(/no IP address/);
      await far.ip("link", "set", "far0", "down");
      await expect(other()).rejects.toThrow(/sudo ip link set far0 up/);
    });
  },
  needs,
);

describeInNamespaces(
  "xdp in a capture",
  () => {
    afterEach(closeNamespaces);

    test.each(modes)(
      "%s: the kernel is silent about our ports, and nothing is malformed",
      async (xdpMode) => {
        const { near, far } = await join();
        for (const [namespace, device] of [
          [near, "near0"],
          [far, "far0"],
        ] as const) {
          await withoutChecksumOffload(namespace, device);
        }
        const app = await openXdp(near, { xdpMode });
        await app.ask({ do: "echo", port: 7 });
        await app.ask({ do: "sink", port: 9 });
        const kernel = await startLinkApp(far, { link: "host" });
        const captured = await capture(far, "far0");
        for (const own of [own4, `[${own6}]`]) {
          await kernel.ask({ do: "send", to: `${own}:9`, bytes: 100, count: 20 });
          await kernel.ask({ do: "ask", to: `${own}:7`, bytes: 100 });
          await kernel.ask({ do: "ask", to: `${own}:7`, bytes: 5000 });
          // To a port that is neither ours nor a socket's: the kernel's answer, as ever.
          await expect(kernel.ask({ do: "ask", to: `${own}:10`, text: "?" })).rejects.toThrow();
        }
        await captured.stop();
        const errors = await readCapture(
          captured.file,
          ["ip.src", "ipv6.src", "udp.dstport"],
          "icmp.type == 3 || icmpv6.type == 1",
        );
        expect(errors.map((fields) => fields.map((field) => field.split(",")[0]))).toEqual([
          [own4, "", "10"],
          ["", own6, "10"],
        ]);
        expect(await objections(captured.file)).toEqual([]);
        await captured.remove();
      },
    );
  },
  { programs: [...needs.programs, "dumpcap", "tshark", "ethtool"] },
);
