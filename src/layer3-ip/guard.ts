/**
 * The guard of a raw link (`apo.guard`): who is blocked, who is allowed, how much each source may send, and who sent
 * what was dropped.
 *
 * Layer 3, used by the runtime. Words for people are here; the tables and the native thread's half are in
 * native/rawsock/guard. Lists are read in `guard-lists.ts`.
 */

import { ApoError } from "../layer1-app/errors.ts";
import { formatAddress } from "./address.ts";
import { type PrefixRecords, packPrefixes, readPrefixFile } from "./guard-lists.ts";
import { addressRecordBytes, addressRecords, addressWords, parsePrefix } from "./ip-prefix.ts";
import { loadNative, type NativeGuard } from "./native.ts";

const blocked = 1;
const allowed = 2;
/** What the two lists may hold together; mirrored in guard/prefix_table.h. */
const entriesMax = 2_000_000;
/** Prefixes that are handed over in one turn of the event loop: about five milliseconds. */
const sliceRecords = 16_384;
/** Mirrored in guard/rate_limit.h. */
const rateMax = 10_000_000;

/** How much each source may send. */
export interface GuardLimit {
  /** Packets a second of one source (0: no limit). */
  readonly packetsPerSecond?: number;
  /** Packets of one source at once, after a silence (a tenth of a second's, at least 10). */
  readonly burst?: number;
  /** What one source is, in bits of its IPv4 address (32). */
  readonly prefixBits4?: number;
  /** In bits of its IPv6 address (64: a network, whose addresses its owner may choose freely). */
  readonly prefixBits6?: number;
}

/** The `guard` of `createRuntime`. */
export interface GuardOptions extends GuardLimit {
  /** Prefixes ("192.0.2.0/24", "2001:db8::/32") or single addresses whose packets are dropped. */
  readonly block?: readonly string[];
  /** Prefixes whose packets pass the block list and the rate limit. The longest prefix of both lists decides. */
  readonly allow?: readonly string[];
  /** A file of prefixes to block, one a line; `#` and `;` begin comments. */
  readonly blockFile?: string;
}

/** Somebody whose packets were dropped for what they were. */
export interface Offender {
  readonly address: string;
  /** Hops away, guessed from what was left of its TTL or hop limit. */
  readonly distance: number;
  /** Why the last packet was dropped: a counter's name without `layer3.rx.dropped.`, such as "tcpNull". */
  readonly reason: string;
  /** Dropped packets; under a flood an estimate from a sample. */
  readonly count: number;
  readonly firstSeen: Date;
  readonly lastSeen: Date;
  /** The first bytes of the first packet, at most 64, from the IP header on. */
  readonly bytes: Uint8Array;
}

/** `apo.guard`. Changes hold for packets that come after. */
export interface Guard {
  /**
   * Puts prefixes on the block list; how many were not on it. All are read before any is taken: `EINVAL` changes
   * nothing. Up to 16,384 are in force when it returns; more go in slices, so that the event loop lives, and are in
   * force when it resolves. `ENOBUFS`: the lists are full (2,000,000 together).
   */
  block(prefixes: string | Iterable<string>): Promise<number>;
  /** Takes prefixes off the block list (those exactly, not what they contain); how many were on it. */
  unblock(prefixes: string | Iterable<string>): Promise<number>;
  /** Puts prefixes on the allow list. */
  allow(prefixes: string | Iterable<string>): Promise<number>;
  /** Takes prefixes off the allow list. */
  disallow(prefixes: string | Iterable<string>): Promise<number>;
  /** Blocks what a file lists. `EINVAL` names file and line; `ENOENT`, `EACCES`, `EIO`. */
  blockFile(path: string): Promise<number>;
  /** Sets the rate limit anew; what is left out has its default. `EINVAL`. */
  limit(limit: GuardLimit): void;
  /** What the lists say about an address. */
  verdict(address: string): "allowed" | "blocked" | "unlisted";
  /** How many prefixes are on each list, and the bytes of memory that they take. */
  entries(): { readonly blocked: number; readonly allowed: number; readonly bytes: number };
  /** The latest first; at most 1,024 for each native thread. */
  offenders(): Offender[];
}

/** The guard with what the native threads take. */
export class LinkGuard implements Guard {
  readonly native: NativeGuard = new (loadNative().NativeGuard)();

  block(prefixes: string | Iterable<string>): Promise<number> {
    return this.change("block", true, blocked, prefixes);
  }

  unblock(prefixes: string | Iterable<string>): Promise<number> {
    return this.change("unblock", false, blocked, prefixes);
  }

  allow(prefixes: string | Iterable<string>): Promise<number> {
    return this.change("allow", true, allowed, prefixes);
  }

  disallow(prefixes: string | Iterable<string>): Promise<number> {
    return this.change("disallow", false, allowed, prefixes);
  }

  async blockFile(path: string): Promise<number> {
    return this.apply(true, blocked, await readPrefixFile(path, entriesMax));
  }

  limit(limit: GuardLimit): void {
    const { packetsPerSecond, burst, prefixBits4, prefixBits6 } = checkLimit(limit);
    this.native.setLimit(packetsPerSecond, burst, prefixBits4, prefixBits6);
  }

  verdict(address: string): "allowed" | "blocked" | "unlisted" {
    if (!addressWords(address)) throw new ApoError("EINVAL", `guard: "${address}" is not an IP address`);
    const listing = this.native.listing(addressRecords([parsePrefix(address)]));
    if ((listing & allowed) !== 0) return "allowed";
    return (listing & blocked) !== 0 ? "blocked" : "unlisted";
  }

