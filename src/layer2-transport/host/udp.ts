/**
 * UDP over the kernel's sockets: a connection is a peer's address and port.
 *
 * Layer 2, host link: node:dgram in a worker. A listener has one socket a worker, whose peers are found by address;
 * a client connection has a connected socket of its own.
 */

import { createSocket, type RemoteInfo, type Socket, type SocketOptions } from "node:dgram";
import { lookup as dnsLookup } from "node:dns";
import { isIP } from "node:net";
import type { ErrorCode } from "../../layer1-app/errors.ts";
import { plainAddress } from "../../layer3-ip/address.ts";
import type { Connection } from "../connection.ts";
import type { Container } from "../container.ts";
import type { Counters, WorkerCounter } from "../counters.ts";
import type { CloseCode } from "../descriptor.ts";
import { Fifo } from "../fifo.ts";
import type { FramePool } from "../link.ts";
import type {
  ConnectionRules,
  ConnectRequest,
  ListenerRecord,
  LocalAddress,
  TransportEvents,
} from "../transport.ts";
import { errorCodeOf, explain, systemCode } from "./errors.ts";

/** What the kernel is asked to hold for a socket, bytes; it grants at most net.core.rmem_max. */
const receiveBufferBytes = 4 * 2 ** 20;

/** What UDP needs of its worker. */
export interface UdpContext {
  readonly events: TransportEvents;
  readonly pool: FramePool;
  readonly counters: Counters<WorkerCounter>;
}

type Lookup = NonNullable<SocketOptions["lookup"]>;

/** An address needs no lookup: without this, Node goes round by the resolver for every datagram. */
const lookup: Lookup = (host, options, done) => {
  const family = isIP(host);
  if (family !== 0) done(null, host, family);
  else dnsLookup(host, { ...options, all: false }, done);
};

function openSocket(six: boolean, reusePort: boolean): Socket {
  return createSocket({
    type: six ? "udp6" : "udp4",
    reusePort,
    lookup,
    recvBufferSize: receiveBufferBytes,
    sendBufferSize: receiveBufferBytes,
  });
}

/** Binds a socket; it is closed again when that fails. */
async function bind(six: boolean, address: string, port: number, reusePort: boolean): Promise<Socket> {
  const socket = openSocket(six, reusePort);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind({ address, port, exclusive: true }, () => {
        socket.off("error", reject);
        resolve();
      });
    });
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

async function bindEither(address: string | undefined, port: number, reusePort: boolean): Promise<Socket> {
  if (address !== undefined) return bind(isIP(address) === 6, address, port, reusePort);
  try {
    return await bind(true, "::", port, reusePort);
  } catch (error) {
    if (!["EAFNOSUPPORT", "EADDRNOTAVAIL", "EINVAL"].includes(systemCode(error))) throw error;
    return bind(false, "0.0.0.0", port, reusePort);
  }
}

/** One peer of a UDP socket: the `handle` of its connection. */
export class UdpPeer {
  /** Undefined between the making of the peer and that of its connection. */
  connection: Connection | undefined;
  lastHeardMs = performance.now();
  private readonly owner: UdpListener | UdpClient;
  private readonly key: string;
  private ending: { readonly code: CloseCode; readonly error: ErrorCode | undefined } | undefined;
  private readonly writes = new Fifo<Container>();
  private readonly written: (error: Error | null) => void;

  constructor(owner: UdpListener | UdpClient, key: string) {
    this.owner = owner;
    this.key = key;
    this.written = (error) => {
      if (error) owner.context.counters.add("layer2.drop.send-failed");
      const container = this.writes.shift();
      if (container && this.connection) owner.context.events.sent(this.connection, container);
      if (this.writes.length === 0) this.reportEnd();
    };
  }

  hear(context: UdpContext, bytes: Uint8Array): void {
    this.lastHeardMs = performance.now();
    const { pool, counters, events } = context;
    if (!this.connection) return;
    const frame = pool.allocate(bytes.length);
    if (frame === 0) {
      counters.add("layer2.drop.pool");
      return;
    }
    pool.write(frame, 0, bytes);
    events.datagram(this.connection, frame, 0, bytes.length);
  }

  send(socket: Socket, container: Container, to?: RemoteInfo): void {
    this.writes.push(container);
    if (to) socket.send(container.views, to.port, to.address, this.written);
    else socket.send(container.views, this.written);
  }

  /** Ends the connection: UDP has no last words, but the kernel may still be reading what was sent. */
  end(code: CloseCode, error?: ErrorCode): void {
    if (this.ending || !this.connection) return;
    this.ending = { code, error };
    this.owner.forget(this.key);
    if (this.writes.length === 0) this.reportEnd();
  }

  private reportEnd(): void {
    const { connection, ending } = this;
    if (!connection || !ending) return;
    this.connection = undefined;
    this.owner.context.events.ended(connection, ending.code, ending.error);
  }

  transmit(container: Container): void {
    this.owner.transmit(this, this.key, container);
  }

  finish(): void {
    this.end("end");
  }
}

/** Ends the peers that were silent for too long. */
function sweep(rules: ConnectionRules, peers: Iterable<UdpPeer>): void {
  const oldest = performance.now() - rules.idleMs;
  for (const peer of peers) if (peer.lastHeardMs < oldest) peer.end("idle");
}

