/**
 * The `mem` link: wires in memory that runtimes of one process are joined to.
 *
 * Layer 3. A wire is made by `createWire`; what a runtime does with one is `raw-link.ts`'s matter.
 */

import { constants } from "node:os";
import { ApoError } from "../../layer1-app/errors.ts";
import { addressRecords, addressWords, parsePrefix } from "../ip-prefix.ts";
import { loadNative, type NativeWire } from "../native.ts";
import type { LinkFailure } from "./link-module.ts";
import type { LinkOptions } from "./link-options.ts";

const mtuMin = 1280;
const mtuMax = 65_000;

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

/** What the native link is opened with. Throws `EINVAL`. */
export function settings(options: LinkOptions): Record<string, number> {
  if (options.wire instanceof MemWire) return { wire: options.wire.id };
  throw new ApoError("EINVAL", 'link "mem" needs `wire`, which `createWire()` makes');
}

/** Words for what the native link could not do. */
export function explain(failure: LinkFailure, { address = "" }: LinkOptions): ApoError {
  if (failure.errno === constants.errno.EADDRINUSE) {
    return new ApoError(
      "EADDRINUSE",
      `another runtime on this wire has one of the addresses ${address} already`,
    );
  }
  if (failure.errno === constants.errno.ENFILE)
    return new ApoError("ENFILE", "the wire is full: 1,024 runtimes at most");
  return new ApoError("EIO", `the mem link could not be opened: ${failure.step}, errno ${failure.errno}`);
}
