/** Slow TCP readers: held, let go on at a key frame, given up; and nobody else notices. */
import { describe, expect, it } from "vitest";
import { AV_SDP, frame, harness, playTcp, rtp, VIDEO_SDP } from "./harness.ts";

const PACKET = 1000;

async function slowAndFast(sdp = VIDEO_SDP) {
  const made = await harness({ budgetBytes: 10 * PACKET, stallMs: 10_000 });
  const publisher = await made.publish("cam", sdp);
  const slow = made.reader("10.0.0.1", 1111);
  const fast = made.reader("10.0.0.2", 2222);
  const tracks = sdp === AV_SDP ? 2 : 1;
  await playTcp(slow, "cam", tracks);
  await playTcp(fast, "cam", tracks);
  let seq = 0;
  const send = async (count: number, key = false) => {
    for (let i = 0; i < count; i++) {
      seq++;
      await publisher.write(frame(0, rtp(seq, seq, { key, bytes: PACKET })));
      if (tracks === 2) await publisher.write(frame(2, rtp(seq, seq, { payloadType: 97 })));
    }
  };
  const seqs = (client: typeof slow, channel = 0) =>
    client
      .frames()
      .filter((one) => one.channel === channel)
      .map(({ packet }) => packet[3]);
  return { ...made, slow, fast, send, seqs };
}

describe("a TCP reader that does not keep up", () => {
  it("is held at its budget, and goes on at the next key frame once it has caught up", async () => {
    const { slow, fast, send, seqs, relay, log } = await slowAndFast();
    await send(1, true);
    slow.stuck = true;
    await send(20);
    expect(slow.queuedBytes).toBeGreaterThan(10 * PACKET);
    expect(slow.queuedBytes).toBeLessThan(13 * PACKET);
    await send(1, true); // It has not caught up: this key frame is not for it.
    slow.unstick();
    await send(2); // And these cannot be decoded without it.
    seqs(slow);
    await send(1, true);
    await send(2);
    expect(seqs(slow)).toEqual([25, 26, 27]);
    expect(seqs(fast)).toEqual(Array.from({ length: 27 }, (_, i) => i + 1));
    const { counters } = relay.stats();
    expect(counters["slow.readers"]).toBe(1);
    // 27 in all; 1, the queued ones and the last 3 were sent.
    expect(counters["slow.packets"]).toBe(27 - 1 - 10 - 3);
    expect(counters["slow.disconnected"]).toBe(0);
    const told = log.filter(({ event }) => event.startsWith("reader-slow") || event === "reader-caught-up");
    expect(told.map(({ event, text }) => [event, text.includes("10.0.0.1:1111")])).toEqual([
      ["reader-slow", true],
      ["reader-caught-up", true],
    ]);
  });

  it("its audio stops and goes on with its video", async () => {
    const { slow, fast, send, seqs } = await slowAndFast(AV_SDP);
    await send(1, true);
    slow.stuck = true;
    await send(20);
    slow.unstick();
    seqs(slow);
    await send(1);
    expect(slow.frames()).toEqual([]);
    await send(1, true);
    await send(1);
    const frames = slow.frames().map(({ channel, packet }) => [channel, packet[3]]);
    expect(frames).toEqual([
      [0, 23],
      [2, 23],
      [0, 24],
      [2, 24],
    ]);
    expect(seqs(fast, 2)).toHaveLength(24);
  });

  it("is disconnected when it takes nothing for ten seconds, and leaves nothing behind", async () => {
    const { slow, fast, send, relay, pass, log } = await slowAndFast();
    await send(1, true);
    pass(1);
    slow.stuck = true;
    await send(20);
    pass(10);
    expect(slow.ended).toBe(false);
    pass(2);
    expect(slow.ended).toBe(true);
    expect(fast.ended).toBe(false);
    expect(relay.stats()).toMatchObject({ readers: 1, connections: 2, counters: { "slow.disconnected": 1 } });
    expect(log.find(({ event }) => event === "reader-stalled")?.text).toContain("10.0.0.1:1111");
  });

  it("is kept as long as it takes something", async () => {
    const { slow, send, relay, pass } = await slowAndFast();
    await send(1, true);
    slow.stuck = true;
    await send(20);
    for (let i = 0; i < 30; i++) {
      slow.queuedBytes -= 100;
      slow.writtenBytes += 100;
      pass(1);
    }
    expect(slow.ended).toBe(false);
    expect(relay.stats().readers).toBe(2);
  });
});

describe("many TCP readers", () => {
  it("join and leave in any order, and each gets every packet of its time, on its own channel", async () => {
    const { reader, publish } = await harness();
    const publisher = await publish();
    const clients = [];
    for (let i = 0; i < 40; i++) {
      const client = reader(`10.0.1.${i}`);
      const channels = `${2 * (i % 3)}-${2 * (i % 3) + 1}`;
      await client.ask("SETUP", "rtsp://192.0.2.1:8554/cam/trackID=0", {
        Transport: `RTP/AVP/TCP;unicast;interleaved=${channels}`,
      });
      await client.ask("PLAY", "rtsp://192.0.2.1:8554/cam");
      clients.push(client);
    }
    await publisher.write(frame(0, rtp(1, 1, { key: true })));
    for (const [i, client] of clients.entries()) if (i % 4 === 1) client.end();
    await publisher.write(frame(0, rtp(2, 2)));
    await clients[0]?.ask("TEARDOWN", "rtsp://192.0.2.1:8554/cam").catch(() => {});
    for (const [i, client] of clients.entries()) {
      if (i === 0) continue;
      const frames = client.frames();
      expect(frames.map(({ packet }) => packet[3])).toEqual(i % 4 === 1 ? [1] : [1, 2]);
      expect(new Set(frames.map(({ channel }) => channel))).toEqual(new Set([2 * (i % 3)]));
    }
  });
});
