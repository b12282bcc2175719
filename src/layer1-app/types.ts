/**
 * The words of layer 1: what an app hands to the runtime and what it gets back.
 *
 * Layer 1. Types only, no code: everything an app can see is here, and nothing of workers, rings or
 * kernel sockets. `runtime.ts` implements `Apo`.
 */

import type {
  Attack,
  GuardOptions,
  LinkKind,
  LinkOptions,
  RuntimeGuard,
  TcpGuardOptions,
  TcpInfo,
} from "../layer2-transport/index.ts";
import type { Fanout, FanoutOptions } from "../layer3-ip/fanout-types.ts";
import type { ApoError, ErrorCode } from "./errors.ts";

/**
 * A connection's number. Its low 24 bits are shard (4) and slot (20); above them stands a generation, so
 * that a number kept too long is refused with `ESTALE` and never reaches somebody else's connection.
 */
export type Sockfd = number;

/** The far end of a connection, and our own. */
export interface Peer {
  readonly protocol: "tcp" | "udp" | "icmp";
  readonly address: string;
  readonly port: number;
  readonly localAddress: string;
  readonly localPort: number;
}

/** One message of a connection. `bytes` is a view into shared memory, valid until the handler is done. */
export interface Message {
  readonly bytes: Uint8Array;
  /** The decoded value on `msgpack` framing; `undefined` on every other. */
  readonly value: unknown;
  /** The bytes as UTF-8 (copied). */
  text(): string;
}

/** Why a connection ended. `error` is there when it did not end by plan. */
export interface CloseReason {
  readonly code:
    | "end" // the peer closed in order
    | "closed" // this app closed it
    | "reset" // the peer reset it, or the network did
    | "recvlen" // a message longer than `recvlen`
    | "framing" // bytes that no message of the framing can start with
    | "idle" // a UDP connection was silent for `idleMs`
    | "refused" // a client's connection was not accepted
    | "timeout" // a client's connection was not accepted in time
    | "handler" // a handler threw
    | "worker" // the worker that owned it died
    | "shutdown"; // the runtime was closed
  readonly error?: ApoError;
}

/** Something an operator should know: told to the listener's `alarm` handler. */
export interface Alarm {
  readonly code: "backlog" | "frames" | "handler" | "worker" | "udp-overflow" | "attack";
  readonly text: string;
  /** How often since the last alarm of the same code; of an attack, its events so far. */
  readonly count: number;
  /** Of an "attack": what, from where, how much, since when. */
  readonly attack?: Attack;
}

/** What a connection has carried so far. Counts wrap at 2^32. `info` tells more of a TCP connection on a raw link. */
export interface ConnectionStatus {
  /** Given to `sendto` and not taken by the transport; on a raw link, unsent or not acknowledged by the peer. */
  readonly queuedBytes: number;
  readonly writtenBytes: number;
  readonly receivedBytes: number;
  readonly receivedMessages: number;
}

/**
 * The handlers of a listener or of a client connection. A handler that returns a promise is done when the
 * promise settles; until then the connection's next message is held and the sender is held off.
 */
export interface Handlers {
  connected?(sockfd: Sockfd, peer: Peer, apo: AppVerbs): void | Promise<void>;
  request?(sockfd: Sockfd, message: Message, apo: AppVerbs): void | Promise<void>;
  closed?(sockfd: Sockfd, reason: CloseReason, apo: AppVerbs): void | Promise<void>;
  alarm?(alarm: Alarm, apo: AppVerbs): void | Promise<void>;
}

/**
 * A framing of one's own: given what has arrived, the length in bytes of the first whole message at its
 * start, or 0 when more must arrive. Throwing closes the connection with reason `framing`.
 */
export type FramingFunction = (bytes: Uint8Array) => number;

/** A framing that the workers know; made by the functions of `framing`. */
export interface BuiltInFraming {
  readonly kind: "raw" | "line" | "length16" | "length32" | "msgpack";
}

export type Framing = BuiltInFraming | FramingFunction;

/** What a connection may be asked to send. A plain value goes out encoded on `msgpack` framing only. */
export type Sendable =
  | Uint8Array
  | string
  | FileSlice
  | AsyncIterable<Uint8Array | string>
  | ReadableStream<Uint8Array>;

/** A part of a file, read as the connection's window opens: any length in constant memory. */
export interface FileSlice {
  readonly file: string | URL;
  /** First byte; 0 if left out. */
  readonly offset?: number;
  /** How many bytes; to the file's end if left out. */
  readonly length?: number;
}

