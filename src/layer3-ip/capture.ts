/**
 * A capture file (`pcap`): every packet that passes a runtime's native threads, written as pcapng.
 *
 * Layer 3, used by the runtime when it starts and ends. The native threads of the runtime share one; words for people
 * are here, the file's format is in native/rawsock/capture.
 */

import { constants } from "node:os";
import { ApoError, type ErrorCode } from "../layer1-app/errors.ts";
import { loadNative, type NativeCapture } from "./native.ts";

/** The longest IP packet. */
const snapBytesMax = 65_535;

/** What `Capture.counters` names, in the order of the native `status()`. */
export const captureCounterNames = ["pcap.packets", "pcap.bytes", "pcap.missed", "pcap.error"] as const;

/** A capture file that is being written. */
export interface Capture {
  readonly path: string;
  /** What a native link thread takes as its last argument. */
  readonly native: NativeCapture;
  /** By dotted name under `layer3.`: packets and bytes in the file, packets missing from it, what errno ended it. */
  counters(): Record<string, number>;
  /**
   * Writes what is left and closes the file: call it after the native threads have ended. An error that had ended the
   * capture before, in words; undefined when the file is whole. Idempotent.
   */
  close(): ApoError | undefined;
}

export interface CaptureOptions {
  /** Bytes kept of each packet (65,535: all of it). */
  readonly snapBytes?: number;
}

class FileCapture implements Capture {
  readonly path: string;
  readonly native: NativeCapture;

  constructor(path: string, native: NativeCapture) {
    this.path = path;
    this.native = native;
  }

  counters(): Record<string, number> {
    const status = this.native.status();
    return Object.fromEntries(captureCounterNames.map((name, i) => [`layer3.${name}`, status[i] as number]));
  }

  close(): ApoError | undefined {
    const errno = this.native.close();
    if (errno === 0) return undefined;
    const missed = this.counters()["layer3.pcap.missed"];
    return new ApoError(
      "EIO",
      `the capture "${this.path}" ended early (${errnoText(errno)}) and lacks ${missed} packets; ` +
        "what it has can be read",
    );
  }
}

/**
 * Begins a capture; the file is made anew. Throws `EINVAL` for an option that is wrong, and `ENOENT`, `EACCES`,
 * `ENFILE` or `EIO` when the file cannot be made.
 */
export function startCapture(path: string, options: CaptureOptions = {}): Capture {
  const { snapBytes = snapBytesMax } = options;
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new ApoError("EINVAL", `pcap must be the path of a file, not ${JSON.stringify(path)}`);
  }
  if (!Number.isInteger(snapBytes) || snapBytes < 1 || snapBytes > snapBytesMax) {
    throw new ApoError(
      "EINVAL",
      `snapBytes must be a whole number from 1 to ${snapBytesMax}, not ${snapBytes}`,
    );
  }
  try {
    return new FileCapture(path, new (loadNative().NativeCapture)(path, snapBytes));
  } catch (cause) {
    const { errno } = cause as { errno?: number };
    if (errno === undefined) throw cause;
    const [code, advice] = remedies[errno] ?? ["EIO", "choose another file"];
    throw new ApoError(code, `the capture "${path}" cannot be written (${errnoText(errno)}): ${advice}`, {
      cause,
    });
  }
}

const { errno: numbers } = constants;

/** What to do, by errno of opening the file. */
const remedies: Readonly<Record<number, readonly [ErrorCode, string]>> = {
  [numbers.ENOENT]: ["ENOENT", "its folder is not there"],
  [numbers.ENOTDIR]: ["ENOENT", "a part of its path is no folder"],
  [numbers.EISDIR]: ["EINVAL", "that is a folder; name a file in it"],
  [numbers.EACCES]: ["EACCES", "choose a folder that this user may write to"],
  [numbers.EPERM]: ["EACCES", "choose a folder that this user may write to"],
  [numbers.EROFS]: ["EACCES", "that file system is read-only"],
  [numbers.EMFILE]: ["ENFILE", "this process has too many files open (`ulimit -n`)"],
  [numbers.ENFILE]: ["ENFILE", "the system has too many files open"],
  [numbers.ENOSPC]: ["EIO", "the disk is full"],
  [numbers.EDQUOT]: ["EIO", "this user's share of the disk is used up"],
  [numbers.ENXIO]: ["EIO", "it is a FIFO that nobody reads: start its reader first"],
};

function errnoText(errno: number): string {
  const found = Object.entries(numbers).find(([, number]) => number === errno);
  return found?.[0] ?? `errno ${errno}`;
}
