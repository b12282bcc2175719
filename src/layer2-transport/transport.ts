/**
 * What a link's transport must do, and what it may call: the seam between the connection logic and raw input/output.
 *
 * Layer 2. `host/` (kernel sockets) and `mem/` (the native thread's wire) implement `Transport`; `dispatcher.ts`
 * implements `TransportEvents` and knows messages, framings, holding and v-nodes, which a transport must not.
 * All calls are made in the worker's thread. A transport serves `tcp` streams (it reports bytes by `received`) or
 * `udp` and `icmp` datagrams (by `datagram`), or refuses `listen` and `connect` with `ENOTSUP`.
 *
 * The life of a connection: `accepted` or `connected` makes it; then `received`/`datagram` and `send`/`sent` in
 * any order; a stream's `peerEnded` at most once; the dispatcher asks for its end by `end` (once all is sent) or by
 * `destroy`; the transport reports the end by `ended`, exactly once, in every case, after a `sent` for every
 * container it was given. After that neither side names it again.
 *
 * A transport of millions keeps no object for a connection that is idle: it makes the v-node itself, says so by
 * `acceptedNode` or `connectedNode`, and takes a `Connection` by `connection` when it has something to deliver; the
 * dispatcher finds that object, or has it made, by `find`, and gives it back by `released`. Between `released` and the
 * next `connection` all that is known of the connection stands in its v-node.
 */

import type { ErrorCode } from "../layer1-app/errors.ts";
import type { Connection } from "./connection.ts";
import type { Container } from "./container.ts";
import type { CloseCode } from "./descriptor.ts";
import type { Ends, FramingKind, Protocol } from "./nodes/v-node.ts";
import type { UdpOptions } from "./raw/udp-options.ts";
import type { TcpInfo } from "./tcp/info.ts";
import type { TcpOptions } from "./tcp/options.ts";

/** How a listener's or client's connections are treated. Plain data: it crosses threads. */
export interface ConnectionRules {
  readonly protocol: Protocol;
  readonly framing: FramingKind;
  readonly recvlen: number;
  readonly sendlen: number;
  readonly idleMs: number;
  readonly waiting: number;
  /** TCP alone: what else holds. */
  readonly tcp: TcpOptions;
  /** UDP alone, on raw links: likewise. */
  readonly udp: UdpOptions;
}

/** A listener as a worker knows it. */
export interface ListenerRecord extends ConnectionRules {
  readonly id: number;
  readonly address: string | undefined;
  readonly port: number;
  /** Several workers listen on the port: each socket must be bound with SO_REUSEPORT. */
  readonly shared: boolean;
  /** Connections at most, all workers together. */
  readonly limit: number;
  /** Connections now, one word a worker, in shared memory. */
  readonly counts: SharedArrayBuffer;
  /** App endpoints that take its connections in turn. */
  readonly endpoints: number[];
  /** Nobody wants to hear of each connection: no `connected` descriptor is sent. */
  readonly quiet?: boolean | undefined;
}

/** A client connection to be made. */
export interface ConnectRequest extends ConnectionRules {
  readonly id: number;
  readonly address: string;
  readonly port: number;
  readonly connectMs: number;
  /** The first message as it goes on the wire, for a SYN with data (TCP Fast Open); nobody else sends it then. */
  readonly early?: Uint8Array | undefined;
  readonly endpoint: number;
  /** Likewise. */
  readonly quiet?: boolean | undefined;
  /** A group's: how many to open here, and what becomes of them. Nobody is told of each. */
  readonly group?: GroupRequest | undefined;
}

/** The connections of a group that one worker opens. */
export interface GroupRequest {
  readonly count: number;
  /** Connections to be started a second; 0: as fast as they are accepted. */
  readonly rate: number;
  /** Counts that the app reads while it runs, a block of `tallyWords` for each worker: see `group-ramp.ts`. */
  readonly tally: SharedArrayBuffer;
}

export interface LocalAddress {
  readonly address: string;
  readonly port: number;
}

