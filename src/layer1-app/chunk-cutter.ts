/**
 * Cuts what arrives on a stream into messages by an app's own framing function.
 *
 * Layer 1. The worker sends whatever has come ("chunks") and waits until it is cut; handlers run here one after
 * another, and bytes that are no whole message yet are kept with the connection.
 */

import { type FramePool, StreamBuffer } from "../layer2-transport/index.ts";
import type { AppConnection } from "./app-connection.ts";
import { ApoError } from "./errors.ts";
import { CutMessage } from "./message.ts";
import type { AppVerbs } from "./types.ts";

/** What cutting needs of its endpoint. */
export interface CutterContext {
  readonly pool: FramePool;
  readonly verbs: AppVerbs;
  /** A message has been cut. */
  counted(): void;
  /** All of the chunk has been handled: the next may come. */
  done(connection: AppConnection): void;
  /** A handler threw. */
  failed(connection: AppConnection, error: unknown): void;
  /** The bytes cannot be messages. */
  refused(connection: AppConnection, code: "recvlen" | "framing", error: ApoError): void;
}

export class ChunkCutter {
  private readonly context: CutterContext;

  constructor(context: CutterContext) {
    this.context = context;
  }

  /** Takes over a chunk whose bytes are `view`, in `frame`. */
  take(connection: AppConnection, frame: number, view: Uint8Array): void {
    const { pool } = this.context;
    connection.input ??= new StreamBuffer();
    connection.cutting = true;
    if (connection.input.length === 0) {
      connection.input.append(view);
      connection.chunkFrame = frame;
    } else {
      connection.input.appendCopy(view);
      pool.drop(frame, pool.partition);
    }
    this.cut(connection, connection.input);
  }

  /** Handles the whole messages of what has arrived, one after another, then asks for the next chunk. */
  private cut(connection: AppConnection, input: StreamBuffer): void {
    const { context } = this;
    try {
      for (let size = this.nextSize(connection, input); size > 0; size = this.nextSize(connection, input)) {
        context.counted();
        const bytes = input.bytes.subarray(input.start, input.start + size);
        input.consume(size);
        const message = new CutMessage(bytes);
        const result = connection.open.handlers.request?.(connection.sockfd, message, context.verbs);
        if (!isPromise(result)) continue;
        result.then(
          () => this.cut(connection, input),
          (error: unknown) => this.fail(connection, error),
        );
        return;
      }
    } catch (error) {
      this.fail(connection, error);
      return;
    }
    this.release(connection);
    connection.cutting = false;
    context.done(connection);
  }

  private fail(connection: AppConnection, error: unknown): void {
    this.release(connection);
    connection.cutting = false;
    this.context.failed(connection, error);
  }

  /** Bytes of the first message of `input`; 0 when it is not whole, or the connection is over. */
  private nextSize(connection: AppConnection, input: StreamBuffer): number {
    if (connection.ended || connection.failure || input.length === 0 || input.length < connection.needed)
      return 0;
    const { framingFunction, recvlen, name } = connection.open;
    let size: number;
    try {
      size = framingFunction?.(input.bytes.subarray(input.start, input.end)) ?? input.length;
      if (!Number.isSafeInteger(size) || size < 0)
        throw new RangeError(`the framing function returned ${size}`);
    } catch (error) {
      const text = `${name}: ${error instanceof Error ? error.message : String(error)}`;
      this.context.refused(connection, "framing", new ApoError("EPROTO", text, { cause: error }));
      return 0;
    }
    const whole = size > 0 && size <= input.length;
    if (size > recvlen || (!whole && input.length >= recvlen)) {
      const text = `${name}: a message is over ${recvlen} bytes`;
      this.context.refused(connection, "recvlen", new ApoError("EMSGSIZE", text));
      return 0;
    }
    connection.needed = whole ? 0 : size;
    return whole ? size : 0;
  }

  /** Lets go of the chunk's frame; what is left of its bytes becomes ours. */
  private release(connection: AppConnection): void {
    if (connection.chunkFrame === 0) return;
    const { pool } = this.context;
    const { input } = connection;
    if (input && input.length > 0) {
      const rest = input.bytes.subarray(input.start, input.end);
      input.clear();
      input.appendCopy(rest);
    }
    pool.drop(connection.chunkFrame, pool.partition);
    connection.chunkFrame = 0;
  }
}

/** Whether a handler takes its time. */
export function isPromise(value: unknown): value is Promise<void> {
  return typeof (value as Promise<void> | undefined)?.then === "function";
}
