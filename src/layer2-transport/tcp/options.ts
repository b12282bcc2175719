/**
 * The options of a TCP connection: what each may be, and what holds when nobody says otherwise.
 *
 * Layer 2, read by layer 1 (which checks what apps give). Plain data: it crosses threads inside `ConnectionRules.tcp`.
 * Every option is one int32 as well, so that a change for one connection fits into one descriptor. It knows nothing of
 * connections.
 */

/** The congestion controls there are; the first is the default. */
export const congestionControls = ["cubic", "newreno", "bbr"] as const;
export type CongestionControl = (typeof congestionControls)[number];

/** How a TCP connection is treated; all are present. The send buffer is `ConnectionRules.sendlen`. */
export interface TcpOptions {
  /** Small segments leave at once; false: they are gathered while any is unacknowledged (RFC 9293 3.7.4, Nagle). */
  readonly nodelay: boolean;
  /** Only full segments leave, until it is off again, for 200 ms at most. */
  readonly cork: boolean;
  /** Every segment is acknowledged at once; false: every second one, or after 40 ms (RFC 9293 3.8.6.3). */
  readonly quickack: boolean;
  /** Payload bytes of a segment at most, told to the peer too; 0: what the link's MTU allows. */
  readonly maxseg: number;
  /** Bytes that may wait here for the app; the receive window grows up to it, and its scale follows from it. */
  readonly recvBuffer: number;
  /** Whether a silent peer is asked if it is still there (RFC 9293 3.8.4), */
  readonly keepalive: boolean;
  /** after so much silence, */
  readonly keepaliveIdleMs: number;
  /** this far apart, */
  readonly keepaliveIntervalMs: number;
  /** so many times before the connection ends. */
  readonly keepaliveProbes: number;
  /** How long sent data may stay unacknowledged (RFC 9293 3.8.3); 0: for `maxRetries` retransmissions. */
  readonly userTimeoutMs: number;
  /** After a close: -1 what is queued goes out in the background; 0 it is thrown away, with a RST; else so long. */
  readonly lingerMs: number;
  readonly congestion: CongestionControl;
  /** Segments that may leave before the first acknowledgement (RFC 6928). */
  readonly initialWindow: number;
  /** The retransmission timeout before any round trip has been measured (RFC 6298 2.1), */
  readonly initialRtoMs: number;
  /** and its least value ever after. */
  readonly minRtoMs: number;
  /** The IPv6 flow label of what is sent; 0: the runtime's own, which carries the connection's number. */
  readonly label: number;
  /** The six bits of differentiated services (RFC 2474). */
  readonly dscp: number;
  /** TTL of IPv4, hop limit of IPv6. */
  readonly ttl: number;
  /** Data in the SYN (RFC 7413). */
  readonly fastOpen: boolean;
  /** Explicit congestion notification (RFC 3168): a client asks for it; a server always agrees when asked. */
  readonly ecn: boolean;
  /** SYNs and SYN-ACKs are repeated so many times. */
  readonly synRetries: number;
  /** Half-open connections of a listener that are remembered, a worker; beyond, SYN cookies (RFC 4987 3.6). */
  readonly synBacklog: number;
  /** Data are retransmitted so many times before the connection ends. */
  readonly maxRetries: number;
  /** How long the peer may take to end its side after ours (FIN-WAIT-2). */
  readonly finTimeoutMs: number;
  /** How long an ended connection's addresses and ports stay taken (TIME-WAIT). */
  readonly timeWaitMs: number;
}

/** Linux's defaults, but for `nodelay`: messages are whole when they are sent. */
export const defaultTcpOptions: TcpOptions = {
  nodelay: true,
  cork: false,
  quickack: false,
  maxseg: 0,
  recvBuffer: 6 * 2 ** 20,
  keepalive: false,
  keepaliveIdleMs: 7_200_000,
  keepaliveIntervalMs: 75_000,
  keepaliveProbes: 9,
  userTimeoutMs: 0,
  lingerMs: -1,
  congestion: "cubic",
  initialWindow: 10,
  initialRtoMs: 1000,
  minRtoMs: 200,
  label: 0,
  dscp: 0,
  ttl: 64,
  fastOpen: false,
  ecn: false,
  synRetries: 6,
  synBacklog: 4096,
  maxRetries: 15,
  finTimeoutMs: 60_000,
  timeWaitMs: 60_000,
};

/** The options by number: a descriptor names one by its place here. */
export const tcpOptionNames = Object.keys(defaultTcpOptions) as readonly (keyof TcpOptions)[];

/** Those that matter only while the connection is being made: they cannot be changed afterwards. */
export const handshakeOptions: readonly (keyof TcpOptions)[] = [
  ...(["maxseg", "initialWindow", "initialRtoMs", "fastOpen", "ecn", "synRetries", "synBacklog"] as const),
];

/** An option's value as a descriptor's word. */
export function tcpOptionWord(value: TcpOptions[keyof TcpOptions]): number {
  if (typeof value === "number") return value;
  return typeof value === "boolean" ? Number(value) : congestionControls.indexOf(value);
}

/** The options with the one at `place` set to the value of a descriptor's word; as they were when it is not one. */
export function withTcpOption(options: TcpOptions, place: number, word: number): TcpOptions {
  const name = tcpOptionNames[place];
  if (name === undefined) return options;
  const kind = typeof defaultTcpOptions[name];
  const value = kind === "number" ? word : kind === "boolean" ? word !== 0 : congestionControls[word];
  return value === undefined ? options : { ...options, [name]: value };
}
