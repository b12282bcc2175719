/** Opening and closing: taken ports, shared ports, backlog, drain, close twice, throwing handlers, dying workers. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import { createRuntime, type Runtime } from "../../src/layer1-app/runtime.ts";
import type { Alarm, Listener, Sockfd } from "../../src/layer1-app/types.ts";
import { dial, expectCode, recorder, startRuntime, type Talker, until } from "./support.ts";

const local = { protocol: "tcp", port: 0, address: "127.0.0.1" } as const;

describe("a taken port", () => {
  test.each([1, 3])("is refused whoever has it, with %d workers", async (workers) => {
    const apo = await startRuntime({ workers });
    const first = await apo.opens(local);
    const error = await expectCode("EADDRINUSE", () => apo.opens({ ...local, port: first.port }));
    expect(error.message).toContain(String(first.port));
    const server = createServer().listen({ port: 0, host: "127.0.0.1", reusePort: true });
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    await expectCode("EADDRINUSE", () => apo.opens({ ...local, port }));
    server.close();
    const udp = await apo.opens({ ...local, protocol: "udp" });
    await expectCode("EADDRINUSE", () => apo.opens({ ...local, protocol: "udp", port: udp.port }));
  });

  test("is free again after the listener is closed", async () => {
    const apo = await startRuntime({ workers: 2 });
    let listener: Listener = await apo.opens(local);
    const { port } = listener;
    for (let i = 0; i < 5; i += 1) {
      await listener.close();
      listener = await apo.opens({ ...local, port });
    }
    expect(listener.port).toBe(port);
  });

  test("an address of somebody else is refused", async () => {
    const apo = await startRuntime();
    await expectCode("EADDRNOTAVAIL", () => apo.opens({ ...local, address: "192.0.2.1" }));
  });
});

describe("several workers", () => {
  test("share a port that the first one picked", async () => {
    const apo = await startRuntime({ workers: 3 });
    const { connected, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    expect(listener.port).toBeGreaterThan(0);
    await Promise.all(Array.from({ length: 60 }, () => dial(listener.port)));
    await until("all are connected", () => connected.length === 60);
    // Shard s belongs to worker s % 3.
    const owners = new Set(connected.map((sockfd) => ((sockfd & 0xffffff) >>> 20) % 3));
    expect([...owners].sort()).toEqual([0, 1, 2]);
    expect(listener.connections).toBe(60);
  });
});

describe("a client", () => {
  test("learns why it could not connect", async () => {
    const apo = await startRuntime();
    const listener = await apo.opens(local);
    const { port } = listener;
    await listener.close();
    await expectCode("ECONNREFUSED", () => apo.opens({ protocol: "tcp", to: `127.0.0.1:${port}` }));
    await expectCode("EHOSTUNREACH", () => apo.opens({ protocol: "tcp", to: "no-such-host.invalid:80" }));
  });

  test("gives up after connectMs", async () => {
    const apo = await startRuntime();
    // A listener whose queue is full answers no more SYNs: the kernel completes backlog + 1 connections.
    const script = `const s=require("net").createServer();s.listen({port:0,host:"127.0.0.1",backlog:1},()=>{
      process.stdout.write(String(s.address().port));
      setTimeout(()=>{const end=Date.now()+60000;while(Date.now()<end);},50);});`;
    const stuck = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      const [bytes] = (await once(stuck.stdout, "data")) as [Buffer];
      const port = Number(bytes.toString());
      await new Promise((resolve) => setTimeout(resolve, 200));
      for (let i = 0; i < 5; i += 1) void dial(port).catch(() => {});
      const outcome = expectCode("ETIMEDOUT", async () => {
        for (let i = 0; i < 5; i += 1) {
          await apo.opens({ protocol: "tcp", to: `127.0.0.1:${port}`, connectMs: 300 });
        }
      });
      expect((await outcome).message).toContain("300 ms");
    } finally {
      stuck.kill("SIGKILL");
    }
  });
});

describe("backlog", () => {
  test("connections beyond it are closed at once, counted and told", async () => {
    const apo = await startRuntime({ workers: 2 });
    const alarms: Alarm[] = [];
    const listener = await apo.opens({
      ...local,
      backlog: 1,
      alarm: (alarm) => {
        alarms.push(alarm);
      },
    });
    const clients = await Promise.all(Array.from({ length: 256 }, () => dial(listener.port)));
    await until("all are in", () => listener.connections === 256);
    const refused = await dial(listener.port);
    await until("the next is closed", () => refused.closed || refused.ended);
    expect(apo.counters()["layer2.connections.refused-backlog"]).toBe(1);
    await until("the operator is told", () => alarms.some((alarm) => alarm.code === "backlog"));
    clients[0]?.socket.destroy();
    await until("one has left", () => listener.connections === 255);
    const welcome = await dial(listener.port);
    await until("there is room again", () => listener.connections === 256);
    expect(welcome.closed).toBe(false);
  });
});

describe("a handler that throws", () => {
  test("ends its own connection only, and the operator is told", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const alarms: Alarm[] = [];
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      ...handlers,
      alarm: (alarm) => {
        alarms.push(alarm);
      },
      async request(sockfd, message) {
        const text = message.text();
        if (text === "sync") throw new Error("boom now");
        if (text === "async") {
          await new Promise((resolve) => setImmediate(resolve));
          throw new Error("boom later");
        }
        await apo.sendto(sockfd, text);
      },
    });
    const good = await dial(listener.port);
    for (const [i, word] of ["sync", "async"].entries()) {
      const bad = await dial(listener.port);
      bad.write(`${word}\n`);
      await bad.readToEnd();
      bad.socket.end();
      await until("closed is told", () => ends.length === i + 1);
      expect(ends[i]?.reason.code).toBe("handler");
      expect(ends[i]?.reason.error?.cause).toBeInstanceOf(Error);
    }
    await until("both are told", () => alarms.reduce((sum, alarm) => sum + alarm.count, 0) === 2);
    expect(alarms[0]?.text).toContain("boom now");
    good.write("fine\n");
    expect((await good.read(5)).toString()).toBe("fine\n");
  });

  test("in connected or closed does not harm the runtime either", async () => {
    const apo = await startRuntime();
    const alarms: Alarm[] = [];
    const listener = await apo.opens({
      ...local,
      connected() {
        throw new Error("in connected");
      },
      async closed() {
        throw new Error("in closed");
      },
      alarm: (alarm) => {
        alarms.push(alarm);
        throw new Error("in alarm");
      },
    });
    const warned = once(process, "warning");
    const client = await dial(listener.port);
    await client.readToEnd();
    client.socket.end();
    await until("all is told", () => alarms.length >= 1);
    const [warning] = (await warned) as [Error];
    expect(warning.message).toContain("in alarm");
    await until("it has ended", () => listener.connections === 0);
    await apo.opens(local);
  });
});

describe("close and drain", () => {
  test("what was sent is out before the end, also for a listener and the runtime", async () => {
    const apo = await startRuntime();
    const { connected, ends, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const clients = await Promise.all([dial(listener.port), dial(listener.port)]);
    for (const client of clients) client.socket.on("end", () => client.socket.end());
    await until("both are connected", () => connected.length === 2);
    const bytes = Buffer.alloc(1_000_000, 5);
    for (const sockfd of connected) void apo.sendto(sockfd, bytes);
    await listener.close();
    for (const client of clients) expect((await client.readToEnd()).equals(bytes)).toBe(true);
    expect(ends.map((end) => end.reason.code)).toEqual(["closed", "closed"]);
    expect(await listener.closed).toBeUndefined();
    await listener.close();
  });

  test("drain waits for the connections to end by themselves", async () => {
    const apo = await startRuntime();
    const { connected, handlers } = recorder();
    const listener = await apo.opens({
      ...local,
      ...handlers,
      request: (sockfd, m) => apo.sendto(sockfd, m.bytes),
    });
    const client = await dial(listener.port);
    await until("connected", () => connected.length === 1);
    let drained = false;
    const done = apo.drain().then(() => {
      drained = true;
    });
    const dials = async (): Promise<boolean> => {
      const other = await dial(listener.port).catch(() => undefined);
      other?.socket.destroy();
      return other !== undefined;
    };
    while (await dials()) expect(drained).toBe(false);
    client.write("still served");
    await client.read(12);
    expect(drained).toBe(false);
    client.socket.end();
    await done;
  });

  test("a runtime closes once, tells its connections, and refuses afterwards", async () => {
    const apo = await startRuntime();
    const { connected, ends, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const client = await dial(listener.port);
    await until("connected", () => connected.length === 1);
    client.socket.on("end", () => client.socket.end());
    void apo.sendto(connected[0] as Sockfd, "bye");
    await Promise.all([apo.close(), apo.close(), listener.close()]);
    await apo.close();
    expect(await apo.closed).toBeUndefined();
    expect(await listener.closed).toBeUndefined();
    expect((await client.readToEnd()).toString()).toBe("bye");
    expect(ends.map((end) => end.reason.code)).toEqual(["shutdown"]);
    await expectCode("ECLOSED", () => apo.opens(local));
    await expectCode("ESTALE", () => apo.sendto(connected[0] as Sockfd, "x"));
  });

  test("await using closes both", async () => {
    let kept: Runtime | undefined;
    {
      await using apo = (await createRuntime({ workers: 1 })) as Runtime;
      await using listener = await apo.opens(local);
      expect(listener.port).toBeGreaterThan(0);
      kept = apo;
    }
    expect(await kept.closed).toBeUndefined();
  });

  test("a peer that never reads does not keep the runtime from closing", async () => {
    const apo = await startRuntime();
    const { connected, handlers } = recorder();
    const listener = await apo.opens({ ...local, sendlen: 2 ** 28, ...handlers });
    const client = await dial(listener.port);
    client.socket.pause();
    await until("connected", () => connected.length === 1);
    for (let i = 0; i < 30; i += 1) await apo.sendto(connected[0] as Sockfd, Buffer.alloc(2 ** 20));
    await apo.close();
    expect(apo.counters()["layer3.pool.frames-in-use"]).toBe(0);
  });

  test("the process ends by itself after close", () => {
    const script = fileURLToPath(new URL("./exits-by-itself.ts", import.meta.url));
    const output = execFileSync(process.execPath, [script], { encoding: "utf8", timeout: 30_000 });
    expect(output).toBe("closed\n");
  });

  test("a script given on the command line has a runtime, too", () => {
    const script = readFileSync(new URL("./exits-by-itself.ts", import.meta.url), "utf8");
    const flags = ["--no-warnings", "--experimental-strip-types", "--input-type=module-typescript", "--eval"];
    const output = execFileSync(process.execPath, [...flags, script], {
      cwd: fileURLToPath(new URL(".", import.meta.url)),
      encoding: "utf8",
      timeout: 30_000,
    });
    expect(output).toBe("closed\n");
  });
});

describe("a layer-2 worker that dies", () => {
  test("its connections close, the operator is told, and a fresh one serves", async () => {
    const apo = await startRuntime({ workers: 2 });
    const { connected, ends, handlers } = recorder();
    const alarms: Alarm[] = [];
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      ...handlers,
      request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
      alarm: (alarm) => {
        alarms.push(alarm);
      },
    });
    const clients = await Promise.all(Array.from({ length: 20 }, () => dial(listener.port)));
    await until("all are connected", () => connected.length === 20);
    const doomed = connected.filter((sockfd) => (sockfd & 0xffffff) >>> 20 === 1);
    expect(doomed.length).toBeGreaterThan(0);
    for (const sockfd of connected) void apo.sendto(sockfd, "x".repeat(5000));
    await apo.threads.workers.kill(1);
    await until("its connections are closed", () => ends.length === doomed.length);
    expect(ends.every((end) => end.reason.code === "worker" && doomed.includes(end.sockfd))).toBe(true);
    expect(alarms.map((alarm) => alarm.code)).toEqual(["worker"]);
    expect(listener.connections).toBe(20 - doomed.length);
    await expectCode("ESTALE", () => apo.sendto(doomed[0] as Sockfd, "x"));
    // The two share the port: once the fresh one listens, some of many connections come to it.
    const more: Talker[] = [];
    const isFresh = (sockfd: Sockfd): boolean => (sockfd & 0xffffff) >>> 20 === 1;
    while (!connected.slice(20).some(isFresh)) {
      expect(more.length).toBeLessThan(2000);
      // A connection may also be refused by the dying one's socket.
      const next = await dial(listener.port).catch(() => undefined);
      if (!next) continue;
      more.push(next);
      // The kernel may have taken it for that socket, and lets it go with it.
      await until("it is in, or gone", () => connected.length === 20 + more.length || next.socket.destroyed);
      if (connected.length < 20 + more.length) more.pop();
    }
    for (const client of more) {
      client.write("hello\n");
      await client.read(6);
    }
    for (const client of [...clients, ...more]) client.socket.destroy();
  });
});
