/**
 * Sends async iterables and web streams: pulled only as the connection takes their bytes.
 *
 * Layer 1. While a stream goes out, later sends on the same connection wait behind it here. An error of the stream
 * resets the connection, since the peer has part of what it was promised.
 */

import { ApoError } from "./errors.ts";
import type { Sending } from "./sending.ts";
import type { Sockfd } from "./types.ts";

/** Bytes sent before the oldest must be through: three are on the way while the fourth is made. */
const windowPieces = 4;
const pieceBytes = 65_536;

/** What streams need of their endpoint. */
export interface StreamsContext {
  readonly sending: Sending;
  /** The connection must end: the app's stream failed. */
  fail(sockfd: Sockfd, error: ApoError): void;
  isOpen(sockfd: Sockfd): boolean;
}

/** What waits behind a stream. */
interface Queue {
  readonly jobs: (() => Promise<void> | undefined)[];
}

export class Streams {
  private readonly context: StreamsContext;
  private readonly queues = new Map<Sockfd, Queue>();

  constructor(context: StreamsContext) {
    this.context = context;
  }

  /** Whether any connection is sending a stream. */
  get hasAny(): boolean {
    return this.queues.size > 0;
  }

  /** Whether sends on the connection must wait behind a stream. */
  has(sockfd: Sockfd): boolean {
    return this.queues.size > 0 && this.queues.has(sockfd);
  }

  /** Starts a stream, behind those before it. */
  send(sockfd: Sockfd, source: AsyncIterable<Uint8Array | string>): Promise<void> {
    return this.behind(sockfd, () => this.pump(sockfd, source));
  }

  /** Runs a job behind the connection's streams, in order. */
  behind(sockfd: Sockfd, job: () => Promise<void> | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const run = async (): Promise<void> => {
        try {
          await job();
          resolve();
        } catch (error) {
          reject(error);
        }
      };
      const queue = this.queues.get(sockfd);
      if (queue) {
        queue.jobs.push(run);
        return;
      }
      const fresh: Queue = { jobs: [run] };
      this.queues.set(sockfd, fresh);
      void this.drain(sockfd, fresh);
    });
  }

  private async drain(sockfd: Sockfd, queue: Queue): Promise<void> {
    for (let job = queue.jobs.shift(); job; job = queue.jobs.shift()) await job();
    this.queues.delete(sockfd);
  }

  private async pump(sockfd: Sockfd, source: AsyncIterable<Uint8Array | string>): Promise<void> {
    const { sending } = this.context;
    const window: Promise<void>[] = [];
    const piece = Math.min(pieceBytes, sending.room(sockfd, true));
    const iterator = source[Symbol.asyncIterator]();
    for (;;) {
      let next: IteratorResult<Uint8Array | string>;
      try {
        next = await iterator.next();
        if (!next.done) checkPiece(next.value);
      } catch (error) {
        throw this.failed(sockfd, error);
      }
      if (next.done) break;
      const bytes = typeof next.value === "string" ? Buffer.from(next.value) : next.value;
      for (let at = 0; at < bytes.length && this.context.isOpen(sockfd); at += piece) {
        if (window.length === windowPieces) await window.shift();
        if (sending.room(sockfd) < piece) await sending.flushed(sockfd);
        await sending.many([sockfd], bytes.subarray(at, at + piece));
        window.push(sending.flushed(sockfd));
      }
      if (!this.context.isOpen(sockfd)) return this.abandon(iterator, sockfd);
    }
    await Promise.all(window);
  }

  /** The connection has ended: the stream is told to stop, and the sender that it did not go out. */
  private async abandon(iterator: AsyncIterator<unknown>, sockfd: Sockfd): Promise<never> {
    try {
      await iterator.return?.();
    } catch {
      // It was asked to stop; how it takes that concerns nobody any more.
    }
    throw new ApoError("ESTALE", `sockfd ${sockfd} ended while a stream was being sent`);
  }

  private failed(sockfd: Sockfd, error: unknown): ApoError {
    const text = error instanceof Error ? error.message : String(error);
    const told = new ApoError("EHANDLER", `the stream being sent to sockfd ${sockfd} failed: ${text}`, {
      cause: error,
    });
    this.context.fail(sockfd, told);
    return told;
  }
}

function checkPiece(piece: unknown): void {
  if (typeof piece === "string" || piece instanceof Uint8Array) return;
  throw new TypeError(`a stream must give bytes or strings, not ${typeof piece}`);
}
