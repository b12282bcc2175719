/**
 * The asking end of an RTSP connection: requests one after the other, answers matched, authorization, and
 * what the server sends by itself.
 *
 * Layer 1, relay/client. It knows no media: `$` frames go to `frames` as they came. Requests are never
 * pipelined, since cameras answer the second of two with the first one's data.
 */

import { ApoError } from "../../errors.ts";
import type { Apo, Message, Sockfd } from "../../types.ts";
import { classify, RTSP_RECVLEN, rtspFraming } from "../protocol/rtsp-framing.ts";
import {
  buildRequest,
  buildResponse,
  parseRtspMessage,
  type RtspHeaders,
  type RtspRequest,
  type RtspResponse,
  RtspSyntaxError,
} from "../protocol/rtsp-message.ts";
import { Authorizer } from "./auth.ts";
import type { CameraUrl } from "./camera-url.ts";
import { RtspFailure } from "./failure.ts";

/** How we name ourselves; some cameras refuse requests without a name. */
export const USER_AGENT = "apo";
/** Bytes that make no sense which a server may send in all. */
const GARBAGE_BYTES_MAX = 65_536;
/** Unanswered requests of which nobody waits for an answer that are remembered. */
const UNAWAITED_MAX = 16;

export interface RtspClientOptions {
  /** How long to wait for the connection, and for each answer (10,000). */
  readonly timeoutMs?: number;
  /** Ends everything when it fires. */
  readonly signal?: AbortSignal;
  /** A run of whole `$` frames, valid until it returns. */
  frames?(bytes: Uint8Array): void;
  /** The connection is over, once. Not called after `close`. */
  closed?(failure: RtspFailure): void;
}

/** A request. CSeq, User-Agent, Session and Authorization are added. */
export interface ClientRequest {
  readonly method: string;
  readonly url: string;
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly body?: string;
}

export interface ClientAnswer {
  readonly status: number;
  readonly reason: string;
  readonly headers: RtspHeaders;
  readonly body: string;
}

interface Waiting {
  readonly cseq: number;
  resolve(answer: ClientAnswer): void;
  reject(failure: RtspFailure): void;
}

export class RtspClient {
  readonly url: CameraUrl;
  readonly #apo: Apo;
  readonly #options: RtspClientOptions;
  readonly #authorizer: Authorizer | undefined;
  readonly #unawaited = new Set<number>();
  #sockfd: Sockfd | undefined;
  #waiting: Waiting | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #cseq = 0;
  #garbage = 0;
  #failure: RtspFailure | undefined;
  /** Put into every request once it is known. */
  session: string | undefined;
  /** Status of the latest answer that nobody waited for, such as a keepalive's; 0 before. */
  lateStatus = 0;

  private constructor(apo: Apo, url: CameraUrl, options: RtspClientOptions) {
    this.#apo = apo;
    this.url = url;
    this.#options = options;
    this.#authorizer = url.credentials === undefined ? undefined : new Authorizer(url.credentials);
  }

