/**
 * Two runtimes on one wire: UDP and echo by real packets through both native threads, what is refused and how, loads
 * that are held off and loads that are not, and workers that die.
 */

import type { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test } from "vitest";
import { Runtime } from "../../src/layer1-app/runtime.ts";
import type { CloseReason, RuntimeOptions, Sockfd } from "../../src/layer1-app/types.ts";
import { createWire, type Wire } from "../../src/layer3-ip/links/mem.ts";

const addresses = { a: "10.0.0.1/24, fd00::1/64", b: "10.0.0.2/24, fd00::2/64" };
const families = [
  { name: "IPv4", a: "10.0.0.1", b: "10.0.0.2", headers: 28 },
  { name: "IPv6", a: "fd00::1", b: "fd00::2", headers: 48 },
];
const runtimes: Runtime[] = [];

async function start(wire: Wire, address: string, options: RuntimeOptions = {}): Promise<Runtime> {
  const runtime = new Runtime({ link: "mem", wire, address, workers: 1, ...options });
  runtimes.push(runtime);
  await runtime.start();
  return runtime;
}

async function startPair(workers = 1): Promise<{ a: Runtime; b: Runtime }> {
  const wire = createWire();
  return { a: await start(wire, addresses.a, { workers }), b: await start(wire, addresses.b, { workers }) };
}

// After every test, whatever it did, all frames are back in the pools.
afterEach(async () => {
  for (const runtime of runtimes.splice(0)) {
    await runtime.close();
    expect(runtime.counters()["layer3.pool.frames-in-use"]).toBe(0);
  }
});

