/**
 * Attacks on a server on a wire, while legitimate clients go on: forged SYNs, readers that do not read, one source that
 * wants all connections, storms of resets. What the guard does about each, and whom it tells.
 */
import { afterEach, describe, expect, test } from "vitest";
import { Runtime } from "../../../src/layer1-app/runtime.ts";
import type { Alarm, Apo, RuntimeOptions } from "../../../src/layer1-app/types.ts";
import { createWire, type Wire } from "../../../src/layer3-ip/links/mem.ts";
import { slowChecksum } from "../../layer3-ip/packets.ts";

const runtimes: Runtime[] = [];
const server = "10.0.0.1";

afterEach(async () => {
  for (const runtime of runtimes.splice(0)) {
    await runtime.close();
    expect(runtime.counters()["layer3.pool.frames-in-use"]).toBe(0);
  }
});

async function start(wire: Wire, address: string, options: RuntimeOptions = {}): Promise<Runtime> {
  const runtime = new Runtime({ link: "mem", wire, address: `${address}/8`, workers: 1, ...options });
  runtimes.push(runtime);
  await runtime.start();
  return runtime;
}

async function until(condition: () => boolean, what: () => string): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited too long: ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function nonZero(runtime: Apo): string {
  return JSON.stringify(Object.fromEntries(Object.entries(runtime.counters()).filter(([, n]) => n > 0)));
}

/** A server that answers each request with its own bytes. */
async function echo(runtime: Runtime, port = 80): Promise<Alarm[]> {
  const alarms: Alarm[] = [];
  await runtime.opens({
    protocol: "tcp",
    port,
    backlog: 256,
    request: (sockfd, message, apo) => apo.sendto(sockfd, message.bytes),
    alarm: (alarm) => {
      alarms.push(alarm);
    },
  });
  return alarms;
}

/** One legitimate client: connects, asks, gets its answer. */
function isServed(client: Runtime, to = `${server}:80`): Promise<boolean> {
  return new Promise((resolve) => {
    client
      .opens({
        protocol: "tcp",
        to,
        news: "hello",
        connectMs: 20_000,
        request: (sockfd, message, apo) => {
          resolve(message.text() === "hello");
          apo.close(sockfd);
        },
        closed: () => resolve(false),
      })
      .catch(() => resolve(false));
  });
}

/** A bare TCP segment with what is given for addresses; the same buffer each time. */
class Segments {
  private readonly packet = Buffer.alloc(40);
  private readonly pseudo = Buffer.alloc(32);

  make(from: number, fromPort: number, flags: number): Buffer {
    const { packet, pseudo } = this;
    packet.fill(0);
    packet.writeUInt8(0x45, 0);
    packet.writeUInt16BE(40, 2);
    packet.writeUInt8(57, 8);
    packet.writeUInt8(6, 9);
    packet.writeUInt32BE(from, 12);
    packet.writeUInt32BE(0x0a000001, 16);
    packet.writeUInt16BE(slowChecksum(packet.subarray(0, 20)), 10);
    packet.writeUInt16BE(fromPort, 20);
    packet.writeUInt16BE(80, 22);
    packet.writeUInt32BE((from * 2_654_435_761) >>> 0, 24);
    packet.writeUInt32BE(flags === 16 ? fromPort * 7_777 : 0, 28);
    packet.writeUInt16BE(0x5000 | flags, 32);
    packet.writeUInt16BE(65_535, 34);
    packet.copy(pseudo, 0, 12, 20);
    pseudo.writeUInt16BE(6, 8);
    pseudo.writeUInt16BE(20, 10);
    packet.copy(pseudo, 12, 20, 40);
    packet.writeUInt16BE(slowChecksum(pseudo), 36);
    return packet;
  }
}

const synFlag = 2;
const rstFlag = 4;
const ackFlag = 16;

/** Goes on with `each` between everything else, until `stop` is called; how often it did. */
function flood(each: (n: number) => void): () => number {
  let count = 0;
  let running = true;
  const turn = (): void => {
    if (!running) return;
    const end = performance.now() + 2;
    while (performance.now() < end) {
      each(count);
      count += 1;
    }
    setImmediate(turn);
  };
  turn();
  return () => {
    running = false;
    return count;
  };
}

