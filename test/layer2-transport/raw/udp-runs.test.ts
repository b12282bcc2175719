/** Datagrams of one turn to one peer leave as super-packets: whatever their lengths, the same datagrams in order. */
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { Runtime } from "../../../src/layer1-app/runtime.ts";
import { Containers } from "../../../src/layer2-transport/container.ts";
import { Flow, FlowKey } from "../../../src/layer2-transport/raw/flow.ts";
import { buildPacket, built } from "../../../src/layer2-transport/raw/packets.ts";
import { defaultUdpOptions } from "../../../src/layer2-transport/raw/udp-options.ts";
import { defaultTcpOptions } from "../../../src/layer2-transport/tcp/options.ts";
import * as descriptor from "../../../src/layer3-ip/descriptor.ts";
import { createWire } from "../../../src/layer3-ip/links/mem.ts";
import { createPool, FramePool, smallFrameBytes } from "../../../src/layer3-ip/pool.ts";
import { createRing, RingConsumer, RingProducer } from "../../../src/layer3-ip/ring.ts";
import { ipPacket, udpPacket, upperChecksum } from "../../layer3-ip/packets.ts";

const rules = {
  protocol: "udp",
  framing: "raw",
  recvlen: 65_536,
  sendlen: 65_536,
  idleMs: 0,
  waiting: 64,
  tcp: defaultTcpOptions,
  udp: { ...defaultUdpOptions, ttl: 9, dscp: 46 },
} as const;

function keyOf(six: boolean): FlowKey {
  const key = new FlowKey();
  key.wordCount = six ? 4 : 1;
  key.protocol = 17;
  key.words.set([1, 2, 3, 4, 5, 6, 7, 8]);
  key.remotePort = 7;
  key.localPort = 9;
  return key;
}

/** The datagrams that one turn's descriptors stand for, and how many descriptors there were. */
function takeAll(pool: FramePool, ring: RingConsumer): { datagrams: string[]; packets: number } {
  const datagrams: string[] = [];
  let packets = 0;
  for (let at = ring.take(); at >= 0; at = ring.take()) {
    packets += 1;
    const { words } = ring;
    const frame = descriptor.frameOf(words, at);
    const end = descriptor.packetOffsetOf(words, at) + descriptor.lengthOf(words, at);
    const upper = descriptor.upperOffsetOf(words, at);
    const whole = pool.bytes.subarray(frame * smallFrameBytes + upper, frame * smallFrameBytes + end);
    expect([whole.readUInt16BE(0), whole.readUInt16BE(2)]).toEqual([9, 7]);
    expect(whole.readInt32BE(-4 + 4) >>> 16).toBe(9);
    expect(descriptor.hopLimitOf(words, at)).toBe(9);
    expect((words[at + 5] as number) >>> 26).toBe(46);
    const segment = descriptor.segmentBytesOf(words, at);
    const isSuper = (((words[at + 3] as number) >>> 18) & 7) === 1;
    expect(isSuper).toBe(segment > 0);
    const payload = whole.subarray(8);
    // As the kernel has it: 64 segments, 65,535 bytes.
    if (isSuper) expect(Math.ceil(payload.length / segment)).toBeLessThanOrEqual(64);
    expect(descriptor.lengthOf(words, at)).toBeLessThanOrEqual(65_535);
    if (payload.length === 0) datagrams.push("");
    for (let from = 0; from < payload.length; from += segment || payload.length) {
      datagrams.push(payload.toString("latin1", from, from + (segment || payload.length)));
    }
    pool.drop(frame, pool.partition);
  }
  ring.release();
  return { datagrams, packets };
}

function sender(six: boolean) {
  const pool = new FramePool(createPool({ partitions: 1, small: 1024, large: 64 }), 0);
  const memory = createRing(1024);
  const flow = new Flow(rules, true, keyOf(six), 1500);
  const producer = new RingProducer(memory);
  const containers = new Containers(pool);
  const send = (text: string): boolean => {
    const frame = pool.allocate(Math.max(1, text.length));
    pool.hold(frame, 0);
    pool.write(frame, 0, Buffer.from(text, "latin1"));
    const container = containers.take(frame, 0, text.length);
    const done = buildPacket(pool, producer, flow, container) !== built.nothing;
    container.done();
    return done;
  };
  return { pool, producer, consumer: new RingConsumer(memory), flow, send };
}

test("the same datagrams come out, in order, and every frame is given back", () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(100, 700, 1400) },
    { weight: 3, arbitrary: fc.integer({ min: 0, max: 1472 }) },
    { weight: 1, arbitrary: fc.integer({ min: 1473, max: 9000 }) },
    { weight: 1, arbitrary: fc.constant(-1) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), fc.boolean(), (steps, six) => {
      const { pool, producer, consumer, send } = sender(six);
      const sent: string[] = [];
      const got: string[] = [];
      for (const [n, length] of steps.entries()) {
        if (length < 0) {
          producer.publish();
          got.push(...takeAll(pool, consumer).datagrams);
          continue;
        }
        const text = `${n}.`.repeat(length).slice(0, length);
        if (send(text)) sent.push(text);
      }
      producer.publish();
      got.push(...takeAll(pool, consumer).datagrams);
      expect(got).toEqual(sent);
      expect(pool.framesInUse()).toBe(0);
    }),
  );
});

