/**
 * A runtime without a network: connections are made by the test, from any address, and what the app sends is
 * collected. The rules of layer 1 hold: framing, one message a connection with the app at a time, stale numbers.
 */
import { ApoError } from "../../../src/layer1-app/errors.ts";
import { rtspFraming } from "../../../src/layer1-app/relay/protocol/rtsp-framing.ts";
import { findHeaderEnd } from "../../../src/layer1-app/relay/protocol/rtsp-message.ts";
import type {
  Apo,
  CloseReason,
  ConnectionStatus,
  ConnectOptions,
  Handlers,
  Listener,
  ListenOptions,
  Peer,
  Sockfd,
} from "../../../src/layer1-app/types.ts";
import type { Fanout } from "../../../src/layer3-ip/fanout-types.ts";

/** An answer, cut out of what a client received. */
export interface FakeAnswer {
  readonly status: number;
  readonly reason: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A client's end of a connection. */
export class FakeClient {
  readonly sockfd: Sockfd;
  readonly peer: Peer;
  readonly #apo: FakeApo;
  /** Received and not read yet. */
  received: Uint8Array = new Uint8Array(0);
  writtenBytes = 0;
  /** Bytes that the client does not take: what `queued` answers. */
  stuck = false;
  queuedBytes = 0;
  ended = false;
  closeReason: CloseReason | undefined;
  #arrived: Uint8Array = new Uint8Array(0);
  #busy: Promise<void> | undefined;
  #cseq = 0;

  constructor(apo: FakeApo, sockfd: Sockfd, peer: Peer) {
    this.#apo = apo;
    this.sockfd = sockfd;
    this.peer = peer;
  }

  take(bytes: Uint8Array): void {
    if (this.stuck) {
      this.queuedBytes += bytes.length;
      return;
    }
    this.writtenBytes += bytes.length;
    this.received = concat(this.received, bytes);
  }

  /** Sends bytes, and resolves when the app has done with every whole message in them. */
  async write(data: Uint8Array | string): Promise<void> {
    this.#arrived = concat(this.#arrived, typeof data === "string" ? new TextEncoder().encode(data) : data);
    this.#busy ??= this.#work();
    await this.#busy;
  }

