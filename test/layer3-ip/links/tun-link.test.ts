/** A runtime on a TUN device, beside the kernel's own ping and sockets, in a network namespace. */
import { existsSync } from "node:fs";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { openWorkshop, type Workshop } from "../../../bench/lib/compile.ts";
import type { RuntimeOptions } from "../../../src/layer1-app/types.ts";
import { type LinkApp, startLinkApp } from "../../support/link-app.ts";
import {
  closeNamespaces,
  createNamespace,
  describeInNamespaces,
  type Namespace,
} from "../../support/netns.ts";
import { capture, objections, ping, readCapture } from "../../support/packet-tools.ts";

const own4 = "10.0.0.1";
const own6 = "fd00::1";
const address = `${own4}/24, ${own6}/64`;

const needs = {
  programs: ["ip", "ping"],
  missing: () => (existsSync("/dev/net/tun") ? undefined : "there is no /dev/net/tun"),
};

async function openTun(
  options: Partial<RuntimeOptions> = {},
  namespace?: Namespace,
): Promise<{ inside: Namespace; app: LinkApp }> {
  const inside = namespace ?? (await createNamespace());
  await inside.ip("link", "set", "lo", "up");
  const app = await startLinkApp(inside, { link: "tun", address, ...options } as RuntimeOptions);
  return { inside, app };
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error("it has not come true in 10 s");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** What becomes of a TCP connection of the kernel's: "connected", or an error's code. */
async function connect(inside: Namespace, host: string, port: number): Promise<string> {
  const program = `
    const socket = require("node:net").connect(${port}, ${JSON.stringify(host)});
    socket.on("connect", () => { process.stdout.write("connected"); socket.destroy(); });
    socket.on("error", (error) => process.stdout.write(error.code));
  `;
  return inside.run(process.execPath, "-e", program);
}

const devices = (inside: Namespace): Promise<string> => inside.ip("-brief", "link");

describeInNamespaces(
  "tun",
  () => {
    afterEach(closeNamespaces);

    test.each([own4, own6])("answers the kernel's ping of %s, fragments too", async (own) => {
      const { inside, app } = await openTun();
      for (const size of [56, 1400, 60_000]) {
        const { received, text } = await ping(inside, own, { count: 3, size });
        expect(received, `${text}\n${await app.show()}`).toBe(3);
      }
    });

    test.each([`${own4}:7`, `[${own6}]:7`])("echoes what the kernel's sockets send to %s", async (to) => {
      const { inside, app } = await openTun();
      await app.ask({ do: "echo", port: 7 });
      const kernel = await startLinkApp(inside, { link: "host" });
      expect((await kernel.ask({ do: "ask", to, text: "hello" })).text).toBe("hello");
      for (const bytes of [0, 1, 1472, 1473, 9000, 60_000]) {
        expect((await kernel.ask({ do: "ask", to, bytes })).bytes, await app.show()).toBe(bytes);
      }
    });

    test("is a client of the kernel's sockets", async () => {
      const { inside, app } = await openTun();
      const kernel = await startLinkApp(inside, { link: "host" });
      await kernel.ask({ do: "echo", port: 7777 });
      for (const to of ["10.0.0.2:7777", "[fd00::2]:7777"]) {
        for (const bytes of [1, 1400, 60_000]) {
          expect((await app.ask({ do: "ask", to, bytes })).bytes, await app.show()).toBe(bytes);
        }
      }
      expect((await app.ask({ do: "ping", to: "10.0.0.2", bytes: 100 })).bytes).toBe(100);
      expect((await app.ask({ do: "ping", to: "fd00::2", bytes: 100 })).bytes).toBe(100);
      await expect(app.ask({ do: "ask", to: "10.0.0.2:9", text: "?" })).rejects.toThrow(
        expect.objectContaining({ code: "ECONNREFUSED" }),
      );
    });

    test("shares flows among two queues", async () => {
      const { inside, app } = await openTun({ queues: 2, workers: 2 });
      expect((await inside.ip("-details", "link", "show", "apo0")).replaceAll(/\s+/g, " ")).toContain(
        "numqueues 2",
      );
      await app.ask({ do: "echo", port: 7 });
      const kernel = await startLinkApp(inside, { link: "host" });
      for (let i = 0; i < 32; i += 1) {
        expect((await kernel.ask({ do: "ask", to: `${own4}:7`, text: `flow ${i}` })).text).toBe(`flow ${i}`);
      }
      expect((await ping(inside, own6)).received).toBe(3);
    });

    test("has the addresses, routes and MTU that were asked for, and all of its prefixes' addresses", async () => {
      const { inside } = await openTun({
        device: "whole0",
        prefixes: "10.1.0.0/16, fd00:1::/64",
        hostAddress: "10.0.0.9, fd00::9",
        mtu: 9000,
      });
      expect(await inside.ip("-brief", "address", "show", "dev", "whole0")).toMatch(
        /10\.0\.0\.9\/24 fd00::9\/64\s*$/,
      );
      expect(await devices(inside)).toMatch(/^whole0\s/m);
      expect(await inside.ip("link", "show", "whole0")).toContain("mtu 9000");
      for (const one of ["10.1.0.0", "10.1.255.255", "fd00:1::", "fd00:1::ffff:1:2:3"]) {
        expect((await ping(inside, one)).received, one).toBe(3);
      }
    });

    test("leaves nothing behind when it is closed", async () => {
      const inside = await createNamespace();
      const runtime = new URL("../../../src/layer1-app/runtime.ts", import.meta.url);
      const program = `
        const { createRuntime } = await import(${JSON.stringify(runtime.href)});
        const apo = await createRuntime({ link: "tun", address: ${JSON.stringify(address)}, workers: 1 });
        console.log("{}");
        process.stdin.once("data", async () => { await apo.close(); console.log("{}"); });
      `;
      const child = inside.start([process.execPath, "--input-type=module", "-e", program]);
      await child.answer();
      expect(await devices(inside)).toMatch(/^apo0\s/m);
      await child.ask("close");
      expect(await devices(inside)).not.toMatch(/apo/);
      expect(await inside.ip("route", "show", "table", "all")).not.toContain("10.0.0");
    });

    test("leaves nothing behind when it is killed", async () => {
      const { inside, app } = await openTun();
      expect(await devices(inside)).toMatch(/^apo0\s/m);
      process.kill(app.child.pid, "SIGKILL");
      await until(async () => !(await devices(inside)).includes("apo"));
      await openTun({}, inside);
      expect((await ping(inside, own4)).received).toBe(3);
    });

    test("ends when somebody else deletes the device, and says so", async () => {
      const { inside, app } = await openTun();
      await inside.ip("link", "delete", "apo0");
      await until(async () => (await app.counters())["layer3.link.ended"] === 1);
      await app.ask({ do: "send", to: "10.0.0.2:9", text: "?" });
      await until(async () => (await app.counters())["layer3.tx.dropped.linkEnded"] === 1);
    });

    test("says what is in the way", async () => {
      const { inside } = await openTun({ device: "taken0" });
      const start = (options: object): Promise<LinkApp> =>
        startLinkApp(inside, { link: "tun", address: "10.7.0.1/24", ...options } as RuntimeOptions);
      await expect(start({ device: "taken0" })).rejects.toThrow(/"taken0": another process uses it/);
      await expect(start({ device: "lo" })).rejects.toThrow(/no TUN device/);
      await expect(start({ address: "10.0.0.2/24" })).rejects.toThrow(
        /the kernel itself has one of 10\.0\.0\.2/,
      );
      await inside.ip("route", "add", "10.8.0.0/16", "dev", "lo");
      await expect(start({ prefixes: "10.8.0.0/16" })).rejects.toThrow(/another route/);
    });
  },
  needs,
);

describeInNamespaces(
  "tun in a capture",
  () => {
    afterEach(closeNamespaces);

    test("the kernel is silent about our ports, and nothing is malformed", async () => {
      const { inside, app } = await openTun();
      await inside.run("ethtool", "-K", "apo0", "tx", "off");
      await app.ask({ do: "echo", port: 7 });
      const kernel = await startLinkApp(inside, { link: "host" });
      const captured = await capture(inside, "apo0", "not icmp6[0] == 143");
      for (const own of [own4, `[${own6}]`]) {
        await kernel.ask({ do: "ask", to: `${own}:7`, bytes: 100 });
        await kernel.ask({ do: "ask", to: `${own}:7`, bytes: 5000 });
        await expect(kernel.ask({ do: "ask", to: `${own}:9`, text: "?" })).rejects.toThrow();
      }
      await ping(inside, own4, { size: 60_000 });
      expect(await connect(inside, own4, 80)).toBe("ECONNREFUSED");
      await captured.stop();
      const errors = await readCapture(
        captured.file,
        ["ip.src", "ipv6.src"],
        "icmp.type == 3 || icmpv6.type == 1",
      );
      // Ours, about the port that nobody has opened; of the kernel's none.
      expect(errors.map((fields) => fields[0]?.split(",")[0] || fields[1]?.split(",")[0])).toEqual([
        own4,
        own6,
      ]);
      expect(await readCapture(captured.file, ["ip.src"], "tcp.flags.reset == 1")).toEqual([[own4]]);
      expect(await objections(captured.file)).toEqual([]);
      await captured.remove();
    });
  },
  { ...needs, programs: [...needs.programs, "dumpcap", "tshark", "ethtool"] },
);

describeInNamespaces(
  "super-packets over tun",
  () => {
    let workshop: Workshop;
    let sender: string;
    beforeAll(async () => {
      workshop = await openWorkshop();
      sender = await workshop.compile("udp_segments", [
        new URL("../../support/udp_segments.c", import.meta.url).pathname,
      ]);
    });
    afterAll(() => workshop.close());
    afterEach(closeNamespaces);

    test.each([own4, own6])(
      "what the kernel sends at once to %s comes as one packet, and is datagrams",
      async (own) => {
        const { inside, app } = await openTun();
        await app.ask({ do: "sink", port: 9 });
        const before = (await app.counters())["layer3.rx.delivered"] as number;
        await inside.run(sender, own, "9", "1200", "40");
        await until(async () => (await app.ask({ do: "received" })).datagrams === 40);
        expect((await app.ask({ do: "received" })).bytes).toBe(40 * 1200);
        expect(((await app.counters())["layer3.rx.delivered"] as number) - before).toBe(1);
      },
    );
  },
  { ...needs, programs: [...needs.programs, "cc"] },
);
