/**
 * A runtime on a wire without its upper layers: the native thread, one pool, and this thread in the worker's place.
 */

import {
  frameOf,
  lengthOf,
  packetOffsetOf,
  upperOffsetOf,
  writeOutgoing,
} from "../../src/layer3-ip/descriptor.ts";
import type { Wire } from "../../src/layer3-ip/links/mem.ts";
import { type LinkDescription, PacketPort } from "../../src/layer3-ip/packet-port.ts";
import { createPool, FramePool } from "../../src/layer3-ip/pool.ts";
import type { RawLink } from "../../src/layer3-ip/raw-link.ts";
import type { RingConsumer } from "../../src/layer3-ip/ring.ts";
import { addressBytes } from "./packets.ts";
import { startMemLink } from "./start-mem-link.ts";

const workerPartition = 0;
const nativePartition = 1;
const everyShard = Array.from({ length: 16 }, (_, shard) => shard);

/** A received packet, copied, with its descriptor. */
export interface Received {
  readonly words: Int32Array;
  readonly packet: Buffer;
  readonly payload: Buffer;
}

export class Station {
  readonly address: string;
  readonly pool: FramePool;
  readonly link: RawLink;
  readonly port: PacketPort;
  readonly description: LinkDescription;

  constructor(wire: Wire, address: string, small = 1024, pcap?: string, prefixes?: readonly string[]) {
    const memory = createPool({ partitions: 2, small, large: 8 });
    this.address = address.split("/", 1)[0] as string;
    this.pool = new FramePool(memory, workerPartition);
    this.link = startMemLink({ wire, address, prefixes, pcap, pool: memory, partition: nativePartition });
    this.description = this.link.attachWorker(0, everyShard);
    this.port = new PacketPort(this.description);
  }

  counter(name: string): number {
    return this.link.counters()[`layer3.${name}`] as number;
  }

  /** Everything that was dropped on one way, "rx" or "tx", by reason. */
  drops(way: "rx" | "tx"): Record<string, number> {
    const all = Object.entries(this.link.counters()).filter(
      ([name, count]) => name.startsWith(`layer3.${way}.dropped.`) && count > 0,
    );
    return Object.fromEntries(
      all.map(([name, count]) => [name.slice(`layer3.${way}.dropped.`.length), count]),
    );
  }

  /** Puts a datagram into the ring; it leaves with `port.flush()`. False: no room. */
  push(to: string, fromPort: number, toPort: number, payload: Uint8Array): boolean {
    const six = to.includes(":");
    const header = six ? 40 : 20;
    const headroom = 64 + header + 8 + payload.length > 2048 ? 0 : 64;
    const upperAt = headroom + header;
    const end = upperAt + 8 + payload.length;
    const frame = this.pool.allocateFrame(end > 2048);
    if (frame === 0) return false;
    const slot = this.port.toSend.reserve();
    if (slot < 0) {
      this.pool.release(frame);
      return false;
    }
    const view = this.pool.view(frame, 0, end);
    const addresses = Buffer.concat([addressBytes(this.address), addressBytes(to)]);
    addresses.copy(view, upperAt - addresses.length);
    view.writeUInt16BE(fromPort, upperAt);
    view.writeUInt16BE(toPort, upperAt + 2);
    view.set(payload, upperAt + 8);
    writeOutgoing(this.port.toSend.words, slot, frame, headroom, upperAt, end - headroom, 17, six, 0);
    return true;
  }

  /** Takes up to `most` packets that are there. */
  take(most = 256): Received[] {
    const received = this.port.received[0] as RingConsumer;
    const found: Received[] = [];
    for (let at = received.take(); at >= 0; at = received.take()) {
      const words = received.words.slice(at, at + 8);
      const frame = frameOf(words, 0);
      const packet = Buffer.from(this.pool.view(frame, packetOffsetOf(words, 0), lengthOf(words, 0)));
      const upper = upperOffsetOf(words, 0) - packetOffsetOf(words, 0);
      found.push({ words, packet, payload: packet.subarray(upper + 8) });
      this.pool.release(frame);
      if (found.length === most) break;
    }
    received.release();
    return found;
  }

  /** Waits, asleep on the futex, until `count` packets have come. Throws after ten seconds. */
  receive(count: number): Received[] {
    const deadline = performance.now() + 10_000;
    const all = this.take(count);
    while (all.length < count) {
      if (performance.now() > deadline) {
        throw new Error(`${all.length} of ${count} packets came; ${JSON.stringify(this.link.counters())}`);
      }
      this.port.sleep(100_000, () => false);
      all.push(...this.take(count - all.length));
    }
    return all;
  }

  /** Ends it; the pool must be full again. */
  close(): number {
    this.link.close();
    return this.pool.framesInUse();
  }
}

/** Waits until the condition holds; for what a native thread does in its own time. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited too long: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