test("sixty-four equal ones are one packet, and the sixty-fifth begins another", () => {
  const { pool, producer, consumer, send } = sender(false);
  for (let n = 0; n < 65; n += 1) send("x".repeat(500));
  producer.publish();
  expect(takeAll(pool, consumer).packets).toBe(2);
});

test("a shorter one ends the run, a longer one is not in it, and what has been published is left alone", () => {
  const { pool, producer, consumer, send } = sender(true);
  for (const length of [500, 500, 20, 20, 500, 600]) send("x".repeat(length));
  producer.publish();
  send("x".repeat(600));
  producer.publish();
  const { packets, datagrams } = takeAll(pool, consumer);
  expect(datagrams.map((text) => text.length)).toEqual([500, 500, 20, 20, 500, 600, 600]);
  expect(packets).toBe(5);
});

test("datagrams that the path does not take in one piece are left to layer 3 one by one", () => {
  const { pool, producer, consumer, flow, send } = sender(false);
  flow.pathMtu = 1000;
  for (let n = 0; n < 4; n += 1) send("x".repeat(1200));
  producer.publish();
  expect(takeAll(pool, consumer).packets).toBe(4);
});

const runtimes: Runtime[] = [];

afterEach(async () => {
  for (const runtime of runtimes.splice(0)) {
    await runtime.close();
    expect(runtime.counters()["layer3.pool.frames-in-use"]).toBe(0);
  }
});

async function start(wire: ReturnType<typeof createWire>, address: string): Promise<Runtime> {
  const runtime = new Runtime({ link: "mem", wire, address, workers: 1 });
  runtimes.push(runtime);
  await runtime.start();
  return runtime;
}

test("a burst over the wire arrives whole, in fewer packets than datagrams", async () => {
  const wire = createWire();
  const [a, b] = [await start(wire, "10.0.0.1/24"), await start(wire, "10.0.0.2/24")];
  const got: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const listener = await b.opens({
    protocol: "udp",
    port: 0,
    waiting: 1000,
    request: (_, message) => {
      got.push(message.text());
      if (got.length === 301) resolve();
    },
  });
  const sockfd = await a.opens({ protocol: "udp", to: `10.0.0.2:${listener.port}`, news: "first" });
  const sent = Array.from({ length: 300 }, (_, n) => `${n} `.padEnd(200, "."));
  for (const text of sent) void a.sendto(sockfd, text);
  await promise;
  expect(got).toEqual(["first", ...sent]);
  expect(a.counters()["layer3.tx.packets"]).toBeLessThan(150);
  expect(a.counters()["layer2.udp.sent"]).toBe(301);
  expect(a.counters()["layer2.udp.super-packets"]).toBeGreaterThan(0);
  expect(b.counters()["layer2.receive.messages"]).toBe(301);
});

test("fragment: false: what is too long for the link, and later for the path, is refused with EMSGSIZE", async () => {
  const wire = createWire();
  const [a, b] = [await start(wire, "10.0.0.1/24"), await start(wire, "10.0.0.2/24")];
  const got: number[] = [];
  let heard = (): void => {};
  const listener = await b.opens({
    protocol: "udp",
    port: 0,
    request: (_, message) => {
      got.push(message.bytes.length);
      heard();
    },
  });
  const told = (): Promise<void> =>
    new Promise((resolve) => {
      heard = resolve;
    });
  const to = `10.0.0.2:${listener.port}`;
  const first = told();
  const sockfd = await a.opens({ protocol: "udp", to, fragment: false, news: "x" });
  await first;
  const second = told();
  void a.sendto(sockfd, Buffer.alloc(1472));
  await second;
  expect(() => a.sendto(sockfd, Buffer.alloc(1473))).toThrow(
    expect.objectContaining({ code: "EMSGSIZE", message: expect.stringContaining("1472 bytes at most") }),
  );

  const { localPort } = a.peer(sockfd);
  const path = { from: "10.0.0.1", to: "10.0.0.2" };
  const quoted = udpPacket(path, localPort, listener.port, Buffer.alloc(1400)).subarray(0, 60);
  const error = Buffer.concat([Buffer.from([3, 4, 0, 0, 0, 0, 1300 >> 8, 1300 & 255]), quoted]);
  const back = { from: "10.0.0.77", to: "10.0.0.1" };
  error.writeUInt16BE(upperChecksum(back, 1, error), 2);
  wire.inject("10.0.0.1", ipPacket(back, 1, error));
  while (a.counters()["layer2.udp.path-mtu-lowered"] === 0) await new Promise((r) => setTimeout(r, 1));
  expect(() => a.sendto(sockfd, Buffer.alloc(1273))).toThrow(
    expect.objectContaining({ code: "EMSGSIZE", message: expect.stringContaining("1272 bytes at most") }),
  );
  const third = told();
  void a.sendto(sockfd, Buffer.alloc(1272));
  await third;
  expect(got).toEqual([1, 1472, 1272]);
  expect(a.counters()["layer3.tx.fragments"]).toBe(0);
});