/**
 * The options of a TCP connection, under the names of its socket options. They are given to `createRuntime` (what holds
 * for all), to `opens` (for its connections) and to `tune` (for one that stands). Times are in milliseconds. On the
 * `host` link there are `nodelay`, `keepalive` without interval and probes, and `sendBuffer`; others are `ENOTSUP`.
 */
export interface TcpSettings {
  /** Small messages leave at once (true). */
  readonly nodelay?: boolean | undefined;
  /** Only full segments leave until it is off again, for 200 ms at most (false). */
  readonly cork?: boolean | undefined;
  /** Acknowledge every segment at once (false). */
  readonly quickack?: boolean | undefined;
  /** Payload bytes of a segment at most (0: what the MTU allows). */
  readonly maxseg?: number | undefined;
  /** How far the receive window may grow, in bytes (6 MiB). */
  readonly recvBuffer?: number | undefined;
  /** Another name of `sendlen`. */
  readonly sendBuffer?: number | undefined;
  /** Ask a silent peer whether it is there: after 2 hours, every 75 s, 9 times (false; on the host link after 60 s). */
  readonly keepalive?:
    | boolean
    | { readonly idleMs?: number; readonly intervalMs?: number; readonly probes?: number }
    | undefined;
  /** How long sent data may stay unacknowledged (0: for `maxRetries` retransmissions). */
  readonly userTimeoutMs?: number | undefined;
  /** After `close`: -1 what is queued still goes out (the default), 0 it is thrown away with a RST, else so long. */
  readonly lingerMs?: number | undefined;
  /** The congestion control ("cubic"). */
  readonly congestion?: "cubic" | "newreno" | "bbr" | undefined;
  /** Segments that may leave before the first acknowledgement (10). */
  readonly initialWindow?: number | undefined;
  /** The retransmission timeout before a round trip has been measured (1000), and its least value (200). */
  readonly initialRtoMs?: number | undefined;
  readonly minRtoMs?: number | undefined;
  /** The IPv6 flow label (0: the runtime's own). */
  readonly flowLabel?: number | undefined;
  /** Differentiated services, six bits (0). */
  readonly dscp?: number | undefined;
  /** TTL or hop limit (64; of UDP to a multicast group 1, so that it stays on the link). */
  readonly ttl?: number | undefined;
  /** TCP Fast Open: data in the SYN (false). */
  readonly fastOpen?: boolean | undefined;
  /** Explicit congestion notification: a client asks for it (false); a server agrees when asked. */
  readonly ecn?: boolean | undefined;
  /** How often a SYN or SYN-ACK is repeated (6). */
  readonly synRetries?: number | undefined;
  /** Half-open connections of a listener that are remembered, a worker; beyond, SYN cookies (4096). */
  readonly synBacklog?: number | undefined;
  /** How often data are retransmitted before the connection ends (15). */
  readonly maxRetries?: number | undefined;
  /** How long the peer may take to end its side after ours (60,000). */
  readonly finTimeoutMs?: number | undefined;
  /** How long an ended connection's ports stay taken (60,000). */
  readonly timeWaitMs?: number | undefined;
}

/** A multicast group: all of its senders, or one alone (source-specific multicast, RFC 4607). */
export type JoinSettings = string | { readonly group: string; readonly source?: string };

/** The options of UDP, on raw links. `ttl` and `dscp` are among TCP's, and hold for UDP as well. */
export interface UdpSettings {
  /**
   * Servers: multicast groups whose datagrams to the port are received, as `["239.1.2.3", { group, source }]`.
   * IGMP and MLD tell the network of them; they are left when the listener closes.
   */
  readonly join?: readonly JoinSettings[] | undefined;
  /** Datagrams that are too long for the path are sent in pieces (true); false: `sendto` throws `EMSGSIZE`. */
  readonly fragment?: boolean | undefined;
  readonly ttl?: number | undefined;
  readonly dscp?: number | undefined;
}

