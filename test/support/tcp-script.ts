/**
 * Scripts for the TCP stack, in the manner of packetdrill: segments are injected, segments and events are expected,
 * and the clock moves when the script says so.
 *
 * The stack is the real one on real tables; layer 3 is this file. Sequence numbers are relative: 0 is a side's SYN, 1
 * its first byte. Segments that nobody expected make `expectNothing` fail, which `close` calls too.
 */
import { expect } from "vitest";
import { Containers } from "../../src/layer2-transport/container.ts";
import { Counters, type WorkerCounter, workerCounterNames } from "../../src/layer2-transport/counters.ts";
import { smallFrameBytes } from "../../src/layer2-transport/link.ts";
import { Carrier } from "../../src/layer2-transport/nodes/carrier.ts";
import { FlowIndex } from "../../src/layer2-transport/nodes/flow-index.ts";
import { NodeTable } from "../../src/layer2-transport/nodes/node-table.ts";
import { TimingWheel } from "../../src/layer2-transport/nodes/timing-wheel.ts";
import { createNodes, node, nodeState, shards } from "../../src/layer2-transport/nodes/v-node.ts";
import { CheckedPool, returnPool, takePool } from "../../src/layer2-transport/simulation/checked-pool.ts";
import { AcceptAll, type Admission } from "../../src/layer2-transport/tcp/admission.ts";
import type { TcpEvents } from "../../src/layer2-transport/tcp/context.ts";
import { defaultTcpOptions, type TcpOptions } from "../../src/layer2-transport/tcp/options.ts";
import { TcpStack } from "../../src/layer2-transport/tcp/stack.ts";
import { type Tcb, type TcpListener, tcpState } from "../../src/layer2-transport/tcp/tcb.ts";
import {
  parseSegment,
  Segment,
  writeHeader,
  writeSacks,
  writeSynOptions,
  writeTimestamps,
} from "../../src/layer2-transport/tcp/wire/segment.ts";
import * as descriptor from "../../src/layer3-ip/descriptor.ts";
import { addressWords, parsePrefix } from "../../src/layer3-ip/ip-prefix.ts";
import { RandomStream, SeedMixer } from "../../src/layer3-ip/random-stream.ts";
import { SteerHash } from "../../src/layer3-ip/steer.ts";

const flagLetters = "FSRPAUEC";
const largeFrom = smallFrameBytes - 128;
export const listenerId = 7;
export const clientId = 9;
export const serverPort = 80;

/** What an injected segment has; everything that is left out is as small as can be. */
export interface Fields {
  seq?: number;
  ack?: number;
  /** As on the wire. */
  window?: number;
  /** Text, or how many bytes of a pattern that goes on with `seq`. */
  data?: string | number;
  mss?: number;
  scale?: number;
  sackPermitted?: boolean;
  /** Timestamp and echo; the echo may be left out: the last one that has come. */
  ts?: number | [number, number];
  sacks?: [number, number][];
  fastOpen?: Uint8Array;
  /** The IP header's ECN bits. */
  ecn?: number;
  label?: number;
  /** It is a super-packet of segments of so many bytes. */
  segmentBytes?: number;
}

/** What has been sent, with relative numbers. */
export interface Sent {
  flags: string;
  seq: number;
  ack: number;
  window: number;
  data: string;
  length: number;
  mss: number;
  scale: number;
  sackPermitted: boolean;
  ts: [number, number] | undefined;
  sacks: [number, number][];
  fastOpen: Uint8Array | undefined;
  /** Of a super-packet. */
  segmentBytes: number;
  ecn: number;
  label: number;
  hopLimit: number;
  atUs: number;
}

interface Packet {
  bytes: Uint8Array;
  tcpAt: number;
  version6: boolean;
  segmentBytes: number;
  label: number;
  hopLimit: number;
  trafficClass: number;
  atUs: number;
}

export interface ScriptSettings {
  seed?: number;
  mtu?: number;
  version6?: boolean;
  admission?: Admission;
  /** Frames of the pool, which is how memory gets short. */
  smallFrames?: number;
  largeFrames?: number;
  startUs?: number;
}

