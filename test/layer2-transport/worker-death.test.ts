/**
 * A layer-2 worker that is killed while TCP connections of a raw link are busy: only its own close, with a message,
 * and new ones are served at once. Both ends are ours, on a wire in memory.
 */
import { afterEach, describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import { Runtime } from "../../src/layer1-app/runtime.ts";
import type { Alarm, CloseReason, Sockfd } from "../../src/layer1-app/types.ts";
import { createWire, type Wire } from "../../src/layer2-transport/index.ts";

const runtimes: Runtime[] = [];

afterEach(async () => {
  const ended = runtimes.splice(0).reverse();
  for (const runtime of ended) {
    const inUse = (): number => runtime.counters()["layer3.pool.frames-in-use"] as number;
    // Whoever held a frame when it died, it is found and given back.
    await until("every frame is back in the pool", () => inUse() === 0).finally(() => runtime.close());
  }
});

async function join(wire: Wire, address: string, workers: number): Promise<Runtime> {
  const runtime = new Runtime({ link: "mem", wire, address, workers, appWorkers: 1 });
  await runtime.start();
  runtimes.push(runtime);
  return runtime;
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const lastMs = performance.now() + 60_000;
  while (!condition()) {
    if (performance.now() > lastMs) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** An echo server of lines, and clients that keep what they hear. */
class Bench {
  readonly server: Runtime;
  readonly client: Runtime;
  readonly serverEnds: { sockfd: Sockfd; reason: CloseReason }[] = [];
  readonly clientEnds = new Map<Sockfd, CloseReason>();
  readonly answers = new Map<Sockfd, number>();
  readonly accepted = new Set<Sockfd>();
  readonly alarms: Alarm[] = [];

  constructor(server: Runtime, client: Runtime) {
    this.server = server;
    this.client = client;
  }

  async listen(): Promise<void> {
    await this.server.opens({
      protocol: "tcp",
      port: 7,
      backlog: 1024,
      framing: framing.line(),
      connected: (sockfd) => void this.accepted.add(sockfd),
      request: (sockfd, message) => this.server.sendto(sockfd, message.bytes),
      closed: (sockfd, reason) => {
        expect(this.accepted.delete(sockfd)).toBe(true);
        this.serverEnds.push({ sockfd, reason });
      },
      alarm: (alarm) => {
        if (alarm.code === "worker") this.alarms.push(alarm);
      },
    });
  }

  connect(): Promise<Sockfd> {
    return this.client.opens({
      protocol: "tcp",
      to: "10.1.0.1:7",
      framing: framing.line(),
      request: (sockfd) => void this.answers.set(sockfd, (this.answers.get(sockfd) ?? 0) + 1),
      closed: (sockfd, reason) => void this.clientEnds.set(sockfd, reason),
    });
  }

  async connectMany(count: number): Promise<Sockfd[]> {
    const sockfds: Sockfd[] = [];
    while (sockfds.length < count) {
      const batch = Math.min(250, count - sockfds.length);
      sockfds.push(...(await Promise.all(Array.from({ length: batch }, () => this.connect()))));
    }
    await until("all are accepted", () => this.accepted.size === count);
    return sockfds;
  }

  /** Sends to each, and waits for the answers of those that are not to end. */
  async askAll(sockfds: readonly Sockfd[]): Promise<void> {
    const before = new Map(this.answers);
    for (let at = 0; at < sockfds.length; at += 500) {
      const some = sockfds.slice(at, at + 500);
      for (const sockfd of some) void this.client.sendto(sockfd, "hello");
      await until("each has its answer", () =>
        some.every((sockfd) => (this.answers.get(sockfd) ?? 0) > (before.get(sockfd) ?? 0)),
      );
    }
  }
}

async function start(workers: number): Promise<Bench> {
  const wire = createWire();
  const bench = new Bench(await join(wire, "10.1.0.1/24", workers), await join(wire, "10.1.0.2/24", 1));
  await bench.listen();
  return bench;
}

/** Of the server's worker `index`. */
function ownedBy(runtime: Runtime, index: number, sockfd: Sockfd): boolean {
  return new Int32Array(runtime.threads.owners)[(sockfd & 0xffffff) >>> 20] === index + 1;
}

describe("a worker of a raw link that dies under load", () => {
  test.each([
    ["a few hundred connections", 300],
    ["tens of thousands of connections", 12_000],
  ])("of two, with %s", { timeout: 180_000 }, async (_name, count) => {
    const bench = await start(2);
    const { server, client, serverEnds, clientEnds } = bench;
    const sockfds = await bench.connectMany(count);
    await bench.askAll(sockfds);
    const doomed = new Set([...bench.accepted].filter((sockfd) => ownedBy(server, 1, sockfd)));
    expect(doomed.size).toBeGreaterThan(count / 8);
    expect(doomed.size).toBeLessThan(count);

    for (const sockfd of sockfds.slice(0, 500)) void client.sendto(sockfd, "under load");
    await server.threads.workers.kill(1);
    // New ones are served while the old one's shards may still be gone over.
    const fresh = await Promise.all(Array.from({ length: 40 }, () => bench.connect()));
    await bench.askAll(fresh);

    await until("the ends are told", () => serverEnds.length === doomed.size);
    for (const { sockfd, reason } of serverEnds) {
      expect(doomed.has(sockfd)).toBe(true);
      expect(reason.code).toBe("worker");
    }
    expect(bench.alarms.length).toBe(1);
    // Who sends to one that is gone is told so; the others have noticed nothing.
    const left = new Set(sockfds);
    for (const sockfd of sockfds) if (!clientEnds.has(sockfd)) void client.sendto(sockfd, "still there?");
    await until("the gone ones' peers know", () => clientEnds.size === doomed.size);
    for (const [sockfd, reason] of clientEnds) {
      expect(reason.code).toBe("reset");
      left.delete(sockfd);
    }
    expect(left.size).toBe(count - doomed.size);
    await bench.askAll([...left, ...fresh]);
    expect(serverEnds.length).toBe(doomed.size);
    expect(bench.accepted.size).toBe(count - doomed.size + fresh.length);
  });

  test("the only one: its successor serves, again and again", { timeout: 120_000 }, async () => {
    const bench = await start(1);
    for (let round = 1; round <= 3; round += 1) {
      await bench.askAll(await bench.connectMany(100));
      await bench.server.threads.workers.kill(0);
      await until("the ends are told", () => bench.serverEnds.length === 100 * round);
      expect(bench.accepted.size).toBe(0);
      expect(bench.serverEnds.every(({ reason }) => reason.code === "worker")).toBe(true);
      await until("its successor has its shards", () =>
        new Int32Array(bench.server.threads.owners).every((owner) => owner === 1),
      );
    }
    await bench.askAll(await bench.connectMany(100));
  });

  test("shards come back to a successor when nobody uses them", { timeout: 120_000 }, async () => {
    const bench = await start(2);
    const owners = new Int32Array(bench.server.threads.owners);
    expect([...owners].filter((owner) => owner === 2).length).toBe(8);
    await bench.server.threads.workers.kill(1);
    await until("they are the other's", () => owners.every((owner) => owner === 1));
    await until("they are back", () => [...owners].filter((owner) => owner === 2).length === 8);
    const sockfds = await bench.connectMany(100);
    await bench.askAll(sockfds);
    expect([...bench.accepted].some((sockfd) => ownedBy(bench.server, 1, sockfd))).toBe(true);
  });
});
