/**
 * What every raw link must do against the kernel's own sockets, ping and traceroute: one list of cases for all links.
 *
 *   far ── veth, MTU 1400 ── near ── the link ── app
 *
 * `near` has the kernel's end of the link and forwards for `far`. A link's own file says how the two are joined, and
 * what else is its own.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Child, Command } from "../../bench/lib/children.ts";
import type { RuntimeOptions } from "../../src/layer1-app/types.ts";
import { type LinkApp, startLinkApp } from "../support/link-app.ts";
import {
  closeNamespaces,
  createNamespace,
  describeInNamespaces,
  eventually,
  joinByVeth,
  type Namespace,
  type Needs,
} from "../support/netns.ts";
import {
  type Capture,
  capture,
  countFrames,
  objections,
  ping,
  withoutChecksumOffload,
} from "../support/packet-tools.ts";

/** Two ends of a link, in a namespace each or in one. */
export interface JoinedLink {
  /** Where the app runs. */
  readonly inside: Namespace;
  /** Where the kernel's end is. */
  readonly near: Namespace;
  readonly options: RuntimeOptions;
  /** What the app's command is started by, where the link takes that (`withTunFd`). */
  readonly prefix?: Command;
  /** The kernel's device of the link, in `near`. On tun it is there once the app runs. */
  readonly device: string;
  /** What is to be done in `near` when the device is there. */
  readonly whenUp?: () => Promise<void>;
}

export interface LinkPlan {
  readonly name: string;
  /** IPv4 and IPv6: ours, and the kernel's. */
  readonly own: readonly [string, string];
  readonly host: readonly [string, string];
  join(): Promise<JoinedLink>;
  readonly needs?: Needs;
  /** Further cases, with everything up. */
  readonly also?: (setting: () => Setting) => void;
}

/** Everything up. */
export interface Setting extends JoinedLink {
  readonly far: Namespace;
  readonly app: LinkApp;
  /** The kernel's sockets, in `near` and in `far`. */
  readonly kernel: LinkApp;
  readonly farKernel: LinkApp;
  readonly pcap: string;
}

export const farAddresses = ["10.70.0.2", "fd70::2"] as const;
const programs = ["ping", "traceroute", "tracepath", "tshark", "dumpcap", "ethtool"];
const families = [
  { name: "IPv4", at: 0, trace: "-4" },
  { name: "IPv6", at: 1, trace: "-6" },
] as const;
const command = fileURLToPath(new URL("../../src/cli/apo.ts", import.meta.url));
const examples = fileURLToPath(new URL("../../examples/", import.meta.url));

export function target(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Namespaces, the link, the app on it and the kernel's sockets beside it. */
async function setUp(plan: LinkPlan, pcap: string): Promise<Setting> {
  const joined = await plan.join();
  const { near } = joined;
  const far = await createNamespace();
  await joinByVeth(
    { namespace: near, device: "hop0", addresses: ["10.70.0.1/24", "fd70::1/64"] },
    { namespace: far, device: "far0", addresses: ["10.70.0.2/24", "fd70::2/64"] },
  );
  for (const [namespace, device] of [
    [near, "hop0"],
    [far, "far0"],
  ] as const) {
    await namespace.ip("link", "set", device, "mtu", "1400");
  }
  for (const name of ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]) await near.sysctl(name, 1);
  await far.ip("route", "add", "default", "via", "10.70.0.1");
  await far.ip("-6", "route", "add", "default", "via", "fd70::1");
  const app = await startLinkApp(joined.inside, { ...joined.options, pcap }, joined.prefix);
  await joined.whenUp?.();
  const kernel = await startLinkApp(near, { link: "host" });
  const farKernel = await startLinkApp(far, { link: "host" });
  return { ...joined, far, app, kernel, farKernel, pcap };
}

/** Runs an example by `apo run` on the link; resolves when it says where it listens. */
export async function runExample(setting: Setting, name: string): Promise<{ child: Child; port: number }> {
  const { inside, options, prefix = [] } = setting;
  const flags = Object.entries(options).flatMap(([option, value]) => [
    `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`,
    String(value),
  ]);
  const run = [process.execPath, command, "run", join(examples, `${name}.ts`), ...flags, "--", "0"];
  const child = inside.start([...prefix, ...run] as unknown as Command, name);
  const said = await child.line();
  const port = Number(/listening on port (\d+)/.exec(said)?.[1]);
  if (!(port > 0)) throw new Error(`${name} said: ${said}`);
  return { child, port };
}

export function describeLink(plan: LinkPlan): void {
  const needs = { ...plan.needs, programs: [...programs, ...(plan.needs?.programs ?? [])] };
  describeInNamespaces(plan.name, () => cases(plan), needs);
}