  /** Sends a request and reads its answer. */
  async ask(
    method: string,
    url: string,
    headers: Record<string, string> = {},
    body = "",
  ): Promise<FakeAnswer> {
    this.#cseq += 1;
    const lines = Object.entries({ CSeq: String(this.#cseq), ...headers }).map(([n, v]) => `${n}: ${v}\r\n`);
    const length = body === "" ? "" : `Content-Length: ${Buffer.byteLength(body)}\r\n`;
    await this.write(`${method} ${url} RTSP/1.0\r\n${lines.join("")}${length}\r\n${body}`);
    return this.answer();
  }

  /** Reads the next answer; `$` frames before it are an error. */
  answer(): FakeAnswer {
    const end = findHeaderEnd(this.received);
    if (end < 0) throw new Error(`no answer: ${JSON.stringify(text(this.received))}`);
    const [first = "", ...lines] = text(this.received.subarray(0, end)).trim().split("\r\n");
    const match = /^RTSP\/1\.0 (\d{3}) (.*)$/.exec(first);
    if (match === null) throw new Error(`no answer at the start: ${JSON.stringify(first)}`);
    const headers = Object.fromEntries(
      lines.map((line) => {
        const colon = line.indexOf(": ");
        return [line.slice(0, colon), line.slice(colon + 2)];
      }),
    );
    const length = Number(headers["Content-Length"] ?? 0);
    const body = text(this.received.subarray(end, end + length));
    this.received = this.received.slice(end + length);
    return { status: Number(match[1]), reason: match[2] ?? "", headers, body };
  }

  /** Reads all `$` frames that have come; anything else is an error. */
  frames(): { channel: number; packet: Uint8Array }[] {
    const frames: { channel: number; packet: Uint8Array }[] = [];
    while (this.received.length > 0) {
      if (this.received[0] !== 0x24) throw new Error(`not a $ frame: ${JSON.stringify(text(this.received))}`);
      const length = ((this.received[2] ?? 0) << 8) | (this.received[3] ?? 0);
      frames.push({ channel: this.received[1] ?? 0, packet: this.received.slice(4, 4 + length) });
      this.received = this.received.slice(4 + length);
    }
    return frames;
  }

  /** Everything that waited is taken now. */
  unstick(): void {
    this.stuck = false;
    this.writtenBytes += this.queuedBytes;
    this.queuedBytes = 0;
  }

  /** The client hangs up. */
  end(code: CloseReason["code"] = "end"): void {
    this.#apo.finish(this, { code });
  }

  async #work(): Promise<void> {
    try {
      for (;;) {
        const length = this.ended ? 0 : rtspFraming(this.#arrived);
        if (length === 0) return;
        const bytes = this.#arrived.slice(0, length);
        this.#arrived = this.#arrived.slice(length);
        const message = { bytes, value: undefined, text: () => text(bytes) };
        await this.#apo.handlers.request?.(this.sockfd, message, this.#apo.verbs);
      }
    } finally {
      this.#busy = undefined;
    }
  }
}

export class FakeApo {
  handlers: Handlers = {};
  readonly clients = new Map<Sockfd, FakeClient>();
  readonly #fanout: Fanout;
  #next = 1;
  #flushed: Promise<void> | undefined;
  #letFlushed: (() => void) | undefined;

  constructor(fanout: Fanout) {
    this.#fanout = fanout;
  }

  /** What the relay is given: the parts of `Apo` that it uses. */
  readonly verbs = {
    /** The fake runtime never ends by itself. */
    closed: new Promise<undefined>(() => {}),
    opens: (options: ListenOptions | ConnectOptions) => this.#opens(options),
    sendto: (to: Sockfd | readonly Sockfd[], data: unknown) => this.#sendto(to, data),
    close: (what?: unknown) => {
      const client = typeof what === "number" ? this.clients.get(what) : undefined;
      if (client !== undefined) this.finish(client, { code: "closed" });
      return Promise.resolve();
    },
    queued: (sockfd: Sockfd) => this.clients.get(sockfd)?.queuedBytes ?? 0,
    flushed: () => this.#flushed ?? Promise.resolve(),
    status: (sockfd: Sockfd): ConnectionStatus => {
      const client = this.clients.get(sockfd);
      if (client === undefined) throw new ApoError("ESTALE", "it is gone");
      const { queuedBytes, writtenBytes } = client;
      return { queuedBytes, writtenBytes, receivedBytes: 0, receivedMessages: 0 };
    },
    fanout: () => Promise.resolve(this.#fanout),
  } as unknown as Apo;

  connect(address: string, port: number): FakeClient {
    const peer: Peer = { protocol: "tcp", address, port, localAddress: "192.0.2.1", localPort: 8554 };
    const client = new FakeClient(this, this.#next++, peer);
    this.clients.set(client.sockfd, client);
    void this.handlers.connected?.(client.sockfd, peer, this.verbs);
    return client;
  }

  finish(client: FakeClient, reason: CloseReason): void {
    if (!this.clients.delete(client.sockfd)) return;
    client.ended = true;
    client.closeReason = reason;
    void this.handlers.closed?.(client.sockfd, reason, this.verbs);
  }

  /** Until the function returned is called, nothing counts as flushed. */
  holdFlushed(): () => void {
    this.#flushed = new Promise((resolve) => {
      this.#letFlushed = resolve;
    });
    return () => {
      this.#letFlushed?.();
      this.#flushed = undefined;
    };
  }

  #opens(options: ListenOptions | ConnectOptions): Promise<Listener> {
    this.handlers = options;
    const listener = {
      protocol: "tcp",
      address: "",
      port: options.port === 0 ? 40_000 : (options.port ?? 0),
      close: () => {
        for (const client of [...this.clients.values()]) this.finish(client, { code: "shutdown" });
        return Promise.resolve();
      },
    };
    return Promise.resolve(listener as unknown as Listener);
  }

  #sendto(to: Sockfd | readonly Sockfd[], data: unknown): undefined {
    const list = typeof to === "number" ? [to] : to;
    if (!(data instanceof Uint8Array)) throw new TypeError("the relay sends bytes");
    for (const sockfd of list) {
      const client = this.clients.get(sockfd);
      if (client === undefined && typeof to === "number") throw new ApoError("ESTALE", "it is gone");
      client?.take(data.slice());
    }
  }
}

function concat(left: Uint8Array, right: Uint8Array): Uint8Array {
  const both = new Uint8Array(left.length + right.length);
  both.set(left);
  both.set(right, left.length);
  return both;
}

function text(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}
