/** Flow suppression: a sender that goes on is held off while a handler is not done, in bounded memory. */
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import type { Framing } from "../../src/layer1-app/types.ts";
import { dial, framesInUse, startRuntime, until } from "./support.ts";

const kinds: [string, Framing, (message: Buffer) => Buffer][] = [
  ["raw", framing.raw(), (message) => message],
  ["line", framing.line(), (message) => Buffer.concat([message, Buffer.from("\n")])],
  [
    "length32",
    framing.length32(),
    (message) => Buffer.concat([Buffer.from([0, 0, message.length >> 8, message.length & 255]), message]),
  ],
  ["a function", (bytes) => (bytes.length >= 1000 ? 1000 : 0), (message) => message],
];

describe("a sender of many megabytes to a handler that is not done", () => {
  test.each(kinds)("%s: is held off, and goes on when it is", async (_name, kind, encode) => {
    const apo = await startRuntime();
    const { promise: release, resolve } = Promise.withResolvers<void>();
    let bytes = 0;
    let inHand = 0;
    const listener = await apo.opens({
      protocol: "tcp",
      port: 0,
      address: "127.0.0.1",
      framing: kind,
      async request(_sockfd, message) {
        inHand += 1;
        expect(inHand).toBe(1);
        bytes += message.bytes.length;
        await release;
        inHand -= 1;
      },
    });
    const client = await dial(listener.port);
    const message = encode(Buffer.alloc(1000, "m"));
    const total = 40_000;
    const batch = Buffer.concat(Array.from({ length: 100 }, () => message));
    for (let i = 0; i < total / 100; i += 1) client.socket.write(batch);
    const stream = total * message.length;
    await until("the sender is held off", () => (apo.counters()["layer2.receive.pauses"] as number) === 1);
    // What the kernel's buffers took is no longer ours to bound; what the runtime took is.
    const taken = apo.counters()["layer2.receive.bytes"] as number;
    await new Promise((done) => setTimeout(done, 100));
    expect(apo.counters()["layer2.receive.bytes"]).toBe(taken);
    expect(taken).toBeLessThan(400_000);
    expect(framesInUse(apo)).toBeLessThan(5);
    expect(client.socket.writableLength).toBeGreaterThan(stream / 3);
    resolve();
    await until("all has been handled", () => bytes === total * 1000);
    expect(apo.counters()["layer2.receive.bytes"]).toBe(stream);
  });

  test("does not hold up another connection", async () => {
    const apo = await startRuntime();
    const { promise: release, resolve } = Promise.withResolvers<void>();
    const listener = await apo.opens({
      protocol: "tcp",
      port: 0,
      address: "127.0.0.1",
      async request(sockfd, message) {
        if (message.bytes.length > 10) await release;
        else await apo.sendto(sockfd, message.bytes);
      },
    });
    const flood = await dial(listener.port);
    flood.socket.write(Buffer.alloc(20_000_000));
    await until("the flood is held off", () => (apo.counters()["layer2.receive.pauses"] as number) === 1);
    const other = await dial(listener.port);
    for (let i = 1; i <= 20; i += 1) {
      other.write("ping");
      await other.read(i * 4);
    }
    resolve();
  });

  test("with the pool empty, messages wait and none is lost", async () => {
    const apo = await startRuntime({ poolBytes: 2 ** 20 });
    const { promise: release, resolve } = Promise.withResolvers<void>();
    const sums = new Map<number, number>();
    const alarms: string[] = [];
    const listener = await apo.opens({
      protocol: "tcp",
      port: 0,
      address: "127.0.0.1",
      recvlen: 200_000,
      framing: framing.length32(),
      alarm: (alarm) => {
        alarms.push(alarm.code);
      },
      async request(sockfd, message) {
        await release;
        sums.set(sockfd, (sums.get(sockfd) ?? 0) + message.bytes.length);
      },
    });
    const clients = await Promise.all(Array.from({ length: 12 }, () => dial(listener.port)));
    const header = Buffer.alloc(4);
    header.writeUInt32BE(200_000);
    for (const client of clients)
      for (let i = 0; i < 3; i += 1) client.write(Buffer.concat([header, Buffer.alloc(200_000)]));
    await until("messages wait for frames", () => (apo.counters()["layer2.receive.starved"] as number) > 0);
    resolve();
    await until(
      "all are handled",
      () => [...sums.values()].reduce((sum, one) => sum + one, 0) === 12 * 600_000,
    );
    expect(alarms).toContain("frames");
  });
});
