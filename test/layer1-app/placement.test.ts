/** Handlers in the layer-2 workers, beside their connections: on the host link, and on mem where the client is ours. */
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import type { Runtime } from "../../src/layer1-app/runtime.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { dial, expectCode, startRuntime, type Talker, until } from "./support.ts";

const local = { protocol: "tcp", port: 0, address: "127.0.0.1" } as const;
const placed = { placement: "worker", framing: framing.line() } as const;
const moduleUrl = (name: string): URL => new URL(`./modules/${name}.ts`, import.meta.url);

/** Something that lines are written to, and that keeps the lines which come. */
interface Caller {
  write(line: string): void;
  readonly lines: string[];
  readonly isOver: boolean;
  hangUp(): void;
}

function plain(talker: Talker): Caller {
  return {
    write: (line) => talker.write(line),
    hangUp: () => void talker.socket.end(),
    get lines() {
      return talker.text.split("\n").slice(0, -1);
    },
    get isOver() {
      return talker.closed || talker.ended;
    },
  };
}

/** A client of our own. */
async function ours(apo: Runtime, to: string): Promise<Caller> {
  const lines: string[] = [];
  const state = { isOver: false };
  const sockfd = await apo.opens({
    protocol: "tcp",
    to,
    framing: framing.line(),
    request(_, message) {
      lines.push(message.text());
    },
    closed() {
      state.isOver = true;
    },
  });
  return {
    lines,
    write: (line) => void apo.sendto(sockfd, line),
    hangUp: () => void apo.close(sockfd),
    get isOver() {
      return state.isOver;
    },
  };
}

async function ask(caller: Caller, line: string): Promise<string> {
  const before = caller.lines.length;
  caller.write(`${line}\n`);
  await until(`an answer to ${line}`, () => caller.lines.length > before || caller.isOver);
  return caller.lines[before] ?? "";
}

interface Ground {
  readonly apo: Runtime;
  call(port: number): Promise<Caller>;
}

const grounds: Record<string, (workers: number) => Promise<Ground>> = {
  async host(workers) {
    const apo = await startRuntime({ workers });
    return { apo, call: async (port) => plain(await dial(port)) };
  },
  async mem(workers) {
    const wire = createWire();
    const apo = await startRuntime({ link: "mem", wire, address: "10.0.0.1/24", workers });
    const client = await startRuntime({ link: "mem", wire, address: "10.0.0.2/24" });
    return { apo, call: (port) => ours(client, `10.0.0.1:${port}`) };
  },
};

/** Callers until two workers have one each: [thread, sockfd, caller] of both. */
async function twoThreads(ground: Ground, port: number): Promise<[string, number, Caller][]> {
  const found = new Map<string, [string, number, Caller]>();
  for (let tries = 0; found.size < 2 && tries < 64; tries += 1) {
    const caller = await ground.call(port);
    const [thread = "", sockfd = ""] = (await ask(caller, "who")).split(" ");
    found.set(thread, [thread, Number(sockfd), caller]);
  }
  return [...found.values()];
}

