/** TCP options on a raw link, where our own TCP obeys them: half-closes, changes of one connection, snapshots. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import type { Runtime } from "../../src/layer1-app/runtime.ts";
import type { CloseReason, Message, Sockfd, TcpSettings } from "../../src/layer1-app/types.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { expectCode, startRuntime, until } from "./support.ts";

const lines = { protocol: "tcp", framing: framing.line() } as const;

/** One connection between two runtimes, and what each side has heard. */
interface Pair {
  readonly server: Runtime;
  readonly client: Runtime;
  readonly near: Sockfd;
  readonly far: Sockfd;
  readonly heard: { near: string[]; far: string[] };
  readonly ends: { near: CloseReason[]; far: CloseReason[] };
  /** The far side's handlers wait for it. */
  hold: Promise<void> | undefined;
}

let server: Runtime;
let client: Runtime;
beforeEach(async () => {
  const wire = createWire();
  server = await startRuntime({ link: "mem", wire, address: "10.0.0.1/24", tcp: { recvBuffer: 65_536 } });
  client = await startRuntime({ link: "mem", wire, address: "10.0.0.2/24" });
});
afterEach(async () => {
  await client.close();
  await server.close();
});

async function pair(options: TcpSettings = {}): Promise<Pair> {
  const heard = { near: [] as string[], far: [] as string[] };
  const ends = { near: [] as CloseReason[], far: [] as CloseReason[] };
  const far: Sockfd[] = [];
  const made: { hold: Promise<void> | undefined } = { hold: undefined };
  const listener = await server.opens({
    ...lines,
    ...options,
    port: 0,
    connected(sockfd) {
      far.push(sockfd);
    },
    async request(_, message: Message) {
      heard.far.push(message.text());
      await made.hold;
    },
    closed(_, reason) {
      ends.far.push(reason);
    },
  });
  const near = await client.opens({
    ...lines,
    ...options,
    to: `10.0.0.1:${listener.port}`,
    request(_, message) {
      heard.near.push(message.text());
    },
    closed(_, reason) {
      ends.near.push(reason);
    },
  });
  await until("both sides stand", () => far.length === 1);
  return Object.assign(made, { server, client, near, far: far[0] as Sockfd, heard, ends });
}

describe("half-closes", () => {
  test("our side ends, the peer goes on, and then it is over in order", async () => {
    const { near, far, heard, ends } = await pair();
    void client.sendto(near, "last");
    await client.close(near, { shutdown: "write" });
    await expectCode("EPIPE", () => client.sendto(near, "more"));
    await until("the last word is heard", () => heard.far.length === 1);
    // The peer's app answers first: reading the end, it ends its side as well.
    await until("it is over", () => ends.near.length + ends.far.length === 2);
    expect(heard.far).toEqual(["last"]);
    expect([ends.near[0]?.code, ends.far[0]?.code]).toEqual(["end", "end"]);
    await expectCode("ESTALE", () => server.sendto(far, "x"));
  });

  test("what comes after an end of reading is dropped, and the other way is free", async () => {
    const { near, far, heard, ends } = await pair();
    await server.close(far, { shutdown: "read" });
    void server.sendto(far, "still sending");
    await until("it arrives", () => heard.near.length === 1);
    void client.sendto(near, "x".repeat(5000));
    await until("it is dropped", () => (server.counters()["layer2.drop.read-shutdown"] ?? 0) >= 5001);
    expect(heard.far).toEqual([]);
    await client.close(near);
    await until("both know", () => ends.far.length === 1);
  });
});

describe("a snapshot", () => {
  test("tells what both sides settled, and what waits where", async () => {
    const both = await pair({ congestion: "newreno", maxseg: 1000 });
    const { near, far, heard } = both;
    void client.sendto(near, "hello");
    await until("it is heard", () => heard.far.length === 1);
    await client.flushed(near);
    const info = await client.info(near);
    expect(info).toMatchObject({ state: "established", congestion: "newreno", timestamps: true, sack: true });
    expect(info.mss).toBeLessThanOrEqual(1000);
    expect([info.unackedBytes, info.unsentBytes, info.unreadBytes]).toEqual([0, 0, 0]);
    expect(info.rttUs).toBeGreaterThan(0);
    // The far handler keeps its message: what comes behind waits there unread, then here unsent.
    const { promise, resolve } = Promise.withResolvers<void>();
    both.hold = promise;
    void client.sendto(near, "hold");
    await until("it is held", () => heard.far.length === 2);
    for (let i = 0; i < 100; i += 1) void client.sendto(near, "y".repeat(9999));
    await untilInfo(server, far, "bytes wait unread", (told) => told.unreadBytes > 30_000);
    await untilInfo(client, near, "the rest waits unsent", (told) => told.unsentBytes > 500_000);
    resolve();
    await until("all is heard in the end", () => heard.far.length === 102);
  });

  test("of what is no TCP connection there is none", async () => {
    const listener = await server.opens({ protocol: "udp", port: 0, request() {} });
    const sockfd = await client.opens({ protocol: "udp", to: `10.0.0.1:${listener.port}` });
    await expectCode("ENOTSUP", () => client.info(sockfd));
    await expectCode("ENOTSUP", () => client.tune(sockfd, { nodelay: true }));
  });
});

async function untilInfo(
  apo: Runtime,
  sockfd: Sockfd,
  what: string,
  holds: (info: Awaited<ReturnType<Runtime["info"]>>) => boolean,
): Promise<void> {
  const lastMs = performance.now() + 20_000;
  for (;;) {
    const info = await apo.info(sockfd);
    if (holds(info)) return;
    if (performance.now() > lastMs) throw new Error(`never came true: ${what}: ${JSON.stringify(info)}`);
  }
}

describe("changes of one connection", () => {
  test("a cork keeps small messages back until it is taken out", async () => {
    const { near, heard } = await pair();
    const packets = (): number => client.counters()["layer3.tx.packets"] as number;
    client.tune(near, { cork: true });
    const before = packets();
    for (let i = 0; i < 10; i += 1) void client.sendto(near, `part ${i}`);
    client.tune(near, { cork: false });
    await until("all parts are heard", () => heard.far.length === 10);
    expect(packets() - before).toBeLessThan(10);
  });

  test("the send buffer, the congestion control and the linger time hold from then on", async () => {
    const { near, far, ends } = await pair();
    client.tune(near, { sendBuffer: 50, congestion: "newreno", lingerMs: 0 });
    await client.flushed(near);
    await expectCode("ENOBUFS", () => client.sendto(near, "z".repeat(51)));
    expect((await client.info(near)).congestion).toBe("newreno");
    expect((await server.info(far)).congestion).toBe("cubic");
    await client.close(near);
    await until("the peer knows", () => ends.far.length === 1);
    expect(ends.far[0]?.code).toBe("reset");
  });
});
