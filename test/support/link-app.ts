/**
 * A program for tests of links: a runtime on any link, in a namespace of its own, told what to do by lines of JSON.
 *
 * Started by `startLinkApp` with the options of `createRuntime` as its argument. Each line on stdin is a command, each
 * is answered by one line: { ok } or { error: { code, message } }. It ends when stdin does.
 */
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Child } from "../../bench/lib/children.ts";
import { createRuntime } from "../../src/layer1-app/runtime.ts";
import type {
  Apo,
  JoinSettings,
  LinkFacts,
  Listener,
  RuntimeOptions,
  Sockfd,
} from "../../src/layer1-app/types.ts";
import type { Namespace } from "./netns.ts";

export type LinkAppCommand =
  /** Echoes every datagram; answers with { port }. */
  | { readonly do: "echo"; readonly port: number }
  /** Takes datagrams and counts them; answers with { port }. */
  | { readonly do: "sink"; readonly port: number; readonly join?: readonly JoinSettings[] }
  | { readonly do: "received" }
  /** Sends `text` (or `bytes` bytes) to "host:port" and answers with { text, bytes } of the reply. */
  | { readonly do: "ask"; readonly to: string; readonly text?: string; readonly bytes?: number }
  /** An echo request of ICMP; answers with { bytes } of the reply. */
  | { readonly do: "ping"; readonly to: string; readonly bytes?: number }
  /** Sends `count` datagrams of `bytes` bytes, or one of `text`, without an answer. */
  | {
      readonly do: "send";
      readonly to: string;
      readonly text?: string;
      readonly bytes?: number;
      readonly count?: number;
    }
  /** Closes the listener on this port. */
  | { readonly do: "close"; readonly port: number }
  | { readonly do: "counters" }
  | { readonly do: "link" };

/** What a command is answered with. */
export interface LinkAppAnswer {
  readonly port: number;
  readonly text: string;
  readonly bytes: number;
  readonly datagrams: number;
  readonly counters: Record<string, number>;
  readonly link: LinkFacts;
}

export class LinkApp {
  readonly child: Child;

  constructor(child: Child) {
    this.child = child;
  }

  /** Has it done; throws an error with `code` when the app could not. */
  async ask(command: LinkAppCommand): Promise<LinkAppAnswer> {
    return result(await this.child.ask<Outcome>(JSON.stringify(command)));
  }

  async counters(): Promise<Record<string, number>> {
    return (await this.ask({ do: "counters" })).counters;
  }

  /** The counters that are not 0, for the message of a failed expectation. */
  async show(prefix = "layer3."): Promise<string> {
    const all = Object.entries(await this.counters());
    return JSON.stringify(Object.fromEntries(all.filter(([name, n]) => n > 0 && name.startsWith(prefix))));
  }

  /** Closes the runtime and ends the program. */
  stop(): Promise<void> {
    return this.child.stop();
  }
}

interface Outcome {
  readonly ok?: LinkAppAnswer;
  readonly error?: { readonly code: string; readonly message: string };
}

function result(outcome: Outcome): LinkAppAnswer {
  if (outcome.ok) return outcome.ok;
  const { code, message } = outcome.error ?? { code: "EIO", message: "no answer" };
  throw Object.assign(new Error(message), { code });
}

/**
 * Starts it in a namespace, by `prefix` if that is given (a command that ends by running the rest); resolves when its
 * runtime stands, throws with the runtime's error when it does not.
 */
export async function startLinkApp(
  namespace: Namespace,
  options: RuntimeOptions,
  prefix: readonly string[] = [],
): Promise<LinkApp> {
  const program = fileURLToPath(import.meta.url);
  const [first = process.execPath, ...rest] = [...prefix, process.execPath, program, JSON.stringify(options)];
  const child = namespace.start([first, ...rest], "the app");
  result(await child.answer<Outcome>());
  return new LinkApp(child);
}

class Program {
  private readonly apo: Apo;
  private readonly listeners = new Map<number, Listener>();
  private datagrams = 0;
  private bytes = 0;

  constructor(apo: Apo) {
    this.apo = apo;
  }

  async obey(command: LinkAppCommand): Promise<Partial<LinkAppAnswer>> {
    switch (command.do) {
      case "echo":
        return this.listen(command.port, (sockfd, bytes) => this.apo.sendto(sockfd, bytes));
      case "sink":
        return this.listen(command.port, () => {}, command.join);
      case "received":
        return { datagrams: this.datagrams, bytes: this.bytes };
      case "ask":
        return this.exchange("udp", command.to, command.text ?? new Uint8Array(command.bytes ?? 0));
      case "ping":
        return this.exchange("icmp", command.to, new Uint8Array(command.bytes ?? 56));
      case "send":
        return this.send(command);
      case "close":
        await this.listeners.get(command.port)?.close();
        return {};
      case "counters":
        return { counters: this.apo.counters() };
      case "link":
        return { link: this.apo.link() };
    }
  }

  private async listen(
    port: number,
    handle: (sockfd: Sockfd, bytes: Uint8Array) => void | Promise<void>,
    join: readonly JoinSettings[] | undefined = undefined,
  ): Promise<Partial<LinkAppAnswer>> {
    const request = (sockfd: Sockfd, message: { readonly bytes: Uint8Array }) => {
      this.datagrams += 1;
      this.bytes += message.bytes.length;
      return handle(sockfd, message.bytes);
    };
    const listener = await this.apo.opens({
      protocol: "udp",
      port,
      waiting: 1024,
      request,
      ...(join && { join }),
    });
    this.listeners.set(listener.port, listener);
    return { port: listener.port };
  }

  /** Sends once a connection stands; the reply, or why it ended without one. */
  private async exchange(
    protocol: "udp" | "icmp",
    to: string,
    news: string | Uint8Array,
  ): Promise<Partial<LinkAppAnswer>> {
    const { promise, resolve, reject } = Promise.withResolvers<Partial<LinkAppAnswer>>();
    const sockfd = await this.apo.opens({
      protocol,
      to,
      news,
      idleMs: 5000,
      request: (_, message) => resolve({ text: message.text(), bytes: message.bytes.length }),
      closed: (_, reason) => reject(reason.error ?? new Error(`closed: ${reason.code}`)),
    });
    const reply = await promise;
    await this.apo.close(sockfd);
    return reply;
  }

  private async send(command: LinkAppCommand & { readonly do: "send" }): Promise<Partial<LinkAppAnswer>> {
    const { to, text, bytes = 0, count = 1 } = command;
    const sockfd = await this.apo.opens({ protocol: "udp", to, closed() {} });
    const data = text ?? new Uint8Array(bytes);
    for (let sent = 0; sent < count; sent += 1) await this.apo.sendto(sockfd, data);
    await this.apo.flushed(sockfd);
    return {};
  }
}

async function main(options: RuntimeOptions): Promise<void> {
  const say = (outcome: object) => process.stdout.write(`${JSON.stringify(outcome)}\n`);
  const failed = (error: unknown) => {
    const { code = "EIO", message } = error as { code?: string; message: string };
    say({ error: { code, message } });
  };
  try {
    const apo = await createRuntime({ workers: 1, ...options });
    const program = new Program(apo);
    say({ ok: {} });
    for await (const line of createInterface({ input: process.stdin })) {
      await program.obey(JSON.parse(line) as LinkAppCommand).then((ok) => say({ ok }), failed);
    }
    await apo.close();
  } catch (error) {
    failed(error);
  }
}

if (process.argv[1] === import.meta.filename)
  await main(JSON.parse(process.argv[2] ?? "{}") as RuntimeOptions);
