/**
 * One measurement of an echo server: requests a second of its CPU time, and round trips, with the kernel's TCP or ours
 * as the client.
 */
import { Child } from "../lib/children.ts";
import { cpuBetween, snapshotCpu } from "../lib/cpu-time.ts";
import type { MemPairFigures, MemPairOptions } from "./mem-pair.ts";
import type { EchoServer } from "./servers.ts";

export const requestBytes = 64;
/** How long thousands of connections may take to be opened and to ask. */
const longMs = 120_000;

export interface Effort {
  readonly rounds: number;
  readonly warmMs: number;
  readonly runMs: number;
  say(line: string): void;
}

export interface EchoFigures {
  readonly perCpuSecond: number;
  readonly perSecond: number;
  /** Microseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly threads: string;
}

interface ClientAnswer {
  readonly requests: number;
  readonly seconds: number;
  readonly p50: number;
  readonly p99: number;
  readonly broken: number;
  readonly unanswered: number;
}

/** The kernel's clients, by tools/echo_client.c. Throws when one connection is refused, breaks, or gets no answer. */
export async function measureEcho(
  program: string,
  server: EchoServer,
  connections: number,
  effort: Effort,
): Promise<EchoFigures> {
  const command = server.callers.command([program, server.address, "7", String(requestBytes)]);
  const client = new Child(command, { name: "the clients", answerMs: longMs });
  try {
    await client.answer<{ ready: boolean }>();
    const { failed } = await client.ask<{ failed: number }>(`open ${connections}`);
    if (failed > 0) throw new Error(`${failed} of ${connections} connections could not be opened`);
    await client.ask<ClientAnswer>(`run ${effort.warmMs}`);
    const before = snapshotCpu(server.child.pid);
    const answer = await client.ask<ClientAnswer>(`run ${effort.runMs}`);
    const { cpuNs, threads } = cpuBetween(before, snapshotCpu(server.child.pid));
    const { requests, seconds, broken, unanswered } = answer;
    if (broken + unanswered > 0) throw new Error(`${broken} connections broke, ${unanswered} got no answer`);
    return {
      perCpuSecond: requests / (cpuNs / 1e9),
      perSecond: requests / seconds,
      p50: answer.p50,
      p99: answer.p99,
      threads: threads
        .slice(0, 3)
        .map(({ name, cpuNs: used }) => `${name} ${(used / seconds / 1e7).toFixed(0)} %`)
        .join(", "),
    };
  } finally {
    await client.stop();
  }
}

/** Both ends ours, on `mem`. */
export async function measureMem(options: MemPairOptions): Promise<EchoFigures> {
  const program = `${import.meta.dirname}/mem-pair.ts`;
  const child = new Child([process.execPath, program, JSON.stringify(options)], {
    name: "mem",
    answerMs: longMs,
  });
  try {
    const figures = await child.answer<MemPairFigures>();
    return {
      perCpuSecond: figures.requests / (figures.serverCpuNs / 1e9),
      perSecond: figures.requests / figures.seconds,
      p50: figures.p50,
      p99: figures.p99,
      threads: figures.threads,
    };
  } finally {
    await child.stop();
  }
}