describe.each(Object.keys(grounds))("on %s, a module placed in the workers", (name) => {
  const start = grounds[name] as (workers: number) => Promise<Ground>;

  test("serves in the layer-2 workers, and no app worker is started", async () => {
    const { apo, call } = await start(2);
    const listener = await apo.opens({ ...local, ...on(name), ...placed, module: moduleUrl("greeter") });
    const threads = new Set<string>();
    for (let i = 0; i < 24; i += 1) {
      const caller = await call(listener.port);
      const [thread = "", count] = (await ask(caller, "one")).split(" ");
      threads.add(thread);
      expect(count).toBe("1");
      expect(await ask(caller, "two")).toBe(`${thread} 2 two`);
    }
    expect(threads.size).toBe(2);
    expect(threads.has("0")).toBe(false);
    expect(apo.threads.apps).toBeUndefined();
    expect(apo.counters()["layer1.receive.messages"]).toBe(48);
  });

  test("sends to connections of other workers: by themselves, in numbers, and hears when it is out", async () => {
    const ground = await start(2);
    const { apo } = ground;
    const listener = await apo.opens({ ...local, ...on(name), ...placed, module: moduleUrl("neighbours") });
    const [[thread, one, first], [otherThread, two, second]] = (await twoThreads(ground, listener.port)) as [
      [string, number, Caller],
      [string, number, Caller],
    ];
    expect(thread).not.toBe(otherThread);
    first.write(`pass ${two}\n`);
    await until("it is passed on", () => second.lines.includes("flushed"));
    expect(second.lines.slice(-2)).toEqual(["passed", "flushed"]);
    second.write(`many ${one},${two}\n`);
    await until("both have it", () => [first, second].every((caller) => caller.lines.at(-1) === "for all"));
    expect(await ask(first, "later")).toBe("later");
  });

  test("a handler that throws ends its own connection, and the module's alarm handler hears of it", async () => {
    const { apo, call } = await start(1);
    const listener = await apo.opens({ ...local, ...on(name), ...placed, module: moduleUrl("greeter") });
    const [bad, good] = [await call(listener.port), await call(listener.port)];
    expect(await ask(good, "one")).toMatch(/ 1 one$/);
    await ask(bad, "throw");
    await until("it is over", () => bad.isOver);
    expect(await ask(good, "alarms")).toBe("handler");
    expect(await ask(good, "more")).toMatch(/ 3 more$/);
  });

  test("a worker that dies takes its handlers along, and its successor has them again", async () => {
    const { apo, call } = await start(2);
    const listener = await apo.opens({ ...local, ...on(name), ...placed, module: moduleUrl("neighbours") });
    const caller = await call(listener.port);
    const dead = (await ask(caller, "who")).split(" ")[0] as string;
    caller.write("die\n");
    await until("it is over", () => caller.isOver);
    // The successor gets its shards back when nobody else has connections in them: so nobody stays.
    const seen = new Set<string>();
    await untilAsync("both workers serve", async () => {
      const fresh = await call(listener.port).catch(() => undefined);
      const answer = fresh && (await ask(fresh, "who"));
      if (answer) seen.add(answer.split(" ")[0] as string);
      fresh?.hangUp();
      await new Promise((resolve) => setTimeout(resolve, 20));
      return seen.size === 2 && !seen.has(dead);
    });
    const ground = { apo, call };
    const [[, one, first], [, two, second]] = (await twoThreads(ground, listener.port)) as [
      [string, number, Caller],
      [string, number, Caller],
    ];
    first.write(`pass ${two}\n`);
    second.write(`pass ${one}\n`);
    const isPassed = (one: Caller): boolean => one.lines.includes("flushed");
    await until("words pass between them", () => isPassed(first) && isPassed(second));
  });

  test("closing the listener ends its connections, and the module is let go of", async () => {
    const { apo, call } = await start(1);
    const listener = await apo.opens({ ...local, ...on(name), ...placed, module: moduleUrl("neighbours") });
    const caller = await call(listener.port);
    await ask(caller, "who");
    await listener.close();
    await until("it is over", () => caller.isOver);
    expect(listener.connections).toBe(0);
  });
});

async function untilAsync(what: string, condition: () => Promise<boolean>): Promise<void> {
  const lastMs = performance.now() + 20_000;
  while (!(await condition())) if (performance.now() > lastMs) throw new Error(`never came true: ${what}`);
}

/** Where the listener is. */
function on(name: string): { address: string } {
  return { address: name === "host" ? "127.0.0.1" : "10.0.0.1" };
}

describe("what is refused", () => {
  test("a placement without a module, one that is none, a module that does not load", async () => {
    const apo = await startRuntime();
    await expectCode("EINVAL", () => apo.opens({ ...local, ...placed, request() {} }));
    await expectCode("EINVAL", () => apo.opens({ ...local, placement: "moon" as never }));
    for (const name of ["broken", "empty", "mistaken"]) {
      await expectCode("EINVAL", () => apo.opens({ ...local, ...placed, module: moduleUrl(name) }));
    }
    // Nothing of the attempts is in the way of one that works.
    const listener = await apo.opens({ ...local, ...placed, module: moduleUrl("neighbours") });
    expect(await ask(plain(await dial(listener.port)), "who")).not.toBe("");
  });
});
