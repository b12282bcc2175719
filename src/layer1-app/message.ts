/**
 * The message object that a handler is given.
 *
 * Layer 1. One small object a message; its bytes are a view, valid until the handler is done.
 */

import { Unpackr } from "msgpackr";
import type { Message } from "./types.ts";

// Records are an extension of msgpackr's own that a stranger must not be able to define here.
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true });

/** Decodes one MessagePack value. Throws when it is malformed. */
export function decodeValue(bytes: Uint8Array): unknown {
  // A private copy: strings are cut from it lazily by native code that does not expect shared memory.
  return unpackr.unpack(new Uint8Array(bytes));
}

export class AppMessage implements Message {
  readonly bytes: Uint8Array;
  readonly value: unknown;

  constructor(bytes: Uint8Array, value: unknown) {
    this.bytes = bytes;
    this.value = value;
  }

  text(): string {
    const { buffer, byteOffset, byteLength } = this.bytes;
    return Buffer.from(buffer, byteOffset, byteLength).toString("utf8");
  }
}
