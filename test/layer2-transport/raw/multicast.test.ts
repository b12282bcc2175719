/** Groups on a wire: who gets what was sent to one, from whom alone, for how long, and from where it is answered. */
import { afterEach, describe, expect, test } from "vitest";
import { Runtime } from "../../../src/layer1-app/runtime.ts";
import type { JoinSettings, Listener } from "../../../src/layer1-app/types.ts";
import { createWire, type Wire } from "../../../src/layer3-ip/links/mem.ts";

const runtimes: Runtime[] = [];

afterEach(async () => {
  for (const runtime of runtimes.splice(0)) {
    await runtime.close();
    expect(runtime.counters()["layer3.pool.frames-in-use"]).toBe(0);
  }
});

async function start(wire: Wire, n: number, workers = 1): Promise<Runtime> {
  const runtime = new Runtime({ link: "mem", wire, address: `10.0.0.${n}/24, fd00::${n}/64`, workers });
  runtimes.push(runtime);
  await runtime.start();
  return runtime;
}

interface Heard {
  readonly listener: Listener;
  readonly texts: string[];
}

async function hear(runtime: Runtime, port: number, join: readonly JoinSettings[]): Promise<Heard> {
  const texts: string[] = [];
  const listener = await runtime.opens({
    protocol: "udp",
    port,
    join,
    request: (sockfd, message, apo) => {
      const { address, localAddress } = apo.peer(sockfd);
      texts.push(`${message.text()} ${address} ${localAddress}`);
    },
  });
  return { listener, texts };
}

async function until(condition: () => boolean, what: () => unknown): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited too long: ${JSON.stringify(what())}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const families = [
  { name: "IPv4", group: "239.1.2.3", other: "239.1.2.4", ends: ["10.0.0.1", "10.0.0.2", "10.0.0.3"] },
  { name: "IPv6", group: "ff15::1234", other: "ff15::99", ends: ["fd00::1", "fd00::2", "fd00::3"] },
] as const;
const at = (address: string, port: number) =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;

describe.each(families)("over $name", ({ group, other, ends }) => {
  test("members of a group hear what is sent to it and to their port; others do not", async () => {
    const wire = createWire();
    const [one, two, three] = [await start(wire, 1), await start(wire, 2, 2), await start(wire, 3)];
    const member = await hear(two, 5000, [group]);
    const elsewhere = await hear(two, 5001, [other]);
    const stranger = await hear(three, 5000, []);
    const sockfd = await one.opens({ protocol: "udp", to: at(group, 5000), news: "first" });
    const wrongPort = await one.opens({ protocol: "udp", to: at(group, 5001), news: "wrong port" });
    await one.sendto(wrongPort, "again");
    for (const text of ["second", "third"]) await one.sendto(sockfd, text);
    await until(
      () => member.texts.length === 3,
      () => two.counters(),
    );
    expect(member.texts).toEqual(["first", "second", "third"].map((text) => `${text} ${ends[0]} ${group}`));
    expect([elsewhere.texts, stranger.texts]).toEqual([[], []]);
    await until(
      () => (three.counters()["layer3.rx.dropped.group"] as number) >= 5,
      () => three.counters(),
    );
    expect(three.guard.offenders()).toEqual([]);
    // The network was told.
    expect(two.counters()["layer3.group.reports"]).toBeGreaterThanOrEqual(2);
  });

  test("from one source alone", async () => {
    const wire = createWire();
    const [one, two, three] = [await start(wire, 1), await start(wire, 2), await start(wire, 3)];
    const { texts } = await hear(two, 5000, [{ group, source: ends[2] }]);
    await one.opens({ protocol: "udp", to: at(group, 5000), news: "unwanted" });
    await until(
      () => (two.counters()["layer3.rx.dropped.group"] as number) > 0,
      () => two.counters(),
    );
    await three.opens({ protocol: "udp", to: at(group, 5000), news: "wanted" });
    await until(
      () => texts.length > 0,
      () => two.counters(),
    );
    expect(texts).toEqual([`wanted ${ends[2]} ${group}`]);
  });

  test("a listener that closes leaves its groups, and another's stay", async () => {
    const wire = createWire();
    const [one, two] = [await start(wire, 1), await start(wire, 2)];
    const first = await hear(two, 5000, [group]);
    const second = await hear(two, 5001, [group]);
    await first.listener.close();
    const later = await one.opens({ protocol: "udp", to: at(group, 5001), news: "still there" });
    await until(
      () => second.texts.length === 1,
      () => two.counters(),
    );
    await second.listener.close();
    const before = two.counters()["layer3.rx.dropped.group"] as number;
    await one.sendto(later, "gone");
    await until(
      () => (two.counters()["layer3.rx.dropped.group"] as number) > before,
      () => two.counters(),
    );
    expect(second.texts).toHaveLength(1);
  });

  test("an answer comes from the member's own address", async () => {
    const wire = createWire();
    const [one, two] = [await start(wire, 1), await start(wire, 2)];
    await two.opens({
      protocol: "udp",
      port: 5000,
      join: [group],
      request: (sockfd, _, apo) => apo.sendto(sockfd, "here"),
    });
    const answers = await hear(one, 6000, []);
    // From the port where the answer is waited for: a client's own is not another's.
    const sockfd = await one.opens({ protocol: "udp", to: at(group, 5000), news: "who?" });
    const { localPort } = one.peer(sockfd);
    expect(localPort).not.toBe(6000);
    await until(
      () => (one.counters()["layer3.rx.delivered"] as number) > 0,
      () => one.counters(),
    );
    // It was from an address that this client had not asked: nobody's connection.
    await until(
      () => (one.counters()["layer2.drop.no-connection"] as number) > 0,
      () => one.counters(),
    );
    expect(answers.texts).toEqual([]);
  });
});

describe("what cannot be joined", () => {
  test.each([
    [{ protocol: "udp", port: 1, join: ["10.0.0.7"] }, "EINVAL", /a multicast address/],
    [
      { protocol: "udp", port: 1, join: [{ group: "239.1.1.1", source: "fd00::1" }] },
      "EINVAL",
      /of the same IP/,
    ],
    [{ protocol: "tcp", port: 1, join: ["239.1.1.1"] }, "EINVAL", /join is for udp, this is tcp/],
    [{ protocol: "udp", to: "10.0.0.2:1", join: ["239.1.1.1"] }, "EINVAL", /join is for udp servers/],
    [{ protocol: "udp", port: 1, ttl: 0 }, "EINVAL", /ttl must be a whole number from 1 to 255/],
  ] as const)("%j", async (options, code, message) => {
    const one = await start(createWire(), 1);
    await expect(one.opens(options as Parameters<Runtime["opens"]>[0])).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test("more groups than the link takes: ENOBUFS, and none of that listener's is left joined", async () => {
    const wire = createWire();
    const two = await start(wire, 2);
    const many = (n: number) => Array.from({ length: 32 }, (_, i) => `239.9.${n}.${i}`);
    await hear(two, 5000, many(0));
    await hear(two, 5001, [...many(1).slice(0, 31)]);
    await expect(hear(two, 5002, ["239.8.0.1", "239.8.0.2"])).rejects.toMatchObject({ code: "ENOBUFS" });
    await hear(two, 5002, ["239.8.0.2"]);
  });
});