function target(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

async function until(condition: () => boolean, what: () => string): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited too long: ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** The sum of all counters whose names start so. */
function sum(runtime: Runtime, prefix: string): number {
  return Object.entries(runtime.counters())
    .filter(([name]) => name.startsWith(prefix))
    .reduce((all, [, count]) => all + count, 0);
}

/** Sends a datagram and resolves with the reply; never, if there is none. */
function ask(client: Runtime, to: string, text: string): Promise<string> {
  return new Promise((resolve) => {
    void client.opens({ protocol: "udp", to, news: text, request: (_, message) => resolve(message.text()) });
  });
}

const show = (runtime: Runtime): string =>
  JSON.stringify(Object.fromEntries(Object.entries(runtime.counters()).filter(([, count]) => count > 0)));

describe.each([1, 2])("with %i worker(s) each", (workers) => {
  test.each(families)("UDP echo both ways over $name", async (family) => {
    const { a, b } = await startPair(workers);
    const ways = [
      { server: a, client: b, address: family.a },
      { server: b, client: a, address: family.b },
    ];
    for (const { server, client, address } of ways) {
      const listener = await server.opens({
        protocol: "udp",
        port: 0,
        request: (sockfd, message, apo) => apo.sendto(sockfd, message.bytes),
      });
      const ports = new Set<number>();
      for (let i = 0; i < 10; i += 1) {
        const { promise, resolve } = Promise.withResolvers<string>();
        const sockfd = await client.opens({
          protocol: "udp",
          to: target(address, listener.port),
          news: `hello ${i}`,
          request: (_, message) => resolve(message.text()),
        });
        expect(await promise).toBe(`hello ${i}`);
        expect(client.peer(sockfd)).toMatchObject({ protocol: "udp", address, port: listener.port });
        ports.add(client.peer(sockfd).localPort);
        await client.close(sockfd);
      }
      // A client's port is drawn: one may come twice, and is the same connection then.
      expect(listener.connections).toBe(ports.size);
      await listener.close();
    }
  });
});

test("a runtime tells what its link is", async () => {
  const { a } = await startPair();
  expect(a.link()).toEqual({
    kind: "mem",
    device: "",
    mtu: 1500,
    addresses: ["10.0.0.1/24", "fd00::1/64"],
    prefixes: [],
  });
  const host = await start(createWire(), "10.0.0.1/24", {
    link: "host",
    wire: undefined,
    address: undefined,
  } as object);
  expect(host.link()).toMatchObject({ kind: "host", addresses: [] });
});

test.each(families)("a ping over $name is answered with the bytes it had", async (family) => {
  const { a, b } = await startPair();
  for (const { from, to } of [
    { from: a, to: family.b },
    { from: b, to: family.a },
  ]) {
    const got: string[] = [];
    const sockfd = await from.opens({
      protocol: "icmp",
      to,
      news: "first",
      request: (_, message) => {
        got.push(message.text());
      },
    });
    await from.sendto(sockfd, "second");
    await until(
      () => got.length === 2,
      () => show(from),
    );
    expect(got).toEqual(["first", "second"]);
    expect(from.peer(sockfd)).toMatchObject({ protocol: "icmp", address: to, port: 0 });
  }
});

test.each(families)("a port that nobody has opened refuses a client over $name", async (family) => {
  const { b } = await startPair();
  const reason = await new Promise<CloseReason>((resolve) => {
    void b.opens({
      protocol: "udp",
      to: target(family.a, 99),
      news: "anybody?",
      closed: (_, why) => resolve(why),
    });
  });
  expect(reason.code).toBe("refused");
  expect(reason.error?.code).toBe("ECONNREFUSED");
});

test.each(families)(
  "the longest datagram over $name arrives, a longer one is dropped and counted",
  async (family) => {
    const { a, b } = await startPair();
    const lengths: number[] = [];
    const listener = await a.opens({
      protocol: "udp",
      port: 0,
      request: (_, message) => {
        lengths.push(message.bytes.length);
      },
    });
    const sockfd = await b.opens({ protocol: "udp", to: target(family.a, listener.port) });
    // What fits the wire, what goes in pieces, and what fits no packet at all.
    const whole = 1500 - family.headers;
    const longest = family.headers === 28 ? 65_507 : 65_488;
    for (const length of [0, whole, whole + 1]) await b.sendto(sockfd, new Uint8Array(length));
    const tooLong = new Uint8Array(65_508);
    expect(() => b.sendto(sockfd, tooLong)).toThrow(expect.objectContaining({ code: "EMSGSIZE" }));
    if (family.headers === 48) await b.sendto(sockfd, tooLong.subarray(0, longest + 1));
    await b.sendto(sockfd, tooLong.subarray(0, longest));
    await until(
      () => lengths.length === 4,
      () => show(a),
    );
    expect(lengths).toEqual([0, whole, whole + 1, longest]);
    expect(b.counters()["layer2.drop.send-failed"]).toBe(family.headers === 48 ? 1 : 0);
  },
);

describe("what the link cannot do is refused with a code", () => {
  test.each([
    ["EHOSTUNREACH", { protocol: "udp", to: "camera.example:7" }],
    ["EADDRNOTAVAIL", { protocol: "udp", port: 7, address: "10.0.0.9" }],
  ] as const)("%s for %o", async (code, options) => {
    const a = await start(createWire(), addresses.a);
    await expect(a.opens(options as Parameters<Runtime["opens"]>[0])).rejects.toMatchObject({ code });
  });

  test("EHOSTUNREACH without an address of that version, EADDRINUSE for a port that is taken", async () => {
    const a = await start(createWire(), "10.0.0.1/24");
    await expect(a.opens({ protocol: "udp", to: "[fd00::2]:7" })).rejects.toMatchObject({
      code: "EHOSTUNREACH",
    });
    await a.opens({ protocol: "udp", port: 7 });
    await expect(a.opens({ protocol: "udp", port: 7 })).rejects.toMatchObject({ code: "EADDRINUSE" });
  });

  test("a runtime without a wire, and one whose address is taken", async () => {
    const wire = createWire();
    await start(wire, "10.0.0.1/24");
    await expect(start(wire, "10.0.0.1/24")).rejects.toMatchObject({ code: "EADDRINUSE" });
    await expect(start({} as Wire, "10.0.0.1/24")).rejects.toMatchObject({ code: "EINVAL" });
  });
});

test("100,000 datagrams are echoed and none is lost when the sender goes by the replies", async () => {
  const { a, b } = await startPair();
  const listener = await a.opens({
    protocol: "udp",
    port: 0,
    request: (sockfd, message, apo) => apo.sendto(sockfd, message.bytes),
  });
  const count = 100_000;
  const ahead = 32;
  let sent = 0;
  let next = 0;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const bytes = Buffer.alloc(64);
  const send = (sockfd: Sockfd): void => {
    bytes.writeUInt32BE(sent, 0);
    sent += 1;
    void b.sendto(sockfd, bytes);
  };
  const sockfd = await b.opens({
    protocol: "udp",
    to: target("10.0.0.1", listener.port),
    request: (from, message) => {
      const got = Buffer.from(message.bytes).readUInt32BE(0);
      if (got !== next) reject(new Error(`datagram ${got} came when ${next} was due`));
      next += 1;
      if (next === count) resolve();
      if (sent < count) send(from);
    },
  });
  for (let i = 0; i < ahead; i += 1) send(sockfd);
  await promise;
  expect(sum(a, "layer3.rx.dropped.") + sum(b, "layer3.rx.dropped.")).toBe(0);
  expect(a.counters()["layer2.udp.received"]).toBe(count);
});

test("a load that nobody holds off is accounted for to the last datagram", async () => {
  const { a, b } = await startPair();
  let handled = 0;
  const listener = await a.opens({
    protocol: "udp",
    port: 0,
    waiting: 8,
    request: async () => {
      handled += 1;
      if (handled % 16 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    },
  });
  const sockfd = await b.opens({ protocol: "udp", to: target("10.0.0.1", listener.port) });
  const count = 30_000;
  for (let i = 0; i < count; i += 1) await b.sendto(sockfd, Buffer.alloc(100));
  await b.flushed(sockfd);
  expect(b.counters()["layer2.udp.sent"]).toBe(count);
  // In layer 3, packets, of which some stand for several datagrams; in layer 2, datagrams.
  const left = (): number => b.counters()["layer3.tx.packets"] as number;
  const settled = (): boolean => {
    const counters = a.counters();
    const delivered = counters["layer3.rx.delivered"] as number;
    const received = counters["layer2.udp.received"] as number;
    const waited = counters["layer2.drop.waiting"] as number;
    return delivered + sum(a, "layer3.rx.dropped.") === left() && handled + waited === received;
  };
  await until(settled, () => `${handled} handled of ${count}; ${show(a)}; ${show(b)}`);
  expect(a.counters()["layer2.drop.waiting"]).toBeGreaterThan(0);
});

test("a silent connection ends by itself, and its port refuses afterwards", async () => {
  const { a, b } = await startPair();
  const ended: string[] = [];
  const listener = await a.opens({
    protocol: "udp",
    port: 7,
    idleMs: 50,
    closed: (_, reason) => {
      ended.push(reason.code);
    },
  });
  const sockfd = await b.opens({ protocol: "udp", to: "10.0.0.1:7", news: "once" });
  await until(
    () => ended.length === 1,
    () => show(a),
  );
  expect(ended).toEqual(["idle"]);
  expect(listener.connections).toBe(0);
  await listener.close();
  const before = a.counters()["layer3.rx.dropped.unopened"] as number;
  await b.sendto(sockfd, "again");
  await until(
    () => (a.counters()["layer3.rx.dropped.unopened"] as number) > before,
    () => show(a),
  );
});

test("malformed packets on the wire disturb nobody", async () => {
  const wire = createWire();
  const a = await start(wire, addresses.a);
  const b = await start(wire, addresses.b);
  const listener = await a.opens({
    protocol: "udp",
    port: 0,
    request: (sockfd, message, apo) => apo.sendto(sockfd, message.bytes),
  });
  for (let i = 0; i < 500; i += 1) wire.inject("10.0.0.1", Buffer.alloc(1 + (i % 200), i));
  const reply = await new Promise<string>((resolve) => {
    const to = target("10.0.0.1", listener.port);
    void b.opens({
      protocol: "udp",
      to,
      news: "still there?",
      request: (_, message) => resolve(message.text()),
    });
  });
  expect(reply).toBe("still there?");
  expect(sum(a, "layer3.rx.dropped.")).toBe(500);
});

test("when a worker dies its connections end, and its successor serves the port", async () => {
  const { a, b } = await startPair();
  const ended: CloseReason[] = [];
  const listener = await a.opens({
    protocol: "udp",
    port: 7,
    request: (sockfd, message, apo) => apo.sendto(sockfd, message.bytes),
    closed: (_, reason) => {
      ended.push(reason);
    },
    alarm() {},
  });
  const reply = await ask(b, "10.0.0.1:7", "before");
  expect(reply).toBe("before");
  const threads = a.threads.workers as unknown as { readonly workers: readonly (Worker | undefined)[] };
  const worker = threads.workers[0] as Worker;
  await worker.terminate();
  await until(
    () => ended.length === 1,
    () => show(a),
  );
  expect(ended[0]?.code).toBe("worker");
  // Whoever asks before the successor has opened the port is refused, and asks again.
  let answer: string | undefined;
  await until(
    () => {
      if (answer === undefined) void ask(b, "10.0.0.1:7", "after").then((text) => (answer ??= text));
      return answer !== undefined;
    },
    () => show(a),
  );
  expect(answer).toBe("after");
  expect(listener.connections).toBeGreaterThan(0);
});

test("the datagrams that wait in a worker are found again when it dies", async () => {
  const { a, b } = await startPair();
  let release = (): void => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const listener = await a.opens({ protocol: "udp", port: 7, request: () => held, closed() {}, alarm() {} });
  for (let client = 0; client < 4; client += 1) {
    const sockfd = await b.opens({ protocol: "udp", to: "10.0.0.1:7", closed() {} });
    for (let i = 0; i < 20; i += 1) await b.sendto(sockfd, Buffer.alloc(200));
  }
  // Of each connection one message is with the app and nineteen wait behind it.
  await until(
    () => a.counters()["layer2.receive.bytes"] === 4 * 20 * 200,
    () => show(a),
  );
  expect(listener.connections).toBe(4);
  expect(a.counters()["layer3.pool.frames-in-use"]).toBe(4 * 20);
  const threads = a.threads.workers as unknown as { readonly workers: readonly (Worker | undefined)[] };
  await (threads.workers[0] as Worker).terminate();
  await until(
    () => (a.counters()["layer3.pool.frames-in-use"] as number) <= 4,
    () => show(a),
  );
  release();
  await until(
    () => a.counters()["layer3.pool.frames-in-use"] === 0,
    () => show(a),
  );
});
