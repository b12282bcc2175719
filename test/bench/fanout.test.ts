/**
 * The fan-out bench's parts: its C programs compile and count truly, its figures follow from the counters, its rows
 * carry the marks. Nothing is timed.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Disturbed, type Evidence, judge, type Measured } from "../../bench/fanout/measure.ts";
import { makePlan } from "../../bench/fanout/plan.ts";
import { makeRows, pairedRatio } from "../../bench/fanout/rows.ts";
import { compileReferences, type References, startServer } from "../../bench/fanout/servers.ts";
import {
  compileTools,
  openWorkshop,
  type StreamTools,
  streamTools,
  type Workshop,
} from "../../bench/lib/compile.ts";
import { createNetwork, type Network } from "../../bench/lib/netns.ts";
import { startPublisher } from "../../bench/lib/publisher.ts";
import { type Counts, type Sink, startReaders, startUdpSink } from "../../bench/lib/sink.ts";

function counts(packets: number, delaysUs: number[] = []): Counts {
  const samples = { receivers: 1, packets: delaysUs.length, gaps: 0, reordered: 0, delaysUs };
  return { packets, skbs: packets / 10, least: packets, most: packets, samples };
}

const evidence: Evidence = {
  before: counts(1000),
  after: counts(3000, [1000, 2000, 3000, 9000]),
  sent: { frames: 50, packets: 200, bytes: 1, unsent: 0, lateUs: 0 },
  use: { cpuNs: 2_000_000, threads: [] },
  windowSeconds: 2,
  residentBytes: 81_920,
  readers: 10,
};

describe("figures", () => {
  test("follow from counters: cost and rate a delivered packet, loss of what was sent", () => {
    expect(judge(evidence)).toMatchObject({
      nsPerPacket: 1000,
      packetsPerSecond: 1000,
      corePercent: 0.1,
      lossPercent: 0,
      p50Ms: 2,
      p99Ms: 9,
      bytesPerReader: 8192,
      packetsPerSend: 10,
    });
    expect(judge({ ...evidence, after: counts(2800) }).lossPercent).toBe(10);
  });

  test("are refused when readers were thrown out, or nothing arrived", () => {
    expect(() => judge({ ...evidence, after: { ...counts(3000), closed: 2 } })).toThrow("closed 2 of 10");
    expect(() => judge({ ...evidence, after: { ...counts(3000), garbage: 7 } })).toThrow("7 bytes");
    expect(() => judge({ ...evidence, after: counts(1000) })).toThrow("no packet reached the sink");
  });

  test("are refused when more arrived than was sent: that was a backlog", () => {
    expect(() => judge({ ...evidence, after: counts(3001) })).toThrow(Disturbed);
  });
});

describe("rows", () => {
  const measured = (nsPerPacket: number, lossPercent = 0): Measured => ({
    ...judge(evidence),
    nsPerPacket,
    lossPercent,
  });
  const series = (server: "relay" | "gso" | "sendto", readers: number, rounds: Measured[]) => ({
    scenario: { server, transport: "udp", readers, publish: "udp", segmentation: true } as const,
    rounds,
  });

  test("the first round is thrown away, ratios are those of the rounds", () => {
    const own = series("relay", 100, [measured(9999), measured(200), measured(300), measured(100)]);
    const other = series("sendto", 100, [measured(1), measured(1000), measured(1000), measured(1000)]);
    expect(pairedRatio(own, other)).toBe(0.2);
    const rows = makeRows([own, other]);
    expect(rows.find((row) => row.name === "relay, udp x 100: CPU")?.value).toBe(200);
    expect(rows.at(-1)).toMatchObject({ value: 0.2, op: "<=", target: 0.25, pass: true });
  });

  test("loss is that of the worst round", () => {
    const rows = makeRows([series("relay", 1000, [measured(1, 50), measured(1, 0), measured(1, 0.1)])]);
    expect(rows.find((row) => row.name.endsWith("loss"))).toMatchObject({ value: 0.1, pass: false });
  });

  test("every mark has a measurement in the full plan", () => {
    const plan = makePlan({ quick: false, relay: true, segmentation: true });
    const rows = makeRows(plan.steps.map(({ scenario }) => ({ scenario, rounds: [measured(1)] })));
    const marked = rows.filter((row) => row.pass !== null).map((row) => row.name);
    expect(new Set(marked)).toEqual(
      new Set([
        "relay, tcp x 100: CPU",
        "relay, tcp x 100: delay p99",
        "relay, udp x 100: CPU / C GSO loop's",
        "relay, udp x 100: CPU / C sendto loop's",
        "relay, udp x 100: delay p99",
        "relay, udp x 1000: core",
        "relay, udp x 1000: delay p99",
        "relay, udp x 1000: loss",
      ]),
    );
    expect(new Set(rows.map((row) => row.name)).size).toBe(rows.length);
  });
});

const noRoot = process.getuid?.() !== 0;

describe("the C programs", () => {
  let workshop: Workshop;
  let tools: StreamTools;
  let references: References;
  let network: Network;

  beforeAll(async () => {
    workshop = await openWorkshop();
    tools = await compileTools(workshop, streamTools);
    references = await compileReferences(workshop);
    network = await createNetwork(() => {});
  });
  afterAll(async () => {
    await network?.close();
    workshop?.close();
  });

  test("compile without a warning", () => {
    expect(Object.values(tools).concat(Object.values(references))).toHaveLength(5);
  });

  describe.skipIf(noRoot)("in namespaces of their own (skipped: needs root)", () => {
    const readers = 5;

    /** Publishes 10 frames through a reference; what was sent, and what the sink counted once it had it all. */
    async function relayed(server: "sendto" | "gso" | "dgram", where: Network) {
      const sink = await startUdpSink(tools, where, readers, () => {});
      const running = await startServer(server, { network: where, references, readers, publish: "udp" });
      const publisher = await startPublisher(tools, where, { ...running.publish, kbitPerSecond: 4000 });
      try {
        const sent = await publisher.send(10);
        return { sent, counted: await untilCounted(sink, sent.packets * readers), kind: sink.kind };
      } finally {
        await publisher.stop();
        await running.stop();
        await sink.stop();
      }
    }

    async function untilCounted(sink: Sink, packets: number): Promise<Counts> {
      const deadline = Date.now() + 10_000;
      for (;;) {
        const read = await sink.read();
        if (read.packets >= packets || Date.now() > deadline) return read;
      }
    }

    test.each(["sendto", "gso", "dgram"] as const)(
      "%s: the sink counts each packet of each receiver, the samples see each in order",
      async (server) => {
        const { sent, counted } = await relayed(server, network);
        expect(counted.packets).toBe(sent.packets * readers);
        expect([counted.least, counted.most]).toEqual([sent.packets, sent.packets]);
        expect(counted.samples).toMatchObject({ packets: 3 * sent.packets, gaps: 0, reordered: 0 });
        expect(counted.samples.delaysUs.length).toBeGreaterThan(sent.packets);
        expect(Math.min(...counted.samples.delaysUs)).toBeGreaterThanOrEqual(0);
      },
    );

    test("sockets that drop by filter count the same", async () => {
      const { sent, counted, kind } = await relayed("gso", { ...network, kind: "loopback" });
      expect(kind).toBe("socket");
      expect(counted.packets).toBe(sent.packets * readers);
      expect([counted.least, counted.most]).toEqual([sent.packets, sent.packets]);
    });

    test("TCP readers count the packets of the naive node:net loop", async () => {
      const running = await startServer("net", { network, references, readers, publish: "udp" });
      const sink = await startReaders(tools, network, { transport: "raw", url: running.url, readers });
      const publisher = await startPublisher(tools, network, { ...running.publish, kbitPerSecond: 4000 });
      try {
        const sent = await publisher.send(10);
        const counted = await untilCounted(sink, sent.packets * readers);
        expect(counted).toMatchObject({ packets: sent.packets * readers, closed: 0, garbage: 0 });
        expect(counted.samples).toMatchObject({ packets: 3 * sent.packets, gaps: 0, reordered: 0 });
      } finally {
        await publisher.stop();
        await sink.stop();
        await running.stop();
      }
    });
  });
});
