/**
 * Runtimes on a bad wire: UDP through everything that the wire does to packets, every datagram accounted for from the
 * app of one to the app of the other; three runtimes on one switch; a runtime against a mirror.
 */

import { afterEach, expect, test } from "vitest";
import { Runtime } from "../../src/layer1-app/runtime.ts";
import type { RuntimeOptions } from "../../src/layer1-app/types.ts";
import { createWire, type Wire } from "../../src/layer3-ip/links/mem.ts";

const runtimes: Runtime[] = [];

async function start(wire: Wire, address: string, options: RuntimeOptions = {}): Promise<Runtime> {
  const runtime = new Runtime({ link: "mem", wire, address, workers: 1, ...options });
  runtimes.push(runtime);
  await runtime.start();
  return runtime;
}

// After every test, whatever it did, all frames are back in the pools.
afterEach(async () => {
  for (const runtime of runtimes.splice(0)) {
    await runtime.close();
    expect(runtime.counters()["layer3.pool.frames-in-use"]).toBe(0);
  }
});

async function until(condition: () => boolean, what: () => string): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited too long: ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const count = (runtime: Runtime, name: string): number => runtime.counters()[`layer3.${name}`] as number;

/** All drops at the receiving side, by reason. */
function drops(runtime: Runtime): Record<string, number> {
  const all = Object.entries(runtime.counters()).filter(
    ([name, number]) => name.startsWith("layer3.rx.dropped.") && number > 0,
  );
  return Object.fromEntries(all.map(([name, number]) => [name.slice("layer3.rx.dropped.".length), number]));
}

/** A server that keeps what it is sent, and a client that sends numbers to it. */
async function startCounting(wire: Wire) {
  const server = await start(wire, "10.0.0.1/24");
  const client = await start(wire, "10.0.0.2/24");
  const got: string[] = [];
  const listener = await server.opens({
    protocol: "udp",
    port: 7,
    waiting: 1000,
    request: (_, message) => {
      got.push(message.text());
    },
  });
  const sockfd = await client.opens({ protocol: "udp", to: `10.0.0.1:${listener.port}` });
  const send = (first: number, number: number): void => {
    for (let i = 0; i < number; i += 1) void client.sendto(sockfd, String(first + i));
  };
  return { server, client, got, send };
}

/** Waits until everything that was sent has come or is counted as lost. */
async function settle(client: Runtime, server: Runtime, sent: number): Promise<void> {
  // Datagrams of one turn leave as a super-packet: whole over a good wire, in its pieces over a bad one.
  const datagrams = (): number => client.counters()["layer2.udp.sent"] ?? 0;
  const onWire = (): number => {
    const pieces = count(client, "tx.segments");
    const cut = pieces > 0 ? (client.counters()["layer2.udp.super-packets"] ?? 0) : 0;
    return count(client, "tx.packets") - cut + pieces;
  };
  const arrived = (): number =>
    onWire() +
    count(client, "wire.duplicated") -
    ["lost", "lostInBurst", "queueFull"].reduce((sum, name) => sum + count(client, `wire.${name}`), 0);
  await until(
    () => datagrams() === sent && count(server, "rx.packets") === arrived(),
    () => JSON.stringify([client.counters(), server.counters()]),
  );
}

/** Likewise where nothing is damaged or doubled: datagrams are counted, whatever they came in. */
async function settleUndamaged(client: Runtime, server: Runtime, sent: number): Promise<void> {
  const of = (runtime: Runtime, name: string): number => runtime.counters()[`layer2.udp.${name}`] ?? 0;
  await until(
    () => of(client, "sent") === sent && of(server, "received") === sent - count(client, "wire.lost"),
    () => JSON.stringify([client.counters(), server.counters()]),
  );
}

test("every datagram over a wire that does everything wrong is accounted for", async () => {
  const wire = createWire({
    seed: 11,
    delayMs: 2,
    jitterMs: 60,
    loss: 0.1,
    gilbertElliott: { p: 0.02, r: 0.3 },
    reorder: 0.05,
    reorderMs: 50,
    duplicate: 0.1,
    corrupt: 0.1,
    rateBitsPerSecond: 20_000_000,
  });
  const { server, client, got, send } = await startCounting(wire);
  send(0, 1000);
  await settle(client, server, 1000);
  const delivered = count(server, "rx.delivered");
  await until(
    () => got.length === delivered,
    () => `${got.length} of ${delivered}`,
  );
  // Damaged packets are all that the receiver drops, and it drops all of them.
  const damaged = Object.values(drops(server)).reduce((sum, number) => sum + number, 0);
  expect(damaged + delivered).toBe(count(server, "rx.packets"));
  // A damaged packet that was doubled is dropped twice.
  expect(damaged).toBeGreaterThanOrEqual(count(client, "wire.corrupted"));
  expect(damaged).toBeLessThanOrEqual(count(client, "wire.corrupted") + count(client, "wire.duplicated"));
  expect(Object.keys(drops(server))).toEqual(expect.arrayContaining(["headerChecksum", "udpChecksum"]));
  // What came is what was sent, but not in its order, some of it twice and some of it never.
  for (const text of got) expect(text).toMatch(/^\d{1,3}$/);
  const numbers = got.map(Number);
  expect(numbers).not.toEqual([...numbers].sort((x, y) => x - y));
  const different = new Set(numbers).size;
  expect(different).toBeLessThan(got.length);
  expect(different).toBeGreaterThan(600);
  expect(different).toBeLessThan(900);
});

