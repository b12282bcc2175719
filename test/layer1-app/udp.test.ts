/** UDP over the host link: a connection is a peer; datagrams are messages; silence ends it. */
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { afterEach, describe, expect, test } from "vitest";
import type { Sockfd } from "../../src/layer1-app/types.ts";
import { expectCode, recorder, startRuntime, until } from "./support.ts";

const local = { protocol: "udp", port: 0, address: "127.0.0.1" } as const;
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});

/** A plain UDP socket that keeps what it hears. */
async function peer(port: number): Promise<{ socket: Socket; heard: string[] }> {
  const socket = createSocket("udp4");
  const heard: string[] = [];
  socket.on("message", (bytes) => heard.push(bytes.toString()));
  socket.on("error", () => {});
  sockets.push(socket);
  socket.connect(port, "127.0.0.1");
  await once(socket, "connect");
  return { socket, heard };
}

describe("udp", () => {
  test("a server hears each peer as a connection, and answers it", async () => {
    const apo = await startRuntime();
    const { connected, handlers } = recorder();
    const listener = await apo.opens({
      ...local,
      ...handlers,
      request: (sockfd, message) => apo.sendto(sockfd, `${message.text()}!`),
    });
    const one = await peer(listener.port);
    const two = await peer(listener.port);
    one.socket.send("a");
    one.socket.send("");
    two.socket.send("b");
    await until("all are answered", () => one.heard.length === 2 && two.heard.length === 1);
    expect(one.heard).toEqual(["a!", "!"]);
    expect(two.heard).toEqual(["b!"]);
    expect(connected.length).toBe(2);
    expect(listener.connections).toBe(2);
    expect(apo.peer(connected[0] as Sockfd)).toMatchObject({ protocol: "udp", address: "127.0.0.1" });
  });

  test("both families are served when no address is given", async () => {
    const apo = await startRuntime();
    const seen: string[] = [];
    const listener = await apo.opens({
      protocol: "udp",
      port: 0,
      connected: (_sockfd, from) => {
        seen.push(from.address);
      },
      request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
    });
    const client = await peer(listener.port);
    client.socket.send("ping");
    await until("the answer is back", () => client.heard.length === 1);
    expect(seen).toEqual(["127.0.0.1"]);
  });

  test("a client sends its news first, and both sides talk", async () => {
    const apo = await startRuntime();
    const heard: string[] = [];
    const listener = await apo.opens({
      ...local,
      request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
    });
    const sockfd = await apo.opens({
      protocol: "udp",
      to: `127.0.0.1:${listener.port}`,
      news: "hello",
      request(_sockfd, message) {
        heard.push(message.text());
      },
    });
    void apo.sendto(sockfd, "again");
    await until("both are echoed", () => heard.length === 2);
    expect(heard).toEqual(["hello", "again"]);
    await apo.close(sockfd);
    await expectCode("ESTALE", () => apo.sendto(sockfd, "x"));
  });

  test("nobody at the far end is told as refused", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const listener = await apo.opens(local);
    const { port } = listener;
    await listener.close();
    const sockfd = await apo.opens({ protocol: "udp", to: `127.0.0.1:${port}`, ...handlers, idleMs: 0 });
    void apo.sendto(sockfd, "anyone?");
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason).toMatchObject({ code: "refused", error: { code: "ECONNREFUSED" } });
  });

  test("a silent connection is closed with idle", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const listener = await apo.opens({ ...local, idleMs: 60, ...handlers });
    const client = await peer(listener.port);
    client.socket.send("x");
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason).toEqual({ code: "idle" });
    expect(listener.connections).toBe(0);
  });

  test("datagrams beyond those that may wait are dropped, counted and told", async () => {
    const apo = await startRuntime();
    const { promise: release, resolve } = Promise.withResolvers<void>();
    const texts: string[] = [];
    const alarms: string[] = [];
    const listener = await apo.opens({
      ...local,
      waiting: 4,
      alarm: (alarm) => {
        alarms.push(alarm.code);
      },
      async request(_sockfd, message) {
        texts.push(message.text());
        await release;
      },
    });
    const client = await peer(listener.port);
    for (let i = 0; i < 20; i += 1) client.socket.send(String(i));
    await until("some are dropped", () => (apo.counters()["layer2.drop.waiting"] as number) >= 15);
    resolve();
    await until("the others are handled", () => texts.length === 5);
    expect(texts).toEqual(["0", "1", "2", "3", "4"]);
    await until("the operator is told", () => alarms.includes("udp-overflow"));
  });

  test("a datagram over recvlen is dropped and counted, the connection goes on", async () => {
    const apo = await startRuntime();
    const texts: string[] = [];
    const listener = await apo.opens({
      ...local,
      recvlen: 10,
      request(_sockfd, message) {
        texts.push(message.text());
      },
    });
    const client = await peer(listener.port);
    client.socket.send("x".repeat(11));
    client.socket.send("short");
    await until("the short one is handled", () => texts.length === 1);
    expect(texts).toEqual(["short"]);
    expect(apo.counters()["layer2.drop.recvlen"]).toBe(1);
  });

  test("what no datagram can carry is refused", async () => {
    const apo = await startRuntime();
    const listener = await apo.opens(local);
    const sockfd = await apo.opens({ protocol: "udp", to: `127.0.0.1:${listener.port}` });
    await expectCode("EMSGSIZE", () => apo.sendto(sockfd, Buffer.alloc(65_508)));
    await expectCode("EINVAL", () => apo.sendto(sockfd, { file: "/etc/hostname" }));
    await apo.sendto(sockfd, Buffer.alloc(65_507));
    await apo.flushed(sockfd);
  });

  test("one message to many peers, over several workers that share the port", async () => {
    const apo = await startRuntime({ workers: 3 });
    const { connected, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const clients = await Promise.all(Array.from({ length: 20 }, () => peer(listener.port)));
    for (const client of clients) client.socket.send("hello");
    await until("all are known", () => connected.length === 20);
    for (let tick = 0; tick < 3; tick += 1) void apo.sendto(connected, `tick ${tick}`);
    await until("all hear every tick", () => clients.every((client) => client.heard.length === 3));
    for (const client of clients) expect(client.heard).toEqual(["tick 0", "tick 1", "tick 2"]);
  });

  test("icmp needs another link", async () => {
    const apo = await startRuntime();
    await expectCode("ENOTSUP", () => apo.opens({ protocol: "icmp", to: "127.0.0.1" }));
  });
});
