/**
 * CPU time, wake-ups and memory of a process and all its descendants, thread by thread, from /proc.
 *
 * Times are the scheduler's own nanoseconds (schedstat): kernel work done for the process is in them, and with it
 * the softirq half of what it sends over loopback or veth (unless the kernel accounts interrupts apart).
 */
import { readdirSync, readFileSync } from "node:fs";

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

/** True when a process of the tree listens on the TCP port (in its own network namespace). */
export function listensOn(pid: number, port: number): boolean {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const tables = readOrEmpty(`/proc/${pid}/net/tcp`) + readOrEmpty(`/proc/${pid}/net/tcp6`);
  return tables.split("\n").some((line) => {
    const [, local, , state] = line.trim().split(/\s+/);
    return state === "0A" && (local?.endsWith(wanted) ?? false);
  });
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
