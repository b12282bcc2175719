/**
 * The short way of a small message out of an app endpoint: one frame, one copy, one descriptor, and no garbage.
 *
 * Layer 1. The payload goes into its frame behind room for the headers of a packet, so that a raw link sends the frame
 * as it is. Whatever is not small, not TCP, or cannot leave now takes the way of `sending.ts`, which knows all errors.
 */

import {
  type AppCounter,
  type Counters,
  copyBytes,
  type FramePool,
  framingKinds,
  framingShift,
  frontBytes,
  kind,
  node,
  protocols,
  smallFrameBytes,
  type VNodeTable,
} from "../layer2-transport/index.ts";
import type { AppLink } from "./sending.ts";
import type { Sockfd } from "./types.ts";

/** Bytes of a message, a length before it and a line's end among them. */
const mostBytes = smallFrameBytes - frontBytes;
const mostExtra = 5;
/** Characters of a text: each may take three bytes. */
const mostText = Math.floor((mostBytes - mostExtra) / 3);
/** Up to here it is faster to look at each character than to call native code. */
const mostByHand = 128;

const protocolBits = 3;
const tcp = protocols.indexOf("tcp");
const line = framingKinds.indexOf("line");
const length16 = framingKinds.indexOf("length16");
const length32 = framingKinds.indexOf("length32");
const msgpack = framingKinds.indexOf("msgpack");
const lineFeed = 10;

/** What it needs of its endpoint. */
export interface SmallSendingContext {
  readonly pool: FramePool;
  readonly nodes: VNodeTable;
  readonly owners: Int32Array;
  readonly links: readonly (AppLink | undefined)[];
  readonly counters: Counters<AppCounter>;
}

export class SmallSending {
  private readonly pool: FramePool;
  private readonly bytes: Buffer;
  private readonly words: Int32Array;
  private readonly owners: Int32Array;
  private readonly links: readonly (AppLink | undefined)[];
  private readonly counters: Counters<AppCounter>;
  private readonly messages: number;
  private readonly sentBytes: number;

  constructor({ pool, nodes, owners, links, counters }: SmallSendingContext) {
    this.pool = pool;
    this.bytes = pool.bytes;
    this.words = nodes.words;
    this.owners = owners;
    this.links = links;
    this.counters = counters;
    this.messages = counters.placeOf("layer1.send.messages");
    this.sentBytes = counters.placeOf("layer1.send.bytes");
  }

  /** Sends a message to the connection whose record is at `base`. The link it went to; undefined: nothing was done. */
  send(sockfd: Sockfd, base: number, data: Uint8Array | string): AppLink | undefined {
    const { words, bytes } = this;
    const flags = words[base + node.flags] as number;
    if ((flags & protocolBits) !== tcp) return undefined;
    const framing = (flags >>> framingShift) & 15;
    const isText = typeof data === "string";
    if (isText ? data.length > mostText || framing === msgpack : data.length > mostBytes - mostExtra)
      return undefined;
    const link = this.links[Atomics.load(this.owners, (sockfd & 0xffffff) >>> 20) - 1];
    if (link === undefined) return undefined;
    const frame = this.pool.allocateFrame(false);
    if (frame === 0) return undefined;
    const header = framing === length16 ? 2 : framing === length32 ? 4 : 0;
    const start = frame * smallFrameBytes + frontBytes;
    const at = start + header;
    const size = isText ? this.writeText(data, at) : data.length;
    if (!isText) copyBytes(data, 0, bytes, at, data.length);
    let length = header + size;
    if (framing === line && (size === 0 || bytes[at + size - 1] !== lineFeed)) {
      bytes[at + size] = lineFeed;
      length += 1;
    }
    if (header !== 0) writeLength(bytes, start, header, size);
    if (!this.reserve(base, length)) {
      this.pool.release(frame);
      return undefined;
    }
    this.counters.addAt(this.messages, 1);
    this.counters.addAt(this.sentBytes, length);
    this.pool.assign(frame, link.peer);
    const generation = words[base + node.generation] as number;
    link.post(kind.send, sockfd & 0xffffff, generation, frame, frontBytes, length, 0, 0);
    return link;
  }

  /** Counts bytes as queued. False: they are over the limit. */
  private reserve(base: number, length: number): boolean {
    const { words } = this;
    const queued = (Atomics.load(words, base + node.enqueued) - Atomics.load(words, base + node.written)) | 0;
    if ((queued > 0 ? queued : 0) + length > (words[base + node.sendlen] as number)) return false;
    Atomics.add(words, base + node.enqueued, length);
    return true;
  }

  /** Writes a text as UTF-8. Returns how many bytes it took. */
  private writeText(text: string, at: number): number {
    const { bytes } = this;
    if (text.length > mostByHand) return bytes.write(text, at, mostBytes, "utf8");
    for (let i = 0; i < text.length; i += 1) {
      const unit = text.charCodeAt(i);
      if (unit > 127) return i + bytes.write(text.slice(i), at + i, mostBytes, "utf8");
      bytes[at + i] = unit;
    }
    return text.length;
  }
}

/** The length of a message, network order, in two or four bytes. A small message's fits into two. */
function writeLength(bytes: Uint8Array, start: number, header: number, size: number): void {
  if (header === 4) {
    bytes[start] = 0;
    bytes[start + 1] = 0;
  }
  bytes[start + header - 2] = size >>> 8;
  bytes[start + header - 1] = size & 0xff;
}