/** The byte of the pattern at a stream position. */
export function patternByte(position: number): number {
  return 97 + (position % 23);
}

export function pattern(from: number, length: number): string {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => patternByte(from + i))).toString("latin1");
}

export class TcpScript {
  readonly pool: CheckedPool;
  readonly containers: Containers;
  readonly nodes = new NodeTable(createNodes(64));
  readonly wheel: TimingWheel;
  readonly index: FlowIndex;
  readonly carrier: Carrier;
  readonly counters = new Counters<WorkerCounter>(workerCounterNames);
  readonly admission: Admission;
  readonly stack: TcpStack;
  readonly steer: SteerHash;
  readonly version6: boolean;
  readonly openPorts = new Map<number, number>();
  readonly flows: Flow[] = [];
  nowUs: number;
  /** While true, no descriptor can be reserved. */
  ringFull = false;
  /** How often flows have written. */
  writes = 0;
  /** What `accepted` and `connected` say. */
  accepts = true;
  /** What `peerEnded` says. */
  isBusy = false;
  private readonly words = new Int32Array(8 * 4096);
  private reserved = 0;
  private packets: Packet[] = [];
  private readonly segment = new Segment();

  constructor(settings: ScriptSettings = {}) {
    const {
      seed = 1,
      mtu = 1500,
      version6 = false,
      smallFrames = 512,
      largeFrames = 16,
      startUs = 5e6,
    } = settings;
    const random = new RandomStream(new SeedMixer(BigInt(seed)));
    const source = { word: () => random.next() | 0 };
    this.version6 = version6;
    this.nowUs = startUs;
    this.admission = settings.admission ?? new AcceptAll();
    this.pool = new CheckedPool(takePool(smallFrames, largeFrames));
    this.containers = new Containers(this.pool);
    for (let shard = 0; shard < shards; shard += 1) this.nodes.adopt(shard);
    this.wheel = new TimingWheel(this.nodes, Math.floor(startUs / 1000) | 0);
    this.index = new FlowIndex(this.nodes);
    this.carrier = new Carrier(source);
    this.steer = new SteerHash({ low: source.word(), high: source.word() });
    this.stack = new TcpStack({
      pool: this.pool,
      nodes: this.nodes,
      wheel: this.wheel,
      index: this.index,
      carrier: this.carrier,
      output: { words: this.words, reserve: () => this.reserve() },
      random: source,
      steer: this.steer,
      addresses: [parsePrefix("10.0.0.1/24"), parsePrefix("fd00::1/64")],
      prefixes: [],
      mtu,
      events: this.events(),
      counters: this.counters,
      admission: this.admission,
      usePort: (port) => this.openPorts.set(port, (this.openPorts.get(port) ?? 0) + 1),
      leavePort: (port) => this.openPorts.set(port, (this.openPorts.get(port) ?? 0) - 1),
    });
    this.stack.turn(this.nowUs);
  }

  listen(options: Partial<TcpOptions> = {}): TcpListener {
    const listener: TcpListener = {
      id: listenerId,
      port: serverPort,
      words: undefined,
      wordCount: 1,
      options: { ...defaultTcpOptions, ...options },
      halfOpen: 0,
    };
    this.stack.listen(listener);
    return listener;
  }

  /** A peer's side of a connection that has not begun: `10.0.0.9` and a port of its own each. */
  flow(peerPort = 40_000 + this.flows.length, address = this.version6 ? "fd00::9" : "10.0.0.9"): Flow {
    const flow = new Flow(this, address, peerPort);
    this.flows.push(flow);
    return flow;
  }

