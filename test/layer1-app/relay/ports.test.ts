/** One port pair for all: whose a datagram is, and NATs (field behaviours 5a.21 and 5a.22). */
import { describe, expect, it } from "vitest";
import { buildReceiverReport } from "../../../src/layer1-app/relay/protocol/rtcp.ts";
import { AV_SDP, BASE, frame, type Harness, harness, playUdp, rtp, setupUdp, VIDEO_SDP } from "./harness.ts";

const punches: [string, Uint8Array][] = [
  ["FFmpeg's twelve zeros", new Uint8Array(12)],
  ["ZLMediaKit's four bytes", Uint8Array.of(0xce, 0xfa, 0xed, 0xfe)],
  ["an empty RTP packet", Uint8Array.of(0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
  ["a four-byte stub", new Uint8Array(4)],
  ["one byte", Uint8Array.of(0)],
];
const emptyReport = buildReceiverReport(0);

async function publishing(sdp = VIDEO_SDP): Promise<Harness & { media(seq: number): Promise<void> }> {
  const made = await harness();
  const publisher = await made.publish("cam", sdp);
  return {
    ...made,
    media: async (seq) => {
      await publisher.write(frame(0, rtp(seq, seq, { key: true })));
      if (sdp === AV_SDP) await publisher.write(frame(2, rtp(seq, seq, { payloadType: 97, ssrc: 0x99 })));
    },
  };
}

describe("a reader behind a NAT", () => {
  it.each(punches)("5a.21 is learned from %s, before PLAY", async (_, punch) => {
    const { reader, relay, fanout, media } = await publishing();
    const client = reader("10.0.0.1");
    const session = await setupUdp(client);
    fanout.arrive(relay.rtpSocket.id, "10.0.0.1", 40_000, punch);
    fanout.arrive(relay.rtcpSocket.id, "10.0.0.1", 40_001, emptyReport);
    await client.ask("PLAY", `${BASE}/cam`, { Session: session });
    await media(1);
    expect(fanout.take("10.0.0.1 40000")).toHaveLength(1);
    expect(fanout.take("10.0.0.1 6000")).toEqual([]);
    expect(relay.stats().counters).toMatchObject({ "datagrams.learned": 2, "datagrams.strangers": 0 });
  });

  it("5a.21 is learned after PLAY too, once a channel, its tracks in SETUP order", async () => {
    const { reader, relay, fanout, media } = await publishing(AV_SDP);
    await playUdp(reader("10.0.0.1"), "cam", 2);
    for (const port of [40_000, 40_002, 40_004]) {
      fanout.arrive(relay.rtpSocket.id, "10.0.0.1", port, new Uint8Array(12));
    }
    await media(1);
    const counts = [40_000, 40_002, 40_004, 6000, 6002].map((port) => fanout.take(`10.0.0.1 ${port}`).length);
    expect(counts).toEqual([1, 1, 0, 0, 0]);
    expect(relay.stats().counters["datagrams.strangers"]).toBe(1);
  });

  it("5a.21 a report's SSRC tells the track, whatever the order", async () => {
    const { reader, relay, fanout, media, pass } = await publishing(AV_SDP);
    await media(1);
    await playUdp(reader("10.0.0.1"), "cam", 2);
    const block = { fractionLost: 0, lost: 0, extendedSeq: 1, jitter: 0, lastReport: 0, delay: 0 };
    const audio = buildReceiverReport(5, [{ ssrc: 0x99, ...block }]);
    fanout.arrive(relay.rtcpSocket.id, "10.0.0.1", 40_003, audio);
    fanout.sent.length = 0;
    pass(6);
    expect(fanout.take("10.0.0.1 40003").length).toBeGreaterThan(0);
    expect(fanout.take("10.0.0.1 6001").length).toBeGreaterThan(0);
    expect(fanout.take("10.0.0.1 6003")).toEqual([]);
  });

  it("5a.21 the latest of two behind the same address is meant; one heard on its own port is not moved", async () => {
    const { reader, relay, fanout, media } = await publishing();
    await playUdp(reader("10.0.0.1"), "cam", 1, 6000);
    fanout.arrive(relay.rtpSocket.id, "10.0.0.1", 6000, new Uint8Array(12));
    await playUdp(reader("10.0.0.1"), "cam", 1, 6000);
    fanout.arrive(relay.rtpSocket.id, "10.0.0.1", 40_000, new Uint8Array(12));
    fanout.arrive(relay.rtpSocket.id, "10.0.0.1", 50_000, new Uint8Array(12));
    await media(1);
    const counts = [6000, 40_000, 50_000].map((port) => fanout.take(`10.0.0.1 ${port}`).length);
    expect(counts).toEqual([1, 1, 0]);
  });

  it("5a.21 another address is never learned, nor is one after half a minute", async () => {
    const { reader, relay, fanout, media, pass } = await publishing();
    await playUdp(reader("10.0.0.1"));
    fanout.arrive(relay.rtpSocket.id, "10.6.6.6", 40_000, new Uint8Array(12));
    pass(31);
    fanout.arrive(relay.rtpSocket.id, "10.0.0.1", 40_000, new Uint8Array(12));
    await media(1);
    expect(fanout.take("10.0.0.1 6000")).toHaveLength(1);
    expect(relay.stats().counters).toMatchObject({ "datagrams.learned": 0, "datagrams.strangers": 2 });
  });

  it("5a.22 RTP and RTCP keep ports of their own", async () => {
    const { reader, relay, fanout, media } = await publishing();
    await media(1);
    await playUdp(reader("10.0.0.1"));
    fanout.arrive(relay.rtcpSocket.id, "10.0.0.1", 40_001, emptyReport);
    fanout.sent.length = 0;
    await media(2);
    expect(fanout.sent.map(({ to, socket }) => [to, socket])).toEqual([
      ["10.0.0.1 6000", relay.rtpSocket.id],
    ]);
  });
});

describe("a publisher over UDP", () => {
  async function record(made: Harness, sdp: string): Promise<void> {
    const client = made.reader("10.0.0.9");
    await client.ask("ANNOUNCE", `${BASE}/cam`, { "Content-Type": "application/sdp" }, sdp);
    for (const [i, ports] of ["7000-7001", "7002-7003"].slice(0, sdp === AV_SDP ? 2 : 1).entries()) {
      const transport = `RTP/AVP;unicast;client_port=${ports};mode=record`;
      await client.ask("SETUP", `${BASE}/cam/streamid=${i}`, { Transport: transport });
    }
    expect((await client.ask("RECORD", `${BASE}/cam`)).status).toBe(200);
  }

  it("is known by its client_port", async () => {
    const made = await harness();
    await record(made, AV_SDP);
    const { fanout, relay, reader } = made;
    await playUdp(reader("10.0.0.1"), "cam", 2);
    fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 7002, rtp(1, 1, { payloadType: 97 }));
    fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 7000, rtp(1, 1, { key: true }));
    expect([fanout.take("10.0.0.1 6000").length, fanout.take("10.0.0.1 6002").length]).toEqual([1, 1]);
  });

  it("else by its address and a payload type of its SDP; nothing is lost over it", async () => {
    const made = await harness();
    await record(made, AV_SDP);
    const { fanout, relay, reader } = made;
    await playUdp(reader("10.0.0.1"), "cam", 2);
    for (let i = 1; i <= 3; i++) {
      fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 41_000, rtp(i, i, { key: true }));
      fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 41_002, rtp(i, i, { payloadType: 97 }));
    }
    expect([fanout.take("10.0.0.1 6000").length, fanout.take("10.0.0.1 6002").length]).toEqual([3, 3]);
  });

  it("a stranger's RTP, or RTP of another version, is dropped and counted", async () => {
    const made = await harness();
    await record(made, VIDEO_SDP);
    const { fanout, relay, reader, log } = made;
    await playUdp(reader("10.0.0.1"));
    fanout.arrive(relay.rtpSocket.id, "10.6.6.6", 7000, rtp(1, 1, { key: true }));
    fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 7999, rtp(1, 1, { key: true, payloadType: 33 }));
    const version1 = rtp(1, 1, { key: true });
    version1[0] = 0x40;
    fanout.arrive(relay.rtpSocket.id, "10.0.0.9", 7999, version1);
    expect(fanout.take("10.0.0.1 6000")).toEqual([]);
    expect(relay.stats().counters["datagrams.strangers"]).toBe(3);
    expect(log.filter(({ event }) => event === "strangers")).toHaveLength(1);
  });
});
