/**
 * The fan-out engine with real sockets on loopback: input by UDP and by push, receivers that come and go, key frames
 * and the cache, reports, taps, and what happens to bytes that are no RTP.
 */

import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { afterEach, describe, expect, it } from "vitest";
import { createFanout } from "../../src/layer3-ip/fanout.ts";
import type { DatagramEvent, Fanout, FanoutOptions, FramesEvent } from "../../src/layer3-ip/fanout-types.ts";

const h264 = { idr: 0x65, slice: 0x41, sps: 0x67 };
const cleanUps: (() => Promise<unknown> | unknown)[] = [];

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

interface PacketOptions {
  seq: number;
  time?: number;
  marker?: boolean;
  nal?: number;
  bytes?: number;
  payloadType?: number;
  ssrc?: number;
}

function rtp(options: PacketOptions): Buffer {
  const packet = Buffer.alloc(12 + (options.bytes ?? 100), options.seq & 0xff);
  packet[0] = 0x80;
  packet[1] = (options.marker ? 0x80 : 0) | (options.payloadType ?? 96);
  packet.writeUInt16BE(options.seq & 0xffff, 2);
  packet.writeUInt32BE(options.time ?? 0, 4);
  packet.writeUInt32BE(options.ssrc ?? 0x1234_5678, 8);
  if (packet.length > 12) packet[12] = options.nal ?? h264.slice;
  return packet;
}

/** A frame of `count` packets of equal size but the last; the first may start a key frame. */
function frame(firstSeq: number, time: number, count: number, key = false): Buffer[] {
  return Array.from({ length: count }, (_, i) =>
    rtp({
      seq: firstSeq + i,
      time,
      marker: i === count - 1,
      bytes: i === count - 1 && count > 1 ? 300 : 1000,
      nal: key && i === 0 ? h264.idr : h264.slice,
    }),
  );
}

async function engine(
  options: FanoutOptions = {},
): Promise<{ fanout: Fanout; socket: number; port: number; report: number }> {
  const fanout = await createFanout(options);
  cleanUps.push(() => fanout.close());
  const rtpSocket = await fanout.openSocket({ address: "127.0.0.1", port: 0 });
  const reports = await fanout.openSocket({ address: "127.0.0.1", port: 0 });
  return { fanout, socket: rtpSocket.id, port: rtpSocket.port, report: reports.id };
}

class Sink {
  readonly socket: Socket;
  readonly packets: Buffer[] = [];
  port = 0;

  constructor() {
    this.socket = createSocket({ type: "udp4", recvBufferSize: 4 << 20 });
    this.socket.on("message", (message) => this.packets.push(message));
    cleanUps.push(() => this.socket.close());
  }

  async bind(): Promise<this> {
    this.socket.bind(0, "127.0.0.1");
    await once(this.socket, "listening");
    this.port = this.socket.address().port;
    return this;
  }

  seqs(): number[] {
    return this.packets.map((packet) => packet.readUInt16BE(2));
  }

  async holds(count: number): Promise<void> {
    await until(
      () => this.packets.length >= count,
      () => `${this.packets.length} of ${count} packets`,
    );
  }
}

async function until(condition: () => boolean, what: () => string = () => "condition"): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not reached: ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function push(fanout: Fanout, track: number, packets: Buffer[]): void {
  const offsets = new Uint32Array(2 * packets.length);
  let at = 0;
  packets.forEach((packet, i) => {
    offsets[2 * i] = at;
    offsets[2 * i + 1] = packet.length;
    at += packet.length;
  });
  fanout.push(track, Buffer.concat(packets), offsets, packets.length);
}

const video = { payloadType: 96, keyFrames: "h264", clockRate: 90_000 } as const;
const audio = { payloadType: 97, keyFrames: "any", clockRate: 48_000 } as const;

function receiverOptions(
  own: { socket: number; report: number },
  sink: Sink,
  start: "key" | "now" = "now",
  reportPort = 0,
) {
  return {
    socket: own.socket,
    reportSocket: own.report,
    address: "127.0.0.1",
    port: sink.port,
    reportPort,
    start,
  };
}

