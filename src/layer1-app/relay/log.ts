/**
 * The relay's log: entries with a stable event name, and the lines that people read.
 *
 * Layer 1, relay: it knows no sessions. Text from peers is cleaned here, so that no peer can write a log line.
 */

/** What happened; a name per kind, never changed. */
export type RelayEvent =
  | "listening"
  | "publisher-joined"
  | "publisher-left"
  | "publisher-replaced"
  | "reader-joined"
  | "reader-left"
  | "reader-slow"
  | "reader-caught-up"
  | "reader-stalled"
  | "strangers"
  | "refused"
  | "source"
  | "alarm"
  | "closed";

export interface LogEntry {
  readonly level: "info" | "warn";
  readonly event: RelayEvent;
  /** One line for people. */
  readonly text: string;
  /** The same in parts, for machines. */
  readonly fields: Readonly<Record<string, string | number>>;
}

export type RelayLog = (entry: LogEntry) => void;

/** Longest piece of a peer's text in the log, characters. */
const TEXT_MAX = 400;

/** A log that writes a line an entry: time, `!` before warnings, text. */
export function lineLog(write: (line: string) => void, now: () => number = Date.now): RelayLog {
  return (entry) => {
    const time = new Date(now()).toISOString().slice(11, 19);
    write(`${time} ${entry.level === "warn" ? "! " : ""}${clean(entry.text)}`);
  };
}

/** A log that writes one JSON object an entry. */
export function jsonLog(write: (line: string) => void, now: () => number = Date.now): RelayLog {
  return (entry) => {
    const time = new Date(now()).toISOString();
    const { level, event, text, fields } = entry;
    write(JSON.stringify({ time, level, event, text: clean(text), ...fields }));
  };
}

/** Printable and of bounded length. */
export function clean(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is taken out.
  return text.slice(0, TEXT_MAX).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
}

/**
 * Counts what happens too often for a line each, and lets a line through at most every `everyMs`, with the count.
 */
export class Summary {
  readonly #everyMs: number;
  #lastMs = Number.NEGATIVE_INFINITY;
  #count = 0;

  constructor(everyMs = 10_000) {
    this.#everyMs = everyMs;
  }

  /** Counts `n` more; returns how many to tell now, or 0 to keep quiet. */
  add(n: number, nowMs: number): number {
    this.#count += n;
    if (nowMs - this.#lastMs < this.#everyMs) return 0;
    return this.take(nowMs);
  }

  /** What has not been told yet, if its time has come; otherwise 0. */
  due(nowMs: number): number {
    return this.#count > 0 && nowMs - this.#lastMs >= this.#everyMs ? this.take(nowMs) : 0;
  }

  private take(nowMs: number): number {
    const count = this.#count;
    this.#count = 0;
    this.#lastMs = nowMs;
    return count;
  }
}

/** 4194304 as "4.0 MiB". */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
