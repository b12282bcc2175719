/** A router that says "too big" ends no connection: what was too long goes in pieces from then on. */

import { afterEach, expect, test } from "vitest";
import { Runtime } from "../../src/layer1-app/runtime.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { ipPacket, udpPacket, upperChecksum } from "../layer3-ip/packets.ts";

const runtimes: Runtime[] = [];

afterEach(async () => {
  for (const runtime of runtimes.splice(0)) {
    await runtime.close();
    expect(runtime.counters()["layer3.pool.frames-in-use"]).toBe(0);
  }
});

const families = [
  { name: "IPv4", client: "10.0.0.1", server: "10.0.0.2", router: "10.0.0.77", type: 3, code: 4 },
  { name: "IPv6", client: "fd00::1", server: "fd00::2", router: "fd00::77", type: 2, code: 0 },
];

test.each(families)("of UDP over $name", async ({ client, server, router, type, code }) => {
  const wire = createWire();
  const [a, b] = [client, server].map((address) => new Runtime({ link: "mem", wire, address, workers: 1 }));
  if (!a || !b) throw new Error("unreachable");
  runtimes.push(a, b);
  await a.start();
  await b.start();
  const listener = await b.opens({
    protocol: "udp",
    port: 0,
    request: (sockfd, message, apo) => apo.sendto(sockfd, message.bytes),
  });
  const got: string[] = [];
  let waiting: (() => void) | undefined;
  const ended: unknown[] = [];
  const sockfd = await a.opens({
    protocol: "udp",
    to: server.includes(":") ? `[${server}]:${listener.port}` : `${server}:${listener.port}`,
    news: "hello",
    request: (_, message) => {
      got.push(message.text());
      waiting?.();
    },
    closed: (_, reason) => {
      ended.push(reason);
    },
  });
  const answers = async (count: number): Promise<void> => {
    while (got.length < count) {
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting = resolve;
      await promise;
    }
  };
  await answers(1);

  const { localPort } = a.peer(sockfd);
  const quoted = udpPacket({ from: client, to: server }, localPort, listener.port, Buffer.alloc(1400));
  const upper = Buffer.concat([Buffer.from([type, code, 0, 0, 0, 0, 1300 >> 8, 1300 & 255]), quoted]);
  const protocol = client.includes(":") ? 58 : 1;
  upper.writeUInt16BE(upperChecksum({ from: router, to: client }, protocol, upper), 2);
  wire.inject(client, ipPacket({ from: router, to: client }, protocol, upper));

  // Whatever is asked later is later in the ring, too.
  const long = "x".repeat(1400);
  await a.sendto(sockfd, "is it there?");
  await answers(2);
  await a.sendto(sockfd, long);
  await answers(3);
  expect(got).toEqual(["hello", "is it there?", long]);
  expect(ended).toEqual([]);
  expect(a.counters()["layer3.path.mtuLowered"]).toBe(1);
  expect(a.counters()["layer3.tx.fragments"]).toBe(2);
  expect(b.counters()["layer3.rx.reassembled"]).toBe(1);
});
