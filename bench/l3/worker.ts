/**
 * A layer-3 worker with nothing above it: it reads packets, makes them, or sends back what comes.
 *
 * Started by station.ts in a thread of its own, over the same rings, pool and packet port that the runtime's workers
 * have. It is told what to do, and tells what it has done, by shared words.
 */
import { workerData } from "node:worker_threads";
import { frameOf, lengthOf, upperOffsetOf, writeOutgoing } from "../../src/layer3-ip/descriptor.ts";
import { type LinkDescription, PacketPort } from "../../src/layer3-ip/packet-port.ts";
import { FramePool } from "../../src/layer3-ip/pool.ts";
import type { RingConsumer } from "../../src/layer3-ip/ring.ts";

export const workerModes = ["idle", "in", "out", "through", "stop"] as const;
export type WorkerMode = (typeof workerModes)[number];

/** Words of the control: the mode, bytes of the IP packet to send, how many to send once (0: without end). */
export const controlWord = { mode: 0, bytes: 1, count: 2, ready: 3 } as const;
/** Doubles of the counts: packets and bytes read. */
export const countCell = { packets: 0, bytes: 1 } as const;

export interface WorkerBasis {
  readonly link: LinkDescription;
  readonly pool: SharedArrayBuffer;
  readonly partition: number;
  /** IPv4 addresses as the pool's words have them. */
  readonly own: number;
  readonly peer: number;
  readonly control: SharedArrayBuffer;
  readonly counts: SharedArrayBuffer;
  /** Empty looks before it sleeps on its doorbell. */
  readonly idleLooks: number;
}

/** Ports of the loop under test and of what feeds it; reference/loop.h has them too. */
export const ownPort = 7;
export const peerPort = 9000;
/** A super-packet: 44 segments, as in reference/loop.c. */
export const segmentBytes = 1472;
export const superBytes = 28 + 44 * segmentBytes;

const batch = 64;
const sleepUs = 20_000;
/** What "out" keeps under way to the native thread, at most. */
const underWayMax = 512;
const underWayBytes = 2 ** 19;
const packetAt = 64; // in a frame of our own
const udp = 17;
const gsoUdp = 1;
const portsWord =
  ((peerPort & 0xff) << 24) | ((peerPort >> 8) << 16) | ((ownPort & 0xff) << 8) | (ownPort >> 8);

class PathWorker {
  private readonly port: PacketPort;
  private readonly pool: FramePool;
  private readonly words: Int32Array;
  private readonly halves: Uint16Array;
  private readonly peerHigh: number;
  private readonly peerLow: number;
  private readonly control: Int32Array;
  private readonly counts: Float64Array;
  private readonly basis: WorkerBasis;
  private packets = 0;
  private bytes = 0;
  private checksum = 0;

  constructor(basis: WorkerBasis) {
    this.basis = basis;
    this.port = new PacketPort(basis.link);
    this.pool = new FramePool(basis.pool, basis.partition);
    this.words = new Int32Array(basis.pool);
    this.halves = new Uint16Array(basis.pool);
    [this.peerHigh = 0, this.peerLow = 0] = new Uint16Array(Int32Array.of(basis.peer).buffer);
    this.control = new Int32Array(basis.control);
    this.counts = new Float64Array(basis.counts);
    for (const port of [ownPort, peerPort]) this.port.openUdpPort(port);
    this.port.startPolling();
  }

  run(): void {
    const { control } = this;
    Atomics.store(control, controlWord.ready, 1);
    for (let idle = 0; ; ) {
      const mode = workerModes[Atomics.load(control, controlWord.mode)] as WorkerMode;
      if (mode === "stop") break;
      let done = 0;
      for (const ring of this.port.received) done += this.receive(ring, mode === "through");
      if (mode === "out") done += this.send();
      this.port.flush();
      if (done > 0) {
        this.counts[countCell.packets] = this.packets;
        this.counts[countCell.bytes] = this.bytes;
        idle = 0;
      } else if (mode !== "out" && ++idle > this.basis.idleLooks) {
        this.port.sleep(sleepUs, () => false);
        idle = 0;
      }
    }
    this.port.stopPolling();
    if (this.checksum === 0.5) throw new Error("never: this keeps the reads from being left out");
  }

  /** Reads each packet's header; sends it back from the frame that it came in, or frees it. */
  private receive(ring: RingConsumer, sendBack: boolean): number {
    const { words: descriptors } = ring;
    const { pool } = this;
    let taken = 0;
    for (let at = ring.take(); at >= 0; at = ring.take()) {
      const frame = frameOf(descriptors, at);
      const upper = upperOffsetOf(descriptors, at);
      const length = lengthOf(descriptors, at);
      this.bytes += length;
      taken += 1;
      const slot = this.turn(frame * 1024 + (upper >> 1), sendBack) ? this.port.toSend.reserve() : -1;
      if (slot < 0) pool.release(frame);
      else this.descriptor(slot, frame, upper, length);
      if (taken === batch) break;
    }
    if (taken > 0) ring.release();
    this.packets += taken;
    return taken;
  }

  /**
   * Reads the addresses and ports before and behind the upper layer's start (in half words: behind a link's header it
   * need not be at a multiple of four) and exchanges them. False: not to be sent back.
   */
  private turn(at: number, sendBack: boolean): boolean {
    const { halves } = this;
    const sourceHigh = halves[at - 4] as number;
    const sourceLow = halves[at - 3] as number;
    const sourcePort = halves[at] as number;
    this.checksum = (this.checksum + sourceHigh + sourceLow + sourcePort) | 0;
    if (!sendBack || sourceHigh !== this.peerHigh || sourceLow !== this.peerLow) return false;
    halves[at - 4] = halves[at - 2] as number;
    halves[at - 3] = halves[at - 1] as number;
    halves[at - 2] = sourceHigh;
    halves[at - 1] = sourceLow;
    halves[at] = halves[at + 1] as number;
    halves[at + 1] = sourcePort;
    return true;
  }

  /** A batch of packets with fresh headers, as far as frames and the ring have room. */
  private send(): number {
    const { words, control } = this;
    const length = control[controlWord.bytes] as number;
    // A sender that is faster than its link gains nothing by more of them: they would only leave the cache.
    const most = Math.min(underWayMax, Math.max(batch / 4, Math.floor(underWayBytes / length)));
    let made = 0;
    if (control[controlWord.count] === 0 && this.port.toSend.size >= most) return 0;
    for (; made < batch; made += 1) {
      const left = control[controlWord.count] as number;
      const frame = this.pool.allocateFrame(length > 1984);
      if (frame === 0) break;
      const slot = this.port.toSend.reserve();
      if (slot < 0) {
        this.pool.release(frame);
        break;
      }
      const upper = packetAt + 20;
      const header = frame * 512 + (upper >> 2);
      words[header - 2] = this.basis.own;
      words[header - 1] = this.basis.peer;
      words[header] = portsWord;
      this.descriptor(slot, frame, upper, length);
      if (left === 1) Atomics.store(control, controlWord.mode, workerModes.indexOf("through"));
      if (left > 0) control[controlWord.count] = left - 1;
      if (left === 1) break;
    }
    return made;
  }

  private descriptor(slot: number, frame: number, upper: number, length: number): void {
    const { words } = this.port.toSend;
    writeOutgoing(words, slot, frame, upper - 20, upper, length, udp, false, 0);
    if (length <= 1500) return;
    words[slot + 3] = (words[slot + 3] as number) | (gsoUdp << 18);
    words[slot + 5] = segmentBytes;
  }
}

if (workerData?.bench === "l3-worker") new PathWorker(workerData.basis as WorkerBasis).run();
