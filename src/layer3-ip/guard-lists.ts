/**
 * Lists of prefixes, from an array or a file, as the packed records that native code reads.
 *
 * Layer 3, pure but for the reading of files. A million lines take about a second, in slices between which the event
 * loop lives. Errors name the entry, or file and line.
 */

import { createReadStream } from "node:fs";
import { ApoError, type ErrorCode } from "../layer1-app/errors.ts";
import { addressRecordBytes, addressRecords, addressWords } from "./ip-prefix.ts";

/** Entries that are read in one turn of the event loop. */
const sliceEntries = 16_384;

/** Longer lines than this hold no prefix. */
const lineMax = 65_536;

/** Address records, one after the other; `bytes` may be longer. */
export interface PrefixRecords {
  readonly bytes: Uint8Array;
  readonly count: number;
}

/** Grows by doubling. */
class RecordWriter {
  bytes = new Uint8Array(64 * addressRecordBytes);
  count = 0;
  private view = new DataView(this.bytes.buffer);

  /** False: the text is no prefix. Bits behind the prefix are ignored by whoever reads the record. */
  add(text: string): boolean {
    const at = this.count * addressRecordBytes;
    if (at === this.bytes.length) this.grow();
    if (!this.addFour(text, at) && !this.addOther(text, at)) return false;
    this.count += 1;
    return true;
  }

  private grow(): void {
    const longer = new Uint8Array(2 * this.bytes.length);
    longer.set(this.bytes);
    this.bytes = longer;
    this.view = new DataView(longer.buffer);
  }

  /** "192.0.2.0/24" and "192.0.2.1", digit by digit: most lists are made of these. */
  private addFour(text: string, at: number): boolean {
    let word = 0;
    let part = -1;
    let dots = 0;
    let bits = -1;
    for (let i = 0; i < text.length; i += 1) {
      const code = text.charCodeAt(i);
      if (code >= 48 && code <= 57) {
        // A leading zero would be octal to some readers: refused, as everywhere.
        if (part === 0) return false;
        part = (part < 0 ? 0 : part) * 10 + code - 48;
        if (part > 255) return false;
      } else if (code === 46 && part >= 0 && bits < 0 && dots < 3) {
        word = (word << 8) | part;
        dots += 1;
        part = -1;
      } else if (code === 47 && part >= 0 && bits < 0 && dots === 3) {
        word = (word << 8) | part;
        bits = 0;
        part = -1;
      } else return false;
    }
    if (part < 0 || dots !== 3) return false;
    if (bits < 0) word = (word << 8) | part;
    const prefixBits = bits < 0 ? 32 : part;
    if (prefixBits > 32) return false;
    this.view.setUint32(at, (4 << 24) | (prefixBits << 16));
    this.view.setInt32(at + 4, word);
    return true;
  }

  private addOther(text: string, at: number): boolean {
    const slash = text.indexOf("/");
    const address = slash < 0 ? text : text.slice(0, slash);
    const parsed = addressWords(address);
    if (!parsed?.version6) return false;
    const bits = slash < 0 ? "128" : text.slice(slash + 1);
    const prefixBits = /^(0|[1-9]\d{0,2})$/.test(bits) ? Number(bits) : -1;
    if (prefixBits < 0 || prefixBits > 128) return false;
    const { version6, words } = parsed;
    this.bytes.set(addressRecords([{ text: address, version6, prefixBits, words }]), at);
    return true;
  }
}

function wrongPrefix(where: string, text: unknown): ApoError {
  const shown = typeof text === "string" ? JSON.stringify(text.slice(0, 60)) : String(text);
  return new ApoError(
    "EINVAL",
    `${where}: ${shown} is not a prefix: write "192.0.2.0/24", "192.0.2.1" or "2001:db8::/32"`,
  );
}

function tooMany(where: string, most: number): ApoError {
  return new ApoError("ENOBUFS", `${where}: more than ${most} prefixes, and the guard's lists hold no more`);
}

/**
 * Packs prefixes; `where` begins the errors. A short list is packed at once, a long one in slices (a promise). Throws
 * `EINVAL` with the number of the entry, `ENOBUFS` for more than `most`.
 */
export function packPrefixes(
  where: string,
  prefixes: Iterable<string>,
  most: number,
): PrefixRecords | Promise<PrefixRecords> {
  const writer = new RecordWriter();
  const entries = prefixes[Symbol.iterator]();
  const slice = (): boolean => {
    for (let n = 0; n < sliceEntries; n += 1) {
      const { done, value } = entries.next();
      if (done) return false;
      if (writer.count === most) throw tooMany(where, most);
      if (typeof value !== "string" || !writer.add(value.trim())) {
        throw wrongPrefix(`${where}, entry ${writer.count + 1}`, value);
      }
    }
    return true;
  };
  const rest = async (): Promise<PrefixRecords> => {
    do await new Promise((resolve) => setImmediate(resolve));
    while (slice());
    return writer;
  };
  return slice() ? rest() : writer;
}

/**
 * Reads a file of prefixes, one a line; empty lines and what follows `#` or `;` are passed over. Throws `EINVAL` with
 * file and line, `ENOBUFS`, and `ENOENT`, `EACCES` or `EIO` when it cannot be read.
 */
export async function readPrefixFile(path: string, most: number): Promise<PrefixRecords> {
  const writer = new RecordWriter();
  let line = 0;
  let rest = "";
  const take = (text: string): void => {
    line += 1;
    const comment = text.search(/[#;]/);
    const prefix = (comment < 0 ? text : text.slice(0, comment)).trim();
    if (prefix === "") return;
    if (writer.count === most) throw tooMany(path, most);
    if (!writer.add(prefix)) throw wrongPrefix(`${path}:${line}`, prefix);
  };
  try {
    for await (const chunk of createReadStream(path, { encoding: "utf8" })) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() as string;
      for (const text of lines) take(text);
      if (rest.length > lineMax) throw wrongPrefix(`${path}:${line + 1}`, rest);
    }
    take(rest);
  } catch (cause) {
    if (cause instanceof ApoError) throw cause;
    throw readFailure(path, cause as NodeJS.ErrnoException);
  }
  return writer;
}

function readFailure(path: string, cause: NodeJS.ErrnoException): ApoError {
  const known: Record<string, [ErrorCode, string]> = {
    ENOENT: ["ENOENT", "there is no such file"],
    EACCES: ["EACCES", "this user may not read it"],
    EISDIR: ["EINVAL", "it is a folder"],
  };
  const [code, words] = known[cause.code ?? ""] ?? ["EIO", cause.message];
  return new ApoError(code, `guard: the list ${JSON.stringify(path)} cannot be read: ${words}`, { cause });
}
