/**
 * Addresses of a link as users write them ("10.0.0.1/24", "fd00::1/64"), checked, and as native code reads them.
 *
 * Layer 3. Strict: text that is not exactly an address is refused with a sentence, never guessed at.
 */

import { isIPv4, isIPv6 } from "node:net";
import { ApoError } from "../layer1-app/errors.ts";
import { formatAddress } from "./address.ts";

/**
 * Bytes of one address record: version, prefix bits, 1 when the whole prefix is meant, 0, 16 address bytes. Mirrored
 * in native/rawsock/napi/address_records.h.
 */
export const addressRecordBytes = 20;
const addressAt = 4;

export interface IpPrefix {
  readonly text: string;
  readonly version6: boolean;
  readonly prefixBits: number;
  /** Network order as numbers; IPv4 takes the first. */
  readonly words: Int32Array;
  /** All addresses of the prefix are meant, and not the one alone. */
  readonly whole?: boolean;
}

function wordsOfFour(text: string): number {
  const [a = 0, b = 0, c = 0, d = 0] = text.split(".").map(Number);
  return (a << 24) | (b << 16) | (c << 8) | d;
}

function groupsOfSix(text: string): number[] {
  const groups: number[] = [];
  for (const part of text === "" ? [] : text.split(":")) {
    if (part.includes(".")) {
      const four = wordsOfFour(part);
      groups.push(four >>> 16, four & 0xffff);
    } else groups.push(Number.parseInt(part, 16));
  }
  return groups;
}

/** The address's words; undefined when the text is no IP address (a zone is none). */
export function addressWords(text: string): { version6: boolean; words: Int32Array } | undefined {
  const words = new Int32Array(4);
  if (isIPv4(text)) {
    words[0] = wordsOfFour(text);
    return { version6: false, words };
  }
  if (!isIPv6(text) || text.includes("%")) return undefined;
  const [left = "", right] = text.split("::");
  const head = groupsOfSix(left);
  const tail = right === undefined ? [] : groupsOfSix(right);
  const groups = [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail];
  for (let i = 0; i < 4; i += 1) words[i] = ((groups[2 * i] as number) << 16) | (groups[2 * i + 1] as number);
  return { version6: true, words };
}

/** Reads `address/bits`; without bits the address stands alone (/32, /128). Throws `EINVAL`. */
export function parsePrefix(text: string): IpPrefix {
  const [address = "", bits, ...rest] = text.split("/");
  const parsed = addressWords(address);
  const most = parsed?.version6 ? 128 : 32;
  const prefixBits = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : -1;
  if (!parsed || rest.length > 0 || prefixBits < 0 || prefixBits > most) {
    throw new ApoError(
      "EINVAL",
      `address "${text}" is not an address with a prefix: write "10.0.0.1/24" or "fd00::1/64"`,
    );
  }
  return { text: address, version6: parsed.version6, prefixBits, words: parsed.words };
}

/** The records of several addresses, one after the other. */
export function addressRecords(prefixes: readonly IpPrefix[]): Uint8Array {
  const records = new Uint8Array(prefixes.length * addressRecordBytes);
  const view = new DataView(records.buffer);
  prefixes.forEach((prefix, i) => {
    const at = i * addressRecordBytes;
    records[at] = prefix.version6 ? 6 : 4;
    records[at + 1] = prefix.prefixBits;
    records[at + 2] = prefix.whole ? 1 : 0;
    prefix.words.forEach((word, n) => {
      view.setInt32(at + addressAt + 4 * n, word);
    });
  });
  return records;
}

/** What packed records say. */
export function prefixesOfRecords(records: Uint8Array): IpPrefix[] {
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  const prefixes: IpPrefix[] = [];
  for (let at = 0; at + addressRecordBytes <= records.length; at += addressRecordBytes) {
    const version6 = records[at] === 6;
    const words = new Int32Array(4);
    for (let n = 0; n < (version6 ? 4 : 1); n += 1) words[n] = view.getInt32(at + addressAt + 4 * n);
    const text = formatAddress(words, 0, version6);
    prefixes.push({
      text,
      version6,
      prefixBits: records[at + 1] as number,
      words,
      whole: records[at + 2] === 1,
    });
  }
  return prefixes;
}

/** Whether an address lies in the prefix. */
export function prefixContains(prefix: IpPrefix, words: Int32Array): boolean {
  for (let i = 0, left = prefix.prefixBits; left > 0; i += 1, left -= 32) {
    const mask = left >= 32 ? -1 : -1 << (32 - left);
    if ((((prefix.words[i] as number) ^ (words[i] as number)) & mask) !== 0) return false;
  }
  return true;
}
