/** What a process's memory consists of, by mapping, and the kernel's slabs: from /proc. */
import { readFileSync } from "node:fs";

/** Resident bytes of each mapping of this process, by its address. */
export type Mappings = ReadonlyMap<string, number>;

export function mappings(): Mappings {
  const found = new Map<string, number>();
  let start = "";
  for (const line of readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    const address = /^([0-9a-f]+)-[0-9a-f]+ /.exec(line)?.[1];
    if (address !== undefined) start = address;
    const kilobytes = /^Rss:\s+(\d+) kB/.exec(line)?.[1];
    if (kilobytes !== undefined) found.set(start, Number(kilobytes) * 1024);
  }
  return found;
}

export function total(all: Mappings): number {
  let bytes = 0;
  for (const one of all.values()) bytes += one;
  return bytes;
}

/** How much the mappings grew that were not there at `since` and were at `known`: they are of what was made between. */
export function grownSince(since: Mappings, known: Mappings, now: Mappings): number {
  let bytes = 0;
  for (const [start, before] of known) if (!since.has(start)) bytes += (now.get(start) ?? 0) - before;
  return bytes;
}

/** Bytes that the kernel's slab allocator holds. */
export function slabBytes(): number {
  return Number(/^Slab:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]) * 1024;
}
