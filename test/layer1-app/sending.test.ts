/** sendto of every kind: order, bounds, files and streams in constant memory, one copy for many receivers. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import type { Runtime } from "../../src/layer1-app/runtime.ts";
import type { Framing, Sockfd } from "../../src/layer1-app/types.ts";
import { dial, expectCode, recorder, startRuntime, type Talker, until } from "./support.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "apo-sending-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Pair {
  apo: Runtime;
  sockfd: Sockfd;
  client: Talker;
  ends: { reason: { code: string; error?: Error } }[];
}

/** A runtime with one connection, whose other end is a plain socket. */
async function pair(
  options: { framing?: Framing; sendlen?: number; poolBytes?: number } = {},
): Promise<Pair> {
  const { poolBytes, ...rest } = options;
  const apo = await startRuntime(poolBytes ? { poolBytes } : {});
  const { connected, ends, handlers } = recorder();
  const listener = await apo.opens({ protocol: "tcp", port: 0, address: "127.0.0.1", ...rest, ...handlers });
  const client = await dial(listener.port);
  await until("connected", () => connected.length === 1);
  return { apo, sockfd: connected[0] as Sockfd, client, ends };
}

describe("bytes and strings", () => {
  test("are copied before sendto returns", async () => {
    const { apo, sockfd, client } = await pair();
    const buffer = Buffer.from("first");
    void apo.sendto(sockfd, buffer);
    buffer.write("other");
    void apo.sendto(sockfd, "-second");
    expect((await client.read(12)).toString()).toBe("first-second");
  });

  test("the framing is added: a line's end only where it is missing", async () => {
    const { apo, sockfd, client } = await pair({ framing: framing.line() });
    void apo.sendto(sockfd, "a");
    void apo.sendto(sockfd, "b\n");
    void apo.sendto(sockfd, Buffer.from("c"));
    void apo.sendto(sockfd, "");
    expect((await client.read(7)).toString()).toBe("a\nb\nc\n\n");
  });

  test("lengths go before the message", async () => {
    const short = await pair({ framing: framing.length16() });
    void short.apo.sendto(short.sockfd, "hé");
    expect([...(await short.client.read(5))]).toEqual([0, 3, 104, 0xc3, 0xa9]);
    await expectCode("EMSGSIZE", () => short.apo.sendto(short.sockfd, Buffer.alloc(65_536)));
    const long = await pair({ framing: framing.length32() });
    void long.apo.sendto(long.sockfd, Buffer.alloc(65_536, 1));
    const got = await long.client.read(65_540);
    expect(got.readUInt32BE(0)).toBe(65_536);
    expect(got.subarray(4).every((byte) => byte === 1)).toBe(true);
  });

  test.each([0, 1, 2047, 2048, 2049, 65_535, 65_536, 65_537, 500_000])(
    "%d bytes arrive whole",
    async (size) => {
      const { apo, sockfd, client } = await pair();
      const bytes = Buffer.alloc(size, "0123456789abcdef\u00e9");
      void apo.sendto(sockfd, bytes);
      void apo.sendto(sockfd, "é".repeat(Math.floor(size / 2)));
      const got = await client.read(size + 2 * Math.floor(size / 2));
      expect(got.subarray(0, size).equals(bytes)).toBe(true);
      expect(got.subarray(size).toString()).toBe("é".repeat(Math.floor(size / 2)));
    },
  );

  test("what cannot be sent is refused by name", async () => {
    const { apo, sockfd } = await pair();
    for (const wrong of [7, null, undefined, {}, [1], new Date(), { file: 3 }]) {
      await expectCode("EINVAL", () => apo.sendto(sockfd, wrong));
    }
    await expectCode("EINVAL", () => apo.sendto([sockfd], { file: "x" }));
  });

  test("queued, status and flushed tell what is on its way", async () => {
    const { apo, sockfd, client } = await pair({ sendlen: 64 * 2 ** 20 });
    client.socket.pause();
    const bytes = Buffer.alloc(2 ** 20);
    for (let i = 0; i < 24; i += 1) await apo.sendto(sockfd, bytes);
    // The kernel takes some megabytes at most; the rest is ours.
    expect(apo.queued(sockfd)).toBeGreaterThan(0);
    expect(apo.status(sockfd).queuedBytes + apo.status(sockfd).writtenBytes).toBe(24 * 2 ** 20);
    let flushed = false;
    const done = apo.flushed(sockfd).then(() => {
      flushed = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(flushed).toBe(false);
    client.socket.resume();
    await done;
    expect(apo.queued(sockfd)).toBe(0);
    await client.read(24 * 2 ** 20);
  });

  test("flushed resolves when the connection ends instead", async () => {
    const { apo, sockfd, client, ends } = await pair({ sendlen: 64 * 2 ** 20 });
    client.socket.pause();
    for (let i = 0; i < 24; i += 1) await apo.sendto(sockfd, Buffer.alloc(2 ** 20));
    const done = apo.flushed(sockfd);
    client.socket.resetAndDestroy();
    await done;
    await until("closed is told", () => ends.length === 1);
  });

  test("beyond sendlen, sendto refuses and loses nothing of what it took", async () => {
    const { apo, sockfd, client } = await pair({ sendlen: 3_000_000 });
    client.socket.pause();
    let taken = 0;
    const refused = await expectCode("ENOBUFS", () => {
      for (let i = 0; i < 1000; i += 1) {
        void apo.sendto(sockfd, Buffer.alloc(1_000_000, i));
        taken += 1;
      }
    });
    expect(refused.message).toMatch(/sendlen/);
    expect(taken).toBeGreaterThanOrEqual(3);
    client.socket.resume();
    const got = await client.read(taken * 1_000_000);
    for (let i = 0; i < taken; i += 1) expect(got[i * 1_000_000]).toBe(i & 255);
    await apo.flushed(sockfd);
    void apo.sendto(sockfd, "again");
    await client.read(taken * 1_000_000 + 5);
  });

  test("with the pool empty, sends wait in order and their promises tell when they have gone", async () => {
    const { apo, sockfd, client } = await pair({ poolBytes: 2 ** 20, sendlen: 2 ** 30 });
    client.socket.pause();
    const waits: (Promise<void> | undefined)[] = [];
    const count = 200;
    for (let i = 0; i < count; i += 1) {
      const bytes = Buffer.alloc(100_000, i);
      waits.push(apo.sendto(sockfd, bytes));
      bytes.fill(0xff);
    }
    expect(waits.filter((wait) => wait).length).toBeGreaterThan(100);
    expect(apo.counters()["layer1.send.deferred"]).toBeGreaterThan(100);
    client.socket.resume();
    await Promise.all(waits);
    const got = await client.read(count * 100_000);
    for (let i = 0; i < count; i += 1) expect(got[i * 100_000 + 99_999]).toBe(i & 255);
  });
});

describe("many receivers", () => {
  test("get one shared copy, in order with what each gets alone", async () => {
    const apo = await startRuntime({ workers: 3 });
    const { connected, handlers } = recorder();
    const listener = await apo.opens({ protocol: "tcp", port: 0, address: "127.0.0.1", ...handlers });
    const clients = await Promise.all(Array.from({ length: 40 }, () => dial(listener.port)));
    await until("all are connected", () => connected.length === 40);
    const frame = Buffer.alloc(150_000, "shared ");
    for (const sockfd of connected) void apo.sendto(sockfd, "<");
    for (let i = 0; i < 5; i += 1) void apo.sendto(connected, frame);
    for (const sockfd of connected) void apo.sendto(sockfd, ">");
    for (const client of clients) {
      const got = await client.read(750_002);
      expect(got[0]).toBe(60);
      expect(got.subarray(1, 150_001).equals(frame)).toBe(true);
      expect(got[750_001]).toBe(62);
    }
    const before = apo.counters()["layer2.connections.accepted"];
    expect(before).toBe(40);
  });

  test("more of them than one small frame can list", async () => {
    const apo = await startRuntime();
    const { connected, handlers } = recorder();
    const listener = await apo.opens({ protocol: "tcp", port: 0, address: "127.0.0.1", ...handlers });
    const clients = await Promise.all(Array.from({ length: 300 }, () => dial(listener.port)));
    await until("all are connected", () => connected.length === 300);
    await apo.sendto(connected, "to each of you");
    for (const client of clients) expect((await client.read(14)).toString()).toBe("to each of you");
  });

  test("a receiver that does not read is passed over when it is full, the others are not", async () => {
    const apo = await startRuntime();
    const { connected, handlers } = recorder();
    const listener = await apo.opens({
      protocol: "tcp",
      port: 0,
      address: "127.0.0.1",
      sendlen: 1_000_000,
      ...handlers,
    });
    const slow = await dial(listener.port);
    slow.socket.pause();
    const quick = await dial(listener.port);
    await until("both are connected", () => connected.length === 2);
    const frame = Buffer.alloc(100_000);
    for (let i = 0; i < 200; i += 1) {
      await apo.sendto(connected, frame);
      await quick.read((i + 1) * 100_000);
    }
    expect(apo.counters()["layer1.drop.over-sendlen"]).toBeGreaterThan(0);
    slow.socket.destroy();
  });
});

describe("files", () => {
  const file = (name: string, bytes: Uint8Array | number): string => {
    const path = join(folder, name);
    if (typeof bytes === "number") {
      writeFileSync(path, "");
      truncateSync(path, bytes);
    } else {
      writeFileSync(path, bytes);
    }
    return path;
  };

  test("go out whole or in part, in order with other sends", async () => {
    const { apo, sockfd, client } = await pair();
    const bytes = Buffer.from(Uint8Array.from({ length: 700_001 }, (_, i) => (i * 31) & 255));
    const path = file("ordered", bytes);
    void apo.sendto(sockfd, "before");
    const first = apo.sendto(sockfd, { file: path });
    void apo.sendto(sockfd, "between");
    const second = apo.sendto(sockfd, { file: pathToFileURL(path), offset: 1000, length: 70_000 });
    void apo.sendto(sockfd, "after");
    const expected = Buffer.concat([
      Buffer.from("before"),
      bytes,
      Buffer.from("between"),
      bytes.subarray(1000, 71_000),
      Buffer.from("after"),
    ]);
    const got = await client.read(expected.length);
    expect(got.equals(expected)).toBe(true);
    await Promise.all([first, second]);
  });

  test("an empty file, and nothing of a file, are nothing", async () => {
    const { apo, sockfd, client } = await pair();
    await apo.sendto(sockfd, { file: file("empty", 0) });
    await apo.sendto(sockfd, { file: file("some", 100), length: 0 });
    void apo.sendto(sockfd, ".");
    expect((await client.read(1)).toString()).toBe(".");
  });

  test("what cannot be read is told, and the connection goes on", async () => {
    const { apo, sockfd, client } = await pair();
    const missing = join(folder, "missing");
    const error = await expectCode("ENOENT", () => apo.sendto(sockfd, { file: missing }));
    expect(error.message).toContain(missing);
    await expectCode("EINVAL", () => apo.sendto(sockfd, { file: folder }));
    await expectCode("EINVAL", () => apo.sendto(sockfd, { file: file("short", 10), length: 11 }));
    await expectCode("EINVAL", () => apo.sendto(sockfd, { file: missing, offset: -1 }));
    // A promise that nobody awaits must not end the process either.
    void apo.sendto(sockfd, { file: missing });
    void apo.sendto(sockfd, "on");
    expect((await client.read(2)).toString()).toBe("on");
  });

  test("a large file goes out in constant memory, and only as fast as it is read", async () => {
    const { apo, sockfd, client } = await pair();
    const size = 256 * 2 ** 20;
    const sent = apo.sendto(sockfd, { file: file("large", size) });
    let most = 0;
    let received = 0;
    client.socket.on("data", (bytes: Buffer) => {
      client.chunks.length = 0;
      received += bytes.length;
      most = Math.max(most, apo.counters()["layer3.pool.frames-in-use"] as number);
    });
    await until("all has come", () => received === size);
    await sent;
    // Two reads of four 64 KiB frames, and what the transport has not confirmed yet.
    expect(most).toBeLessThan(40);
  });

  test("a connection that ends in the middle of a file ends the file", async () => {
    const { apo, sockfd, client, ends } = await pair();
    client.socket.pause();
    const sent = apo.sendto(sockfd, { file: file("cut", 64 * 2 ** 20) });
    void apo.sendto(sockfd, "behind it");
    await until("some of it is out", () => (apo.counters()["layer2.send.file-bytes"] as number) > 0);
    client.socket.resetAndDestroy();
    await expectCode("ECONNRESET", () => sent);
    await until("closed is told", () => ends.length === 1);
  });
});

describe("streams", () => {
  test("async iterables and web streams go out in order, slices of any size", async () => {
    const { apo, sockfd, client } = await pair();
    async function* numbers(): AsyncGenerator<Uint8Array | string> {
      yield "one ";
      yield Buffer.alloc(300_000, "x");
      await new Promise((resolve) => setTimeout(resolve, 5));
      yield " two";
    }
    const web = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(Buffer.from("web"));
        controller.close();
      },
    });
    void apo.sendto(sockfd, "<");
    const first = apo.sendto(sockfd, numbers());
    const mid = apo.sendto(sockfd, "|");
    const second = apo.sendto(sockfd, web);
    const done = apo.flushed(sockfd);
    const closed = apo.close(sockfd);
    const got = await client.readToEnd();
    expect(got.length).toBe(300_000 + 13);
    expect(got.subarray(0, 5).toString()).toBe("<one ");
    expect(got.subarray(-9).toString()).toBe("x two|web");
    client.socket.end();
    await Promise.all([first, mid, second, done, closed]);
  });

  test("are pulled only as the peer reads", async () => {
    const { apo, sockfd, client } = await pair();
    client.socket.pause();
    let pulled = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (let i = 0; i < 1000; i += 1) {
        pulled += 1;
        yield Buffer.alloc(100_000, i);
      }
    }
    const sent = apo.sendto(sockfd, endless());
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(pulled).toBeLessThan(200);
    expect(apo.queued(sockfd)).toBeLessThan(1_000_000);
    client.socket.resume();
    await client.read(100_000_000);
    await sent;
    expect(pulled).toBe(1000);
  });

  test("an iterable that throws resets the connection and is reported", async () => {
    const { apo, sockfd, client, ends } = await pair();
    async function* broken(): AsyncGenerator<string> {
      yield "half";
      throw new Error("disk on fire");
    }
    const error = await expectCode("EHANDLER", () => apo.sendto(sockfd, broken()));
    expect(error.message).toContain("disk on fire");
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason.code).toBe("handler");
    expect(ends[0]?.reason.error?.message).toContain("disk on fire");
    await until("the peer knows", () => client.closed || client.ended);
  });

  test("an iterable is told to stop when the connection ends", async () => {
    const { apo, sockfd, client } = await pair();
    client.socket.pause();
    let stopped = false;
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.alloc(100_000);
      } finally {
        stopped = true;
      }
    }
    const sent = apo.sendto(sockfd, endless());
    await until("it has filled up", () => apo.queued(sockfd) > 0);
    client.socket.resetAndDestroy();
    await expectCode("ESTALE", () => sent);
    expect(stopped).toBe(true);
  });

  test("what is no piece of a stream is refused", async () => {
    const { apo, sockfd, ends } = await pair();
    async function* wrong(): AsyncGenerator<unknown> {
      yield 7;
    }
    await expectCode("EHANDLER", () => apo.sendto(sockfd, wrong()));
    await until("closed is told", () => ends.length === 1);
  });
});