test("a request and its reply each take the wire's delay", async () => {
  const wire = createWire({ delayMs: 15 });
  const server = await start(wire, "10.0.0.1/24");
  const client = await start(wire, "10.0.0.2/24");
  const listener = await server.opens({
    protocol: "udp",
    port: 0,
    request: (sockfd, message, apo) => apo.sendto(sockfd, message.bytes),
  });
  const { promise, resolve } = Promise.withResolvers<string>();
  const before = process.hrtime.bigint();
  await client.opens({
    protocol: "udp",
    to: `10.0.0.1:${listener.port}`,
    news: "there and back",
    request: (_, message) => resolve(message.text()),
  });
  expect(await promise).toBe("there and back");
  expect(Number(process.hrtime.bigint() - before)).toBeGreaterThanOrEqual(30e6);
});

test("a cable that is pulled while a runtime sends loses what is sent then, and nothing else", async () => {
  const wire = createWire();
  const { server, client, got, send } = await startCounting(wire);
  send(0, 50);
  await settleUndamaged(client, server, 50);
  wire.set({ loss: 1 });
  send(50, 50);
  await settleUndamaged(client, server, 100);
  wire.set({ loss: 0 });
  send(100, 50);
  await settleUndamaged(client, server, 150);
  await until(
    () => got.length === 100,
    () => `${got.length}`,
  );
  const kept = [...Array.from({ length: 50 }, (_, i) => i), ...Array.from({ length: 50 }, (_, i) => 100 + i)];
  expect(got.map(Number)).toEqual(kept);
  expect(count(client, "wire.lost")).toBe(50);
});

test("three runtimes on one wire reach each other, and nobody hears the others", async () => {
  const wire = createWire();
  const addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
  const all = await Promise.all(addresses.map((address) => start(wire, `${address}/24`)));
  expect(wire.endpoints).toBe(3);
  for (const [i, runtime] of all.entries()) {
    await runtime.opens({
      protocol: "udp",
      port: 7,
      request: (sockfd, message, apo) => apo.sendto(sockfd, `${addresses[i]} had ${message.text()}`),
    });
  }
  for (const [i, runtime] of all.entries()) {
    for (const [j, address] of addresses.entries()) {
      if (i === j) continue;
      const reply = await new Promise<string>((resolve) => {
        void runtime.opens({
          protocol: "udp",
          to: `${address}:7`,
          news: `${i}`,
          request: (_, message) => resolve(message.text()),
        });
      });
      expect(reply).toBe(`${address} had ${i}`);
    }
  }
  for (const runtime of all) {
    expect(count(runtime, "rx.packets")).toBe(4);
    expect(drops(runtime)).toEqual({});
  }
});

test("a runtime talks with itself by way of a mirror", async () => {
  const wire = createWire();
  wire.mirror("10.0.0.9, fd00::9");
  const runtime = await start(wire, "10.0.0.1/24, fd00::1/64");
  for (const to of ["10.0.0.9:7", "[fd00::9]:7"]) {
    const got: string[] = [];
    const sockfd = await runtime.opens({
      protocol: "udp",
      to,
      news: "first",
      request: (_, message) => {
        got.push(message.text());
      },
    });
    await runtime.sendto(sockfd, "second");
    await until(
      () => got.length === 2,
      () => JSON.stringify(runtime.counters()),
    );
    expect(got).toEqual(["first", "second"]);
  }
});

test("a server answers on every address of a prefix of its own, from that address", async () => {
  const wire = createWire();
  const server = await start(wire, "10.0.0.1/24", { prefixes: "10.1.0.0/16" });
  const client = await start(wire, "10.0.0.2/8");
  await server.opens({
    protocol: "udp",
    port: 7,
    request: (sockfd, _, apo) => apo.sendto(sockfd, apo.peer(sockfd).localAddress),
  });
  for (const address of ["10.1.0.1", "10.1.255.254", "10.0.0.1"]) {
    const reply = await new Promise<string>((resolve) => {
      void client.opens({
        protocol: "udp",
        to: `${address}:7`,
        news: "who are you?",
        request: (_, message) => resolve(message.text()),
      });
    });
    expect(reply).toBe(address);
  }
});
