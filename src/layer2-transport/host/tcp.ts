/**
 * TCP over the kernel's sockets.
 *
 * Layer 2, host link: node:net in a worker, one `TcpSocket` a connection. It moves bytes and reports ends; messages,
 * order and holding are the dispatcher's.
 */

import { connect, createServer, type Server, type Socket } from "node:net";
import type { ErrorCode } from "../../layer1-app/errors.ts";
import { plainAddress } from "../../layer3-ip/address.ts";
import type { Connection } from "../connection.ts";
import type { Container } from "../container.ts";
import { Fifo } from "../fifo.ts";
import type { Ends } from "../nodes/v-node.ts";
import { type TcpOptions, withTcpOption } from "../tcp/options.ts";
import type { ConnectRequest, ListenerRecord, LocalAddress, TransportEvents } from "../transport.ts";
import { writeDirectly } from "./direct-write.ts";
import { errorCodeOf, explain, systemCode } from "./errors.ts";

/** How long the peer may take to end its side after ours, in milliseconds. */
const lingerMs = 2000;
/** Connections that the kernel keeps until they are accepted (it lowers this to net.core.somaxconn). */
const kernelBacklog = 4096;

/** One socket with its connection. */
export class TcpSocket {
  private readonly socket: Socket;
  private readonly events: TransportEvents;
  private connection: Connection | undefined;
  private readonly writes = new Fifo<Container>();
  private readonly written: (error?: Error | null) => void;
  private error: ErrorCode | undefined;
  private linger: NodeJS.Timeout | undefined;
  /** Both sides have ended, and the app has not had all of what came. */
  private over = false;
  private options: TcpOptions;

  constructor(socket: Socket, options: TcpOptions, events: TransportEvents) {
    this.socket = socket;
    this.options = options;
    this.events = events;
    this.written = (error) => {
      const container = this.writes.shift();
      if (container && this.connection) events.sent(this.connection, container, !error);
    };
  }

  /** Starts reporting. */
  attach(connection: Connection): void {
    const { socket, events } = this;
    this.connection = connection;
    socket.on("data", (bytes: Buffer) => events.received(connection, bytes));
    socket.on("end", () => events.peerEnded(connection));
    socket.on("error", (error) => {
      this.error ??= errorCodeOf(error);
    });
    socket.on("close", () => this.closed(connection));
  }

  send(container: Container): void {
    const { views } = container;
    const last = views.length - 1;
    let first = 0;
    let taken = 0;
    // A file's parts follow each other out of completions: those come from the event loop, not from within.
    if (this.writes.length === 0 && !container.part && this.connection) {
      for (; first <= last; first += 1) {
        taken = writeDirectly(this.socket, views[first] as Buffer);
        if (taken < (views[first] as Buffer).length) break;
      }
      if (first > last && last >= 0) {
        this.events.sent(this.connection, container, true);
        return;
      }
    }
    this.writes.push(container);
    if (last < 0) {
      this.socket.write("", this.written);
      return;
    }
    for (let i = first; i <= last; i += 1) {
      const view = views[i] as Buffer;
      const rest = i === first && taken > 0 ? view.subarray(taken) : view;
      if (i < last) this.socket.write(rest);
      else this.socket.write(rest, this.written);
    }
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** FIN; the peer may go on for as long as it likes. */
  shutdown(): void {
    this.socket.end();
  }

  /** What node:net can change of a socket that stands. */
  tune(place: number, word: number): void {
    this.options = withTcpOption(this.options, place, word);
    const { nodelay, keepalive, keepaliveIdleMs } = this.options;
    this.socket.setNoDelay(nodelay);
    this.socket.setKeepAlive(keepalive, keepaliveIdleMs);
  }

  /** FIN, then whatever the peer still sends is read and dropped, so that it gets our last bytes and not a RST. */
  end(): void {
    if (this.over) {
      setImmediate(() => this.tellEnd());
      return;
    }
    this.socket.end();
    this.socket.resume();
    this.linger ??= setTimeout(() => this.socket.destroy(), lingerMs);
  }

  destroy(reset: boolean): void {
    if (this.over) setImmediate(() => this.tellEnd());
    else if (reset) this.socket.resetAndDestroy();
    else this.socket.destroy();
  }

  private closed(connection: Connection): void {
    clearTimeout(this.linger);
    for (let left = this.writes.shift(); left; left = this.writes.shift())
      this.events.sent(connection, left, false);
    // After `shutdown` the socket is gone with the peer's FIN; what it brought before is still to be handled.
    this.over = !this.error && connection.peerEnded && !connection.closing;
    if (!this.over) this.tellEnd();
  }

  private tellEnd(): void {
    const { connection, error } = this;
    if (!connection) return;
    this.connection = undefined;
    this.events.ended(connection, error ? "reset" : connection.peerEnded ? "end" : "reset", error);
  }
}

/** Options as node:net names them. */
function socketOptions({ nodelay, keepalive, keepaliveIdleMs }: TcpOptions): {
  noDelay: boolean;
  keepAlive: boolean;
  keepAliveInitialDelay: number;
} {
  return { noDelay: nodelay, keepAlive: keepalive, keepAliveInitialDelay: keepaliveIdleMs };
}

function endsOf(socket: Socket): Ends | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (!remoteAddress || !remotePort || !localAddress || !localPort) return undefined;
  return {
    address: plainAddress(remoteAddress),
    port: remotePort,
    localAddress: plainAddress(localAddress),
    localPort,
  };
}

