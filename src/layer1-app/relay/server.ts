/**
 * The RTSP server: an app like any other. Connections in, pieces of them to the right place, answers out.
 *
 * Layer 1, relay. It dispatches; what a method does is in `handlers-*.ts`, what a session does in `reader.ts` and
 * `publisher.ts`.
 */

import type { CloseReason, Listener, Message, Peer, Sockfd } from "../types.ts";
import { Connection } from "./connection.ts";
import type { Core } from "./core.ts";
import { Exchange, METHODS, Refusal } from "./exchange.ts";
import { announce, record, setupPublisher } from "./handlers-publish.ts";
import { describe, pause, play, setupReader, teardown } from "./handlers-read.ts";
import { RTP_HEADER_BYTES } from "./protocol/rtp-packet.ts";
import { classify, RTSP_RECVLEN, rtspFraming } from "./protocol/rtsp-framing.ts";
import {
  buildResponse,
  parseRtspMessage,
  type RtspMessage,
  RtspSyntaxError,
} from "./protocol/rtsp-message.ts";
import { PublishSession } from "./publisher.ts";
import { BACKLOG, endpoint, GARBAGE_BYTES_MAX } from "./settings.ts";

/** Most RTP packets of one message: it is `RTSP_RECVLEN` bytes at most, and none is shorter than its headers. */
const PACKETS_MAX = Math.ceil(RTSP_RECVLEN / (RTP_HEADER_BYTES + 4));

export class RtspServer {
  readonly #core: Core;
  readonly #connections = new Map<Sockfd, Connection>();
  readonly #offsets = new Uint32Array(2 * PACKETS_MAX);
  #listener: Listener | undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  get connections(): number {
    return this.#connections.size;
  }

  get port(): number {
    return this.#listener?.port ?? 0;
  }

  /** @throws ApoError when the port cannot be had. */
  async listen(): Promise<void> {
    const { settings, apo } = this.#core;
    this.#listener = await apo.opens({
      protocol: "tcp",
      port: settings.port,
      ...(settings.address === "" ? {} : { address: settings.address }),
      backlog: BACKLOG,
      recvlen: RTSP_RECVLEN,
      sendlen: settings.budgetBytes + 2 * settings.cacheBytes,
      framing: rtspFraming,
      connected: (sockfd, peer) => this.#connected(sockfd, peer),
      request: (sockfd, message) => this.#piece(sockfd, message),
      closed: (sockfd, reason) => this.#closed(sockfd, reason),
      alarm: (alarm) => this.#core.warn("alarm", alarm.text, { code: alarm.code, count: alarm.count }),
    });
  }

  async close(): Promise<void> {
    await this.#listener?.close();
  }

  /** Closes connections that have no session and ask for nothing, or whose stream is over. */
  sweep(nowMs: number): void {
    for (const connection of this.#connections.values()) {
      if (connection.sessions.size > 0 || connection.closing) continue;
      if (nowMs >= connection.closeAtMs) {
        this.#hangUp(connection);
        continue;
      }
      if (nowMs - connection.lastRequestMs <= this.#core.settings.connectionIdleMs) continue;
      this.#core.count("connections.idle");
      this.#hangUp(connection);
    }
  }

  #connected(sockfd: Sockfd, peer: Peer): void {
    this.#connections.set(sockfd, new Connection(sockfd, peer, this.#core.now()));
  }

  #closed(sockfd: Sockfd, reason: CloseReason): void {
    const connection = this.#connections.get(sockfd);
    if (connection === undefined) return;
    this.#connections.delete(sockfd);
    connection.closing = true;
    const text = reason.code === "end" ? "its connection ended" : `its connection ended (${reason.code})`;
    for (const session of [...connection.sessions]) session.connectionLost(text);
  }

  #piece(sockfd: Sockfd, message: Message): void | Promise<void> {
    const connection = this.#connections.get(sockfd);
    if (connection === undefined || connection.closing) return;
    const { bytes } = message;
    switch (classify(bytes)) {
      case "interleaved":
        this.#frames(connection, bytes);
        return;
      case "garbage":
        this.#garbage(connection, bytes.length);
        return;
      case "message":
        return this.#message(connection, bytes);
    }
  }

  /** A run of `$` frames: RTP goes to the engine in as few calls as channels take turns, the rest one by one. */
  #frames(connection: Connection, bytes: Uint8Array): void {
    const offsets = this.#offsets;
    let count = 0;
    let pending = -1;
    let at = 0;
    while (at + 4 <= bytes.length) {
      const channel = bytes[at + 1] ?? 0;
      const length = ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0);
      const start = at + 4;
      at = start + length;
      const sink = connection.channel(channel);
      if (sink === undefined) {
        this.#core.count("interleaved.unknown"); // Left over from a session before, or nonsense.
        continue;
      }
      if (sink.packet !== undefined) {
        sink.packet(bytes.subarray(start, at));
        continue;
      }
      if (length < RTP_HEADER_BYTES) {
        this.#core.count("interleaved.short");
        continue;
      }
      if (channel !== pending && count > 0) {
        connection.channel(pending)?.push?.(bytes, offsets, count);
        count = 0;
      }
      pending = channel;
      offsets[2 * count] = start;
      offsets[2 * count + 1] = length;
      count++;
    }
    if (count > 0) connection.channel(pending)?.push?.(bytes, offsets, count);
  }

  #garbage(connection: Connection, length: number): void {
    this.#core.count("garbage.bytes", length);
    connection.garbageBytes += length;
    if (connection.garbageBytes > GARBAGE_BYTES_MAX)
      this.#refuse(connection, 400, "Bad Request: this is not RTSP");
  }

  #message(connection: Connection, bytes: Uint8Array): void | Promise<void> {
    connection.lastRequestMs = this.#core.now();
    let message: RtspMessage;
    try {
      message = parseRtspMessage(bytes);
    } catch (error) {
      if (!(error instanceof RtspSyntaxError)) throw error;
      this.#core.count("requests.malformed");
      this.#refuse(connection, error.status, error.message, error.cseq);
      return;
    }
    if (message.kind === "response") return; // Nothing is ever asked of a client.
    if (message.version.startsWith("HTTP/")) {
      const answer =
        "HTTP/1.1 501 RTSP over HTTP is not supported\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
      this.#core.send(connection.sockfd, new TextEncoder().encode(answer));
      this.#hangUp(connection);
      return;
    }
    return this.#request(new Exchange(this.#core, connection, message));
  }

  async #request(exchange: Exchange): Promise<void> {
    try {
      checkRequest(exchange);
      await dispatch(exchange);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      exchange.answer(error.status, { reason: error.message, headers: error.headers });
      const { address, port } = exchange.connection;
      const { method, url } = exchange.request;
      const from = endpoint(address, port);
      this.#core.info("refused", `${from} ${method} ${url}: ${error.status} ${error.message}`, {
        from,
        method,
        status: error.status,
      });
    }
  }

  /** Answers what could not be understood, and closes: where the next message would start is not known. */
  #refuse(connection: Connection, status: number, reason: string, cseq?: string): void {
    this.#core.count("requests.refused");
    const headers = cseq === undefined ? [] : [["CSeq", cseq] as const];
    this.#core.send(connection.sockfd, buildResponse({ status, reason, headers }));
    this.#hangUp(connection);
    const from = endpoint(connection.address, connection.port);
    this.#core.info("refused", `${from}: ${status} ${reason}`, { from, status });
  }

  #hangUp(connection: Connection): void {
    connection.closing = true;
    this.#core.closeConnection(connection.sockfd);
  }
}

