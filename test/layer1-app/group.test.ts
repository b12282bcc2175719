/** Many client connections of one `opens`: their counts, their handlers, and how they end. */
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import type { Runtime } from "../../src/layer1-app/runtime.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { expectCode, startRuntime, until } from "./support.ts";

const echo = new URL("./modules/echo-lines.ts", import.meta.url);
const lines = { protocol: "tcp", framing: framing.line() } as const;

interface Ground {
  readonly server: Runtime;
  readonly client: Runtime;
  readonly address: string;
  readonly many: number;
}

const grounds: Record<string, () => Promise<Ground>> = {
  async host() {
    const server = await startRuntime({ workers: 2 });
    return { server, client: server, address: "127.0.0.1", many: 200 };
  },
  async mem() {
    const wire = createWire();
    const server = await startRuntime({ link: "mem", wire, address: "10.0.0.1/24", workers: 2 });
    const client = await startRuntime({ link: "mem", wire, address: "10.0.0.2/24", workers: 2 });
    return { server, client, address: "10.0.0.1", many: 3000 };
  },
};

describe.each(Object.keys(grounds))("on %s", (name) => {
  const start = grounds[name] as () => Promise<Ground>;

  test("all stand, each has its answer, and closing the group ends them all", async () => {
    const { server, client, address, many } = await start();
    let served = 0;
    const listener = await server.opens({
      ...lines,
      port: 0,
      address,
      request(sockfd, message, apo) {
        served += 1;
        return apo.sendto(sockfd, message.bytes);
      },
    });
    let connected = 0;
    let answers = 0;
    let closed = 0;
    const group = await client.opens({
      ...lines,
      to: `${address}:${listener.port}`,
      connections: many,
      news: "hello",
      connected() {
        connected += 1;
      },
      request() {
        answers += 1;
      },
      closed() {
        closed += 1;
      },
    });
    await group.ready;
    expect([group.connections, group.started, group.opened, group.open]).toEqual([many, many, many, many]);
    expect(group.failed).toEqual({});
    await until("everyone has an answer", () => answers === many);
    expect([connected, served, listener.connections]).toEqual([many, many, many]);
    await group.close();
    expect([group.open, group.opened, closed]).toEqual([0, many, many]);
    expect(await group.closed).toBeUndefined();
    await group.close();
    await until("the server has seen them end", () => listener.connections === 0);
    expect(client.endpoint.opens.size).toBe(client === server ? 1 : 0);
  });

  test("of a quiet group no end and no beginning is told, and it can be closed all the same", async () => {
    const { server, client, address, many } = await start();
    const listener = await server.opens({ ...lines, port: 0, address, module: echo, placement: "worker" });
    const group = await client.opens({ ...lines, to: `${address}:${listener.port}`, connections: many });
    await group.ready;
    expect([group.opened, group.open]).toEqual([many, many]);
    expect(client.endpoint.connectionCount()).toBe(0);
    await group.close();
    expect(group.open).toBe(0);
  });

  test("with handlers in the workers: each asks and is answered there", async () => {
    const { server, client, address, many } = await start();
    const listener = await server.opens({ ...lines, port: 0, address, module: echo, placement: "worker" });
    const module = new URL("./modules/asks-once.ts", import.meta.url);
    const to = `${address}:${listener.port}`;
    const group = await client.opens({ ...lines, to, connections: many, module, placement: "worker" });
    // The module closes a connection when it has its answer.
    expect(await group.closed).toBeUndefined();
    expect([group.opened, group.open]).toEqual([many, 0]);
    await until("the server has seen them end", () => listener.connections === 0);
  });

  test("what fails is counted by its code, and a group of which nothing stands is over", async () => {
    const { client, address, server } = await start();
    const listener = await server.opens({ ...lines, port: 0, address, request() {} });
    const { port } = listener;
    await listener.close();
    const group = await client.opens({ ...lines, to: `${address}:${port}`, connections: 20 });
    await group.ready;
    await group.closed;
    expect(group.failed).toEqual({ ECONNREFUSED: 20 });
    expect([group.started, group.opened, group.open]).toEqual([20, 0, 0]);
  });

  test("closing the runtime, or a group that is still being opened, leaves nobody waiting", async () => {
    const { server, client, address } = await start();
    const listener = await server.opens({ ...lines, port: 0, address, request() {} });
    const to = `${address}:${listener.port}`;
    const slow = await client.opens({ ...lines, to, connections: 100_000, rate: 100 });
    const other = await client.opens({ ...lines, to, connections: 100_000, rate: 100 });
    await until("some stand", () => slow.open > 0 && other.open > 0);
    await slow.close();
    expect(slow.open).toBe(0);
    expect(slow.started).toBeLessThan(100_000);
    await slow.ready;
    await client.close();
    await other.ready;
    expect(await other.closed).toBeUndefined();
  });
});

test("a worker that dies: its connections are over, and what it had not tried has failed", async () => {
  const apo = await startRuntime({ workers: 2 });
  const listener = await apo.opens({ ...lines, port: 0, address: "127.0.0.1", request() {}, alarm() {} });
  const to = `127.0.0.1:${listener.port}`;
  const group = await apo.opens({ ...lines, to, connections: 50, rate: 20 });
  await until("some stand", () => group.open > 2);
  await apo.threads.workers.kill(0);
  await group.ready;
  const failed = group.failed.EWORKER ?? 0;
  expect(failed).toBeGreaterThan(0);
  expect(group.opened + failed).toBe(50);
  await group.close();
});

describe("what is refused", () => {
  test.each([
    [{ connections: 0 }, "connections must be a whole number from 1 to 16777216, not 0"],
    [{ rate: 5 }, "rate is for many connections at once: give connections"],
    [{ connections: 5, rate: -1 }, "rate must be a whole number from 0 to 10000000, not -1"],
  ])("%j", async (options, text) => {
    const apo = await startRuntime();
    const error = await expectCode("EINVAL", () =>
      apo.opens({ ...lines, to: "127.0.0.1:9", ...options } as never),
    );
    expect(error.message).toContain(text);
  });
});
