/**
 * What a simulated connection carries: every byte is a function of the connection, the direction and its position.
 *
 * Layer 2, simulation only; pure. So each byte is checked where it arrives, and one that is lost, doubled or out of
 * place shows at once. The period is a prime, which no window, segment or frame is a multiple of.
 */

import { RandomStream, SeedMixer } from "../../layer3-ip/random-stream.ts";

const period = 65_521;
/** The period twice: any piece up to its length is one slice. */
const table = makeTable();

function makeTable(): Buffer {
  const stream = new RandomStream(new SeedMixer(0x61706fn));
  const bytes = Buffer.alloc(2 * period);
  for (let i = 0; i < period; i += 1) bytes[i] = stream.next() >>> 24;
  bytes.copy(bytes, period, 0, period);
  return bytes;
}

/** One direction of one connection. */
export class Content {
  private readonly start: number;

  /** `salt` is the connection's number; the two directions have different bytes. */
  constructor(salt: number, fromClient: boolean) {
    this.start = (Math.imul(salt * 2 + (fromClient ? 1 : 0), 0x9e3779b1) >>> 0) % period;
  }

  /** Writes `length` bytes of the stream from `position` on to `bytes` at `at`. */
  write(bytes: Uint8Array, at: number, position: number, length: number): void {
    for (let done = 0; done < length; ) {
      const from = (this.start + position + done) % period;
      const part = Math.min(length - done, period);
      bytes.set(table.subarray(from, from + part), at + done);
      done += part;
    }
  }

  /** How many of `length` bytes at `at` are right for `position`; `length`: all. */
  match(bytes: Uint8Array, at: number, position: number, length: number): number {
    for (let done = 0; done < length; ) {
      const from = (this.start + position + done) % period;
      const part = Math.min(length - done, period);
      if (table.compare(bytes, at + done, at + done + part, from, from + part) !== 0) {
        let same = 0;
        while (bytes[at + done + same] === table[from + same]) same += 1;
        return done + same;
      }
      done += part;
    }
    return length;
  }
}
