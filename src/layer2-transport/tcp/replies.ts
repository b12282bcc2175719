/**
 * Answers to segments of no connection: resets, and SYN-ACKs that carry a cookie. Nothing is kept of them.
 *
 * Layer 2, TCP (RFC 9293 3.10.7.1, RFC 4987 3.6). The packet at hand is the finder's and the core's segment. What a
 * cookie brings back is checked here; making a connection of it is the handshake's matter.
 */

import { node } from "../nodes/v-node.ts";
import type { StackCore } from "./core.ts";
import type { Finder } from "./finder.ts";
import { headerRoom, type PacketWriter } from "./packet-writer.ts";
import { scaleFor } from "./rest.ts";
import {
  CookieTerms,
  cookieLifeUs,
  cookieMss,
  cookieTimestamp,
  readCookieTimestamp,
  type SynCookies,
} from "./security/syn-cookie.ts";
import type { TcpListener } from "./tcb.ts";
import { flag, type SynOptions, writeHeader, writeSynOptions } from "./wire/segment.ts";

const optionBytesMax = 40;
const windowMax = 65_535;

export class Replies {
  private readonly core: StackCore;
  private readonly finder: Finder;
  private readonly writer: PacketWriter;
  private readonly cookies: SynCookies;
  /** Addresses and ports where a v-node has them, for the cookies' hash. */
  private readonly scratch = new Int32Array(32);
  private readonly terms = new CookieTerms();
  private readonly syn: SynOptions = {
    mss: 0,
    scale: -1,
    sack: false,
    timestamps: false,
    tsValue: 0,
    tsEcho: 0,
    fastOpen: undefined,
  };

  private cookieSentUs = Number.NEGATIVE_INFINITY;

  constructor(core: StackCore, finder: Finder, writer: PacketWriter, cookies: SynCookies) {
    this.core = core;
    this.finder = finder;
    this.writer = writer;
    this.cookies = cookies;
  }

  /** A reset for the segment at hand, as RFC 9293 3.10.7.1 has it; a reset is never answered. */
  reset(): void {
    const { core, writer, finder } = this;
    const { segment } = core;
    if ((segment.flags & flag.rst) !== 0) return;
    if (!writer.open(finder.wordCount === 4, 20)) return;
    writer.answerAddresses(finder.ends, 0);
    const hasAck = (segment.flags & flag.ack) !== 0;
    const length =
      segment.payloadLength +
      ((segment.flags & flag.syn) !== 0 ? 1 : 0) +
      ((segment.flags & flag.fin) !== 0 ? 1 : 0);
    const seq = hasAck ? segment.ack : 0;
    const ack = hasAck ? 0 : (segment.seq + length) | 0;
    const flags = hasAck ? flag.rst : flag.rst | flag.ack;
    const { bytes, tcpAt } = writer;
    writeHeader(bytes, tcpAt, segment.destinationPort, segment.sourcePort, seq, ack, flags, 0, 20);
    // Layer 3's default hop limit. The label is the packet's own (what a reflecting Linux does).
    if (writer.post(0, finder.label, 0, 0)) core.context.counters.add("layer2.tcp.resets-sent");
  }

  /** A SYN-ACK that remembers the SYN at hand in its sequence number and its timestamp. */
  cookie(listener: TcpListener): void {
    const { core, writer, finder, syn, cookies } = this;
    const { segment, context, nowUs } = core;
    const version6 = finder.wordCount === 4;
    if (!writer.open(version6, 20 + optionBytesMax)) return;
    const own = context.mtu - headerRoom(version6);
    const { options } = listener;
    syn.mss = options.maxseg > 0 ? Math.min(own, options.maxseg) : own;
    syn.timestamps = segment.hasTimestamp;
    // Without timestamps there is no room to remember these.
    syn.scale = segment.hasTimestamp && segment.scale >= 0 ? scaleFor(options.recvBuffer) : -1;
    syn.sack = segment.hasTimestamp && segment.sackPermitted;
    syn.tsEcho = segment.tsValue;
    syn.tsValue = cookieTimestamp(context.carrier.reservedId, segment.scale, segment.sackPermitted, false);
    const least = version6 ? 1220 : 536;
    const iss = cookies.make(this.tuple(), 0, segment.seq, segment.mss || least, nowUs);
    writer.answerAddresses(finder.ends, 0);
    const { bytes, tcpAt } = writer;
    const length = writeSynOptions(bytes, tcpAt + 20, syn);
    writer.trim(20 + length);
    const { destinationPort, sourcePort } = segment;
    const ack = (segment.seq + 1) | 0;
    const flags = flag.syn | flag.ack;
    const window = Math.min(windowMax, options.recvBuffer);
    writeHeader(bytes, tcpAt, destinationPort, sourcePort, iss, ack, flags, window, 20 + length);
    if (writer.post(0, 0, options.ttl, options.dscp << 2)) context.counters.add("layer2.tcp.cookies-sent");
    this.cookieSentUs = nowUs;
  }

  /** The MSS that the cookie in the ACK at hand remembers; 0: it is none of ours. */
  checkCookie(): number {
    const { segment, nowUs } = this.core;
    // While none is out none can come back: guesses are not even looked at.
    if (nowUs - this.cookieSentUs > cookieLifeUs) return 0;
    const iss = (segment.ack - 1) | 0;
    const found = this.cookies.check(this.tuple(), 0, (segment.seq - 1) | 0, iss, nowUs);
    return found < 0 ? 0 : (cookieMss[found] as number);
  }

  /** What the timestamp of the ACK at hand remembers beside it; nothing without one. */
  remembered(): CookieTerms {
    const { segment } = this.core;
    const { terms } = this;
    terms.scale = -1;
    terms.sack = false;
    if (segment.hasTimestamp) readCookieTimestamp(segment.tsEcho, terms);
    return terms;
  }

  /** The flow at hand in a v-node's order. */
  private tuple(): Int32Array {
    const { scratch, finder } = this;
    scratch[node.ports] = finder.ports;
    scratch[node.flags] = finder.wordCount === 4 ? 4 : 0;
    scratch.set(finder.ends, node.peerAddress);
    return scratch;
  }
}