interface CommonOptions extends Handlers, TcpSettings, UdpSettings {
  readonly protocol: "tcp" | "udp" | "icmp";
  /** The longest message that may be received, in bytes (65,536). */
  readonly recvlen?: number;
  /** What one message is on a byte stream (`framing.raw()`). UDP and ICMP: one datagram is one message. */
  readonly framing?: Framing;
  /** A module whose exports are the handlers; it runs in app workers, a connection staying with one. */
  readonly module?: URL | string;
  /**
   * Where the module's handlers run: in app workers ("app"), or in the layer-2 workers, each beside its connections
   * ("worker"): no thread between a packet and its handler, and a slow handler holds up its worker's connections.
   */
  readonly placement?: "app" | "worker";
  /** UDP: milliseconds of silence after which a connection is closed (60,000; 0 = never). */
  readonly idleMs?: number;
  /** UDP: datagrams a connection may have waiting behind the one with the app (64); more are dropped and counted. */
  readonly waiting?: number;
  /** Bytes that may be queued in the runtime for one connection before `sendto` refuses with `ENOBUFS` (16 MiB). */
  readonly sendlen?: number;
}

/** The server side of `opens`. */
export interface ListenOptions extends CommonOptions {
  /** 0 picks a free one; read it back from the listener. */
  readonly port: number;
  /** The local address (all of them). */
  readonly address?: string;
  /** How many connections at most, in units of 256 (16 = 4,096 connections). */
  readonly backlog?: number;
  readonly to?: never;
}

/** The client side of `opens`: it connects, with the first message in it. */
export interface ConnectOptions extends CommonOptions {
  /** `host:port`, `[v6]:port`, or the two apart. ICMP: the port is left out. */
  readonly to: string | { readonly address: string; readonly port: number };
  /** The first message, sent as soon as the connection stands. */
  readonly news?: Uint8Array | string;
  /** Milliseconds to wait for the connection (10,000). */
  readonly connectMs?: number;
  readonly connections?: never;
  readonly port?: never;
  readonly backlog?: never;
}

/** The client side of `opens`, many times over: as many connections to one address, spread over the workers. */
export interface GroupOptions extends Omit<ConnectOptions, "connections"> {
  /** How many, up to 16,777,216. */
  readonly connections: number;
  /** How many are started a second (0: as fast as they are accepted). */
  readonly rate?: number;
}

/** Many connections that one `opens` makes. Its counts are read as often as one likes, also while they change. */
export interface Group extends AsyncDisposable {
  /** How many there are to be. */
  readonly connections: number;
  /** How many have been tried, */
  readonly started: number;
  /** have come to stand, */
  readonly opened: number;
  /** and are open now. */
  readonly open: number;
  /** How many have failed, by error code. */
  readonly failed: Readonly<Partial<Record<ErrorCode, number>>>;
  /** Resolves when every connection stands or has failed. */
  readonly ready: Promise<void>;
  /** Resolves (never rejects) when none is left: with the error of a runtime that failed, or undefined. */
  readonly closed: Promise<ApoError | undefined>;
  /** Starts no more, and closes those that stand. Idempotent. */
  close(): Promise<void>;
}

/** What `opens` makes on the server side. */
export interface Listener extends AsyncDisposable {
  readonly protocol: "tcp" | "udp" | "icmp";
  readonly address: string;
  readonly port: number;
  /** Connections open now. */
  readonly connections: number;
  /** Stops accepting and closes the listener's connections. Idempotent. */
  close(): Promise<void>;
  /** Stops accepting, and resolves when the last connection has ended by itself. */
  drain(): Promise<void>;
  /** Resolves (never rejects) when the listener has ended: with the error, or undefined. */
  readonly closed: Promise<ApoError | undefined>;
}

/** The verbs that a handler is given; in app workers they are all there is. */
export interface AppVerbs {
  /**
   * Sends a message. Bytes and strings are copied before it returns, so the caller may reuse its buffer.
   * Returns a promise when the runtime would have the app wait (its memory is full, or a file or stream
   * is being sent); `await apo.sendto(...)` is always right.
   *
   * An array of sockfds sends the same bytes to each, from one shared copy; the stale among them are passed
   * over and counted. `framing` of a built-in kind is added here (a line's end, a length); bytes for
   * several connections go out as they are.
   *
   * Errors: `ESTALE` (the connection is gone), `ENOBUFS` (over `sendlen`), `EMSGSIZE`, `EINVAL`.
   */
  sendto(to: Sockfd | readonly Sockfd[], data: Sendable | unknown): Promise<void> | undefined;
  /**
   * Closes a connection once what was sent is out; `{ reset: true }` throws that away. `{ shutdown: "write" }` ends our
   * side only, and the peer may go on; `{ shutdown: "read" }` drops whatever it still sends. Idempotent, never throws.
   */
  close(sockfd: Sockfd, options?: CloseOptions): void;
  /** Bytes given to `sendto` for this connection and not yet taken by the transport. Cheap. 0 for a stale one. */
  queued(sockfd: Sockfd): number;
  /** Resolves when everything given to `sendto` so far has been taken by the transport, or the connection ended. */
  flushed(sockfd: Sockfd): Promise<void>;
  /** The two ends. `ESTALE` if it is gone. */
  peer(sockfd: Sockfd): Peer;
  status(sockfd: Sockfd): ConnectionStatus;
  /**
   * Changes options of one TCP connection, in order with what is sent. Errors: `ESTALE`, `EINVAL` (also for those that
   * matter only while a connection is made), `ENOTSUP` (the link cannot).
   */
  tune(sockfd: Sockfd, options: TcpSettings): void;
  /** A snapshot of a TCP connection, in the manner of TCP_INFO. Rejects with `ESTALE`, or on `host` `ENOTSUP`. */
  info(sockfd: Sockfd): Promise<TcpInfo>;
}