describe("fan-out", () => {
  it("sends what a UDP source sent to every receiver, unchanged and in order", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...audio });
    const sinks = await Promise.all([new Sink().bind(), new Sink().bind(), new Sink().bind()]);
    for (const sink of sinks)
      own.fanout.startReceiver(own.fanout.addReceiver(track, receiverOptions(own, sink)).receiver);
    const source = await new Sink().bind();
    own.fanout.addSource(track, own.socket, "127.0.0.1", source.port);
    const sent: Buffer[] = [];
    for (let i = 0; i < 40; i++) sent.push(...frame(10 * i, 3000 * i, 10));
    for (let i = 0; i < sent.length; i += 20) {
      for (const packet of sent.slice(i, i + 20)) source.socket.send(packet, own.port, "127.0.0.1");
      await until(() => (own.fanout.counters()["receive.packets"] ?? 0) >= Math.min(i + 20, sent.length));
    }
    for (const sink of sinks) {
      await sink.holds(sent.length);
      expect(sink.packets.map((packet) => packet.toString("hex"))).toEqual(
        sent.map((packet) => packet.toString("hex")),
      );
    }
  });

  it("sends a frame as one GSO message a receiver, and as plain ones where GSO is off", async () => {
    const shares: number[] = [];
    for (const gso of [true, false]) {
      const own = await engine({ gso });
      const track = own.fanout.openTrack({ ...audio });
      const sink = await new Sink().bind();
      own.fanout.startReceiver(own.fanout.addReceiver(track, receiverOptions(own, sink)).receiver);
      push(own.fanout, track, frame(0, 0, 10));
      await sink.holds(10);
      expect(sink.seqs()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      const counters = own.fanout.counters();
      shares.push(counters["send.messages"] ?? -1);
      expect(counters["send.packets"]).toBe(10);
      expect(counters["send.gso_packets"]).toBe(gso ? 10 : 0);
    }
    expect(shares).toEqual([1, 10]);
  });

  it("takes in one call what a GSO sender sent as one, and passes it on packet for packet", async () => {
    const [first, second] = [await engine(), await engine()];
    const near = first.fanout.openTrack({ ...audio });
    const far = second.fanout.openTrack({ ...audio });
    const next = first.fanout.addReceiver(near, {
      ...{ socket: first.socket, reportSocket: first.report, start: "now" },
      ...{ address: "127.0.0.1", port: second.port, reportPort: 0 },
    });
    first.fanout.startReceiver(next.receiver);
    second.fanout.addSource(far, second.socket, "127.0.0.1", first.port);
    const sink = await new Sink().bind();
    second.fanout.startReceiver(second.fanout.addReceiver(far, receiverOptions(second, sink)).receiver);
    const sent = [...frame(0, 0, 12), ...frame(12, 100, 12)];
    push(first.fanout, near, sent);
    await sink.holds(sent.length);
    expect(sink.packets.map((packet) => packet.toString("hex"))).toEqual(
      sent.map((packet) => packet.toString("hex")),
    );
    const counters = second.fanout.counters();
    expect(counters["receive.packets"]).toBe(sent.length);
    // On a kernel without UDP_GRO each packet is a message; with it, each frame.
    const together = counters["receive.gro_packets"] ?? 0;
    expect(counters["receive.messages"]).toBe(together > 0 ? 2 : sent.length);
  });

  it("sends packets that are too long for one GSO run, mixed sizes and more than 64 of them", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...audio });
    const sink = await new Sink().bind();
    own.fanout.startReceiver(own.fanout.addReceiver(track, receiverOptions(own, sink)).receiver);
    const sizes = [
      20,
      1400,
      1400,
      1400,
      9000,
      9000,
      30,
      30,
      1,
      2000,
      ...Array.from({ length: 150 }, () => 600),
      7,
      60_000,
    ];
    const packets = sizes.map((bytes, seq) => rtp({ seq, bytes, marker: seq === sizes.length - 1 }));
    push(own.fanout, track, packets);
    await sink.holds(packets.length);
    expect(sink.packets.map((packet) => packet.toString("hex"))).toEqual(
      packets.map((packet) => packet.toString("hex")),
    );
  });

  it("holds an unmarked frame for holdMs at most, and lets it go when the timestamp changes", async () => {
    const own = await engine({ holdMs: 20 });
    const track = own.fanout.openTrack({ ...audio });
    const sink = await new Sink().bind();
    own.fanout.startReceiver(own.fanout.addReceiver(track, receiverOptions(own, sink)).receiver);
    push(own.fanout, track, [
      rtp({ seq: 1, time: 10 }),
      rtp({ seq: 2, time: 10 }),
      rtp({ seq: 3, time: 20 }),
    ]);
    await sink.holds(3);
    expect(sink.seqs()).toEqual([1, 2, 3]);
    expect(own.fanout.counters()).toMatchObject({ frames: 2, "frames.by_hold": 1 });
  });

  it("starts a new receiver at the cached key frame, where RTP-Info was told it would, then goes on live", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...video });
    push(own.fanout, track, [...frame(0, 0, 5), ...frame(5, 3000, 5, true), ...frame(10, 6000, 5)]);
    await until(() => own.fanout.trackStatus(track).packets === 15);
    const sink = await new Sink().bind();
    const start = own.fanout.addReceiver(track, receiverOptions(own, sink, "key"));
    expect(start).toMatchObject({ seq: 5, rtpTime: 3000, ssrc: 0x1234_5678 });
    push(own.fanout, track, frame(15, 9000, 5));
    await until(() => own.fanout.trackStatus(track).packets === 20);
    expect(sink.packets.length).toBe(0); // prepared, not started
    own.fanout.startReceiver(start.receiver);
    await sink.holds(15);
    push(own.fanout, track, frame(20, 12_000, 5));
    await sink.holds(20);
    expect(sink.seqs()).toEqual(Array.from({ length: 20 }, (_, i) => i + 5));
    expect(own.fanout.receiverStatus(start.receiver)).toMatchObject({
      packets: 20,
      caughtUp: true,
      dropped: 0,
    });
  });

  it("keeps the order across several key frames while a receiver catches up", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...video });
    let seq = 0;
    const more = (key: boolean): void => {
      push(own.fanout, track, frame(seq, seq * 100, 20, key));
      seq += 20;
    };
    more(true);
    for (let i = 0; i < 20; i++) more(false);
    await until(() => own.fanout.trackStatus(track).packets === seq);
    const sink = await new Sink().bind();
    own.fanout.startReceiver(own.fanout.addReceiver(track, receiverOptions(own, sink, "key")).receiver);
    more(true);
    for (let i = 0; i < 20; i++) more(i === 10);
    await sink.holds(seq);
    expect(sink.seqs()).toEqual(Array.from({ length: seq }, (_, i) => i));
  });

  it("makes a receiver wait for a key frame when none is cached, and audio start at once", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...video });
    const sound = own.fanout.openTrack({ ...audio });
    const sinks = [await new Sink().bind(), await new Sink().bind()] as const;
    own.fanout.startReceiver(own.fanout.addReceiver(track, receiverOptions(own, sinks[0], "key")).receiver);
    own.fanout.startReceiver(own.fanout.addReceiver(sound, receiverOptions(own, sinks[1], "key")).receiver);
    push(own.fanout, track, [...frame(0, 0, 4), ...frame(4, 3000, 4, true), ...frame(8, 6000, 4)]);
    push(own.fanout, sound, [rtp({ seq: 70, time: 7, marker: true })]);
    await sinks[0].holds(8);
    await sinks[1].holds(1);
    expect(sinks[0].seqs()).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it("takes the whole key frame into the cache when its first packets say nothing of it", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...video });
    const delimiter = rtp({ seq: 1, time: 500, nal: 9, bytes: 2 });
    const sps = rtp({ seq: 2, time: 500, nal: h264.sps, bytes: 20 });
    push(own.fanout, track, [
      ...frame(0, 0, 1),
      delimiter,
      sps,
      rtp({ seq: 3, time: 500, nal: h264.idr, marker: true }),
    ]);
    await until(() => own.fanout.trackStatus(track).packets === 4);
    const sink = await new Sink().bind();
    const start = own.fanout.addReceiver(track, receiverOptions(own, sink, "key"));
    expect(start.seq).toBe(1);
    own.fanout.startReceiver(start.receiver);
    await sink.holds(3);
    expect(sink.seqs()).toEqual([1, 2, 3]);
  });

  it("starts audio's cache where the video's key frame begins", async () => {
    const own = await engine();
    const picture = own.fanout.openTrack({ ...video });
    const sound = own.fanout.openTrack({ ...audio, leader: picture });
    push(own.fanout, sound, [rtp({ seq: 1, time: 1, marker: true }), rtp({ seq: 2, time: 2, marker: true })]);
    push(own.fanout, picture, frame(0, 0, 3, true));
    push(own.fanout, sound, [rtp({ seq: 3, time: 3, marker: true }), rtp({ seq: 4, time: 4, marker: true })]);
    await until(() => own.fanout.trackStatus(sound).packets === 4);
    const sink = await new Sink().bind();
    const start = own.fanout.addReceiver(sound, receiverOptions(own, sink, "key"));
    expect(start.seq).toBe(3);
    own.fanout.startReceiver(start.receiver);
    await sink.holds(2);
    expect(sink.seqs()).toEqual([3, 4]);
  });

  it("bounds the cache, and has none until the next key frame once it was passed", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...video, cacheBytes: 20_000 });
    push(own.fanout, track, frame(0, 0, 2, true));
    for (let i = 0; i < 10; i++) push(own.fanout, track, frame(2 + 5 * i, 100 + i, 5));
    await until(() => own.fanout.trackStatus(track).packets === 52);
    expect(own.fanout.trackStatus(track).cachedPackets).toBe(0);
    const sink = await new Sink().bind();
    const start = own.fanout.addReceiver(track, receiverOptions(own, sink, "key"));
    expect(start.seq).toBe(52);
    own.fanout.startReceiver(start.receiver);
    push(own.fanout, track, [...frame(52, 200, 2), ...frame(54, 201, 2, true)]);
    await sink.holds(2);
    expect(sink.seqs()).toEqual([54, 55]);
  });

  it("moves and removes receivers while packets flow; a packet sees the list before or after", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...audio });
    const [before, after, gone] = [await new Sink().bind(), await new Sink().bind(), await new Sink().bind()];
    const moved = own.fanout.addReceiver(track, receiverOptions(own, before)).receiver;
    const removed = own.fanout.addReceiver(track, receiverOptions(own, gone)).receiver;
    own.fanout.startReceiver(moved);
    own.fanout.startReceiver(removed);
    push(own.fanout, track, frame(0, 0, 5));
    await gone.holds(5);
    own.fanout.moveReceiver(moved, "127.0.0.1", after.port, 0);
    own.fanout.removeReceiver(removed);
    push(own.fanout, track, frame(5, 100, 5));
    await after.holds(5);
    expect(before.seqs()).toEqual([0, 1, 2, 3, 4]);
    expect(after.seqs()).toEqual([5, 6, 7, 8, 9]);
    expect(gone.packets.length).toBe(5);
    expect(own.fanout.receiverStatus(removed)).toBeUndefined();
    expect(own.fanout.trackStatus(track).receivers).toBe(1);
  });

  it("tells strangers, runts and RTCP as datagrams, and drops and counts what is no RTP from a source", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...audio });
    const heard: DatagramEvent[] = [];
    own.fanout.events = { datagram: (event) => heard.push(event) };
    const [source, stranger] = [await new Sink().bind(), await new Sink().bind()];
    own.fanout.addSource(track, own.socket, "127.0.0.1", source.port);
    const receiverReport = Buffer.from(
      "81c90007000000010000000200000000000000030000000000000000000000000",
      "hex",
    );
    stranger.socket.send(Buffer.from([0xce, 0xfa, 0xed, 0xfe]), own.port, "127.0.0.1");
    stranger.socket.send(rtp({ seq: 9 }), own.port, "127.0.0.1");
    source.socket.send(receiverReport, own.port, "127.0.0.1");
    source.socket.send(Buffer.from([0x00, 0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), own.port, "127.0.0.1");
    source.socket.send(Buffer.alloc(0), own.port, "127.0.0.1");
    source.socket.send(Buffer.from([0x8f, 0x60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), own.port, "127.0.0.1");
    source.socket.send(rtp({ seq: 1, marker: true }), own.port, "127.0.0.1");
    await until(() => heard.length === 3 && own.fanout.trackStatus(track).packets === 1);
    expect(heard.map((event) => event.port).sort()).toEqual(
      [stranger.port, stranger.port, source.port].sort(),
    );
    expect(heard.find((event) => event.bytes.length === 4)?.bytes).toEqual(
      new Uint8Array([0xce, 0xfa, 0xed, 0xfe]),
    );
    expect(own.fanout.counters()["drop.malformed"]).toBe(3);
  });

  it("knows a source from the moment it was named: its first packet is never a stranger's", async () => {
    const own = await engine();
    const heard: DatagramEvent[] = [];
    own.fanout.events = { datagram: (event) => heard.push(event) };
    const noise = await new Sink().bind();
    for (let i = 0; i < 200; i++) {
      const track = own.fanout.openTrack({ ...audio });
      const source = await new Sink().bind();
      // The engine's thread is in the middle of other datagrams while the source is named and begins.
      noise.socket.send(Buffer.from([1]), own.port, "127.0.0.1");
      own.fanout.addSource(track, own.socket, "127.0.0.1", source.port);
      source.socket.send(rtp({ seq: i, marker: true }), own.port, "127.0.0.1");
      await until(() => own.fanout.trackStatus(track).packets === 1);
      own.fanout.closeTrack(track);
    }
    expect(heard.filter((event) => event.port !== noise.port)).toEqual([]);
  });

  it("sends reports with each receiver's own counts, and a BYE when asked", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...audio });
    const [sink, reports] = [await new Sink().bind(), await new Sink().bind()];
    const { receiver } = own.fanout.addReceiver(track, receiverOptions(own, sink, "now", reports.port));
    own.fanout.startReceiver(receiver);
    push(own.fanout, track, frame(0, 0, 4));
    await sink.holds(4);
    const report = { ntpSeconds: 0xe000_0001, ntpFraction: 0x8000_0000, rtpTime: 0xfedc_ba98, cname: "apo" };
    own.fanout.sendReport(track, report);
    own.fanout.sendReport(track, { ...report, bye: true }, receiver);
    await reports.holds(2);
    const [first, second] = reports.packets as [Buffer, Buffer];
    expect(first.subarray(0, 28).toString("hex")).toBe(
      `80c80006${"12345678"}e000000180000000fedcba98${"00000004"}${(1000 * 3 + 300).toString(16).padStart(8, "0")}`,
    );
    expect(first.subarray(28).toString("hex")).toBe("81ca00031234567801036170" + "6f000000");
    expect(second.subarray(-8).toString("hex")).toBe("81cb000112345678");
  });

  it("taps frames for the app as interleaved packets, after what was cached, without a gap or a repeat", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...video });
    push(own.fanout, track, [...frame(0, 0, 3), ...frame(3, 100, 3, true), ...frame(6, 200, 3)]);
    const seen: { seq: number; ticket: number; key: boolean; last: boolean }[] = [];
    own.fanout.events = {
      frames(event: FramesEvent) {
        const view = Buffer.from(event.bytes.buffer, event.bytes.byteOffset, event.bytes.byteLength);
        let at = 0;
        for (const offset of event.offsets) {
          expect(offset).toBe(at);
          expect(view[at]).toBe(0x24);
          seen.push({
            seq: view.readUInt16BE(at + 6),
            ticket: event.ticket,
            key: event.key,
            last: event.last,
          });
          at += 4 + view.readUInt16BE(at + 2);
        }
        expect(at).toBe(view.length);
      },
    };
    await until(() => own.fanout.trackStatus(track).packets === 9);
    own.fanout.tap(track, true);
    const { ticket, seq } = own.fanout.cached(track);
    expect(seq).toBe(3);
    push(own.fanout, track, [...frame(9, 300, 3), ...frame(12, 400, 3, true)]);
    await until(() => seen.length === 12);
    expect(seen.map((packet) => packet.seq)).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    expect(seen.slice(0, 6).every((packet) => packet.ticket === ticket)).toBe(true);
    expect(seen.slice(6).every((packet) => packet.ticket === 0)).toBe(true);
    expect(seen.filter((packet) => packet.key).map((packet) => packet.seq)).toEqual([
      3, 4, 5, 6, 7, 8, 12, 13, 14,
    ]);
  });

  it("answers a ticket on an empty track with one empty last event", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...video });
    const events: { packets: number; last: boolean; ticket: number }[] = [];
    own.fanout.events = { frames: ({ packets, last, ticket }) => events.push({ packets, last, ticket }) };
    const { ticket, seq } = own.fanout.cached(track);
    expect(seq).toBe(-1);
    await until(() => events.length === 1);
    expect(events).toEqual([{ packets: 0, last: true, ticket }]);
  });

  it("counts loss, and survives wraps, duplicates and a publisher that begins anew", async () => {
    const own = await engine();
    const track = own.fanout.openTrack({ ...audio });
    const seqs = [65_533, 65_534, 65_534, 65_535, 0, 3, 2];
    push(
      own.fanout,
      track,
      seqs.map((seq) => rtp({ seq, marker: true })),
    );
    await until(() => own.fanout.trackStatus(track).packets === seqs.length);
    expect(own.fanout.trackStatus(track)).toMatchObject({ baseSeq: 65_533, extendedSeq: 65_539, lost: 0 });
    push(own.fanout, track, [rtp({ seq: 7, marker: true })]);
    await until(() => own.fanout.trackStatus(track).lost === 3);
    push(own.fanout, track, [rtp({ seq: 1000, ssrc: 5, marker: true })]);
    await until(() => own.fanout.trackStatus(track).ssrc === 5);
    expect(own.fanout.trackStatus(track)).toMatchObject({ baseSeq: 1000, extendedSeq: 1000, lost: 0 });
  });

  it("serves both families on one port, and goes on when a receiver cannot be reached", async () => {
    const fanout = await createFanout();
    cleanUps.push(() => fanout.close());
    const socket = await fanout.openSocket({ port: 0 });
    const track = fanout.openTrack({ ...audio });
    const sink = await new Sink().bind();
    const own = { socket: socket.id, report: socket.id };
    const lost = { ...receiverOptions(own, sink), address: "2001:db8::1" };
    for (const options of [lost, receiverOptions(own, sink)]) {
      fanout.startReceiver(fanout.addReceiver(track, options).receiver);
    }
    push(fanout, track, frame(0, 0, 5));
    await sink.holds(5);
    const v6 = createSocket("udp6");
    cleanUps.push(() => v6.close());
    v6.bind(0, "::1");
    const bound = await Promise.race([
      once(v6, "listening").then(() => true),
      once(v6, "error").then(() => false),
    ]);
    if (!bound) return;
    const own6 = { ...receiverOptions(own, sink), address: "::1", port: v6.address().port };
    fanout.startReceiver(fanout.addReceiver(track, own6).receiver);
    const message = once(v6, "message");
    push(fanout, track, frame(5, 1, 1));
    expect(((await message) as [Buffer])[0].readUInt16BE(2)).toBe(5);
  });

  it("says which port is taken, which address is none, and that it has been closed", async () => {
    const own = await engine();
    await expect(own.fanout.openSocket({ address: "127.0.0.1", port: own.port })).rejects.toMatchObject({
      code: "EADDRINUSE",
    });
    await expect(own.fanout.openSocket({ address: "192.0.2.1", port: 0 })).rejects.toMatchObject({
      code: "EADDRNOTAVAIL",
    });
    await expect(own.fanout.openSocket({ port: 70_000 })).rejects.toMatchObject({ code: "EINVAL" });
    const track = own.fanout.openTrack({ ...audio });
    expect(() => own.fanout.addSource(track, own.socket, "camera.example", 1)).toThrow(/not an IP address/);
    expect(() => own.fanout.push(track, new Uint8Array(10), new Uint32Array([0, 11]), 1)).toThrow(/outside/);
    expect(() =>
      own.fanout.addReceiver(999, {
        socket: 1,
        reportSocket: 1,
        address: "::1",
        port: 1,
        reportPort: 1,
        start: "now",
      }),
    ).toThrow(/closed/);
    await own.fanout.close();
    await own.fanout.close();
    expect(() => own.fanout.openTrack({ ...audio })).toThrow(
      expect.objectContaining({ code: "ECLOSED" }) as Error,
    );
  });

  it("frees its ports, tracks and receivers", async () => {
    const own = await engine();
    for (let i = 0; i < 50; i++) {
      const track = own.fanout.openTrack({ ...video });
      const sink = { port: 9 } as Sink;
      const receivers = Array.from({ length: 20 }, () =>
        own.fanout.addReceiver(track, receiverOptions(own, sink, "key")),
      );
      push(own.fanout, track, frame(0, 0, 3, true));
      for (const { receiver } of receivers) own.fanout.startReceiver(receiver);
      own.fanout.closeTrack(track);
      expect(() => own.fanout.trackStatus(track)).toThrow(/closed/);
      await until(() => receivers.every(({ receiver }) => own.fanout.receiverStatus(receiver) === undefined));
    }
    const socket = await own.fanout.openSocket({ address: "127.0.0.1", port: 0 });
    own.fanout.closeSocket(socket.id);
    const again = createSocket("udp4");
    cleanUps.push(() => again.close());
    let bound = false;
    again.on("error", () => again.bind(socket.port, "127.0.0.1"));
    again.on("listening", () => {
      bound = true;
    });
    again.bind(socket.port, "127.0.0.1");
    await until(() => bound);
  });
});
