/** A station of ours on one end of a veth pair, the kernel's own on the other: two namespaces. */
import { afterEach, describe, expect, test } from "vitest";
import type { RuntimeOptions } from "../../../src/layer1-app/types.ts";
import { type LinkApp, startLinkApp } from "../../support/link-app.ts";
import {
  addAddress,
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

const own4 = "10.7.0.1";
const own6 = "fd07::1";
const peer4 = "10.7.0.2";
const peer6 = "fd07::2";
const interfaceMac = "02:aa:00:00:00:01";

interface Pair {
  readonly ours: Namespace;
  readonly theirs: Namespace;
  readonly app: LinkApp;
}

async function joined(): Promise<Omit<Pair, "app">> {
  const ours = await createNamespace();
  const theirs = await createNamespace();
  await joinByVeth(
    { namespace: ours, device: "us", mac: interfaceMac },
    { namespace: theirs, device: "them", addresses: [`${peer4}/24`, `${peer6}/64`] },
  );
  return { ours, theirs };
}

function options(more: Partial<RuntimeOptions> = {}): RuntimeOptions {
  const address = `${own4}/24, ${own6}/64`;
  return { link: "packet", interface: "us", address, ...more } as RuntimeOptions;
}

async function openPair(more: Partial<RuntimeOptions> = {}): Promise<Pair> {
  const { ours, theirs } = await joined();
  return { ours, theirs, app: await startLinkApp(ours, options(more)) };
}

/** Waits until a counter has (at least) the value, and says what the others are when it never does. */
async function counted(app: LinkApp, name: string, least: number): Promise<void> {
  await eventually(`${name} >= ${least}`, async () => ((await app.counters())[name] ?? 0) >= least);
}

describeInNamespaces("packet", () => {
  afterEach(closeNamespaces);

  test.each([own4, own6])("answers the kernel's ping of %s, fragments too", async (own) => {
    const { theirs, app } = await openPair();
    for (const size of [56, 1400, 60_000]) {
      const { received, text } = await ping(theirs, own, { count: 3, size });
      expect(received, `${text}\n${await app.show()}`).toBe(3);
    }
  });

  test.each([
    ["", 0],
    ["two queues", 2],
  ])("echoes what the kernel's sockets send, %s", async (_, queues) => {
    const { theirs, app } = await openPair(queues ? { queues, workers: 2 } : {});
    await app.ask({ do: "echo", port: 7 });
    const kernel = await startLinkApp(theirs, { link: "host" });
    for (const to of [`${own4}:7`, `[${own6}]:7`]) {
      for (const bytes of [0, 1, 1472, 1473, 9000, 60_000]) {
        expect((await kernel.ask({ do: "ask", to, bytes })).bytes, await app.show()).toBe(bytes);
      }
      for (let i = 0; i < 16; i += 1) {
        expect((await kernel.ask({ do: "ask", to, text: `flow ${i}` })).text).toBe(`flow ${i}`);
      }
    }
  });

  test("is a client of the kernel's sockets: asks for neighbours itself", async () => {
    const { theirs, app } = await openPair();
    const kernel = await startLinkApp(theirs, { link: "host" });
    await kernel.ask({ do: "echo", port: 7777 });
    for (const to of [`${peer4}:7777`, `[${peer6}]:7777`]) {
      for (const bytes of [1, 1400, 60_000]) {
        expect((await app.ask({ do: "ask", to, bytes })).bytes, await app.show()).toBe(bytes);
      }
    }
    expect((await app.ask({ do: "ping", to: peer4, bytes: 100 })).bytes).toBe(100);
    expect((await app.ask({ do: "ping", to: peer6, bytes: 100 })).bytes).toBe(100);
    const counters = await app.counters();
    expect(counters["layer3.neighbour.resolved"]).toBe(2);
    expect(counters["layer3.neighbour.released"]).toBeGreaterThanOrEqual(2);
  });

  test("has all addresses of its prefixes", async () => {
    const { theirs } = await openPair({ prefixes: "10.7.128.0/17, fd07:1::/64" } as Partial<RuntimeOptions>);
    await theirs.ip("route", "add", "10.7.128.0/17", "dev", "them");
    await theirs.ip("route", "add", "fd07:1::/64", "dev", "them");
    for (const one of ["10.7.128.1", "10.7.255.254", "fd07:1::1", "fd07:1::ffff:1:2:3"]) {
      expect((await ping(theirs, one)).received, one).toBe(3);
    }
  });

  test("goes through its gateways, and through the longer route where there is one", async () => {
    const { theirs, app } = await openPair({
      gateway: `${peer4}, ${peer6}`,
      routes: [{ to: "198.51.100.0/24", via: "10.7.0.77" }],
    } as Partial<RuntimeOptions>);
    for (const far of ["192.0.2.1/32", "198.51.100.1/32", "2001:db8::1/128"])
      await addAddress(theirs, "lo", far);
    expect((await app.ask({ do: "ping", to: "192.0.2.1" })).bytes).toBe(56);
    expect((await app.ask({ do: "ping", to: "2001:db8::1" })).bytes).toBe(56);
    await app.ask({ do: "send", to: "198.51.100.1:9", text: "to nobody" });
    await counted(app, "layer3.neighbour.dropped.unreachable", 1);
    const counters = await app.counters();
    expect(counters["layer3.neighbour.failed"]).toBe(1);
    expect(counters["layer3.tx.parked"]).toBeGreaterThanOrEqual(1);
  });

  test("learns its IPv6 router and prefixes from nobody but a router's advertisement", async () => {
    const { theirs, app } = await openPair();
    await addAddress(theirs, "lo", "2001:db8::1/128");
    await app.ask({ do: "send", to: "[2001:db8::1]:9", text: "?" });
    await counted(app, "layer3.tx.dropped.noRoute", 1);
  });

  test("the kernel beside us is silent, even as a router, and no capture shows a flaw", async () => {
    const { ours, theirs } = await joined();
    await ours.sysctl("ipv4/ip_forward", 1);
    await ours.sysctl("ipv6/conf/all/forwarding", 1);
    await addAddress(ours, "us", "10.7.0.200/24"); // the kernel's own, so that it could answer
    await withoutChecksumOffload(theirs, "them");
    const running = await capture(theirs, "them");
    try {
      const app = await startLinkApp(ours, options());
      await app.ask({ do: "echo", port: 7 });
      const kernel = await startLinkApp(theirs, { link: "host" });
      for (const host of [own4, `[${own6}]`]) {
        expect((await kernel.ask({ do: "ask", to: `${host}:7`, bytes: 3000 })).bytes).toBe(3000);
        await kernel.ask({ do: "send", to: `${host}:4444`, text: "nobody there" });
      }
      for (const own of [own4, own6]) expect((await ping(theirs, own, { size: 5000 })).received).toBe(3);
      await counted(app, "layer3.icmp.unreachables", 2);
      const program = `require("node:net").connect(80, "${own4}").on("error", () => {}).setTimeout(300, process.exit)`;
      await theirs.run(process.execPath, "-e", program);
      await running.stop();
      expect(await objections(running.file)).toEqual([]);
      const fromUs = (await readCapture(running.file, ["eth.src"], "ip || ipv6.addr == fd07::/64")).flat();
      expect(fromUs.length).toBeGreaterThan(10);
      expect(fromUs).not.toContain(interfaceMac);
      const syns = await readCapture(
        running.file,
        ["frame.number"],
        "tcp.flags.syn == 1 && ip.dst == 10.7.0.1",
      );
      expect(syns.length).toBeGreaterThan(0);
    } finally {
      await running.remove();
    }
  });

  test("has a hardware address of its own, the interface's or the given one", async () => {
    const { ours, theirs } = await joined();
    const macOf = async (mac?: string): Promise<string> => {
      const app = await startLinkApp(ours, options(mac === undefined ? {} : { mac }));
      expect((await ping(theirs, own4)).received).toBe(3);
      const text = await theirs.ip("neigh", "show", own4);
      await app.stop();
      await theirs.ip("neigh", "flush", "dev", "them");
      return /lladdr (\S+)/.exec(text)?.[1] ?? text;
    };
    const made = await macOf();
    expect(made).toMatch(/^[\da-f][26ae]:/);
    expect(made).not.toBe(interfaceMac);
    expect(await macOf()).toBe(made);
    expect(await macOf("02:00:5e:10:00:01")).toBe("02:00:5e:10:00:01");
    expect(await macOf("interface")).toBe(interfaceMac);
  });

  test("survives its interface: down is counted, up again it goes on", async () => {
    const { ours, theirs, app } = await openPair();
    expect((await ping(theirs, own4)).received).toBe(3);
    await ours.ip("link", "set", "us", "down");
    await counted(app, "layer3.link.downs", 1);
    await app.ask({ do: "send", to: `${peer4}:9`, text: "?" });
    await counted(app, "layer3.tx.dropped.linkDown", 1);
    const before = (await app.counters())["layer3.poll.sleeps"] ?? 0;
    await ours.ip("link", "set", "us", "up");
    await eventually("it answers again", async () => (await ping(theirs, own4, { count: 1 })).received === 1);
    expect((await ping(theirs, own6)).received).toBe(3);
    // It slept meanwhile: a few times a second, not all the time.
    expect(((await app.counters())["layer3.poll.sleeps"] ?? 0) - before).toBeLessThan(2000);
    await ours.ip("link", "delete", "us");
    await counted(app, "layer3.link.downs", 2);
  });

  test("counts a conflict when another station has its address", async () => {
    const { theirs, app } = await openPair();
    await addAddress(theirs, "them", `${own4}/24`);
    await theirs.run("ping", "-c", "1", "-W", "1", "-I", own4, "10.7.0.99").catch(() => {});
    await counted(app, "layer3.neighbour.conflicts", 1);
  });

  describe("says what is in the way:", () => {
    const start = (ours: Namespace, more: Partial<RuntimeOptions>): Promise<LinkApp> =>
      startLinkApp(ours, options(more));
    test.each<[string, Record<string, unknown>, RegExp]>([
      ["no such interface", { interface: "eth77" }, /"eth77": there is none of that name here/],
      ["too large an MTU", { mtu: 9000 }, /cannot carry an mtu of 9000/],
      ["the kernel's address", { address: "127.0.0.1/8" }, /the kernel itself has one of 127\.0\.0\.1/],
      ["a group's MAC", { mac: "ff:ff:ff:ff:ff:ff" }, /mac must be a hardware address/],
      ["no Ethernet", { interface: "lo" }, /"lo" is no Ethernet/],
    ])("%s", async (_, more, words) => {
      const { ours } = await joined();
      await expect(start(ours, more as Partial<RuntimeOptions>)).rejects.toThrow(words);
    });
  });
});