  /**
   * Connects.
   * @throws RtspFailure "unreachable", "timeout", "unsupported" (rtsps://).
   */
  static async connect(apo: Apo, url: CameraUrl, options: RtspClientOptions = {}): Promise<RtspClient> {
    if (url.scheme === "rtsps") {
      throw new RtspFailure("unsupported", "rtsps:// (RTSP over TLS) is not supported yet; use rtsp://");
    }
    const client = new RtspClient(apo, url, options);
    try {
      client.#sockfd = await apo.opens({
        protocol: "tcp",
        to: { address: url.host, port: url.port },
        connectMs: client.#timeoutMs,
        recvlen: RTSP_RECVLEN,
        framing: rtspFraming,
        request: (_sockfd, message) => client.#onMessage(message),
        closed: (_sockfd, reason) => client.#onClosed(reason.code),
      });
    } catch (error) {
      throw connectFailure(error, url);
    }
    if (options.signal?.aborted === true) client.close();
    if (client.#failure !== undefined) throw client.#failure;
    options.signal?.addEventListener("abort", client.#onAbort);
    return client;
  }

  readonly #onAbort = (): void => this.close();

  get #timeoutMs(): number {
    return this.#options.timeoutMs ?? 10_000;
  }

  get open(): boolean {
    return this.#failure === undefined;
  }

  /** Where the other end is; the address of media over UDP. */
  get address(): string {
    return this.#sockfd === undefined ? this.url.host : this.#apo.peer(this.#sockfd).address;
  }

  /**
   * Sends a request and waits for its answer, whatever its status; a 401 is answered once if there are
   * credentials. Requests wait for each other.
   * @throws RtspFailure "timeout", "closed", "protocol", "unauthorized", "stopped".
   */
  request(request: ClientRequest, timeoutMs = this.#timeoutMs): Promise<ClientAnswer> {
    const turn = this.#tail.then(() => this.#authorized(request, timeoutMs));
    this.#tail = turn.catch(() => {});
    return turn;
  }

  /** Sends a request whose answer does not matter but for its status, which `lateStatus` tells. */
  tell(request: ClientRequest): void {
    if (!this.open) return;
    const cseq = this.#write(request);
    this.#unawaited.add(cseq);
    for (const oldest of this.#unawaited) {
      if (this.#unawaited.size <= UNAWAITED_MAX) break;
      this.#unawaited.delete(oldest);
    }
  }

  /** Sends bytes as they are: `$` frames. False when the connection takes no more. */
  send(bytes: Uint8Array): boolean {
    if (this.#sockfd === undefined || !this.open) return false;
    try {
      this.#apo.sendto(this.#sockfd, bytes)?.catch(() => {});
      return true;
    } catch (error) {
      if (error instanceof ApoError) return false;
      throw error;
    }
  }

  /** Bytes that the connection has not taken yet. */
  get queued(): number {
    return this.#sockfd === undefined ? 0 : this.#apo.queued(this.#sockfd);
  }

  /** Closes the connection once what was sent is out. Idempotent; `closed` is not called. */
  close(): void {
    this.#end(new RtspFailure("stopped", "the session was ended here"), false);
  }

  async #authorized(request: ClientRequest, timeoutMs: number): Promise<ClientAnswer> {
    const answer = await this.#once(request, timeoutMs);
    if (answer.status !== 401) return answer;
    if (this.#authorizer === undefined) {
      const what =
        "the server wants a user name and a password: write them into the URL, rtsp://user:password@host/…";
      throw new RtspFailure("unauthorized", what, 401);
    }
    if (!this.#authorizer.accept(answer.headers.getAll("WWW-Authenticate"))) {
      throw new RtspFailure(
        "unauthorized",
        "the server asks for a kind of authorization that is not known here",
        401,
      );
    }
    const second = await this.#once(request, timeoutMs);
    if (second.status !== 401) return second;
    throw new RtspFailure("unauthorized", "the server does not accept the user name and password", 401);
  }

  #once(request: ClientRequest, timeoutMs: number): Promise<ClientAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      const timer = setTimeout(() => {
        const seconds = timeoutMs / 1000;
        this.#end(new RtspFailure("timeout", `no answer to ${request.method} in ${seconds} s`), true);
      }, timeoutMs);
      const cseq = this.#cseq + 1;
      this.#waiting = {
        cseq,
        resolve: (answer) => {
          clearTimeout(timer);
          resolve(answer);
        },
        reject: (failure) => {
          clearTimeout(timer);
          reject(failure);
        },
      };
      this.#write(request);
    });
  }

  #write(request: ClientRequest): number {
    this.#cseq += 1;
    const headers: (readonly [string, string])[] = [
      ["CSeq", `${this.#cseq}`],
      ["User-Agent", USER_AGENT],
    ];
    const authorization = this.#authorizer?.header(request.method, request.url);
    if (authorization !== undefined) headers.push(["Authorization", authorization]);
    if (this.session !== undefined) headers.push(["Session", this.session]);
    headers.push(...(request.headers ?? []));
    const { method, url, body } = request;
    this.send(buildRequest(body === undefined ? { method, url, headers } : { method, url, headers, body }));
    return this.#cseq;
  }

  #onMessage(message: Message): void {
    const { bytes } = message;
    switch (classify(bytes)) {
      case "interleaved":
        if (this.open) this.#options.frames?.(bytes);
        return;
      case "garbage":
        this.#garbage += bytes.length;
        if (this.#garbage > GARBAGE_BYTES_MAX) this.#nonsense("what the server sends is not RTSP");
        return;
      default:
        this.#onRtsp(bytes);
    }
  }

  #onRtsp(bytes: Uint8Array): void {
    try {
      const parsed = parseRtspMessage(bytes);
      if (parsed.kind === "response") this.#onResponse(parsed);
      else this.#onRequest(parsed);
    } catch (error) {
      if (!(error instanceof RtspSyntaxError)) throw error;
      this.#nonsense(`the server's answer cannot be read (${error.message})`);
    }
  }

  #onResponse(response: RtspResponse): void {
    const { status, reason, headers } = response;
    if (status < 200) return; // 100 Continue: the answer proper follows.
    const cseq = Number(headers.get("CSeq"));
    if (this.#unawaited.delete(cseq)) {
      this.lateStatus = status;
      if (status === 401) this.#authorizer?.accept(headers.getAll("WWW-Authenticate"));
      return;
    }
    // Some servers send no CSeq or a wrong one; with one request under way there is only one it can answer.
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    this.#waiting = undefined;
    waiting.resolve({ status, reason, headers, body: new TextDecoder().decode(response.body) });
  }

  /** Servers ask too: keepalives are answered, REDIRECT ends the session (the next one asks anew). */
  #onRequest(request: RtspRequest): void {
    const fine = /^(OPTIONS|GET_PARAMETER|SET_PARAMETER|REDIRECT)$/.test(request.method);
    const headers = [["CSeq", request.headers.get("CSeq") ?? "0"]] as const;
    this.send(buildResponse({ status: fine ? 200 : 501, headers }));
    if (request.method === "REDIRECT") {
      this.#end(new RtspFailure("closed", "the server sends its clients elsewhere (REDIRECT)"), true);
    }
  }

  #nonsense(text: string): void {
    this.#end(new RtspFailure("protocol", text), true);
  }

  #onClosed(code: string): void {
    this.#sockfd = undefined;
    const how = code === "end" ? "the server closed the connection" : `the connection was lost (${code})`;
    this.#end(new RtspFailure("closed", how), true);
  }

  #end(failure: RtspFailure, tell: boolean): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    if (this.#sockfd !== undefined) this.#apo.close(this.#sockfd).catch(() => {});
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(failure);
    if (tell) this.#options.closed?.(failure);
  }
}

function connectFailure(error: unknown, url: CameraUrl): RtspFailure {
  if (!(error instanceof ApoError)) throw error;
  const to = `${url.host.includes(":") ? `[${url.host}]` : url.host}:${url.port}`;
  switch (error.code) {
    case "ECONNREFUSED":
      return new RtspFailure(
        "unreachable",
        `${to} refused the connection (is the server running, is the port right?)`,
      );
    case "ETIMEDOUT":
      return new RtspFailure("timeout", `${to} did not answer in time`);
    default:
      return new RtspFailure("unreachable", `no connection to ${to}: ${error.message}`);
  }
}
