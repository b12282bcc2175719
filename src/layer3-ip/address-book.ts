/**
 * Who has an address: exact ones first, then the longest prefix.
 *
 * Layer 3, pure. For the virtual wire; the native wire has its own in C++.
 */

import { type IpPrefix, parsePrefix, prefixContains } from "./ip-prefix.ts";

export class AddressBook<Owner> {
  private readonly byAddress = new Map<string, Owner>();
  private byPrefix: { readonly prefix: IpPrefix; readonly owner: Owner }[] = [];

  /** Which of these somebody has already; undefined: none. */
  taken(addresses: readonly IpPrefix[], prefixes: readonly IpPrefix[]): IpPrefix | undefined {
    return (
      addresses.find(({ words, version6 }) => this.byAddress.has(addressKey(words, version6))) ??
      prefixes.find((prefix) => this.byPrefix.some((other) => isSamePrefix(prefix, other.prefix)))
    );
  }

  add(addresses: readonly IpPrefix[], prefixes: readonly IpPrefix[], owner: Owner): void {
    for (const { words, version6 } of addresses) this.byAddress.set(addressKey(words, version6), owner);
    for (const prefix of prefixes) this.byPrefix.push({ prefix, owner });
    this.byPrefix.sort((a, b) => b.prefix.prefixBits - a.prefix.prefixBits);
  }

  remove(owner: Owner): void {
    for (const [key, other] of this.byAddress) if (other === owner) this.byAddress.delete(key);
    this.byPrefix = this.byPrefix.filter((entry) => entry.owner !== owner);
  }

  /** Who has the destination of an IP packet; undefined: nobody, or it is none. */
  destinationOf(packet: Uint8Array): Owner | undefined {
    const version = (packet[0] ?? 0) >> 4;
    const version6 = version === 6;
    const at = version6 ? 24 : 16;
    const count = version6 ? 4 : 1;
    if ((version !== 4 && version !== 6) || packet.length < at + 4 * count) return undefined;
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const words = new Int32Array(4);
    for (let i = 0; i < count; i += 1) words[i] = view.getInt32(at + 4 * i);
    const exact = this.byAddress.get(addressKey(words, version6));
    if (exact !== undefined || this.byPrefix.length === 0) return exact;
    return this.byPrefix.find(({ prefix }) => prefix.version6 === version6 && prefixContains(prefix, words))
      ?.owner;
  }
}

/** Reads a list as in "10.0.0.1/24, fd00::1". Throws `EINVAL`. */
export function parsePrefixes(list: string): IpPrefix[] {
  const parts = list.split(",").map((part) => part.trim());
  return parts.filter((part) => part !== "").map(parsePrefix);
}

function addressKey(words: Int32Array, version6: boolean): string {
  return version6 ? words.join() : String(words[0]);
}

function isSamePrefix(a: IpPrefix, b: IpPrefix): boolean {
  return a.version6 === b.version6 && a.prefixBits === b.prefixBits && prefixContains(a, b.words);
}