/** Binds a server. Without an address: both families where the machine has IPv6. */
export async function bindServer(
  server: Server,
  address: string | undefined,
  port: number,
  reusePort: boolean,
): Promise<LocalAddress> {
  const bind = (host: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const failed = (error: Error): void => reject(error);
      server.once("error", failed);
      server.listen({ host, port, reusePort, exclusive: true, backlog: kernelBacklog }, () => {
        server.off("error", failed);
        resolve();
      });
    });
  try {
    await bind(address ?? "::");
  } catch (error) {
    const noSix = ["EAFNOSUPPORT", "EADDRNOTAVAIL"].includes(systemCode(error));
    if (address !== undefined || !noSix) throw error;
    await bind("0.0.0.0");
  }
  const bound = server.address() as { address: string; port: number };
  return { address: bound.address, port: bound.port };
}

/** Makes sure that nobody listens on the port, not even with SO_REUSEPORT: an exclusive bind, given up again. */
async function probe(address: string | undefined, port: number): Promise<LocalAddress> {
  const server = createServer();
  const bound = await bindServer(server, address, port, false);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  return bound;
}

export class TcpListener {
  private readonly listener: ListenerRecord;
  private readonly events: TransportEvents;
  private readonly server: Server;

  constructor(listener: ListenerRecord, events: TransportEvents) {
    this.listener = listener;
    this.events = events;
    this.server = createServer({ allowHalfOpen: true, ...socketOptions(listener.tcp) }, (socket) =>
      this.accept(socket),
    );
  }

  async listen(first: boolean): Promise<LocalAddress> {
    const { shared } = this.listener;
    let { address, port } = this.listener;
    try {
      if (shared && first) ({ address, port } = await probe(address, port));
      const bound = await bindServer(this.server, address, port, shared);
      this.server.on("error", (error) => this.events.acceptFailed(this.listener, errorCodeOf(error)));
      return bound;
    } catch (error) {
      throw explain(`listen on tcp port ${port}${address ? ` of ${address}` : ""}`, error);
    }
  }

  /** Stops accepting. The sockets that were accepted live on. */
  close(): void {
    this.server.close();
  }

  private accept(socket: Socket): void {
    const ends = endsOf(socket);
    const tcp = new TcpSocket(socket, this.listener.tcp, this.events);
    const connection = ends && this.events.accepted(this.listener, ends, tcp);
    if (connection) {
      tcp.attach(connection);
    } else {
      socket.on("error", () => {});
      socket.destroy();
    }
  }
}

/** Makes a client's connection; the outcome is told to `events`. */
export function connectTcp(request: ConnectRequest, events: TransportEvents): void {
  const { address, port, connectMs } = request;
  const what = `connect to ${address}:${port} over tcp`;
  const socket = connect({
    host: address,
    port,
    allowHalfOpen: true,
    ...socketOptions(request.tcp),
  });
  const failed = (error: unknown): void => {
    clearTimeout(timer);
    socket.on("error", () => {});
    socket.destroy();
    const told = explain(what, error);
    events.connectFailed(request, told.code, told.message);
  };
  const timer = setTimeout(() => {
    socket.off("error", failed);
    socket.on("error", () => {});
    socket.destroy();
    events.connectFailed(request, "ETIMEDOUT", `cannot ${what}: no answer within ${connectMs} ms`);
  }, connectMs);
  socket.once("error", failed);
  socket.once("connect", () => {
    clearTimeout(timer);
    socket.off("error", failed);
    const ends = endsOf(socket);
    const tcp = new TcpSocket(socket, request.tcp, events);
    if (!ends) return failed({ code: "ECONNRESET" });
    const connection = events.connected(request, ends, tcp);
    if (connection) tcp.attach(connection);
    else socket.destroy();
  });
}
