/**
 * What one message is on a byte stream, as an app names it, and what a framing adds to what is sent.
 *
 * Layer 1. Cutting the incoming stream is the worker's job (`framer.ts` of layer 2).
 */

import { pack } from "msgpackr";
import type { FramingKind } from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import type { BuiltInFraming } from "./types.ts";

/**
 * The built-in framings.
 *
 * @example
 * await apo.opens({ protocol: "tcp", port: 7, framing: framing.line(), request(sockfd, message) {} });
 */
export const framing = {
  /** Whatever has arrived is a message: no boundaries. Sent as it is. */
  raw: (): BuiltInFraming => ({ kind: "raw" }),
  /** A line. `\n` or `\r\n` ends it and is taken off; `sendto` adds `\n` where it is missing. */
  line: (): BuiltInFraming => ({ kind: "line" }),
  /** Two bytes of length, network order, then the message. The length is taken off and put on. */
  length16: (): BuiltInFraming => ({ kind: "length16" }),
  /** Likewise with four bytes. */
  length32: (): BuiltInFraming => ({ kind: "length32" }),
  /** A MessagePack value, decoded in `message.value`; `sendto` encodes whatever is not bytes already. */
  msgpack: (): BuiltInFraming => ({ kind: "msgpack" }),
} as const;

const longest: Partial<Record<FramingKind, number>> = { length16: 0xffff, length32: 0xffff_ffff };
const lineFeed = 10;

/** Bytes that a framing puts before a message. */
export function headerBytes(kind: FramingKind): number {
  return kind === "length16" ? 2 : kind === "length32" ? 4 : 0;
}

/** Whether a line's end must be added. */
/** A message as it goes on the wire: with its framing's header or line end. */
export function framed(kind: FramingKind, data: Uint8Array | string): Uint8Array {
  const bytes = typeof data === "string" ? Buffer.from(data) : data;
  checkLength(kind, bytes.length);
  const header = Buffer.alloc(headerBytes(kind));
  if (header.length === 2) header.writeUInt16BE(bytes.length);
  else if (header.length === 4) header.writeUInt32BE(bytes.length);
  return Buffer.concat([header, bytes, Buffer.from(wantsLineEnd(kind, data) ? "\n" : "")]);
}

export function wantsLineEnd(kind: FramingKind, data: Uint8Array | string): boolean {
  if (kind !== "line") return false;
  return typeof data === "string" ? !data.endsWith("\n") : data[data.length - 1] !== lineFeed;
}

/** Throws `EMSGSIZE` when a framing cannot carry that many bytes. */
export function checkLength(kind: FramingKind, length: number): void {
  const limit = longest[kind];
  if (limit === undefined || length <= limit) return;
  throw new ApoError(
    "EMSGSIZE",
    `a message of ${length} bytes does not fit ${kind} framing (at most ${limit})`,
  );
}

/** A value as MessagePack; throws `EINVAL` for what it cannot say. */
export function encodeValue(value: unknown): Uint8Array {
  try {
    return pack(value);
  } catch (error) {
    throw new ApoError("EINVAL", `this value cannot be written as msgpack: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