  /** Calls a server there; its SYN is expected, and its numbers are known from then on. */
  connect(options: Partial<TcpOptions> = {}, timeoutMs = 0): Flow {
    const flow = this.flow(
      serverPort,
      this.version6 ? `fd00::${20 + this.flows.length}` : `10.0.0.${20 + this.flows.length}`,
    );
    const target = {
      words: flow.peer,
      wordCount: this.version6 ? (4 as const) : (1 as const),
      port: serverPort,
      options: { ...defaultTcpOptions, ...options },
      openId: clientId,
      many: false,
      timeoutMs,
      owner: flow,
    };
    this.stack.setTerms(clientId, target.options);
    this.stack.turn(this.nowUs);
    flow.sockfd24 = this.stack.connect(target);
    expect(flow.sockfd24).toBeGreaterThanOrEqual(0);
    flow.localPort = (this.nodes.words[this.nodes.baseOf(flow.sockfd24) + node.ports] as number) & 0xffff;
    this.flush();
    return flow;
  }

  /** Lets time pass, with a turn whenever the stack wants one. */
  run(us: number): void {
    const untilUs = this.nowUs + us;
    for (let turns = 0; ; turns += 1) {
      if (turns > 100_000) throw new Error("the stack wants one turn after another");
      const next = Math.max(this.nowUs, this.stack.nextDeadlineUs);
      if (next > untilUs) break;
      // A stack that has nothing new to say of the present must not stop the clock.
      this.nowUs = next === this.nowUs && turns > 0 ? Math.min(untilUs, next + 1000) : next;
      this.turn();
      if (this.nowUs >= untilUs) break;
    }
    this.nowUs = untilUs;
    this.turn();
  }

  turn(): void {
    this.stack.turn(this.nowUs);
    this.flush();
  }

  flush(): void {
    this.stack.flush();
    this.takeOutput();
    expect(this.stack.checkInvariants()).toEqual([]);
    expect(this.pool.faults).toEqual([]);
  }

  count(name: WorkerCounter): number {
    return this.counters.get(name);
  }

  /** The next packet out, if it is of this flow. */
  next(flow: Flow): Sent | undefined {
    const packet = this.packets[0];
    if (packet === undefined || !flow.owns(packet.bytes, packet.tcpAt, packet.version6)) return undefined;
    this.packets.shift();
    return flow.read(packet, this.segment);
  }

  /** Packets that nobody has looked at, in short. */
  get unexpected(): string[] {
    return this.packets.map((packet) => {
      const flow = this.flows.find((one) => one.owns(packet.bytes, packet.tcpAt, packet.version6));
      return flow ? brief(flow.read(packet, this.segment)) : "a packet to nobody known";
    });
  }

  expectNothing(): void {
    expect(this.unexpected).toEqual([]);
  }

  /** Forgets what has been sent so far. */
  skip(): void {
    this.packets = [];
  }

  get framesInUse(): number {
    return this.pool.framesInUse();
  }

  /** Hands a packet of a peer to the stack, in a turn of its own. */
  deliver(packet: Uint8Array, ipBytes: number, fields: Fields, hash: number): void {
    this.stack.turn(this.nowUs);
    this.input(packet, ipBytes, fields, hash);
    this.flush();
  }

  /** Likewise within the present turn. */
  input(packet: Uint8Array, ipBytes: number, fields: Fields, hash: number): void {
    const frame = this.pool.allocateFrame(packet.length > largeFrom);
    expect(frame).not.toBe(0);
    const offset = packet.length > largeFrom ? 0 : 64;
    this.pool.bytes.set(packet, frame * smallFrameBytes + offset);
    const words = new Int32Array(8);
    words[0] = frame;
    words[1] = offset | ((offset + ipBytes) << 16);
    words[2] = packet.length;
    words[3] = 6 | ((hash >>> 28) << 8) | ((ipBytes === 40 ? 6 : 4) << 12) | (1 << 16);
    words[4] = fields.label ?? 0;
    words[5] = (fields.segmentBytes ?? 0) | (64 << 16) | ((fields.ecn ?? 0) << 24);
    words[6] = Math.floor(this.nowUs % 2 ** 32) | 0;
    words[7] = hash;
    this.stack.input(words, 0);
  }

