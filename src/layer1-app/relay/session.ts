/**
 * RTSP sessions: what reading and publishing ones have in common, and the table of them.
 *
 * Layer 1, relay. A session has an id, an address it belongs to, a path, and (on UDP: perhaps) a connection.
 */

import { randomBytes } from "node:crypto";
import type { Connection } from "./connection.ts";
import type { Core } from "./core.ts";
import { endpoint } from "./settings.ts";

export abstract class Session {
  abstract readonly kind: "read" | "publish";
  readonly core: Core;
  readonly id: string;
  readonly path: string;
  /** The address of the RTSP connection that made it: nobody else may use it. */
  readonly address: string;
  /** For the log. */
  readonly name: string;
  readonly startedMs: number;
  /** How its media travel; decided by the first SETUP. */
  lower: "udp" | "tcp" | undefined;
  state: "ready" | "active" | "ended" = "ready";
  connection: Connection | undefined;
  lastSeenMs: number;
  /** When its connection was lost (0: it was not). */
  lostMs = 0;

  constructor(core: Core, connection: Connection, path: string) {
    this.core = core;
    this.id = randomBytes(8).toString("hex");
    this.path = path;
    this.address = connection.address;
    this.name = endpoint(connection.address, connection.port);
    this.startedMs = core.now();
    this.lastSeenMs = this.startedMs;
    this.attach(connection);
  }

  /** It lives. */
  touch(): void {
    this.lastSeenMs = this.core.now();
  }

  /** A request for it came on this connection. */
  attach(connection: Connection): void {
    this.lostMs = 0;
    connection.current = this;
    connection.closeAtMs = Number.POSITIVE_INFINITY;
    if (this.connection === connection) return;
    this.connection?.forget(this);
    this.connection = connection;
    connection.sessions.add(this);
  }

  /** Its connection is gone: over TCP that is the end; over UDP it goes on for a while. */
  connectionLost(reason: string): void {
    this.connection = undefined;
    this.lostMs = this.core.now();
    if (this.lower !== "udp" || this.state !== "active") this.end(reason);
  }

  /** Why it should end now, if it should. Called every second. */
  abstract overdue(nowMs: number): string | undefined;

  /** Ends it and frees all it holds. Idempotent. */
  end(reason: string): void {
    if (this.state === "ended") return;
    const was = this.state;
    this.state = "ended";
    this.release(reason, was === "active");
    this.core.sessions.delete(this);
    this.connection?.forget(this);
    this.connection = undefined;
  }

  protected abstract release(reason: string, wasActive: boolean): void;
}

/** The sessions by id. */
export class Sessions {
  readonly #byId = new Map<string, Session>();

  get size(): number {
    return this.#byId.size;
  }

  get(id: string): Session | undefined {
    return this.#byId.get(id);
  }

  add(session: Session): void {
    this.#byId.set(session.id, session);
  }

  delete(session: Session): void {
    this.#byId.delete(session.id);
  }

  count(kind: Session["kind"]): number {
    let count = 0;
    for (const session of this.#byId.values())
      if (session.kind === kind && session.state === "active") count++;
    return count;
  }

  /** A copy, so that sessions may end while they are walked. */
  all(): Session[] {
    return [...this.#byId.values()];
  }
}
