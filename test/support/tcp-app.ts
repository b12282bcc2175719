/**
 * Our end of a TCP test: an app on any link, told what to do by the lines of `tcp-words.ts`.
 *
 * It uses what every app may use, so that `link: "host"` runs the same tests against the kernel on both sides.
 */
import { createHash, type Hash } from "node:crypto";
import { statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createRuntime } from "../../src/layer1-app/runtime.ts";
import type { Apo, CloseReason, ListenOptions, RuntimeOptions, Sockfd } from "../../src/layer1-app/types.ts";
import type { Namespace } from "./netns.ts";
import {
  answerMs,
  Endings,
  obeyLines,
  sayError,
  type TcpAnswer,
  type TcpCommand,
  TcpEnd,
} from "./tcp-words.ts";

export async function startTcpApp(
  namespace: Namespace,
  options: RuntimeOptions,
  prefix: readonly string[] = [],
): Promise<TcpEnd> {
  const program = fileURLToPath(import.meta.url);
  const [first = process.execPath, ...rest] = [...prefix, process.execPath, program, JSON.stringify(options)];
  return new TcpEnd(namespace.start([first, ...rest], "the app", answerMs)).ready();
}

/** Bytes that may wait for the far side of a forwarded connection. */
const forwardedMost = 2 ** 20;
const recvlen = 2 ** 18;

class Reading {
  private readonly hash: Hash = createHash("sha256");
  bytes = 0;

  add(bytes: Uint8Array): void {
    this.hash.update(bytes);
    this.bytes += bytes.length;
  }

  ending(reason: CloseReason): Partial<TcpAnswer> {
    const how = reason.code === "closed" ? "end" : reason.code;
    return { bytes: this.bytes, sha256: this.hash.digest("hex"), how };
  }
}

class Program {
  private readonly apo: Apo;
  private readonly endings = new Endings();
  private readonly readings = new Map<Sockfd, Reading>();

  constructor(apo: Apo) {
    this.apo = apo;
  }

  async obey(command: TcpCommand): Promise<Partial<TcpAnswer>> {
    switch (command.do) {
      case "serve":
        return this.serve(command);
      case "ended":
        return this.endings.wait(command.count);
      case "exchange":
        return this.exchange(command);
      case "reset":
        return this.reset(command);
      case "counters":
        return { counters: this.apo.counters() };
    }
  }

  private async serve(command: TcpCommand & { do: "serve" }): Promise<Partial<TcpAnswer>> {
    const common = { protocol: "tcp", port: command.port ?? 0, backlog: 64, recvlen } as const;
    const listener = await this.apo.opens({ ...common, ...this.handlers(command) });
    return { port: listener.port };
  }

  private handlers(command: TcpCommand & { do: "serve" }): Partial<ListenOptions> {
    const { apo, readings } = this;
    if (command.what === "forward") return this.forwarding(command.to ?? "");
    if (command.what === "http") return this.http(command.file ?? "");
    return {
      connected: (sockfd) => {
        readings.set(sockfd, new Reading());
      },
      request: async (sockfd, message) => {
        readings.get(sockfd)?.add(message.bytes);
        if (command.what === "echo") {
          await apo.sendto(sockfd, message.bytes);
          if (apo.queued(sockfd) > forwardedMost) await apo.flushed(sockfd);
        } else if (command.what === "file") {
          await apo.sendto(sockfd, { file: command.file ?? "" });
          await apo.close(sockfd);
        }
      },
      closed: (sockfd, reason) => {
        const reading = readings.get(sockfd);
        readings.delete(sockfd);
        if (reading) this.endings.add(reading.ending(reason));
      },
    };
  }

  /** GET of files below a folder, with keep-alive: as much HTTP as curl and wrk need. */
  private http(folder: string): Partial<ListenOptions> {
    return {
      framing: (bytes) => {
        const end = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf("\r\n\r\n");
        return end < 0 ? 0 : end + 4;
      },
      request: async (sockfd, message) => {
        const name = /^GET \/(\S*)/.exec(message.text())?.[1] ?? "";
        const file = join(folder, name);
        const length = statSync(file).size;
        await this.apo.sendto(sockfd, `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`);
        await this.apo.sendto(sockfd, { file });
      },
    };
  }

  private forwarding(to: string): Partial<ListenOptions> {
    const { apo } = this;
    const others = new Map<Sockfd, Promise<Sockfd>>();
    const pass = async (from: Sockfd, bytes: Uint8Array): Promise<void> => {
      const other = await others.get(from);
      if (other === undefined) return;
      await apo.sendto(other, bytes);
      if (apo.queued(other) > forwardedMost) await apo.flushed(other);
    };
    const ended = async (one: Sockfd, reason: CloseReason): Promise<void> => {
      const other = await others.get(one)?.catch(() => undefined);
      others.delete(one);
      if (other !== undefined) await apo.close(other, { reset: reason.code === "reset" });
    };
    return {
      connected: async (sockfd) => {
        const opening = apo.opens({
          protocol: "tcp",
          to,
          recvlen,
          request: (from, message) => pass(from, message.bytes),
          closed: (from, reason) => ended(from, reason),
        });
        others.set(sockfd, opening);
        try {
          others.set(await opening, Promise.resolve(sockfd));
        } catch {
          await apo.close(sockfd, { reset: true });
        }
      },
      request: (sockfd, message) => pass(sockfd, message.bytes),
      closed: (sockfd, reason) => ended(sockfd, reason),
    };
  }

  private async exchange(command: TcpCommand & { do: "exchange" }): Promise<Partial<TcpAnswer>> {
    const { apo } = this;
    const reading = new Reading();
    const { promise, resolve } = Promise.withResolvers<Partial<TcpAnswer>>();
    const sockfd = await apo.opens({
      protocol: "tcp",
      to: command.to,
      recvlen,
      request: (own, message) => {
        reading.add(message.bytes);
        if (command.expect !== undefined && reading.bytes >= command.expect) void apo.close(own);
      },
      closed: (_, reason) => resolve(reading.ending(reason)),
    });
    await apo.sendto(sockfd, command.file ? { file: command.file } : (command.text ?? ""));
    if (command.half) await apo.close(sockfd, { shutdown: "write" });
    return promise;
  }

  private async reset(command: TcpCommand & { do: "reset" }): Promise<Partial<TcpAnswer>> {
    const { promise, resolve, reject } = Promise.withResolvers<Partial<TcpAnswer>>();
    let received = 0;
    const sockfd = await this.apo.opens({
      protocol: "tcp",
      to: command.to,
      news: command.text,
      request: (_, message) => {
        received += message.bytes.length;
        if (received >= command.text.length) resolve({});
      },
      closed: (_, reason) => reject(reason.error ?? new Error(reason.code)),
    });
    await promise;
    await this.apo.close(sockfd, { reset: true });
    return {};
  }
}

if (process.argv[1] === import.meta.filename) {
  try {
    const options = JSON.parse(process.argv[2] ?? "{}") as RuntimeOptions;
    const apo = await createRuntime({ workers: 1, ...options });
    const program = new Program(apo);
    await obeyLines((command) => program.obey(command));
    await apo.close();
  } catch (error) {
    sayError(error);
  }
}