  /** An ICMP error of `type` and `code` that quotes `quoted`; `value` is the second word of its header. */
  icmp(type: number, code: number, quoted: Uint8Array, value: number, hash: number): void {
    const ipBytes = this.version6 ? 40 : 20;
    const frame = this.pool.allocateFrame(false);
    const at = frame * smallFrameBytes + 64 + ipBytes;
    this.pool.bytes.writeUInt32BE((type * 2 ** 24 + code * 2 ** 16) >>> 0, at);
    this.pool.bytes.writeUInt32BE(value, at + 4);
    this.pool.bytes.set(quoted, at + 8);
    const words = new Int32Array(8);
    words[0] = frame;
    words[1] = 64 | ((64 + ipBytes) << 16);
    words[2] = ipBytes + 8 + quoted.length;
    words[3] = (this.version6 ? 58 : 1) | ((this.version6 ? 6 : 4) << 12) | (1 << 16) | (2 << 21);
    words[4] = (type << 8) | code;
    words[6] = Math.floor(this.nowUs % 2 ** 32) | 0;
    words[7] = hash;
    this.stack.turn(this.nowUs);
    this.stack.icmp(words, 0);
    this.pool.release(frame);
    this.flush();
  }

  /** Nothing unexpected was sent, nothing is wrong. The script cannot be used any more. */
  close(): void {
    this.expectNothing();
    expect(this.stack.checkInvariants()).toEqual([]);
    expect(this.pool.faults).toEqual([]);
    returnPool(this.pool.buffer);
  }

  private reserve(): number {
    if (this.ringFull || 8 * this.reserved >= this.words.length) return -1;
    const at = 8 * this.reserved;
    this.reserved += 1;
    return at;
  }

  private takeOutput(): void {
    const { words, pool } = this;
    for (let i = 0; i < this.reserved; i += 1) {
      const at = 8 * i;
      const frame = descriptor.frameOf(words, at);
      const offset = descriptor.packetOffsetOf(words, at);
      const start = frame * smallFrameBytes + offset;
      this.packets.push({
        bytes: Uint8Array.prototype.slice.call(pool.bytes, start, start + descriptor.lengthOf(words, at)),
        tcpAt: descriptor.upperOffsetOf(words, at) - offset,
        version6: descriptor.isVersion6(words, at),
        segmentBytes: descriptor.segmentBytesOf(words, at),
        label: descriptor.labelOf(words, at),
        hopLimit: descriptor.hopLimitOf(words, at),
        trafficClass: (words[at + 5] as number) >>> 24,
        atUs: this.nowUs,
      });
      pool.drop(frame, pool.partition);
    }
    this.reserved = 0;
  }

  private flowOf(tcb: Tcb): Flow {
    const flow = this.flows.findLast((one) => one.sockfd24 === tcb.sockfd24);
    if (!flow) throw new Error(`an event of ${tcb.sockfd24}, which no script knows`);
    return flow;
  }

  private begin(flow: Flow, tcb: Tcb, openId: number, event: string): boolean {
    flow.events.push(event);
    if (!this.accepts) return false;
    flow.sockfd24 = tcb.sockfd24;
    this.nodes.open(tcb.base, { protocol: "tcp", framing: "raw", sendlen: 2 ** 24 }, 0, openId);
    return true;
  }

  private events(): TcpEvents {
    return {
      accepted: (listener, tcb) => {
        const { port } = this.nodes.endsAt(tcb.base);
        const flow = this.flows.findLast(
          (one) => one.peerPort === port && one.isAt(this.nodes.words, tcb.base),
        );
        if (!flow) throw new Error(`port ${port} was accepted, which no script knows`);
        return this.begin(flow, tcb, listener.id, "accepted");
      },
      connected: (tcb) => this.begin(tcb.owner as Flow, tcb, clientId, "connected"),
      connectFailed: (tcb, code) => (tcb.owner as Flow).events.push(`failed ${code}`),
      received: (tcb, frame, offset, length) => {
        const at = frame * smallFrameBytes + offset;
        this.flowOf(tcb).received += this.pool.bytes.toString("latin1", at, at + length);
        this.pool.release(frame);
      },
      peerEnded: (tcb) => {
        this.flowOf(tcb).events.push("peer-ended");
        return this.isBusy;
      },
      sent: (tcb, container, taken) => {
        this.flowOf(tcb).events.push(`${taken ? "sent" : "dropped"} ${container.length}`);
        container.done();
      },
      ended: (tcb, code, error) => {
        const flow = this.flowOf(tcb);
        flow.events.push(error ? `ended ${code} ${error}` : `ended ${code}`);
        Atomics.store(this.nodes.words, tcb.base + node.state, nodeState.ended);
        flow.retire();
      },
    };
  }
}