  entries(): { blocked: number; allowed: number; bytes: number } {
    const [inBlocked, inAllowed, bytes] = this.native.entries();
    return { blocked: inBlocked, allowed: inAllowed, bytes };
  }

  offenders(): Offender[] {
    const nowMs = Date.now();
    return this.native.offenders().map((one) => ({
      address: addressText(one.address),
      distance: one.distance,
      reason: one.reason.replace("rx.dropped.", ""),
      count: one.count,
      firstSeen: new Date(nowMs - one.firstMs),
      lastSeen: new Date(nowMs - one.lastMs),
      bytes: one.bytes,
    }));
  }

  private async change(
    verb: string,
    add: boolean,
    list: number,
    prefixes: string | Iterable<string>,
  ): Promise<number> {
    const given = typeof prefixes === "string" ? [prefixes] : prefixes;
    if (typeof given?.[Symbol.iterator] !== "function") {
      throw new ApoError("EINVAL", `guard: ${verb} takes a prefix or several, as ["192.0.2.0/24"]`);
    }
    // Without an await before it, a short list is in force when the call returns.
    const packed = packPrefixes(`guard.${verb}`, given, entriesMax);
    return this.apply(add, list, packed instanceof Promise ? await packed : packed);
  }

  private async apply(add: boolean, list: number, { bytes, count }: PrefixRecords): Promise<number> {
    let changed = 0;
    for (let at = 0; at < count; at += sliceRecords) {
      if (at > 0) await new Promise((resolve) => setImmediate(resolve));
      const end = Math.min(count, at + sliceRecords);
      const slice = bytes.subarray(at * addressRecordBytes, end * addressRecordBytes);
      const [, done, ended] = this.native.change(add, list, slice);
      changed += done;
      if (ended !== 0) throw fullError(at, this.entries());
    }
    return changed;
  }
}

function fullError(
  at: number,
  { blocked: inBlocked, allowed: inAllowed }: { blocked: number; allowed: number },
) {
  const held = `${inBlocked} blocked, ${inAllowed} allowed`;
  return new ApoError(
    "ENOBUFS",
    `guard: the lists are full (${held}, ${entriesMax} at most), or memory is: some prefixes from number ` +
      `${at + 1} on were not taken; remove others, or write several as one shorter prefix`,
  );
}

function addressText(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const words = new Int32Array(4);
  for (let at = 0; at < bytes.length; at += 4) words[at / 4] = view.getInt32(at);
  return formatAddress(words, 0, bytes.length === 16);
}

const limitNames = [
  "packetsPerSecond",
  "burst",
  "prefixBits4",
  "prefixBits6",
] as const satisfies readonly (keyof GuardLimit)[];
const optionNames = ["block", "allow", "blockFile", ...limitNames] as const;

function checkNames(given: object, known: readonly string[]): void {
  if (typeof given !== "object" || given === null) {
    throw new ApoError("EINVAL", `guard: an object with some of ${known.join(", ")} is needed`);
  }
  const strange = Object.keys(given).find((name) => !known.includes(name));
  if (strange === undefined) return;
  throw new ApoError("EINVAL", `guard: unknown option "${strange}": there are ${known.join(", ")}`);
}

function checkLimit(limit: GuardLimit): Required<GuardLimit> {
  checkNames(limit, limitNames);
  const whole = (name: keyof GuardLimit, unset: number, least: number, most: number): number => {
    const value = limit[name] ?? unset;
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new ApoError(
      "EINVAL",
      `guard: ${name} must be a whole number from ${least} to ${most}, not ${value}`,
    );
  };
  const packetsPerSecond = whole("packetsPerSecond", 0, 0, rateMax);
  if (limit.burst !== undefined && packetsPerSecond === 0) {
    throw new ApoError("EINVAL", "guard: burst is for a limit: give packetsPerSecond too");
  }
  return {
    packetsPerSecond,
    burst: whole("burst", Math.max(10, Math.ceil(packetsPerSecond / 10)), 1, rateMax),
    prefixBits4: whole("prefixBits4", 32, 0, 32),
    prefixBits6: whole("prefixBits6", 64, 0, 128),
  };
}

/** Throws `EINVAL` for an option of `guard` that cannot be; files are read later. */
export function checkGuardOptions(options: GuardOptions): void {
  checkNames(options, optionNames);
  for (const name of ["block", "allow"] as const) {
    if (options[name] === undefined || Array.isArray(options[name])) continue;
    throw new ApoError("EINVAL", `guard: ${name} must be an array of prefixes, as ["192.0.2.0/24"]`);
  }
  if (options.blockFile !== undefined && typeof options.blockFile !== "string") {
    throw new ApoError("EINVAL", "guard: blockFile must be the path of a file");
  }
  const { block: _block, allow: _allow, blockFile: _file, ...limit } = options;
  checkLimit(limit);
}

/** Fills a guard's lists: no packet passes before. Throws what `Guard`'s verbs throw. */
export async function startGuard(
  options: GuardOptions = {},
  guard: LinkGuard = new LinkGuard(),
): Promise<LinkGuard> {
  checkGuardOptions(options);
  const { block, allow, blockFile, ...limit } = options;
  guard.limit(limit);
  if (block) await guard.block(block);
  if (allow) await guard.allow(allow);
  if (blockFile !== undefined) await guard.blockFile(blockFile);
  return guard;
}
