/**
 * One request and its answer: what every method's handler is given.
 *
 * Layer 1, relay. An answer carries the request's CSeq as it was sent, and goes out once.
 */

import type { Connection } from "./connection.ts";
import type { Core } from "./core.ts";
import { buildResponse, parseSessionHeader, type RtspRequest } from "./protocol/rtsp-message.ts";
import type { Session } from "./session.ts";
import { SERVER_NAME, TIMEOUT_MARGIN_MS } from "./settings.ts";

/** Every method that is served, as `Public` and `Allow` tell it. */
export const METHODS =
  "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, TEARDOWN, GET_PARAMETER, SET_PARAMETER";

/** Thrown by a handler: the answer is this status, with a phrase that says what is wrong. */
export class Refusal extends Error {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];

  constructor(status: number, reason: string, headers: readonly (readonly [string, string])[] = []) {
    super(reason);
    this.status = status;
    this.headers = headers;
  }
}

/** What an answer may have beside its status. */
export interface Answer {
  readonly reason?: string;
  readonly headers?: readonly (readonly [string, string])[];
  readonly body?: string;
}

export class Exchange {
  readonly core: Core;
  readonly connection: Connection;
  readonly request: RtspRequest;
  #answered = false;

  constructor(core: Core, connection: Connection, request: RtspRequest) {
    this.core = core;
    this.connection = connection;
    this.request = request;
  }

  header(name: string): string | undefined {
    return this.request.headers.get(name);
  }

  /** Sends the answer. A second one for the same request is a fault of the handler. */
  answer(status: number, answer: Answer = {}): void {
    if (this.#answered) throw new Error(`a second answer to ${this.request.method}`);
    this.#answered = true;
    this.core.count("requests");
    if (status >= 400) this.core.count("requests.refused");
    const cseq = this.header("CSeq");
    const headers: (readonly [string, string])[] = [];
    if (cseq !== undefined) headers.push(["CSeq", cseq]);
    headers.push(["Server", SERVER_NAME], ...(answer.headers ?? []));
    this.core.send(
      this.connection.sockfd,
      buildResponse({
        status,
        headers,
        ...(answer.reason === undefined ? {} : { reason: answer.reason }),
        ...(answer.body === undefined ? {} : { body: answer.body }),
      }),
    );
  }

  /** Is this about a session that ended with its stream? The client may not have noticed. */
  isOver(): boolean {
    const header = this.header("Session");
    return header !== undefined && parseSessionHeader(header).id === this.connection.over;
  }

  /** The `Session` header of an answer: no space before `timeout`, FFmpeg does not read past one. */
  sessionHeader(session: Session): readonly [string, string] {
    const seconds = Math.max(1, Math.floor((this.core.settings.sessionTimeoutMs - TIMEOUT_MARGIN_MS) / 1000));
    return ["Session", `${session.id};timeout=${seconds}`];
  }

  /**
   * The session of the request: by its header, or that of the connection when there is none. Undefined when there
   * is none either way.
   * @throws Refusal 454 when the header names a session that does not exist, or that belongs to another address.
   */
  session(): Session | undefined {
    const header = this.header("Session");
    if (header === undefined) {
      this.connection.current?.touch();
      return this.connection.current;
    }
    const session = this.core.sessions.get(parseSessionHeader(header).id);
    if (session === undefined) throw new Refusal(454, "Session Not Found");
    if (session.address !== this.connection.address) {
      this.core.count("sessions.stolen");
      throw new Refusal(454, "Session Not Found");
    }
    session.touch();
    return session;
  }
}
