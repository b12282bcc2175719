/**
 * The message object that a handler is given.
 *
 * Layer 1. One small object a message; the view of its bytes is made when it is first asked for, and is valid until the
 * handler is done.
 */

import { Unpackr } from "msgpackr";
import { type FramePool, smallFrameBytes } from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import type { Message } from "./types.ts";

// Records are an extension of msgpackr's own that a stranger must not be able to define here.
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true });

/** Decodes one MessagePack value. Throws when it is malformed. */
export function decodeValue(bytes: Uint8Array): unknown {
  // A private copy: strings are cut from it lazily by native code that does not expect shared memory.
  return unpackr.unpack(new Uint8Array(bytes));
}

/** A container's bytes: a view when they are in one frame, a copy put together when not. */
export function containerBytes(pool: FramePool, frame: number, offset: number, length: number): Uint8Array {
  if (offset + length <= pool.frameBytes(frame)) {
    return new Uint8Array(pool.buffer, frame * smallFrameBytes + offset, length);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const view of pool.views(frame, offset, length)) {
    whole.set(view, at);
    at += view.length;
  }
  return whole;
}

/** A message in a container of the pool. */
export class AppMessage implements Message {
  value: unknown = undefined;
  private readonly pool: FramePool;
  private frame: number;
  private readonly offset: number;
  private readonly size: number;
  private view: Uint8Array | undefined = undefined;

  constructor(pool: FramePool, frame: number, offset: number, length: number) {
    this.pool = pool;
    this.frame = frame;
    this.offset = offset;
    this.size = length;
  }

  get bytes(): Uint8Array {
    if (this.view !== undefined) return this.view;
    if (this.frame === 0) throw spentError();
    this.view = containerBytes(this.pool, this.frame, this.offset, this.size);
    return this.view;
  }

  text(): string {
    const { pool, frame, offset } = this;
    if (this.view !== undefined || frame === 0) return textOf(this.bytes);
    if (offset + this.size > pool.frameBytes(frame)) return textOf(this.bytes);
    const start = frame * smallFrameBytes + offset;
    return pool.bytes.toString("utf8", start, start + this.size);
  }

  /** The handler is done and the frame another's: a view that nobody has asked for yet is not made any more. */
  spend(): void {
    this.frame = 0;
  }
}

/** A message that a framing function has cut: its bytes are there already. */
export class CutMessage implements Message {
  readonly bytes: Uint8Array;
  readonly value = undefined;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  text(): string {
    return textOf(this.bytes);
  }
}

function spentError(): ApoError {
  const text =
    "a message's bytes were asked for after its handler was done: ask before, and copy what you keep";
  return new ApoError("EINVAL", text);
}

function textOf({ buffer, byteOffset, byteLength }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("utf8");
}
