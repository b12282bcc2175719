/**
 * The `mem` link: wires in memory that runtimes of one process are joined to, good ones and bad ones.
 *
 * Layer 3. A wire is made by `createWire`; what a runtime does with one is `raw-link.ts`'s matter. The same in virtual
 * time is `virtual-wire.ts`.
 */

import { constants } from "node:os";
import { ApoError } from "../../layer1-app/errors.ts";
import { settingsFromNumbers, settingsToNumbers } from "../impairment.ts";
import {
  checkOptionNames,
  type Impairments,
  impair,
  impairmentNames,
  seedWords,
  unimpaired,
} from "../impairment-options.ts";
import { addressRecords, addressWords, parsePrefix } from "../ip-prefix.ts";
import { loadNative, type NativeWire } from "../native.ts";
import type { LinkFailure } from "./link-module.ts";
import type { LinkOptions } from "./link-options.ts";

const mtuMin = 1280;
const mtuMax = 65_000;
const addressesMax = 64;
const optionNames = ["mtu", "inboxBytes", "seed", ...impairmentNames];

/** What a wire is made with. Without any of `Impairments` it is a good one. */
export interface WireOptions extends Impairments {
  /** The longest IP packet, in bytes (1,500); 1,280 to 65,000. */
  readonly mtu?: number;
  /**
   * Bytes that may wait for each runtime on the wire, those that are delayed among them (4 MiB); more are dropped and
   * the sender counts them.
   */
  readonly inboxBytes?: number;
  /** Of all that is drawn (1); 0 to 2^53 - 1. The same packets meet the same fates with the same seed. */
  readonly seed?: number;
}

/** An address of a wire that sends every packet back; made by `wire.mirror`. */
export interface WireMirror {
  readonly address: string;
  /** Takes it off the wire. Idempotent. */
  close(): void;
}

/** A virtual wire. Runtimes of this process that name the same one reach each other. */
export interface Wire {
  /** Its number in this process: `openWire(id)` finds it in another thread. */
  readonly id: number;
  readonly mtu: number;
  /** How many runtimes are joined to it. */
  readonly endpoints: number;
  /**
   * Other impairments for all packets sent from now on; what is not named stays, and what is on its way arrives.
   * `set({ loss: 1 })` pulls the cable. Throws `EINVAL`.
   */
  set(impairments: Impairments): void;
  /**
   * Plugs in one or more addresses ("10.0.0.9, fd00::9") without a runtime: every packet comes back with its addresses
   * and UDP ports swapped, in its sender's own native thread. Throws `EINVAL`, `EADDRINUSE`, `ENFILE`.
   */
  mirror(address: string): WireMirror;
  /**
   * Puts bytes on the wire as they are, for the runtime with address `to`, past all impairments: for tests and for
   * replaying captures. "tx.packets" when it was taken, otherwise the counter that names the reason. Throws `EINVAL`.
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
  set(impairments: Impairments): void {
    checkOptionNames("wire.set", impairments, impairmentNames);
    const now = settingsFromNumbers(this.native.impairment);
    this.native.impair(settingsToNumbers(impair("wire.set", impairments, now)));
  }
  mirror(address: string): WireMirror {
    const own = String(address)
      .split(",")
      .map((part) => parsePrefix(part.trim()));
    if (own.length > addressesMax) {
      throw new ApoError("EINVAL", `wire.mirror: ${addressesMax} addresses at most, not ${own.length}`);
    }
    const number = this.native.addMirror(addressRecords(own));
    if (number < 0) throw explain({ errno: -number, step: "mirror" }, { address });
    return { address, close: () => this.native.removeMirror(number) };
  }
  inject(to: string, packet: Uint8Array): string {
    if (!addressWords(to)) throw new ApoError("EINVAL", `"${to}" is not an IP address`);
    if (packet.length === 0) throw new ApoError("EINVAL", "a packet has at least one byte");
    return this.native.inject(addressRecords([parsePrefix(to)]), packet);
  }
}

/** Makes a wire. Throws `EINVAL`. */
export function createWire(options: WireOptions = {}): Wire {
  checkOptionNames("createWire", options, optionNames);
  const { mtu = 1500, inboxBytes = 4 * 1024 * 1024, seed = 1 } = options;
  if (!Number.isInteger(mtu) || mtu < mtuMin || mtu > mtuMax) {
    throw new ApoError("EINVAL", `mtu must be a whole number from ${mtuMin} to ${mtuMax}, not ${mtu}`);
  }
  if (!Number.isInteger(inboxBytes) || inboxBytes < 2 ** 18 || inboxBytes > 2 ** 28) {
    throw new ApoError(
      "EINVAL",
      `inboxBytes must be a whole number from 256 KiB to 256 MiB, not ${inboxBytes}`,
    );
  }
  const words = seedWords("createWire", seed);
  const impairment = impair("createWire", options, { ...unimpaired, ...words });
  return new MemWire(new (loadNative().NativeWire)(mtu, inboxBytes, settingsToNumbers(impairment)));
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
      `another runtime or mirror on this wire has one of the addresses ${address} already`,
    );
  }
  if (failure.errno === constants.errno.ENFILE)
    return new ApoError("ENFILE", "the wire is full: 1,024 runtimes and mirrors at most");
  return new ApoError("EIO", `the mem link could not be opened: ${failure.step}, errno ${failure.errno}`);
}
