/** The native thread's part in virtual time, with hand-made segments: out, over a wire, in; the pool that watches. */
import { beforeEach, describe, expect, test } from "vitest";
import { CheckedPool, freedByte, takePool } from "../../../src/layer2-transport/simulation/checked-pool.ts";
import { load32, store16, store32, tcpFlag } from "../../../src/layer2-transport/simulation/packet-bytes.ts";
import { VirtualLayer3 } from "../../../src/layer2-transport/simulation/virtual-layer3.ts";
import * as descriptor from "../../../src/layer3-ip/descriptor.ts";
import { parsePrefix } from "../../../src/layer3-ip/ip-prefix.ts";
import { RandomStream, SeedMixer } from "../../../src/layer3-ip/random-stream.ts";
import { SteerHash, shardOfHash } from "../../../src/layer3-ip/steer.ts";
import { createVirtualWire, type VirtualWire } from "../../../src/layer3-ip/virtual-wire.ts";

interface Got {
  readonly words: number[];
  readonly packet: Buffer;
}

/** A host whose stack only writes down what it gets. */
class Host {
  readonly pool = new CheckedPool(takePool(64, 8));
  readonly got: Got[] = [];
  readonly errors: Got[] = [];
  readonly steer = new SteerHash({ low: 11, high: 22 });
  readonly layer3: VirtualLayer3;
  private readonly six: boolean;
  private readonly addresses: Int32Array;

  constructor(wire: VirtualWire, own: string, far: string, more = {}) {
    const prefix = parsePrefix(own);
    this.six = prefix.version6;
    this.layer3 = new VirtualLayer3({
      wire,
      pool: this.pool,
      addresses: [prefix],
      steer: this.steer,
      random: new RandomStream(new SeedMixer(3n)),
      mtu: 1500,
      mergeOf256: 256,
      onArrival: () => {},
      ...more,
    });
    const count = this.six ? 4 : 1;
    this.addresses = new Int32Array(2 * count);
    this.addresses.set(prefix.words.subarray(0, count));
    this.addresses.set(parsePrefix(far).words.subarray(0, count), count);
  }

  /** Puts a segment of port 1000 to port 2000 into the ring. */
  send(payload: number, seq: number, flags: number, gsoBytes = 0): void {
    const { pool, six } = this;
    const { output } = this.layer3;
    const frame = pool.allocateFrame(payload > 1800);
    const upper = 128;
    const at = frame * 2048 + upper;
    this.addresses.forEach((word, i) => {
      store32(pool.bytes, at - 4 * this.addresses.length + 4 * i, word);
    });
    pool.bytes.fill(0, at, at + 20);
    store16(pool.bytes, at, 1000);
    store16(pool.bytes, at + 2, 2000);
    store32(pool.bytes, at + 4, seq);
    store32(pool.bytes, at + 8, 77);
    pool.bytes[at + 12] = 5 << 4;
    pool.bytes[at + 13] = flags;
    for (let i = 0; i < payload; i += 1) pool.bytes[at + 20 + i] = seq + i;
    const slot = output.reserve();
    const header = six ? 40 : 20;
    descriptor.writeOutgoing(
      output.words,
      slot,
      frame,
      upper - header,
      upper,
      header + 20 + payload,
      6,
      six,
      0,
    );
    if (gsoBytes > 0) {
      output.words[slot + 3] = (output.words[slot + 3] as number) | ((six ? 3 : 2) << 18);
    }
    output.words[slot + 4] = 0xabcde;
    output.words[slot + 5] = gsoBytes | (33 << 16) | (2 << 24);
  }

  receive(): void {
    const take = (list: Got[]) => (words: Int32Array, at: number) => {
      const bytes = this.pool.view(
        descriptor.frameOf(words, at),
        descriptor.packetOffsetOf(words, at),
        descriptor.lengthOf(words, at),
      );
      list.push({ words: [...words.subarray(at, at + 8)], packet: Buffer.from(bytes) });
    };
    const input = take(this.got);
    this.layer3.receive({
      input: (words, at) => {
        input(words, at);
        this.pool.release(descriptor.frameOf(words, at));
      },
      icmp: take(this.errors),
    });
  }
}

