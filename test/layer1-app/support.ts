/**
 * What the tests of layer 1 share: runtimes that are checked for leaks and closed, and plain sockets to talk to them.
 */

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, expect } from "vitest";
import { Runtime } from "../../src/layer1-app/runtime.ts";
import type { CloseReason, RuntimeOptions, Sockfd } from "../../src/layer1-app/types.ts";

const deadlineMs = 20_000;

const runtimes: Runtime[] = [];
const sockets: Socket[] = [];

/** A runtime that is closed after the test, when all its frames must be back in the pool. */
export async function startRuntime(options: RuntimeOptions = {}): Promise<Runtime> {
  const runtime = new Runtime({ workers: 1, appWorkers: 1, ...options });
  await runtime.start();
  runtimes.push(runtime);
  return runtime;
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const runtime of runtimes.splice(0)) {
    await until("every frame is back in the pool", () => framesInUse(runtime) === 0);
    await runtime.close();
  }
});

export function framesInUse(runtime: Runtime): number {
  return runtime.counters()["layer3.pool.frames-in-use"] as number;
}

/** Waits until the condition holds; fails with its name when it does not in good time. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const lastMs = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > lastMs) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A plain socket that keeps what it receives. */
export class Talker {
  readonly socket: Socket;
  readonly chunks: Buffer[] = [];
  received = 0;
  ended = false;
  closed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.chunks.push(bytes);
      this.received += bytes.length;
    });
    socket.on("end", () => {
      this.ended = true;
    });
    socket.on("close", () => {
      this.closed = true;
    });
    socket.on("error", () => {});
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }

  write(data: string | Uint8Array): void {
    this.socket.write(data);
  }

  /** Waits for that much, and gives all that has come. */
  async read(bytes: number): Promise<Buffer> {
    await until(
      `${bytes} bytes have come (${this.received} have)`,
      () => this.received >= bytes || this.closed,
    );
    return Buffer.concat(this.chunks);
  }

  /** Waits for the peer's end, and gives all that has come. */
  async readToEnd(): Promise<Buffer> {
    await until("the peer ends", () => this.ended || this.closed);
    return Buffer.concat(this.chunks);
  }
}

/** Connects a plain socket. */
export async function dial(port: number, host = "127.0.0.1"): Promise<Talker> {
  const socket = connect({ port, host, allowHalfOpen: true });
  sockets.push(socket);
  await once(socket, "connect");
  return new Talker(socket);
}

/** Handlers that keep what they are told. */
export function recorder(): {
  connected: Sockfd[];
  ends: { sockfd: Sockfd; reason: CloseReason }[];
  handlers: { connected(sockfd: Sockfd): void; closed(sockfd: Sockfd, reason: CloseReason): void };
} {
  const connected: Sockfd[] = [];
  const ends: { sockfd: Sockfd; reason: CloseReason }[] = [];
  return {
    connected,
    ends,
    handlers: {
      connected: (sockfd) => {
        connected.push(sockfd);
      },
      closed: (sockfd, reason) => {
        ends.push({ sockfd, reason });
      },
    },
  };
}

/** Expects an error with the code, from a promise or a call. */
export async function expectCode(code: string, run: () => unknown): Promise<Error> {
  let error: unknown;
  try {
    await run();
  } catch (caught) {
    error = caught;
  }
  expect(error, "an error was expected").toBeInstanceOf(Error);
  expect((error as { code?: string }).code).toBe(code);
  return error as Error;
}
