/**
 * The `mem` link: wires in memory, and the native thread that joins a runtime to one.
 *
 * Layer 3, used by the runtime when it starts and ends (workers use `packet-port.ts`). The control words are mirrored
 * in native/rawsock/napi/native_thread_napi.cc: word 0 is the native thread's doorbell, words 16 to 31 say which worker
 * owns each shard (its index + 1; 0: nobody).
 */

import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import { ApoError } from "../layer1-app/errors.ts";
import { addressRecords, addressWords, parsePrefix } from "./ip-prefix.ts";
import { loadNative, type NativeLinkThread, type NativeWire } from "./native.ts";
import { createPacketPort, type LinkDescription, type PacketPortMemory } from "./packet-port.ts";
import type { SteerKey } from "./steer.ts";

const shards = 16;
const shardsWord = 16;
const controlWords = shardsWord + shards;
const mtuMin = 1280;
const mtuMax = 65_000;
const addressesMax = 16;

export interface WireOptions {
  /** The longest IP packet, in bytes (1,500); 1,280 to 65,000. */
  readonly mtu?: number;
  /** Bytes that may wait for each runtime on the wire (4 MiB); more are dropped and the sender counts them. */
  readonly inboxBytes?: number;
}

/** A virtual wire. Runtimes of this process that name the same one reach each other. */
export interface Wire {
  /** Its number in this process: `openWire(id)` finds it in another thread. */
  readonly id: number;
  readonly mtu: number;
  /** How many runtimes are joined to it. */
  readonly endpoints: number;
  /**
   * Puts bytes on the wire as they are, for the runtime with address `to`: for tests and for replaying captures.
   * "tx.packets" when it was taken, otherwise the counter that names the reason. Throws `EINVAL`.
   */
  inject(to: string, packet: Uint8Array): string;
}

class MemWire implements Wire {
  private readonly native: NativeWire;

  constructor(native: NativeWire) {
    this.native = native;
  }
  get id(): number {
    return this.native.id;
  }
  get mtu(): number {
    return this.native.mtu;
  }
  get endpoints(): number {
    return this.native.endpoints;
  }
  inject(to: string, packet: Uint8Array): string {
    if (!addressWords(to)) throw new ApoError("EINVAL", `"${to}" is not an IP address`);
    if (packet.length === 0) throw new ApoError("EINVAL", "a packet has at least one byte");
    return this.native.inject(addressRecords([parsePrefix(to)]), packet);
  }
}

/** Makes a wire. Throws `EINVAL`. */
export function createWire(options: WireOptions = {}): Wire {
  const { mtu = 1500, inboxBytes = 4 * 1024 * 1024 } = options;
  if (!Number.isInteger(mtu) || mtu < mtuMin || mtu > mtuMax) {
    throw new ApoError("EINVAL", `mtu must be a whole number from ${mtuMin} to ${mtuMax}, not ${mtu}`);
  }
  if (!Number.isInteger(inboxBytes) || inboxBytes < 2 ** 18 || inboxBytes > 2 ** 28) {
    throw new ApoError(
      "EINVAL",
      `inboxBytes must be a whole number from 256 KiB to 256 MiB, not ${inboxBytes}`,
    );
  }
  return new MemWire(new (loadNative().NativeWire)(mtu, inboxBytes));
}

/** Finds a wire of this process by its number, in another thread. Throws `ENOENT` when nobody holds it any more. */
export function openWire(id: number): Wire {
  try {
    return new MemWire(new (loadNative().NativeWire)(id));
  } catch (cause) {
    throw new ApoError("ENOENT", `this process has no wire ${id}: keep a reference to it`, { cause });
  }
}

export interface MemLinkOptions {
  /** What `createWire` returned. */
  readonly wire: unknown;
  /** One or more of `address/bits`, separated by commas: "10.0.0.1/24", "10.0.0.1/24, fd00::1/64". */
  readonly address: string | undefined;
  readonly pool: SharedArrayBuffer;
  /** The pool's partition that the native thread allocates from. */
  readonly partition: number;
}

/** A runtime's join to a wire. */
export interface MemLink {
  readonly addresses: readonly string[];
  readonly mtu: number;
  /** Gives a worker (0 to 15) its end and the shards that it owns. A worker that had died is taken out first. */
  attachWorker(index: number, ownedShards: readonly number[]): LinkDescription;
  /** Takes a worker out: what it had published goes out, what it had not read is taken back and counted. */
  detachWorker(index: number): void;
  /** The native thread's counters, by dotted name under `layer3.`. */
  counters(): Record<string, number>;
  /** Ends the native thread; every frame is back in the pool when it returns. Idempotent. */
  close(): void;
}

