/** TCP over the host link: messages in and out, ends, stale numbers, one message at a time. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ApoError } from "../../src/layer1-app/errors.ts";
import { framing } from "../../src/layer1-app/framing.ts";
import type { Framing, Message, Sockfd } from "../../src/layer1-app/types.ts";
import { dial, expectCode, recorder, startRuntime, until } from "./support.ts";

const local = { protocol: "tcp", port: 0, address: "127.0.0.1" } as const;

describe("a server", () => {
  test("answers lines, and says who is there", async () => {
    const apo = await startRuntime();
    const seen: string[] = [];
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      connected(_sockfd, peer) {
        seen.push(
          `${peer.protocol} ${peer.address} ${peer.localAddress}:${peer.localPort === listener.port}`,
        );
      },
      request: (sockfd, message, verbs) => verbs.sendto(sockfd, message.bytes),
    });
    const client = await dial(listener.port);
    client.write("one\r\ntwo\n");
    expect((await client.read(8)).toString()).toBe("one\ntwo\n");
    expect(seen).toEqual(["tcp 127.0.0.1 127.0.0.1:true"]);
    expect(listener.connections).toBe(1);
    expect(listener.address).toBe("127.0.0.1");
  });

  test("a client that ends its side at once still gets its echo, then the end", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      ...handlers,
      async request(sockfd, message) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        await apo.sendto(sockfd, message.bytes);
      },
    });
    const client = await dial(listener.port);
    client.socket.end("a\nb\nc\n");
    expect((await client.readToEnd()).toString()).toBe("a\nb\nc\n");
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason).toEqual({ code: "end" });
  });

  test("an end inside a message is told as one", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const listener = await apo.opens({ ...local, framing: framing.line(), ...handlers });
    const client = await dial(listener.port);
    client.socket.end("whole\nhalf");
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason.code).toBe("end");
    expect(ends[0]?.reason.error?.code).toBe("EPROTO");
    expect(ends[0]?.reason.error?.message).toContain("4 bytes");
  });

  test("a reset is told as one", async () => {
    const apo = await startRuntime();
    const { ends, handlers, connected } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const client = await dial(listener.port);
    await until("connected", () => connected.length === 1);
    client.socket.resetAndDestroy();
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason.code).toBe("reset");
    expect(ends[0]?.reason.error?.code).toBe("ECONNRESET");
  });

  test("without a request handler, what comes is read and dropped", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const client = await dial(listener.port);
    client.socket.end(Buffer.alloc(1_000_000));
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason.code).toBe("end");
  });

  test("listens on both families when it is given no address", async () => {
    const apo = await startRuntime();
    const addresses: string[] = [];
    const listener = await apo.opens({
      protocol: "tcp",
      port: 0,
      connected: (_sockfd, peer) => {
        addresses.push(peer.address);
      },
    });
    await dial(listener.port, "127.0.0.1");
    await until("the IPv4 client is there", () => addresses.length === 1);
    expect(addresses).toEqual(["127.0.0.1"]);
    if (listener.address !== "::") return;
    await dial(listener.port, "::1");
    await until("the IPv6 client is there", () => addresses.length === 2);
    expect(addresses[1]).toBe("::1");
  });
});

describe("one message at a time", () => {
  test("the next message waits until the handler's promise has settled; other connections do not", async () => {
    const apo = await startRuntime();
    const inHand = new Map<Sockfd, number>();
    let most = 0;
    let mostTogether = 0;
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      async request(sockfd, message) {
        const count = (inHand.get(sockfd) ?? 0) + 1;
        inHand.set(sockfd, count);
        most = Math.max(most, count);
        mostTogether = Math.max(
          mostTogether,
          [...inHand.values()].reduce((sum, one) => sum + one, 0),
        );
        const text = message.text();
        await new Promise((resolve) => setTimeout(resolve, 10));
        expect(message.text()).toBe(text);
        inHand.set(sockfd, count - 1);
        await apo.sendto(sockfd, text);
      },
    });
    const clients = await Promise.all([dial(listener.port), dial(listener.port), dial(listener.port)]);
    for (const client of clients) client.write("1\n2\n3\n4\n5\n");
    for (const client of clients) expect((await client.read(10)).toString()).toBe("1\n2\n3\n4\n5\n");
    expect(most).toBe(1);
    expect(mostTogether).toBeGreaterThan(1);
  });

  test("messages wait for `connected` too", async () => {
    const apo = await startRuntime();
    const order: string[] = [];
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      async connected() {
        await new Promise((resolve) => setTimeout(resolve, 20));
        order.push("connected");
      },
      request(_sockfd, message) {
        order.push(message.text());
      },
    });
    const client = await dial(listener.port);
    client.write("a\nb\n");
    await until("both lines are handled", () => order.length === 3);
    expect(order).toEqual(["connected", "a", "b"]);
  });
});

describe("a stale sockfd", () => {
  test("is refused by every verb that needs its connection, and never hits another", async () => {
    const apo = await startRuntime();
    const { ends, connected, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const first = await dial(listener.port);
    await until("connected", () => connected.length === 1);
    const stale = connected[0] as Sockfd;
    first.socket.end();
    await until("closed is told", () => ends.length === 1);
    const second = await dial(listener.port);
    await until("the second is there", () => connected.length === 2);
    const fresh = connected[1] as Sockfd;
    expect(fresh).not.toBe(stale);
    await expectCode("ESTALE", () => apo.sendto(stale, "x"));
    await expectCode("ESTALE", () => apo.peer(stale));
    await expectCode("ESTALE", () => apo.status(stale));
    await expectCode("ESTALE", () => apo.sendto(stale, { file: "/etc/hostname" }));
    expect(apo.queued(stale)).toBe(0);
    await apo.flushed(stale);
    await apo.close(stale);
    await apo.close(stale, { reset: true });
    void apo.sendto([stale, fresh], "both");
    expect((await second.read(4)).toString()).toBe("both");
    expect(apo.counters()["layer1.drop.stale"]).toBe(1);
    for (const nonsense of [0, -1, 2 ** 52, 16_777_215]) {
      await expectCode("ESTALE", () => apo.sendto(nonsense, "x"));
    }
  });

  test("after close, the app's own number is stale at once", async () => {
    const apo = await startRuntime();
    const { ends, connected, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const client = await dial(listener.port);
    await until("connected", () => connected.length === 1);
    const sockfd = connected[0] as Sockfd;
    void apo.sendto(sockfd, "last words");
    const done = apo.close(sockfd);
    await expectCode("ESTALE", () => apo.sendto(sockfd, "too late"));
    expect((await client.readToEnd()).toString()).toBe("last words");
    client.socket.end();
    await done;
    expect(ends).toEqual([{ sockfd, reason: { code: "closed" } }]);
  });

  test("a handler whose peer has gone meanwhile raises no alarm", async () => {
    const apo = await startRuntime();
    const alarms: string[] = [];
    let handled = 0;
    const listener = await apo.opens({
      ...local,
      alarm: (alarm) => {
        alarms.push(alarm.code);
      },
      async request(sockfd) {
        client.socket.resetAndDestroy();
        await until("the end is known", () => listener.connections === 0);
        await new Promise((resolve) => setTimeout(resolve, 10));
        handled += 1;
        await apo.sendto(sockfd, "anyone?");
      },
    });
    const client = await dial(listener.port);
    client.write("x");
    await until("handled", () => handled === 1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(alarms).toEqual([]);
  });
});

describe("a message too long", () => {
  test.each([
    ["line", framing.line(), `${"x".repeat(100)}\n`],
    ["line without an end", framing.line(), "x".repeat(100)],
    ["length16", framing.length16(), "\x00\x40"],
    ["length32", framing.length32(), "\x7f\x00\x00\x00"],
    ["a function", () => 0, "x".repeat(33)],
    ["a function that says how long", (bytes: Uint8Array) => (bytes.length > 0 ? 40 : 0), "xx"],
  ] as [string, Framing, string][])("%s: the connection closes with recvlen", async (_name, kind, data) => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    let requests = 0;
    const listener = await apo.opens({
      ...local,
      recvlen: 32,
      framing: kind,
      ...handlers,
      request() {
        requests += 1;
      },
    });
    const client = await dial(listener.port);
    client.write(Buffer.from(data, "latin1"));
    await client.readToEnd();
    client.socket.end();
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason.code).toBe("recvlen");
    expect(ends[0]?.reason.error?.code).toBe("EMSGSIZE");
    expect(requests).toBe(0);
  });
});

describe("messages over real sockets", () => {
  test("any split of the stream gives the same messages, built-in framing and function alike", async () => {
    const apo = await startRuntime();
    const lineFunction = (bytes: Uint8Array): number => bytes.indexOf(10) + 1;
    const heard: string[][] = [];
    const open = (kind: Framing) => {
      const texts: string[] = [];
      heard.push(texts);
      return apo.opens({
        ...local,
        framing: kind,
        request: (_sockfd: Sockfd, message: Message) => {
          texts.push(message.text().replace("\n", ""));
        },
      });
    };
    const listeners = [await open(framing.line()), await open(lineFunction)];
    const words = fc.array(
      fc.string({ maxLength: 30 }).map((word) => word.replace(/[\r\n]/g, "")),
      {
        minLength: 1,
        maxLength: 20,
      },
    );
    await fc.assert(
      fc.asyncProperty(words, fc.array(fc.nat(600), { maxLength: 6 }), async (sent, cuts) => {
        const stream = Buffer.from(`${sent.join("\n")}\n`);
        for (const [i, listener] of listeners.entries()) {
          const texts = heard[i] as string[];
          texts.length = 0;
          const client = await dial(listener.port);
          let from = 0;
          for (const end of [
            ...cuts.map((at) => at % (stream.length + 1)).sort((a, b) => a - b),
            stream.length,
          ]) {
            if (end > from) client.write(stream.subarray(from, end));
            from = end;
            await new Promise((resolve) => setImmediate(resolve));
          }
          await until("all messages have come", () => texts.length >= sent.length);
          expect(texts).toEqual(sent);
          client.socket.destroy();
        }
      }),
      { numRuns: 25 },
    );
  });

  test("a function's chunk with many messages is handled in order, also by promises", async () => {
    const apo = await startRuntime();
    const seen: number[] = [];
    const listener = await apo.opens({
      ...local,
      recvlen: 10,
      framing: (bytes) => (bytes.length >= 4 ? 4 : 0),
      async request(_sockfd, message) {
        const value = Buffer.from(message.bytes).readUInt32BE(0);
        if (value % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
        expect(Buffer.from(message.bytes).readUInt32BE(0)).toBe(value);
        seen.push(value);
      },
    });
    const client = await dial(listener.port);
    const count = 50_000;
    const stream = Buffer.alloc(count * 4);
    for (let i = 0; i < count; i += 1) stream.writeUInt32BE(i, i * 4);
    client.write(stream);
    await until("all are handled", () => seen.length === count);
    expect(seen.every((value, i) => value === i)).toBe(true);
    expect(apo.counters()["layer1.receive.chunks"]).toBeLessThan(200);
  });

  test("messages longer than a frame are put together", async () => {
    const apo = await startRuntime();
    const listener = await apo.opens({
      ...local,
      recvlen: 2_000_000,
      framing: framing.length32(),
      request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
    });
    const client = await dial(listener.port);
    const message = Buffer.alloc(1_000_003, "frame by frame ");
    const header = Buffer.alloc(4);
    header.writeUInt32BE(message.length);
    client.write(Buffer.concat([header, message]));
    const answer = await client.read(message.length + 4);
    expect(answer.equals(Buffer.concat([header, message]))).toBe(true);
  });

  test.each([
    [
      "a framing function that throws",
      () => {
        throw new Error("not my protocol");
      },
    ],
    ["one that returns nonsense", () => -3],
    ["one that returns a fraction", () => 1.5],
  ])("%s closes the connection with reason framing", async (_name, bad) => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const listener = await apo.opens({ ...local, framing: bad, ...handlers });
    const client = await dial(listener.port);
    client.write("hello");
    await client.readToEnd();
    client.socket.end();
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason.code).toBe("framing");
    expect(ends[0]?.reason.error).toBeInstanceOf(ApoError);
  });
});

describe("msgpack", () => {
  test("values travel both ways, and what is malformed closes its connection only", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const values: unknown[] = [];
    const listener = await apo.opens({
      ...local,
      framing: framing.msgpack(),
      ...handlers,
      request: (sockfd, message) => apo.sendto(sockfd, { got: message.value }),
    });
    const sockfd = await apo.opens({
      protocol: "tcp",
      to: { address: "127.0.0.1", port: listener.port },
      framing: framing.msgpack(),
      request(_sockfd, message) {
        values.push(message.value);
      },
    });
    const sent = [{ name: "ünïcode", list: [1, 2.5, null, true] }, "text", [1, 2, 3], 7];
    for (const value of sent) await apo.sendto(sockfd, value);
    await until("all came back", () => values.length === sent.length);
    expect(values).toEqual(sent.map((got) => ({ got })));
    const bad = await dial(listener.port);
    bad.write(Buffer.from([0xc1]));
    await bad.readToEnd();
    bad.socket.end();
    await until("the bad one is closed", () => ends.length === 1);
    expect(ends[0]?.reason.code).toBe("framing");
    await apo.sendto(sockfd, "still here");
    await until("the other goes on", () => values.length === sent.length + 1);
  });
});