function startSweeping(rules: ConnectionRules, run: () => void): NodeJS.Timeout | undefined {
  if (rules.idleMs === 0) return undefined;
  return setInterval(run, Math.min(5000, Math.max(20, rules.idleMs / 8)));
}

interface Remote {
  readonly peer: UdpPeer;
  readonly info: RemoteInfo;
}

export class UdpListener {
  readonly context: UdpContext;
  private readonly listener: ListenerRecord;
  private readonly peers = new Map<string, Remote>();
  private socket: Socket | undefined;
  private timer: NodeJS.Timeout | undefined;
  private local: LocalAddress = { address: "", port: 0 };
  private accepting = true;

  constructor(listener: ListenerRecord, context: UdpContext) {
    this.listener = listener;
    this.context = context;
  }

  async listen(first: boolean): Promise<LocalAddress> {
    const { shared } = this.listener;
    let { address, port } = this.listener;
    try {
      if (shared && first) {
        const probe = await bindEither(address, port, false);
        ({ address, port } = probe.address());
        await new Promise<void>((resolve) => {
          probe.close(resolve);
        });
      }
      this.socket = await bindEither(address, port, shared);
    } catch (error) {
      throw explain(`listen on udp port ${port}${address ? ` of ${address}` : ""}`, error);
    }
    this.local = this.socket.address();
    this.socket.on("message", (bytes, info) => this.heard(bytes, info));
    // An ICMP error about one peer is no fault of the socket.
    this.socket.on("error", () => this.context.counters.add("layer2.drop.send-failed"));
    this.timer = startSweeping(this.listener, () =>
      sweep(
        this.listener,
        [...this.peers.values()].map((remote) => remote.peer),
      ),
    );
    return this.local;
  }

  /** No new peers; the socket goes when the last one has. */
  close(): void {
    this.accepting = false;
    if (this.peers.size === 0) this.closeSocket();
  }

  forget(key: string): void {
    this.peers.delete(key);
    if (!this.accepting && this.peers.size === 0) this.closeSocket();
  }

  transmit(peer: UdpPeer, key: string, container: Container): void {
    const remote = this.peers.get(key);
    if (remote && this.socket) peer.send(this.socket, container, remote.info);
    else if (peer.connection) this.context.events.sent(peer.connection, container);
  }

  private closeSocket(): void {
    clearInterval(this.timer);
    this.socket?.close();
    this.socket = undefined;
  }

  private heard(bytes: Uint8Array, info: RemoteInfo): void {
    const key = `${info.address} ${info.port}`;
    const peer = this.peers.get(key)?.peer ?? this.welcome(key, info);
    peer?.hear(this.context, bytes);
  }

  private welcome(key: string, info: RemoteInfo): UdpPeer | undefined {
    if (!this.accepting) {
      this.context.counters.add("layer2.drop.closing");
      return undefined;
    }
    const peer = new UdpPeer(this, key);
    const ends = {
      address: plainAddress(info.address),
      port: info.port,
      localAddress: plainAddress(this.local.address),
      localPort: this.local.port,
    };
    peer.connection = this.context.events.accepted(this.listener, ends, peer);
    if (!peer.connection) return undefined;
    this.peers.set(key, { peer, info });
    return peer;
  }
}

export class UdpClient {
  readonly context: UdpContext;
  private readonly request: ConnectRequest;
  private socket: Socket | undefined;
  private peer: UdpPeer | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(request: ConnectRequest, context: UdpContext) {
    this.request = request;
    this.context = context;
  }

  /** Looks the name up, binds and connects; the outcome is told to the events. */
  connect(): void {
    const { address, port } = this.request;
    const what = `connect to ${address}:${port} over udp`;
    const failed = (error: unknown): void => {
      const told = explain(what, error);
      this.forget();
      this.context.events.connectFailed(this.request, told.code, told.message);
    };
    dnsLookup(address, (error, found, family) => {
      if (error) return failed(error);
      const socket = openSocket(family === 6, false);
      this.socket = socket;
      socket.once("error", failed);
      socket.connect(port, found, () => {
        socket.off("error", failed);
        this.connected(socket);
      });
    });
  }

  forget(): void {
    clearInterval(this.timer);
    this.socket?.close();
    this.socket = undefined;
  }

  transmit(peer: UdpPeer, _key: string, container: Container): void {
    if (this.socket) peer.send(this.socket, container);
    else if (peer.connection) this.context.events.sent(peer.connection, container);
  }

  private connected(socket: Socket): void {
    const local = socket.address();
    const remote = socket.remoteAddress();
    const peer = new UdpPeer(this, "");
    const ends = {
      address: plainAddress(remote.address),
      port: remote.port,
      localAddress: plainAddress(local.address),
      localPort: local.port,
    };
    peer.connection = this.context.events.connected(this.request, ends, peer);
    if (!peer.connection) {
      this.forget();
      return;
    }
    this.peer = peer;
    socket.on("message", (bytes) => peer.hear(this.context, bytes));
    socket.on("error", (error) => this.failed(error));
    this.timer = startSweeping(this.request, () => sweep(this.request, [peer]));
  }

  private failed(error: Error): void {
    const code = errorCodeOf(error);
    this.peer?.end("refused", code);
  }
}