class JoinedMemLink implements MemLink {
  readonly addresses: readonly string[];
  readonly mtu: number;
  private readonly thread: NativeLinkThread;
  private readonly control: SharedArrayBuffer;
  private readonly owners: Int32Array;
  private readonly cells: BigUint64Array;
  private readonly names: readonly string[];
  private readonly steerKey: SteerKey;
  private readonly attached = new Set<number>();

  constructor(options: MemLinkOptions) {
    const native = loadNative();
    const { wire } = options;
    if (!(wire instanceof MemWire)) {
      throw new ApoError("EINVAL", 'link "mem" needs `wire`, which `createWire()` makes');
    }
    const prefixes = splitAddresses(options.address).map(parsePrefix);
    this.addresses = prefixes.map(({ text, prefixBits }) => `${text}/${prefixBits}`);
    this.mtu = wire.mtu;
    this.names = native.linkCounterNames();
    this.control = new SharedArrayBuffer(4 * controlWords);
    this.owners = new Int32Array(this.control, 4 * shardsWord, shards);
    this.cells = new BigUint64Array(new SharedArrayBuffer(8 * this.names.length));
    const key = randomBytes(8);
    this.steerKey = { low: key.readUInt32LE(0), high: key.readUInt32LE(4) };
    this.thread = new native.NativeLinkThread(
      wire.id,
      addressRecords(prefixes),
      this.steerKey.low,
      this.steerKey.high,
      new Uint32Array(options.pool),
      options.partition,
      new Uint32Array(this.control),
      this.cells,
    );
    this.start();
  }

  attachWorker(index: number, ownedShards: readonly number[]): LinkDescription {
    if (this.attached.has(index)) this.detachWorker(index);
    const port: PacketPortMemory = createPacketPort();
    const { receive, transmit, words } = port;
    const done = this.thread.attachWorker(
      index,
      new Uint32Array(receive),
      new Uint32Array(transmit),
      new Uint32Array(words),
    );
    if (!done) throw new ApoError("ECLOSED", `worker ${index} cannot join: the native thread has ended`);
    this.attached.add(index);
    for (const shard of ownedShards) Atomics.store(this.owners, shard, index + 1);
    const { control, addresses, mtu, steerKey } = this;
    return { worker: index, port, control, addresses, mtu, steerKey };
  }

  detachWorker(index: number): void {
    if (!this.attached.delete(index)) return;
    for (let shard = 0; shard < shards; shard += 1) {
      Atomics.compareExchange(this.owners, shard, index + 1, 0);
    }
    this.thread.detachWorker(index);
  }

  counters(): Record<string, number> {
    const counters: Record<string, number> = {};
    this.names.forEach((name, i) => {
      counters[`layer3.${name}`] = Number(this.cells[i]);
    });
    return counters;
  }

  close(): void {
    this.attached.clear();
    this.thread.close();
  }

  private start(): void {
    const errno = this.thread.start();
    if (errno === 0) return;
    this.thread.close();
    const own = this.addresses.join(", ");
    if (errno === constants.errno.EADDRINUSE) {
      throw new ApoError(
        "EADDRINUSE",
        `another runtime on this wire has one of the addresses ${own} already`,
      );
    }
    if (errno === constants.errno.ENFILE)
      throw new ApoError("ENFILE", "the wire is full: 1,024 runtimes at most");
    throw new ApoError("EIO", `the native thread could not be started (errno ${errno}): too many threads?`);
  }
}

function splitAddresses(address: string | undefined): string[] {
  const parts = (address ?? "").split(",").map((part) => part.trim());
  const given = parts.filter((part) => part !== "");
  if (given.length === 0 || given.length > addressesMax) {
    throw new ApoError(
      "EINVAL",
      `link "mem" needs \`address\`: one to ${addressesMax} of this runtime on the wire, as "10.0.0.1/24, fd00::1/64"`,
    );
  }
  return given;
}

/** Joins a runtime to a wire and starts its native thread. Throws `EINVAL`, `EADDRINUSE`, `ENFILE`, `ENATIVE`. */
export function startMemLink(options: MemLinkOptions): MemLink {
  return new JoinedMemLink(options);
}
