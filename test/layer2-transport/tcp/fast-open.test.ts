/**
 * TCP Fast Open between two runtimes on a wire: the first connection gets a cookie, the next brings its message in the
 * SYN; and without the option on one side nothing of it happens.
 */
import { afterEach, describe, expect, test } from "vitest";
import { type Apo, createRuntime, createWire, framing } from "../../../src/index.ts";

const running: Apo[] = [];

async function pair(delayMs: number): Promise<{ server: Apo; client: Apo }> {
  const wire = createWire({ delayMs });
  const server = await createRuntime({ link: "mem", wire, address: "10.0.0.1/24, fd00::1/64" });
  const client = await createRuntime({ link: "mem", wire, address: "10.0.0.2/24, fd00::2/64" });
  running.push(server, client);
  return { server, client };
}

async function ask(client: Apo, to: string, text: string, fastOpen: boolean): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const sockfd = await client.opens({
    protocol: "tcp",
    to,
    fastOpen,
    framing: framing.line(),
    news: text,
    request: (_sockfd, message) => resolve(message.text()),
    closed: (_sockfd, reason) => reject(new Error(`closed: ${reason.code}`)),
  });
  const answer = await promise;
  await client.close(sockfd);
  return answer;
}

afterEach(async () => {
  await Promise.all(running.splice(0).map((apo) => apo.close()));
});

describe("data in the SYN (RFC 7413)", () => {
  test.each(["10.0.0.1:7", "[fd00::1]:7"])(
    "the second connection to %s brings its message in its SYN",
    async (to) => {
      const { server, client } = await pair(20);
      await server.opens({
        protocol: "tcp",
        port: 7,
        fastOpen: true,
        framing: framing.line(),
        request: (sockfd, message) => void server.sendto(sockfd, message.text().toUpperCase()),
      });
      expect(await ask(client, to, "one", true)).toBe("ONE");
      expect(server.counters()["layer2.tcp.fast-open-accepted"]).toBe(0);
      expect(await ask(client, to, "two", true)).toBe("TWO");
      expect(await ask(client, to, "three", true)).toBe("THREE");
      expect(server.counters()["layer2.tcp.fast-open-accepted"]).toBe(2);
      expect(client.counters()["layer2.tcp.fast-open-sent"]).toBe(2);
      expect(client.counters()["layer2.tcp.fast-open-lost"]).toBe(0);
    },
  );

  test("a server without the option answers as ever, and the message comes after the handshake", async () => {
    const { server, client } = await pair(1);
    const seen: string[] = [];
    await server.opens({
      protocol: "tcp",
      port: 7,
      framing: framing.line(),
      request(sockfd, message) {
        seen.push(message.text());
        void server.sendto(sockfd, "yes");
      },
    });
    expect(await ask(client, "10.0.0.1:7", "one", true)).toBe("yes");
    expect(await ask(client, "10.0.0.1:7", "two", true)).toBe("yes");
    expect(seen).toEqual(["one", "two"]);
    expect(server.counters()["layer2.tcp.fast-open-accepted"]).toBe(0);
  });

  test("a cookie of a server that has started anew is refused, and the message is not lost", async () => {
    const { server, client } = await pair(1);
    const listen = (apo: Apo) =>
      apo.opens({
        protocol: "tcp",
        port: 7,
        fastOpen: true,
        framing: framing.line(),
        request: (sockfd, message) => void apo.sendto(sockfd, message.bytes),
      });
    await listen(server);
    expect(await ask(client, "10.0.0.1:7", "one", true)).toBe("one");
    // The worker's keys go with it.
    await (
      server as unknown as { threads: { workers: { kill(index: number): Promise<void> } } }
    ).threads.workers.kill(0);
    const deadline = performance.now() + 20_000;
    // An ordinary connection tells when its successor serves.
    while ((await ask(client, "10.0.0.1:7", "up", false).catch(() => "")) !== "up") {
      expect(performance.now()).toBeLessThan(deadline);
    }
    expect(await ask(client, "10.0.0.1:7", "two", true)).toBe("two");
    expect(server.counters()["layer2.tcp.fast-open-refused"]).toBeGreaterThan(0);
    expect(client.counters()["layer2.tcp.fast-open-lost"]).toBeGreaterThan(0);
  });
});