/** One connection as its peer sees it: what the peer sends is injected, what the stack sends is expected. */
export class Flow {
  readonly peerPort: number;
  readonly peer: Int32Array;
  readonly events: string[] = [];
  received = "";
  sockfd24 = -1;
  localPort = serverPort;
  /** The peer's initial sequence number, and the stack's once its SYN has been seen. */
  iss = 0x7fff_ff00;
  irs = 0;
  /** The last timestamp that the stack has sent. */
  lastTs = 0;
  private readonly script: TcpScript;
  private readonly local: Int32Array;
  private readonly wordCount: 1 | 4;

  constructor(script: TcpScript, address: string, peerPort: number) {
    this.script = script;
    this.peerPort = peerPort;
    this.wordCount = script.version6 ? 4 : 1;
    this.peer = addressWords(address)?.words ?? new Int32Array(4);
    this.local = addressWords(script.version6 ? "fd00::1" : "10.0.0.1")?.words ?? new Int32Array(4);
  }

  get hash(): number {
    const { script, peer, local, peerPort, localPort, wordCount } = this;
    return script.steer.hash(peer, 0, peerPort, local, 0, localPort, wordCount, 6);
  }

  /** An app could name it. */
  get stands(): boolean {
    const { nodes } = this.script;
    const base = nodes.baseOf(Math.max(0, this.sockfd24));
    return this.find() >= 0 && this.sockfd24 >= 0 && nodes.words[base + node.state] === nodeState.open;
  }

  /** The connection's record, woken if it is at rest. */
  get tcb(): Tcb {
    const tcb = this.script.stack.find(this.sockfd24);
    if (!tcb) throw new Error("there is no such connection any more");
    return tcb;
  }

  /** RFC 9293's name of the stack's state; "CLOSED" when it knows the connection no more. */
  get state(): string {
    const { nodes } = this.script;
    const sockfd24 = this.find();
    if (sockfd24 < 0) return "CLOSED";
    const base = nodes.baseOf(sockfd24);
    const active = this.script.stack.active().find((tcb) => tcb.sockfd24 === sockfd24);
    const state = active ? active.state : (nodes.words[base + node.tcp] as number) & 15;
    const name = Object.entries(tcpState).find(([, value]) => value === state)?.[0] ?? "?";
    return name.replaceAll(/([A-Z0-9])/g, "-$1").toUpperCase();
  }

  /** Injects one segment, in a turn of its own. */
  inject(flags: string, fields: Fields = {}): void {
    this.script.deliver(this.packet(flags, fields), this.wordCount === 4 ? 40 : 20, fields, this.hash);
  }

  /** Injects several segments in one turn. */
  injectAll(...segments: [string, Fields][]): void {
    this.script.stack.turn(this.script.nowUs);
    for (const [flags, fields] of segments) {
      this.script.input(this.packet(flags, fields), this.wordCount === 4 ? 40 : 20, fields, this.hash);
    }
    this.script.flush();
  }

  /** The next segment sent has this flow, these flags and these fields. Returns all of it. */
  expect(flags: string, fields: Partial<Sent> = {}): Sent {
    const sent = this.script.next(this);
    if (!sent)
      throw new Error(`${flags} was expected; sent: ${this.script.unexpected.join(", ") || "nothing"}`);
    expect(brief(sent).split(" ")[0], brief(sent)).toBe(flags);
    expect(sent, brief(sent)).toMatchObject(fields);
    return sent;
  }