/** How `close` ends a connection. */
export interface CloseOptions {
  /** Throw away what is queued, and tell the peer so. */
  readonly reset?: boolean;
  /** TCP: end one direction only. */
  readonly shutdown?: "write" | "read";
}

/** What a runtime's link is. */
export interface LinkFacts {
  readonly kind: LinkKind;
  /** The network interface's name; "" on a link without one. */
  readonly device: string;
  /** The longest IP packet, in bytes; 0 on `host`, where the kernel knows. */
  readonly mtu: number;
  /** Our own addresses, as "10.0.0.1/24"; none on `host`, where all of the machine's are. */
  readonly addresses: readonly string[];
  /** Whole prefixes that are ours. */
  readonly prefixes: readonly string[];
}

/** A runtime: the three verbs, and what an operator reads. */
export interface Apo extends Omit<AppVerbs, "close">, AsyncDisposable {
  opens(options: ListenOptions): Promise<Listener>;
  opens(options: GroupOptions): Promise<Group>;
  opens(options: ConnectOptions): Promise<Sockfd>;
  /** Without an argument, closes the whole runtime. */
  close(what?: Sockfd | Listener | Group, options?: CloseOptions): Promise<void>;
  /** Stops accepting, and resolves when every connection has ended by itself. Then call `close()`. */
  drain(): Promise<void>;
  /** Resolves (never rejects) when the runtime has ended: with the error, or undefined. */
  readonly closed: Promise<ApoError | undefined>;
  /** A fan-out engine in the native thread: one packet in, a thousand out. */
  fanout(options?: FanoutOptions): Promise<Fanout>;
  /** The link: its device, its MTU, our addresses on it. */
  link(): LinkFacts;
  /** Whom we keep off, by lists, limits and of our own accord, and who attacks. On `host` it throws `ENOTSUP`. */
  readonly guard: RuntimeGuard;
  /** Every counter of the runtime by dotted name, drops by reason among them. */
  counters(): Record<string, number>;
}

/** The `guard` of `createRuntime`: which packets are dropped unseen, and what TCP connections are held to. */
export interface RuntimeGuardOptions extends GuardOptions {
  readonly tcp?: TcpGuardOptions;
}

/** What `createRuntime` takes: its own options, and those of its link. */
export interface RuntimeOptions extends LinkOptions {
  /**
   * Where packets come from and go to: "host" (the kernel's TCP and UDP); or a raw link, on which the kernel knows
   * nothing of our connections: "mem" (a wire in memory), "fd" (a file descriptor), "tun" (a TUN device of our own),
   * "packet" (a network interface, with an address of our own), "xdp" (likewise, sharing the host's address).
   */
  readonly link?: LinkKind;
  /** Layer-2 worker threads (half the cores, at least 1, at most 16). */
  readonly workers?: number;
  /** App worker threads for handler modules (half the cores, at least 1). Started when first needed. */
  readonly appWorkers?: number;
  /** What holds for TCP connections where `opens` says nothing. */
  readonly tcp?: TcpSettings;
  /** Bytes of the shared frame pool a thread may use (64 MiB; touched lazily). */
  readonly poolBytes?: number;
  /**
   * Bytes that TCP connections of a raw link may keep, all together: their records, what has not been read, what has
   * not been acknowledged (half the machine's memory). Near it slow readers are ended, at it new work is refused.
   */
  readonly memoryBytes?: number;
  /** Raw links: what is dropped, refused, blocked and told (`apo.guard` changes it while running). */
  readonly guard?: RuntimeGuardOptions;
}