function cases(plan: LinkPlan): void {
  const folder = mkdtempSync(join(tmpdir(), "apo-link-"));
  const pcap = join(folder, "link.pcapng");
  let setting: Setting;
  beforeAll(async () => {
    setting = await setUp(plan, pcap);
  });
  afterAll(async () => {
    await closeNamespaces();
    rmSync(folder, { recursive: true, force: true });
  });

  for (const family of families) {
    const own = plan.own[family.at];
    const host = plan.host[family.at];
    const far = farAddresses[family.at];
    echoCases(family.name, own, () => setting);

    test(`the path's MTU is learned from routers over ${family.name}`, async () => {
      const { port } = await setting.farKernel.ask({ do: "sink", port: 0 });
      const before = (await setting.farKernel.ask({ do: "received" })).datagrams;
      // What was too long is lost, and what comes after it is not: it goes in fragments.
      await eventually("a datagram longer than the path's MTU arrives", async () => {
        await setting.app.ask({ do: "send", to: target(far, port), bytes: 1440 });
        return (await setting.farKernel.ask({ do: "received" })).datagrams > before;
      });
    });

    test(`a UDP echo app serves the kernel's clients, near and far, over ${family.name}`, async () => {
      const { port } = await setting.app.ask({ do: "echo", port: 0 });
      for (const client of [setting.kernel, setting.farKernel]) {
        for (const bytes of [0, 1, 1200, 8000, 60_000]) {
          expect((await client.ask({ do: "ask", to: target(own, port), bytes })).bytes).toBe(bytes);
        }
      }
      await setting.app.ask({ do: "close", port });
    });

    test(`an app is the client of the kernel's sockets, near and far, over ${family.name}`, async () => {
      for (const [server, address] of [
        [setting.kernel, host],
        [setting.farKernel, far],
      ] as const) {
        const { port } = await server.ask({ do: "echo", port: 0 });
        const { text } = await setting.app.ask({ do: "ask", to: target(address, port), text: "hello" });
        expect(text).toBe("hello");
      }
      expect((await setting.app.ask({ do: "ping", to: far, bytes: 100 })).bytes).toBe(100);
    });

    test(`a port that nobody has opened refuses, both ways, over ${family.name}`, async () => {
      const refused = { code: "ECONNREFUSED" };
      await expect(setting.kernel.ask({ do: "ask", to: target(own, 9), text: "?" })).rejects.toMatchObject(
        refused,
      );
      await expect(setting.app.ask({ do: "ask", to: target(host, 9), text: "?" })).rejects.toMatchObject(
        refused,
      );
    });

    test(`traceroute and tracepath reach us over ${family.name}`, async () => {
      const traced = await setting.far.run("traceroute", family.trace, "-n", "-q", "1", own);
      const hops = traced.split("\n").filter((line) => /^ *\d+ {2}\S/.test(line));
      expect(hops.at(-1)).toContain(` ${own} `);
      expect(hops.length).toBe(2);
      expect(await setting.far.run("tracepath", family.trace, "-n", own)).toContain("pmtu 1400");
    });
  }

  plan.also?.(() => setting);
  commonCases(plan, () => setting);

  test("a capture of all that was clean, and every frame came back", async () => {
    await setting.app.stop();
    expect(await countFrames(pcap)).toBeGreaterThan(100);
    expect(await objections(pcap)).toEqual([]);
  });
}

function echoCases(name: string, own: string, setting: () => Setting): void {
  test.each([
    ["near", 56],
    ["near", 1472],
    ["near", 60_000],
    ["far", 56],
    ["far", 60_000],
  ] as const)(`pings over ${name} from %s with %i bytes are answered`, async (from, size) => {
    // Where IPv6 must learn a path's MTU first, the reply that taught it is lost (RFC 8201 4).
    const lost = from === "far" && size > 1400 && own.includes(":") ? 1 : 0;
    const { sent, received, text } = await ping(setting()[from], own, { count: 5, size, intervalMs: 100 });
    expect(received, `${text}\n${await setting().app.show()}`).toBeGreaterThanOrEqual(5 - lost);
    expect(sent).toBe(5);
  });
}

function commonCases(plan: LinkPlan, setting: () => Setting): void {
  let watched: Capture | undefined;
  afterAll(async () => watched?.remove());

  test("the kernel says nothing about our ports, and what we send is well-formed", async () => {
    const { near, device, app, kernel } = setting();
    await withoutChecksumOffload(near, device);
    watched = await capture(near, device);
    const { port } = await app.ask({ do: "echo", port: 0 });
    for (const own of plan.own) {
      for (const text of ["one", "two"]) {
        expect((await kernel.ask({ do: "ask", to: target(own, port), text })).text).toBe(text);
      }
      const { bytes } = await kernel.ask({ do: "ask", to: target(own, port), bytes: 5000 });
      expect(bytes).toBe(5000);
    }
    await watched.stop();
    const { file } = watched;
    expect(await countFrames(file, "udp")).toBeGreaterThanOrEqual(12);
    expect(await countFrames(file, "icmp.type == 3 || icmpv6.type == 1 || tcp.flags.reset == 1")).toBe(0);
    expect(await objections(file)).toEqual([]);
  });

  test("examples run unchanged: apo run udp-echo, and udp-tick", async () => {
    const started = setting();
    await started.app.stop();
    const echo = await runExample(started, "udp-echo");
    await started.whenUp?.();
    for (const own of plan.own) {
      const { text } = await started.kernel.ask({ do: "ask", to: target(own, echo.port), text: "unchanged" });
      expect(text).toBe("unchanged");
    }
    await echo.child.stop();
    const tick = await runExample(started, "udp-tick");
    await started.whenUp?.();
    const { text } = await started.kernel.ask({
      do: "ask",
      to: target(plan.own[0], tick.port),
      text: "move 1 0",
    });
    expect(text).toContain('"id":1');
    await tick.child.stop();
  });
}
