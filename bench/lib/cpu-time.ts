/**
 * CPU time, wake-ups and memory of a process and all its descendants, thread by thread, from /proc.
 *
 * Times are the scheduler's own nanoseconds (schedstat): kernel work done for the process is in them, and with it
 * the softirq half of what it sends over loopback or veth (unless the kernel accounts interrupts apart).
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface ThreadTime {
  /** "pid/tid". */
  readonly id: string;
  readonly name: string;
  readonly cpuNs: number;
  /** Times it went to sleep of its own accord, and so was woken. */
  readonly sleeps: number;
}

export interface CpuSnapshot {
  readonly threads: ReadonlyMap<string, ThreadTime>;
  /** Resident memory of all processes, bytes. */
  readonly residentBytes: number;
}

export interface CpuUse {
  readonly cpuNs: number;
  readonly threads: readonly ThreadTime[];
}

/** The processes below `pid` and itself. */
export function processTree(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const stat = readOrEmpty(`/proc/${entry}/stat`);
    const parent = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
    if (parent) parents.set(Number(entry), Number(parent));
  }
  const tree = [pid];
  for (let i = 0; i < tree.length; i++) {
    for (const [child, parent] of parents) if (parent === tree[i]) tree.push(child);
  }
  return tree;
}

/** What the tree below `pid` has used so far. A process that is gone counts as nothing. */
export function snapshotCpu(pid: number): CpuSnapshot {
  const threads = new Map<string, ThreadTime>();
  let residentBytes = 0;
  for (const member of processTree(pid)) {
    residentBytes += statusNumber(readOrEmpty(`/proc/${member}/status`), "VmRSS") * 1024;
    for (const tid of threadIds(member)) {
      const folder = `/proc/${member}/task/${tid}`;
      const id = `${member}/${tid}`;
      threads.set(id, {
        id,
        name: readOrEmpty(`${folder}/comm`).trim(),
        cpuNs: Number(readOrEmpty(`${folder}/schedstat`).split(" ")[0]),
        sleeps: statusNumber(readOrEmpty(`${folder}/status`), "voluntary_ctxt_switches"),
      });
    }
  }
  return { threads, residentBytes };
}

/** What was used from one snapshot to the next; busiest thread first. */
export function cpuBetween(before: CpuSnapshot, after: CpuSnapshot): CpuUse {
  const threads: ThreadTime[] = [];
  let cpuNs = 0;
  for (const [id, now] of after.threads) {
    const then = before.threads.get(id);
    const used = now.cpuNs - (then?.cpuNs ?? 0);
    cpuNs += used;
    threads.push({ id, name: now.name, cpuNs: used, sleeps: now.sleeps - (then?.sleeps ?? 0) });
  }
  return { cpuNs, threads: threads.sort((a, b) => b.cpuNs - a.cpuNs) };
}

/**
 * True when a process of the tree below `pid` listens on the TCP port. It must be a socket of its own: a neighbour
 * may listen on the same number, and until a child has entered its namespace it sees the neighbours' sockets.
 */
export function listensOn(pid: number, port: number): boolean {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const tables = readOrEmpty(`/proc/${pid}/net/tcp`) + readOrEmpty(`/proc/${pid}/net/tcp6`);
  const inodes = new Set<string>();
  for (const line of tables.split("\n")) {
    const columns = line.trim().split(/\s+/); // slot, local, remote, state, ..., the tenth is the inode
    if (columns[3] === "0A" && columns[1]?.endsWith(wanted)) inodes.add(`socket:[${columns[9]}]`);
  }
  return (
    inodes.size > 0 && processTree(pid).some((member) => openFiles(member).some((file) => inodes.has(file)))
  );
}

function openFiles(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder).map((descriptor) => linkOrEmpty(`${folder}/${descriptor}`));
  } catch {
    return [];
  }
}

function linkOrEmpty(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function threadIds(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

function statusNumber(status: string, key: string): number {
  return Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // a process may end between being listed and being read
  }
}