describe("forged SYNs", () => {
  test("keep nothing here, 99 of 100 clients are served meanwhile, and the operator is told", {
    timeout: 180_000,
  }, async () => {
    const wire = createWire();
    // Memory for a few thousand handshakes at most: if forged SYNs were kept, there would be none for clients.
    const one = await start(wire, server, { memoryBytes: 12 * 2 ** 20, tcp: { synBacklog: 65_536 } });
    const client = await start(wire, "10.0.0.2");
    const alarms = await echo(one);
    const segments = new Segments();
    const stop = flood((n) => {
      // From all over 10.128.0.0/9, where nobody is: what is answered goes nowhere.
      const from = 0x0a800000 + (Math.imul(n, 40_503) & 0x7fffff);
      wire.inject(server, segments.make(from, 1024 + (n % 60_000), synFlag));
    });
    await until(
      () => (one.counters()["layer2.guard.cookies"] as number) > 1000,
      () => nonZero(one),
    );
    let served = 0;
    const clients = 300;
    for (let n = 0; n < clients; n += 20) {
      const answers = await Promise.all(Array.from({ length: 20 }, () => isServed(client)));
      served += answers.filter((answer) => answer).length;
    }
    await until(
      () => alarms.length > 0,
      () => nonZero(one),
    );
    const count = stop();
    expect(served).toBeGreaterThanOrEqual(0.99 * clients);
    expect(count).toBeGreaterThan(10_000);
    expect(one.guard.attacks()).toMatchObject([{ kind: "syn-flood", from: "", isOver: false }]);
    expect(alarms[0]).toMatchObject({ code: "attack", attack: { kind: "syn-flood" } });
    expect(alarms[0]?.text).toMatch(/^SYN flood: \d+ a second, from many sources, since /);
    // Forged addresses are nobody's fault.
    expect(one.guard.blocks()).toEqual([]);
    const { kept, ceiling } = one.guard.memory();
    expect(kept).toBeLessThan(ceiling);
  });
});

describe("peers that do not read", () => {
  test("never make us keep more than the ceiling; the worst are ended and blocked, others are served", async () => {
    const wire = createWire();
    const memoryBytes = 16 * 2 ** 20;
    const one = await start(wire, server, { memoryBytes, poolBytes: 256 * 2 ** 20 });
    const client = await start(wire, "10.0.0.2");
    const attacker = await start(wire, "10.0.0.66");
    const alarms = await echo(one);
    const heavy = Buffer.alloc(256 * 1024);
    let ended = 0;
    await one.opens({
      protocol: "tcp",
      port: 81,
      backlog: 256,
      request: (sockfd, _, apo) => apo.sendto(sockfd, heavy),
      closed: (_, reason) => {
        if (reason.error?.code === "ENOBUFS") ended += 1;
      },
    });
    // Their handlers never come to an end: what follows the first message stays in their windows and ours.
    const held: (() => void)[] = [];
    let most = 0;
    let refused = 0;
    const tries: Promise<unknown>[] = [];
    for (let n = 0; n < 400; n += 1) {
      const opened = attacker.opens({
        protocol: "tcp",
        to: `${server}:81`,
        news: "everything",
        recvlen: 2048,
        recvBuffer: 4096,
        connectMs: 3000,
        request: () => new Promise<void>((resolve) => held.push(resolve)),
      });
      tries.push(
        opened.catch(() => {
          refused += 1;
        }),
      );
      if (n % 8 === 7) await new Promise((resolve) => setTimeout(resolve, 10));
      most = Math.max(most, one.guard.memory().kept);
    }
    let served = 0;
    for (let n = 0; n < 50; n += 1) {
      served += (await isServed(client)) ? 1 : 0;
      most = Math.max(most, one.guard.memory().kept);
    }
    await until(
      () => one.guard.blocks().length > 0,
      () => nonZero(one),
    );
    expect(most).toBeLessThanOrEqual(memoryBytes);
    expect(most).toBeGreaterThan(memoryBytes / 2);
    expect(served).toBeGreaterThanOrEqual(49);
    expect(ended).toBeGreaterThan(0);
    expect(one.counters()["layer2.guard.evicted"]).toBeGreaterThanOrEqual(ended);
    expect(one.guard.blocks()).toMatchObject([{ prefix: "10.0.0.66", reason: "slow-read" }]);
    expect(one.guard.verdict("10.0.0.66")).toBe("blocked");
    expect(alarms.map((alarm) => alarm.attack?.kind)).toContain("memory");
    expect(one.guard.trace().find((trace) => trace.source === "10.0.0.66")?.blockedUntil).toBeInstanceOf(
      Date,
    );
    for (const resolve of held) resolve();
    await attacker.close();
    await Promise.all(tries);
    expect(refused).toBeLessThanOrEqual(400);
  });
});

