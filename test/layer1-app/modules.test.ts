/** Handler modules in app workers: stickiness, framing, errors of the module, a worker that dies. */
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import { dial, expectCode, startRuntime, type Talker, until } from "./support.ts";

const local = { protocol: "tcp", port: 0, address: "127.0.0.1" } as const;
const moduleUrl = (name: string): URL => new URL(`./modules/${name}.ts`, import.meta.url);

/** Sends a line and waits for the next line of the answer. */
async function ask(client: Talker, line: string): Promise<string> {
  const before = client.text.length;
  client.write(`${line}\n`);
  await until(`an answer to ${line}`, () => client.text.slice(before).includes("\n") || client.closed);
  return client.text.slice(before).trimEnd();
}

describe("a handler module", () => {
  test("serves in app workers, a connection staying with one", async () => {
    const apo = await startRuntime({ workers: 2, appWorkers: 2 });
    const listener = await apo.opens({ ...local, framing: framing.line(), module: moduleUrl("greeter") });
    const clients = await Promise.all(Array.from({ length: 8 }, () => dial(listener.port)));
    const threads = new Set<string>();
    for (const client of clients) {
      const first = await ask(client, "one");
      const thread = first.split(" ")[0] as string;
      threads.add(thread);
      expect(first).toBe(`${thread} 1 one`);
      for (let i = 2; i <= 5; i += 1) expect(await ask(client, "more")).toBe(`${thread} ${i} more`);
    }
    expect(threads.size).toBe(2);
    expect(threads.has("0")).toBe(false);
  });

  test("is told of ends, and a handler that throws ends its connection only", async () => {
    const apo = await startRuntime();
    const listener = await apo.opens({ ...local, framing: framing.line(), module: moduleUrl("greeter") });
    const bad = await dial(listener.port);
    const good = await dial(listener.port);
    bad.write("throw\n");
    await bad.readToEnd();
    bad.socket.end();
    await until("it has ended", () => listener.connections === 1);
    expect(await ask(good, "ends")).toBe("handler");
    expect(await ask(good, "alarms")).toBe("handler");
  });

  test("may have a framing of its own", async () => {
    const apo = await startRuntime();
    const listener = await apo.opens({ ...local, module: moduleUrl("framed") });
    const client = await dial(listener.port);
    client.write("abcde");
    expect((await client.read(8)).toString()).toBe("[ab][cd]");
  });

  test("serves clients and UDP too", async () => {
    const apo = await startRuntime();
    const heard: string[] = [];
    const server = await apo.opens({
      ...local,
      protocol: "udp",
      request(_sockfd, message) {
        heard.push(message.text());
      },
    });
    const sockfd = await apo.opens({
      protocol: "udp",
      to: `127.0.0.1:${server.port}`,
      module: moduleUrl("greeter"),
      news: "hello",
    });
    await until("its news are here", () => heard.length === 1);
    // The verbs of the main thread reach a connection whose messages go elsewhere.
    void apo.sendto(sockfd, "from main");
    await until("main's message is here", () => heard.length === 2);
    expect(heard).toEqual(["hello", "from main"]);
  });

  test.each([
    ["broken", /no such database/],
    ["empty", /exports none of connected, request, closed, alarm/],
    ["mistaken", /exports request, but it is not a function/],
    ["missing", /missing\.ts/],
  ])("%s: opens says what is wrong", async (name, text) => {
    const apo = await startRuntime();
    const error = await expectCode("EINVAL", () => apo.opens({ ...local, module: moduleUrl(name) }));
    expect(error.message).toMatch(text);
    const listener = await apo.opens({ ...local, framing: framing.line(), module: moduleUrl("greeter") });
    expect(await ask(await dial(listener.port), "fine")).toMatch(/ 1 fine$/);
  });

  test("drains and closes like any other", async () => {
    const apo = await startRuntime();
    const listener = await apo.opens({ ...local, framing: framing.line(), module: moduleUrl("greeter") });
    const client = await dial(listener.port);
    await ask(client, "hello");
    const drained = listener.drain();
    client.socket.end();
    await drained;
    expect(await listener.closed).toBeUndefined();
  });
});

describe("an app worker that dies", () => {
  test("its connections end, the operator is told, and a fresh one serves", async () => {
    const apo = await startRuntime({ appWorkers: 2 });
    const listener = await apo.opens({ ...local, framing: framing.line(), module: moduleUrl("greeter") });
    const plain = await apo.opens({
      ...local,
      framing: framing.line(),
      request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
    });
    const clients = await Promise.all(Array.from({ length: 4 }, () => dial(listener.port)));
    const other = await dial(plain.port);
    const threads = await Promise.all(
      clients.map(async (client) => (await ask(client, "who")).split(" ")[0]),
    );
    const doomed = threads[0];
    const warned = once(process, "warning");
    clients[0]?.write("die\n");
    for (const [i, client] of clients.entries()) {
      if (threads[i] === doomed) await until("it is cut off", () => client.closed || client.ended);
      else expect(await ask(client, "still here")).toBe(`${threads[i]} 2 still here`);
    }
    expect((await warned)[0].message).toContain("app worker");
    expect(await ask(other, "untouched")).toBe("untouched");
    await until(
      "only the living are left",
      () => listener.connections === threads.filter((t) => t !== doomed).length,
    );
    // The survivor is told, and a third thread joins it.
    const seen = new Set<string>();
    while (seen.size < 2) {
      const client = await dial(listener.port);
      const [thread] = (await ask(client, "who")).split(" ");
      seen.add(thread as string);
      client.socket.destroy();
    }
    expect(seen.has(doomed as string)).toBe(false);
  });
});
