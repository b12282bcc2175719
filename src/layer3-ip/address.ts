/**
 * IP addresses as text and as four words in network order.
 *
 * Layer 3. IPv4 takes the first word; IPv4-mapped IPv6 (RFC 4291 2.5.5.2) is IPv4 here, since that is what it is on
 * the wire. A zone (`%eth0`) is not kept. Knows nothing of sockets.
 */

const mappedPrefix = "::ffff:";

/** `::ffff:192.0.2.1` as `192.0.2.1`; everything else as it is. */
export function plainAddress(address: string): string {
  return address.startsWith(mappedPrefix) && address.includes(".")
    ? address.slice(mappedPrefix.length)
    : address;
}

/** Writes an address into four words from `at` on. True: it is IPv6. Text that is no address leaves zeros. */
export function parseAddress(text: string, words: Int32Array, at: number): boolean {
  const address = plainAddress(text);
  words.fill(0, at, at + 4);
  if (!address.includes(":")) {
    words[at] = parseFour(address);
    return false;
  }
  const bare = address.split("%", 1)[0] as string;
  const [left = "", right] = bare.split("::", 2);
  const head = groupsOf(left);
  const tail = right === undefined ? [] : groupsOf(right);
  const gap = Math.max(0, 8 - head.length - tail.length);
  const groups = [...head, ...new Array<number>(gap).fill(0), ...tail];
  for (let i = 0; i < 4; i += 1) words[at + i] = ((groups[2 * i] ?? 0) << 16) | (groups[2 * i + 1] ?? 0);
  return true;
}

function parseFour(text: string): number {
  const [a = 0, b = 0, c = 0, d = 0] = text.split(".").map(Number);
  return (a << 24) | (b << 16) | (c << 8) | d;
}

function groupsOf(text: string): number[] {
  if (text === "") return [];
  const groups: number[] = [];
  for (const part of text.split(":")) {
    if (part.includes(".")) {
      const four = parseFour(part);
      groups.push(four >>> 16, four & 0xffff);
    } else {
      groups.push(Number.parseInt(part, 16) & 0xffff);
    }
  }
  return groups;
}

/** The text of an address: dotted, or IPv6 as RFC 5952 writes it. */
export function formatAddress(words: Int32Array, at: number, six: boolean): string {
  const first = words[at] as number;
  if (!six) return `${first >>> 24}.${(first >>> 16) & 255}.${(first >>> 8) & 255}.${first & 255}`;
  const groups: number[] = [];
  for (let i = 0; i < 4; i += 1)
    groups.push((words[at + i] as number) >>> 16, (words[at + i] as number) & 0xffff);
  const gap = longestZeros(groups);
  const text = groups.map((group) => group.toString(16));
  if (gap.length < 2) return text.join(":");
  return `${text.slice(0, gap.start).join(":")}::${text.slice(gap.start + gap.length).join(":")}`;
}

function longestZeros(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let start = 0;
  for (let i = 0; i <= groups.length; i += 1) {
    if (groups[i] === 0) continue;
    if (i - start > best.length) best = { start, length: i - start };
    start = i + 1;
  }
  return best;
}
