/**
 * The verbs as a handler calls them: which way each kind of data goes.
 *
 * Layer 1. Thin: the work is in `sending.ts` and `streams.ts`.
 */

import { closeBits, closeCodes, node, type TcpInfo } from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import type { Sending } from "./sending.ts";
import type { Streams } from "./streams.ts";
import { checkTuning } from "./tcp-options.ts";
import type {
  AppVerbs,
  CloseOptions,
  ConnectionStatus,
  FileSlice,
  Peer,
  Sockfd,
  TcpSettings,
} from "./types.ts";

const closedCode = closeCodes.indexOf("closed");

export class Verbs implements AppVerbs {
  private readonly sending: Sending;
  private readonly streams: Streams;
  private readonly isHost: boolean;

  /** `isHost`: the kernel has the connections. */
  constructor(sending: Sending, streams: Streams, isHost: boolean) {
    this.sending = sending;
    this.streams = streams;
    this.isHost = isHost;
  }

  sendto(to: Sockfd | readonly Sockfd[], data: unknown): Promise<void> | undefined {
    if (typeof to === "number") return this.sendOne(to, data);
    if (typeof data !== "string" && !(data instanceof Uint8Array)) {
      throw new ApoError("EINVAL", "sendto to several sockfds takes bytes or a string");
    }
    if (!this.streams.hasAny) return this.sending.many(to, data);
    return this.sendBehindStreams(to, data);
  }

  close(sockfd: Sockfd, options?: CloseOptions): void {
    const table = this.sending.nodes;
    if (options?.reset) {
      // A connection that is ending in order can still be cut off.
      if (table.has(sockfd)) this.sending.close(sockfd, closedCode, closeBits.reset);
      table.markGone(sockfd);
    } else if (options?.shutdown !== undefined) {
      this.shutdown(sockfd, options.shutdown);
    } else if (this.streams.has(sockfd)) {
      void this.streams.behind(sockfd, () => this.closeNow(sockfd));
    } else {
      this.closeNow(sockfd);
    }
  }

  queued(sockfd: Sockfd): number {
    const table = this.sending.nodes;
    const base = table.find(sockfd);
    return base >= 0 ? table.queuedAt(base) : 0;
  }

  flushed(sockfd: Sockfd): Promise<void> {
    if (this.streams.has(sockfd)) return this.streams.behind(sockfd, () => this.sending.flushed(sockfd));
    return this.sending.flushed(sockfd);
  }

  peer(sockfd: Sockfd): Peer {
    const base = this.sending.find(sockfd);
    const table = this.sending.nodes;
    return { protocol: table.protocolAt(base), ...table.endsAt(base) };
  }

  status(sockfd: Sockfd): ConnectionStatus {
    const base = this.sending.find(sockfd);
    const { words } = this.sending.nodes;
    const word = (at: number): number => (words[base + at] as number) >>> 0;
    return {
      queuedBytes: (word(node.enqueued) - word(node.written)) >>> 0,
      writtenBytes: word(node.written),
      receivedBytes: word(node.receivedBytes),
      receivedMessages: word(node.receivedMessages),
    };
  }

  tune(sockfd: Sockfd, options: TcpSettings): void {
    this.checkTcp(sockfd, "tune");
    const pairs = checkTuning(options, this.isHost);
    if (!this.streams.has(sockfd)) this.sending.tune(sockfd, pairs);
    else void this.sendBehind(sockfd, () => this.sending.tune(sockfd, pairs));
  }

  async info(sockfd: Sockfd): Promise<TcpInfo> {
    this.checkTcp(sockfd, "info");
    if (this.isHost) {
      throw new ApoError("ENOTSUP", 'info: link "host" cannot see into its connections, the kernel has them');
    }
    return this.sending.info(sockfd);
  }

  private checkTcp(sockfd: Sockfd, verb: string): void {
    const protocol = this.sending.nodes.protocolAt(this.sending.find(sockfd));
    if (protocol !== "tcp")
      throw new ApoError("ENOTSUP", `${verb}: sockfd ${sockfd} is ${protocol}, not tcp`);
  }