/** What holds for every method. */
function checkRequest(exchange: Exchange): void {
  const { request } = exchange;
  if (exchange.header("CSeq") === undefined) throw new Refusal(400, "Bad Request: no CSeq header");
  if (request.version !== "RTSP/1.0") throw new Refusal(505, "RTSP Version Not Supported: RTSP/1.0 only");
  const require = exchange.header("Require") ?? exchange.header("Proxy-Require");
  if (require !== undefined) {
    throw new Refusal(551, "Option Not Supported", [["Unsupported", require]]);
  }
}

function dispatch(exchange: Exchange): void | Promise<void> {
  switch (exchange.request.method) {
    case "OPTIONS":
      exchange.connection.current?.touch();
      return exchange.answer(200, { headers: [["Public", METHODS]] });
    case "DESCRIBE":
      return describe(exchange);
    case "ANNOUNCE":
      return announce(exchange);
    case "SETUP": {
      const session = exchange.session();
      return session instanceof PublishSession
        ? setupPublisher(exchange, session)
        : setupReader(exchange, session);
    }
    case "PLAY":
      return play(exchange, exchange.session());
    case "PAUSE":
      // rtspsrc takes leave by PAUSE and TEARDOWN, also of a stream whose BYE it has just had.
      return exchange.isOver() ? exchange.answer(200) : pause(exchange, exchange.session());
    case "RECORD":
      return record(exchange, exchange.session());
    case "TEARDOWN":
      return exchange.isOver() ? exchange.answer(200) : teardown(exchange, exchange.session());
    case "GET_PARAMETER":
      return parameter(exchange);
    case "SET_PARAMETER":
      return parameter(exchange);
    case "REDIRECT":
      throw new Refusal(405, "Method Not Allowed", [["Allow", METHODS]]);
    default:
      throw new Refusal(501, "Not Implemented", [["Public", METHODS]]);
  }
}

/** Keepalives. An empty one is always answered 200; there are no parameters to set. */
function parameter(exchange: Exchange): void {
  const session = exchange.session();
  const { body, method } = exchange.request;
  if (method === "SET_PARAMETER" && body.length > 0) {
    throw new Refusal(451, "Parameter Not Understood: there is none to set");
  }
  exchange.answer(200, session === undefined ? {} : { headers: [exchange.sessionHeader(session)] });
}