export interface Transport {
  /**
   * Starts taking connections. Rejects with an `ApoError`. Port 0: picks one. When the port is `shared`, the `first`
   * worker makes sure that nobody else has it; the others join with the address and port that it found.
   */
  listen(listener: ListenerRecord, first: boolean): Promise<LocalAddress>;
  /** Stops taking new connections; those that are there go on. Resolves when the port is free, for TCP. */
  unlisten(listenerId: number): Promise<void>;
  /** Makes a connection: `connected` or `connectFailed` follows, exactly once. */
  connect(request: ConnectRequest): void;
  /** Queues a container after those before it. `sent` follows when it has been taken, or thrown away. */
  send(connection: Connection, container: Container): void;
  /** Streams: `received` should not be called until `resume`, so that the peer is held off. */
  pause(connection: Connection): void;
  resume(connection: Connection): void;
  /**
   * The object of an open connection that `acceptedNode` or `connectedNode` made, to which something is to be done;
   * taken by `connection` when it was at rest. Undefined: it is not there any more, or the generation is another's.
   */
  find?(sockfd24: number, generation: number): Connection | undefined;
  /**
   * The dispatcher has nothing more to do with the object just now: no message is with the app, nothing is buffered,
   * queued or closing. It goes back to the dispatcher's pool, so the transport must let go of it.
   */
  released?(connection: Connection): void;
  /** The app is through with a number that has ended. True: the transport releases its slot later (TIME-WAIT). */
  retired?(sockfd24: number): boolean;
  /** A stream's `end` may be called while containers are queued: it follows them. Otherwise it waits for them. */
  readonly endsInOrder?: boolean;
  /** Streams: nothing more will be sent, a FIN follows what is queued. The peer may go on. */
  shutdown?(connection: Connection): void;
  /** TCP: option `place` of `tcpOptionNames` is `word` from now on. */
  tune?(connection: Connection, place: number, word: number): void;
  /** TCP: the option of that name as it is now, where it can be changed. */
  lingerMs?(connection: Connection): number;
  /** TCP: a snapshot of the connection as plain data, in the manner of TCP_INFO. */
  info?(connection: Connection): TcpInfo | undefined;
  /** Nothing more will be sent: end in order (TCP: FIN, then wait for the peer's, not forever). */
  end(connection: Connection): void;
  /** Ends at once; `reset` tells the peer so. */
  destroy(connection: Connection, reset: boolean): void;
  /** Ends whatever is left. */
  close(): Promise<void>;
}

export interface TransportEvents {
  /**
   * A new connection of a listener. Undefined: it is refused (backlog or table full), drop it at once. `shard`: the one
   * that its packets are steered by, where there is such a thing.
   */
  accepted(listener: ListenerRecord, ends: Ends, handle: unknown, shard?: number): Connection | undefined;
  /** The system has refused a connection that was to be accepted (no file descriptor is left). */
  acceptFailed(listener: ListenerRecord, error: ErrorCode): void;
  /** A client's connection stands. Undefined: there is no slot; `connectFailed` has been called. */
  connected(request: ConnectRequest, ends: Ends, handle: unknown, shard?: number): Connection | undefined;
  connectFailed(request: ConnectRequest, code: ErrorCode, text: string): void;
  /**
   * Likewise for a connection whose v-node (state `transport`, ends filled in) the transport has made. False: it is
   * refused, and the v-node is the transport's still.
   */
  acceptedNode(listener: ListenerRecord, sockfd24: number): boolean;
  /** Likewise. False: there is nobody to have it (`connectFailed` has been called); it must be reset. */
  connectedNode(request: ConnectRequest, sockfd24: number): boolean;
  /** The object of a connection that `acceptedNode` or `connectedNode` has made; `handle` is the transport's own. */
  connection(sockfd24: number, handle: unknown): Connection;
  /** Bytes of a stream; they belong to the dispatcher from here on and must not change. */
  received(connection: Connection, bytes: Uint8Array): void;
  /** Bytes of a stream in one pool frame, of which one count is handed over. */
  receivedFrame(connection: Connection, frame: number, offset: number, length: number): void;
  /** One datagram in a pool container, which is handed over (the callee drops it, whatever happens). */
  datagram(connection: Connection, frame: number, offset: number, length: number): void;
  /** Longer datagrams than this do not reach the peer in one piece, and are not to go in several. */
  longestDatagram(connection: Connection, bytes: number): void;
  /** The peer will send nothing more. */
  peerEnded(connection: Connection): void;
  /** A container given to `send` is no longer needed. `taken` false: it was thrown away, and is counted as that. */
  sent(connection: Connection, container: Container, taken?: boolean): void;
  /** The connection is over. `code` is used unless the app's side asked for the end first. */
  ended(connection: Connection, code: CloseCode, error?: ErrorCode): void;
}