describe.each([
  [false, "10.0.0.1", "10.0.0.2"],
  [true, "fd00::1", "fd00::2"],
])("virtual layer 3, IPv6: %s", (six, near, far) => {
  let wire: VirtualWire;
  let a: Host;
  let b: Host;
  const header = six ? 40 : 20;

  beforeEach(() => {
    wire = createVirtualWire({ delayMs: 1 });
    a = new Host(wire, near, far);
    b = new Host(wire, far, near);
    b.layer3.usePort(2000);
  });

  function deliver(): void {
    a.layer3.transmit();
    wire.advance(wire.nowUs + 10_000);
    b.receive();
  }

  test("a segment arrives whole, in a small frame, with all its descriptor says", () => {
    a.send(100, 5000, tcpFlag.ack);
    deliver();
    expect(b.got.length).toBe(1);
    const { words, packet } = b.got[0] as Got;
    expect(packet.length).toBe(header + 20 + 100);
    expect(packet.subarray(header + 20)).toEqual(
      Buffer.from(Array.from({ length: 100 }, (_, i) => 5000 + i)),
    );
    expect(descriptor.packetOffsetOf(Int32Array.from(words), 0)).toBe(64);
    expect(descriptor.checksumStateOf(Int32Array.from(words), 0)).toBe(1);
    expect(words[4]).toBe(six ? 0xabcde : 0);
    expect(words[5]).toBe((33 << 16) | (2 << 24));
    expect(words[6]).toBe(1000);
    const own = parsePrefix(near).words;
    const other = parsePrefix(far).words;
    const hash = b.steer.hash(own, 0, 1000, other, 0, 2000, six ? 4 : 1, 6);
    expect(words[7]).toBe(hash);
    expect(descriptor.shardOf(Int32Array.from(words), 0)).toBe(shardOfHash(hash));
    expect([a.pool.framesInUse(), b.pool.framesInUse()]).toEqual([0, 0]);
    expect([a.layer3.faults, a.pool.faults]).toEqual([[], []]);
  });

  test("a super-packet crosses as packets of the MTU and is merged again", () => {
    a.send(10_000, 1, tcpFlag.ack | tcpFlag.psh, 1400);
    deliver();
    expect(wire.counts().delivered).toBe(8);
    expect(b.got.length).toBe(1);
    const { words, packet } = b.got[0] as Got;
    expect(packet.length).toBe(header + 20 + 10_000);
    expect([words[5]! & 0xffff, (words[3]! >>> 18) & 7, (words[3]! >>> 16) & 3]).toEqual([
      1400,
      six ? 3 : 2,
      2,
    ]);
    expect(packet[header + 13]).toBe(tcpFlag.ack | tcpFlag.psh);
  });

  test("without merging each comes by itself", () => {
    const plain = new Host(wire, six ? "fd00::3" : "10.0.0.3", far, { mergeOf256: 0 });
    const sender = new Host(wire, six ? "fd00::4" : "10.0.0.4", six ? "fd00::3" : "10.0.0.3");
    plain.layer3.usePort(2000);
    sender.send(3000, 1, tcpFlag.ack, 1400);
    sender.layer3.transmit();
    wire.advance(wire.nowUs + 10_000);
    plain.receive();
    expect(plain.got.map(({ packet }) => packet.length - header - 20)).toEqual([1400, 1400, 200]);
    expect(plain.got.map(({ packet }) => load32(packet, header + 4))).toEqual([1, 1401, 2801]);
  });

  test("corrupt packets are dropped and counted", () => {
    wire.set({ corrupt: 1 });
    for (let i = 0; i < 40; i += 1) a.send(1000, 1 + 1000 * i, tcpFlag.ack);
    deliver();
    const dropped = [...b.layer3.counts].filter(([name]) => name.startsWith("rx.dropped"));
    const sum = dropped.reduce((total, [, count]) => total + count, 0);
    // On IPv6 a flow label, traffic class or hop limit has no checksum.
    expect(sum + b.got.length + wire.counts().noRoute).toBe(40);
    expect(sum).toBeGreaterThan(30);
  });

  test("a port that is not open answers with a reset, and leaves frames alone", () => {
    b.layer3.leavePort(2000);
    a.layer3.usePort(1000);
    a.send(10, 100, tcpFlag.ack);
    a.send(0, 100, tcpFlag.syn);
    deliver();
    wire.advance(wire.nowUs + 10_000);
    a.receive();
    expect(b.got).toEqual([]);
    expect(a.got.map(({ packet }) => packet[header + 13])).toEqual([tcpFlag.rst, tcpFlag.rst | tcpFlag.ack]);
    expect(a.got.map(({ packet }) => load32(packet, header + 4))).toEqual([77, 0]);
    expect(a.got.map(({ packet }) => load32(packet, header + 8))).toEqual([0, 101]);
  });

  test("a path that is narrower than the link loses packets and says so", () => {
    const narrow = new Host(wire, six ? "fd00::5" : "10.0.0.5", far, { pathMtu: 1300, tellsTooBig: true });
    narrow.send(1400, 7, tcpFlag.ack);
    narrow.layer3.transmit();
    narrow.receive();
    expect(narrow.errors.length).toBe(1);
    const { words, packet } = narrow.errors[0] as Got;
    expect(words[4]).toBe(six ? 0x0200 : 0x0304);
    expect((words[3]! >>> 21) & 7).toBe(2);
    expect(packet.readUInt16BE(header + 6)).toBe(1300);
    expect(packet.readUInt32BE(2 * header + 8 + 4)).toBe(7);
    expect(narrow.pool.framesInUse()).toBe(0);
  });

  test.each([
    ["longer than the MTU", (host: Host) => host.send(1600, 1, tcpFlag.ack), /MTU of 1500/],
    ["in segments longer than the MTU", (host: Host) => host.send(5000, 1, tcpFlag.ack, 1600), /MTU of 1500/],
  ])("a packet %s is a fault of the stack", (_what, send, fault) => {
    send(a);
    deliver();
    expect(a.layer3.faults.join()).toMatch(fault);
    expect(a.pool.framesInUse()).toBe(0);
  });

  test("so is one from an address that is not our own", () => {
    const liar = new Host(wire, six ? "fd00::6" : "10.0.0.6", far);
    (liar as unknown as { addresses: Int32Array }).addresses[0] = 1;
    liar.send(1, 1, tcpFlag.ack);
    liar.layer3.transmit();
    expect(liar.layer3.faults.join()).toMatch(/not from an own address/);
  });
});

describe("the pool that watches", () => {
  test("tells on a frame freed twice or kept after it was freed, and spoils freed bytes", () => {
    const pool = new CheckedPool(takePool(64, 8));
    const frame = pool.allocateFrame(false);
    pool.bytes.fill(1, frame * 2048, frame * 2048 + 2048);
    pool.retain(frame);
    pool.release(frame);
    expect(pool.bytes[frame * 2048]).toBe(1);
    pool.release(frame);
    expect(pool.faults).toEqual([]);
    expect(pool.bytes[frame * 2048 + 2047]).toBe(freedByte);
    pool.release(frame);
    pool.retain(frame);
    expect(pool.faults.length).toBe(2);
  });
});
