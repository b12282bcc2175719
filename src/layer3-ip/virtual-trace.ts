/**
 * What happened on a virtual wire, packet by packet, and the same as a pcapng file that Wireshark opens.
 *
 * Layer 3, pure. Bounded: when it is full, what comes after is counted and not kept. It knows packets as bytes only.
 */

/** What may become of a packet. */
export const virtualFates = [
  "delivered",
  "lost", // for itself
  "lostInBurst", // the line was in its bad state
  "queueFull", // before the rate limit
  "inboxFull", // too much was on its way to that plug
  "tooBig", // longer than the MTU
  "noRoute", // nobody has the address
  "unplugged", // the receiver went while it was on its way
] as const;

export type VirtualFate = (typeof virtualFates)[number];

/** One packet, or one copy of it. */
export interface TraceEntry {
  /** When that was known: its arrival, or when it was sent and lost. */
  readonly atUs: number;
  /** The plugs' numbers; `to` is 0 when nobody has the address. */
  readonly from: number;
  readonly to: number;
  readonly what: VirtualFate;
  /** Its length. */
  readonly bytes: number;
  /** It was the second of two. */
  readonly copy: boolean;
  /** The bit that was flipped on the way; -1: none. */
  readonly corruptBit: number;
  /** The packet as it arrived or was lost. */
  readonly packet: Uint8Array;
}

/** An interface of the pcapng file: a plug. */
export interface TraceInterface {
  readonly name: string;
}

export class VirtualTrace {
  readonly entries: TraceEntry[] = [];
  /** Entries that were not kept. */
  missed = 0;
  private left: number;

  constructor(bytesMax: number) {
    this.left = bytesMax;
  }

  add(entry: TraceEntry): void {
    const cost = entryBytes + entry.packet.length;
    if (this.left < cost) {
      this.left = 0; // what is kept has no holes
      this.missed += 1;
      return;
    }
    this.left -= cost;
    this.entries.push(entry);
  }
}

/** What an entry is taken to weigh beside its packet. */
const entryBytes = 100;
const linkTypeRaw = 101;
const snapBytes = 65_535;
const optionComment = 1;
const optionInterfaceName = 2;

/**
 * The trace as pcapng (draft-ietf-opsawg-pcapng): an interface a plug, numbered as the plugs are less one, virtual time
 * as the time since 1970, and a comment at every packet that did not simply arrive.
 */
export function tracePcapng(
  interfaces: readonly TraceInterface[],
  entries: readonly TraceEntry[],
  missed: number,
): Uint8Array {
  const section = Buffer.alloc(16);
  section.writeUInt32LE(0x1a2b3c4d, 0);
  section.writeUInt16LE(1, 4);
  section.writeBigInt64LE(-1n, 8); // the section's length: not told
  const note = missed > 0 ? [option(optionComment, `${missed} more packets were not kept`)] : [];
  const blocks = [block(0x0a0d0d0a, [section, ...endOptions(note)])];
  for (const { name } of interfaces) {
    const head = Buffer.alloc(8);
    head.writeUInt16LE(linkTypeRaw, 0);
    head.writeUInt32LE(snapBytes, 4);
    blocks.push(block(1, [head, ...endOptions([option(optionInterfaceName, name)])]));
  }
  for (const entry of entries) blocks.push(packetBlock(entry));
  return Buffer.concat(blocks);
}

function packetBlock(entry: TraceEntry): Buffer {
  const head = Buffer.alloc(20);
  // A packet that nobody has the address of is shown where it came from.
  head.writeUInt32LE((entry.to || entry.from) - 1, 0);
  head.writeUInt32LE(Math.floor(entry.atUs / 2 ** 32), 4);
  head.writeUInt32LE(entry.atUs % 2 ** 32, 8);
  head.writeUInt32LE(entry.packet.length, 12);
  head.writeUInt32LE(entry.bytes, 16);
  const remarks: string[] = [];
  if (entry.what !== "delivered") remarks.push(entry.what);
  if (entry.copy) remarks.push("copy");
  if (entry.corruptBit >= 0) remarks.push(`bit ${entry.corruptBit} flipped`);
  const comment =
    remarks.length === 0 ? [] : [option(optionComment, `from ${entry.from}: ${remarks.join(", ")}`)];
  return block(6, [head, padded(entry.packet), ...endOptions(comment)]);
}

function block(type: number, parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const made = Buffer.alloc(body.length + 12);
  made.writeUInt32LE(type, 0);
  made.writeUInt32LE(made.length, 4);
  made.set(body, 8);
  made.writeUInt32LE(made.length, made.length - 4);
  return made;
}

function option(code: number, text: string): Buffer {
  const value = Buffer.from(text);
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, padded(value)]);
}

/** Options end with one of code 0; without options there is none. */
function endOptions(options: readonly Buffer[]): readonly Buffer[] {
  return options.length === 0 ? [] : [...options, Buffer.alloc(4)];
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
