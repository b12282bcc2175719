/**
 * What the two ends of a TCP test are told, whichever of them is the kernel's: one list of commands, obeyed by
 * `tcp-app.ts` on any link and by `tcp-peer.ts` with node:net. Each is a line of JSON on stdin and answered by one.
 *
 * Types, and the way to ask; no sockets.
 */
import { createInterface } from "node:readline";
import type { Child } from "../../bench/lib/children.ts";

export type TcpCommand =
  /**
   * Listens on a port (0: any); answers with { port }. "echo" sends back what comes, "sink" reads to the end, "file"
   * sends `file` to whoever says something and closes, "http" serves the files of folder `file`, "forward" is a proxy
   * for `to`.
   */
  | {
      readonly do: "serve";
      readonly what: "echo" | "sink" | "file" | "http" | "forward";
      readonly port?: number;
      readonly file?: string;
      readonly to?: string;
    }
  /**
   * Waits until `count` served connections have ended; answers with what the last of these got, how it ended, and how
   * many have `ended` in all.
   */
  | { readonly do: "ended"; readonly count: number }
  /**
   * Connects, sends `text` or `file`, ends its own side if `half`, and reads until the peer ends; without `half` it
   * closes once it has `expect` bytes (or all). Answers with { bytes, sha256, how }.
   */
  | {
      readonly do: "exchange";
      readonly to: string;
      readonly text?: string;
      readonly file?: string;
      readonly half?: boolean;
      readonly expect?: number;
    }
  /** Connects, sends `text`, waits for as much and resets. */
  | { readonly do: "reset"; readonly to: string; readonly text: string }
  | { readonly do: "counters" };

/** How a connection ended: "end" in order, "reset", or the code of an error. */
export interface TcpAnswer {
  readonly port: number;
  readonly bytes: number;
  readonly sha256: string;
  readonly how: string;
  readonly ended: number;
  readonly counters: Record<string, number>;
}

/** How long an answer may take: a gigabyte, or a few megabytes over a bad wire. */
export const answerMs = 200_000;

interface Outcome {
  readonly ok?: TcpAnswer;
  readonly error?: { readonly code: string; readonly message: string };
}

/** One end of a test. */
export class TcpEnd {
  readonly child: Child;

  constructor(child: Child) {
    this.child = child;
  }

  /** Has it done; throws an error with `code` when it could not be. */
  async ask(command: TcpCommand): Promise<TcpAnswer> {
    return ok(await this.child.ask<Outcome>(JSON.stringify(command)));
  }

  /** Waits for the program's first line: it stands, or throws its error. */
  async ready(): Promise<this> {
    ok(await this.child.answer<Outcome>());
    return this;
  }

  /** The counters that are not 0, for the message of a failed expectation. */
  async show(): Promise<string> {
    const { counters } = await this.ask({ do: "counters" });
    return JSON.stringify(Object.fromEntries(Object.entries(counters).filter(([, count]) => count > 0)));
  }
}

function ok(outcome: Outcome): TcpAnswer {
  if (outcome.ok) return outcome.ok;
  const { code, message } = outcome.error ?? { code: "EIO", message: "no answer" };
  throw Object.assign(new Error(message), { code });
}

/** The program's half: reads commands from stdin until it ends, and answers each, in order. */
export async function obeyLines(obey: (command: TcpCommand) => Promise<Partial<TcpAnswer>>): Promise<void> {
  say({ ok: {} });
  for await (const line of createInterface({ input: process.stdin })) {
    await obey(JSON.parse(line) as TcpCommand).then((done) => say({ ok: done }), sayError);
  }
}

function say(outcome: object): void {
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}

export function sayError(error: unknown): void {
  const { code = "EIO", message } = error as { code?: string; message: string };
  say({ error: { code, message } });
}

/** "10.0.0.1" and 7 as "10.0.0.1:7"; IPv6 in brackets. */
export function at(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The parts of `at`. */
export function parts(to: string): { host: string; port: number } {
  const found = /^\[?([^\]]+)\]?:(\d+)$/.exec(to);
  if (!found) throw new Error(`not a target: ${to}`);
  return { host: found[1] as string, port: Number(found[2]) };
}

/** Connections that have ended, and whoever waits for them. */
export class Endings {
  private readonly all: Partial<TcpAnswer>[] = [];
  private readonly waiting: { count: number; resolve: (last: Partial<TcpAnswer>) => void }[] = [];

  add(ending: Partial<TcpAnswer>): void {
    this.all.push(ending);
    for (const { count, resolve } of this.waiting) if (this.all.length === count) resolve(this.at(count));
  }

  /** The ending of the connection that was the `count`th to end. */
  wait(count: number): Promise<Partial<TcpAnswer>> {
    if (this.all.length >= count) return Promise.resolve(this.at(count));
    return new Promise((resolve) => this.waiting.push({ count, resolve }));
  }

  private at(count: number): Partial<TcpAnswer> {
    return { ...this.all[count - 1], ended: this.all.length };
  }
}