describe("one source that wants all connections", () => {
  test("gets as many as its limit, and is blocked for a time when it goes on", async () => {
    const wire = createWire();
    const tcp = { sourceConnections: 50, blockMs: 1500 };
    const one = await start(wire, server, { guard: { tcp } });
    const client = await start(wire, "10.0.0.2");
    const attacker = await start(wire, "10.0.0.66");
    await echo(one);
    const opened = await Promise.allSettled(
      Array.from({ length: 50 }, () => attacker.opens({ protocol: "tcp", to: `${server}:80` })),
    );
    expect(opened.filter(({ status }) => status === "fulfilled")).toHaveLength(50);
    expect(await isServed(client)).toBe(true);
    // A SYN of one who has all that he may have is not answered.
    await expect(
      attacker.opens({ protocol: "tcp", to: `${server}:80`, connectMs: 500 }),
    ).rejects.toMatchObject({ code: "ETIMEDOUT" });
    expect(one.counters()["layer2.guard.syn-source"]).toBeGreaterThan(0);
    // Those that got through the handshake at once, in spite of that, prove whose address it is.
    await attacker.close();
    const again = await start(wire, "10.0.0.67");
    const many = Array.from({ length: 400 }, () =>
      again.opens({ protocol: "tcp", to: `${server}:80`, connectMs: 1000 }).catch(() => undefined),
    );
    await until(
      () => one.guard.blocks().length > 0,
      () => nonZero(one),
    );
    expect(one.guard.blocks()).toMatchObject([{ prefix: "10.0.0.67", reason: "connection-flood" }]);
    expect(one.counters()["layer2.guard.refused-source"]).toBeGreaterThan(0);
    expect(await isServed(client)).toBe(true);
    await Promise.all(many);
    await again.close();
    await until(
      () => one.guard.verdict("10.0.0.67") === "unlisted",
      () => JSON.stringify(one.guard.blocks()),
    );
  });
});

describe("storms", () => {
  test.each([
    ["reset-storm", rstFlag],
    ["stray-segments", ackFlag],
  ] as const)("of %s are told with their sender, and connections go on", async (kind, flags) => {
    const wire = createWire();
    const one = await start(wire, server, { guard: { tcp: { alarmStrays: 500 } } });
    const client = await start(wire, "10.0.0.2");
    const alarms = await echo(one);
    const segments = new Segments();
    const stop = flood((n) =>
      wire.inject(server, segments.make(0x0a800007, 1024 + (Math.imul(n, 7) % 60_000), flags)),
    );
    await until(
      () => alarms.length > 0,
      () => nonZero(one),
    );
    expect(await isServed(client)).toBe(true);
    stop();
    expect(alarms[0]?.attack).toMatchObject({ kind, from: "10.128.0.7", distance: 7 });
    await until(
      () => one.guard.trace().some((trace) => (trace.reasons[kind] ?? 0) > 0),
      () => JSON.stringify(one.guard.trace()),
    );
    await until(
      () => one.guard.attacks().length === 0,
      () => JSON.stringify(one.guard.attacks()),
    );
  });
});