  private closeNow(sockfd: Sockfd): undefined {
    if (this.sending.nodes.markGone(sockfd)) this.sending.close(sockfd, closedCode, 0);
    return undefined;
  }

  /** Ends one direction of a TCP connection; of anything else there is none to end. */
  private shutdown(sockfd: Sockfd, direction: "write" | "read"): void {
    const table = this.sending.nodes;
    const base = table.find(sockfd);
    if (base < 0 || table.protocolAt(base) !== "tcp") return;
    if (direction === "read") this.sending.close(sockfd, closedCode, closeBits.read);
    else if (!this.streams.has(sockfd)) this.shutNow(sockfd);
    else void this.sendBehind(sockfd, () => this.shutNow(sockfd));
  }

  private shutNow(sockfd: Sockfd): undefined {
    if (this.sending.nodes.markShut(sockfd)) this.sending.close(sockfd, closedCode, closeBits.write);
    return undefined;
  }

  private sendOne(sockfd: Sockfd, data: unknown): Promise<void> | undefined {
    if (typeof data === "string" || data instanceof Uint8Array) {
      if (!this.streams.has(sockfd)) return this.sending.one(sockfd, data);
      const copy = typeof data === "string" ? data : new Uint8Array(data);
      return this.sendBehind(sockfd, () => this.sending.one(sockfd, copy));
    }
    const base = this.sending.find(sockfd);
    const table = this.sending.nodes;
    if (isStream(data)) {
      if (table.protocolAt(base) !== "tcp")
        throw new ApoError("EINVAL", "a stream can be sent over tcp only");
      return handled(this.streams.send(sockfd, data));
    }
    if (table.framingAt(base) === "msgpack") {
      return this.streams.has(sockfd)
        ? this.sendBehind(sockfd, () => this.sending.one(sockfd, data))
        : this.sending.one(sockfd, data);
    }
    if (!isFile(data)) {
      throw new ApoError(
        "EINVAL",
        "sendto takes bytes (Uint8Array), a string, { file, offset, length }, an async iterable or a web stream; " +
          "plain values go out on msgpack framing only",
      );
    }
    if (table.protocolAt(base) !== "tcp") throw new ApoError("EINVAL", "a file can be sent over tcp only");
    if (this.streams.has(sockfd)) return this.sendBehind(sockfd, () => this.sending.file(sockfd, data));
    return handled(this.sending.file(sockfd, data));
  }

  private sendBehind(sockfd: Sockfd, job: () => Promise<void> | undefined): Promise<void> {
    return handled(this.streams.behind(sockfd, job));
  }

  /** Some connections may be sending a stream: those wait their turn, the others share one copy at once. */
  private sendBehindStreams(to: readonly Sockfd[], data: Uint8Array | string): Promise<void> | undefined {
    const busy = to.filter((sockfd) => this.streams.has(sockfd));
    const free = to.filter((sockfd) => !this.streams.has(sockfd));
    const copy = typeof data === "string" || busy.length === 0 ? data : new Uint8Array(data);
    const waits = busy.map((sockfd) => this.sendBehind(sockfd, () => this.sending.many([sockfd], copy)));
    const now = this.sending.many(free, data);
    if (waits.length === 0) return now;
    return handled(Promise.all([now, ...waits]).then(() => {}));
  }
}

/** A promise that an app may forget: its failure is told to those who await it, and breaks nobody else. */
function handled(promise: Promise<void>): Promise<void> {
  promise.catch(() => {});
  return promise;
}

function isStream(data: unknown): data is AsyncIterable<Uint8Array | string> {
  return typeof data === "object" && data !== null && Symbol.asyncIterator in data;
}

function isFile(data: unknown): data is FileSlice {
  if (typeof data !== "object" || data === null || !("file" in data)) return false;
  return typeof data.file === "string" || data.file instanceof URL;
}