  /** All that has been sent and not looked at, as long as it is this flow's. */
  takeAll(): Sent[] {
    const all: Sent[] = [];
    for (let sent = this.script.next(this); sent; sent = this.script.next(this)) all.push(sent);
    return all;
  }

  // --- the app's side ---

  /** Text, or so many bytes of the pattern that starts at stream position `from`. */
  write(data: string | number, from = 0): void {
    const { pool, stack, nowUs } = this.script;
    const bytes = Buffer.from(typeof data === "number" ? pattern(from, data) : data, "latin1");
    const frame = pool.allocate(bytes.length);
    expect(frame).not.toBe(0);
    pool.hold(frame, pool.partition);
    pool.write(frame, 0, bytes);
    stack.turn(nowUs);
    this.script.writes += 1;
    stack.send(this.tcb, this.script.containers.take(frame, 0, bytes.length));
    this.script.flush();
  }

  act(what: (tcb: Tcb, stack: TcpStack) => void): void {
    this.script.stack.turn(this.script.nowUs);
    what(this.tcb, this.script.stack);
    this.script.flush();
  }

  shutdown(): void {
    this.act((tcb, stack) => stack.shutdown(tcb));
  }

  end(): void {
    this.act((tcb, stack) => stack.end(tcb));
  }

  abort(): void {
    this.act((tcb, stack) => stack.abort(tcb, true));
  }

  pause(): void {
    this.act((tcb, stack) => stack.pause(tcb));
  }

  resume(): void {
    this.act((tcb, stack) => stack.resume(tcb));
  }

  /** The app is through with the number. */
  retire(): void {
    const { stack, nodes } = this.script;
    const base = nodes.baseOf(this.sockfd24);
    if (stack.retired(this.sockfd24)) Atomics.store(nodes.words, base + node.state, nodeState.transport);
    else nodes.release(this.sockfd24);
  }

  // --- bytes ---

  /** Whether the v-node has this flow's ends. */
  isAt(words: Int32Array, base: number): boolean {
    for (let i = 0; i < this.wordCount; i += 1) {
      if (words[base + node.peerAddress + i] !== this.peer[i]) return false;
    }
    return words[base + node.ports] === ((this.peerPort << 16) | this.localPort);
  }

  /** Whether the packet goes to this peer. */
  owns(bytes: Uint8Array, tcpAt: number, version6: boolean): boolean {
    if (version6 !== (this.wordCount === 4)) return false;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let i = 0; i < this.wordCount; i += 1) {
      if (view.getInt32(tcpAt - 4 * this.wordCount + 4 * i) !== this.peer[i]) return false;
    }
    return view.getUint16(tcpAt) === this.localPort && view.getUint16(tcpAt + 2) === this.peerPort;
  }

  /** A packet of ours with its numbers made relative. */
  read(packet: Packet, into: Segment): Sent {
    const { bytes, tcpAt } = packet;
    expect(parseSegment(bytes, tcpAt, bytes.length - tcpAt, into)).toBe(true);
    const flags = [...flagLetters].filter((_, i) => (into.flags & (1 << i)) !== 0).join("");
    if (flags.includes("S")) this.irs = into.seq;
    if (into.hasTimestamp) this.lastTs = into.tsValue;
    const relative = (value: number, base: number): number => (value - base) | 0;
    const sacks = Array.from({ length: into.sackCount }, (_, i): [number, number] => [
      relative(into.sacks[2 * i] as number, this.iss),
      relative(into.sacks[2 * i + 1] as number, this.iss),
    ]);
    const { payloadAt, payloadLength, fastOpenAt, fastOpenLength } = into;
    return {
      flags,
      seq: relative(into.seq, this.irs),
      ack: flags.includes("A") ? relative(into.ack, this.iss) : 0,
      window: into.window,
      data: Buffer.from(bytes.subarray(payloadAt, payloadAt + payloadLength)).toString("latin1"),
      length: payloadLength,
      mss: into.mss,
      scale: into.scale,
      sackPermitted: into.sackPermitted,
      ts: into.hasTimestamp ? [into.tsValue, into.tsEcho] : undefined,
      sacks,
      fastOpen: fastOpenLength < 0 ? undefined : bytes.slice(fastOpenAt, fastOpenAt + fastOpenLength),
      segmentBytes: packet.segmentBytes,
      ecn: packet.trafficClass & 3,
      label: packet.label,
      hopLimit: packet.hopLimit,
      atUs: packet.atUs,
    };
  }

  /** The first bytes of a packet of ours as an ICMP error would quote it. */
  quoted(seq: number, length = 28): Uint8Array {
    const ip = this.wordCount === 4 ? 40 : 20;
    const bytes = new Uint8Array(ip + 20);
    this.writeIp(bytes, ip, this.local, this.peer);
    writeHeader(bytes, ip, this.localPort, this.peerPort, (this.irs + seq) | 0, 0, 16, 0, 20);
    return bytes.subarray(0, ip + Math.min(20, length - 20));
  }

  private packet(flags: string, fields: Fields): Uint8Array {
    const ip = this.wordCount === 4 ? 40 : 20;
    const { seq = 0, data = "" } = fields;
    const text = typeof data === "number" ? pattern(seq - 1, data) : data;
    const bytes = new Uint8Array(ip + 60 + text.length);
    let at = ip + 20;
    const [value = 0, echo = this.lastTs] = typeof fields.ts === "number" ? [fields.ts] : (fields.ts ?? []);
    if (flags.includes("S")) {
      at += writeSynOptions(bytes, at, {
        mss: fields.mss ?? 0,
        scale: fields.scale ?? -1,
        sack: fields.sackPermitted ?? false,
        timestamps: fields.ts !== undefined,
        tsValue: value,
        tsEcho: flags.includes("A") ? echo : 0,
        fastOpen: fields.fastOpen,
      });
    } else {
      if (fields.ts !== undefined) at += writeTimestamps(bytes, at, value, echo);
      const edges = (fields.sacks ?? []).flat().map((edge) => (this.irs + edge) | 0);
      at += writeSacks(bytes, at, Int32Array.from(edges), edges.length / 2);
    }
    const bits = [...flags].reduce((sum, letter) => sum | (1 << flagLetters.indexOf(letter)), 0);
    const ack = flags.includes("A") ? (this.irs + (fields.ack ?? 1)) | 0 : 0;
    const window = fields.window ?? 65_535;
    writeHeader(bytes, ip, this.peerPort, this.localPort, (this.iss + seq) | 0, ack, bits, window, at - ip);
    bytes.set(Buffer.from(text, "latin1"), at);
    this.writeIp(bytes, ip, this.peer, this.local);
    return bytes.subarray(0, at + text.length);
  }

  private writeIp(bytes: Uint8Array, ip: number, source: Int32Array, destination: Int32Array): void {
    const view = new DataView(bytes.buffer);
    bytes[0] = ip === 40 ? 0x60 : 0x45;
    bytes[ip === 40 ? 6 : 9] = 6;
    for (let i = 0; i < this.wordCount; i += 1) {
      view.setInt32(ip - 8 * this.wordCount + 4 * i, source[i] as number);
      view.setInt32(ip - 4 * this.wordCount + 4 * i, destination[i] as number);
    }
  }

  /** The v-node with these ends; -1: there is none. */
  private find(): number {
    const { nodes } = this.script;
    const { words } = nodes;
    if (this.sockfd24 >= 0) {
      const base = nodes.baseOf(this.sockfd24);
      const isFree = words[base + node.state] === nodeState.free;
      return isFree || !this.isAt(words, base) ? -1 : this.sockfd24;
    }
    for (const tcb of this.script.stack.active()) if (this.isAt(words, tcb.base)) return tcb.sockfd24;
    return -1;
  }
}

function brief(sent: Sent): string {
  return `${sent.flags} seq ${sent.seq} ack ${sent.ack} length ${sent.length} window ${sent.window}`;
}
