/**
 * Data in the SYN: TCP Fast Open on both sides (RFC 7413).
 *
 * Layer 2, TCP. A server whose cookie comes back with data tells the app of the connection at once and answers before
 * the handshake is complete; a client that has a server's cookie sends its first message in the SYN. Whatever goes
 * wrong with either falls back to an ordinary handshake, and the data go out again after it.
 */

import { node } from "../nodes/v-node.ts";
import type { StackCore } from "./core.ts";
import { cookieBytes, cookieCheck, FastOpenCache, FastOpenCookies } from "./security/fast-open.ts";
import type { Tcb, TcpListener } from "./tcb.ts";
import type { SynOptions } from "./wire/segment.ts";

/** How long SYNs to a server stay plain after one with data was lost on the way (RFC 7413 4.1.3.1; Linux: an hour). */
const quietMs = 3_600_000;
const askForCookie = new Uint8Array(0);

export class EarlyData {
  private readonly core: StackCore;
  private readonly cookies: FastOpenCookies;
  private readonly servers = new FastOpenCache();
  private readonly granted = new Uint8Array(cookieBytes);

  constructor(core: StackCore, key: Uint32Array) {
    this.core = core;
    this.cookies = new FastOpenCookies(key);
  }

  // --- the server's side ----------------------------------------------------------------------------------------

  /** Looks at the SYN at hand. True: its data may be taken at once. Notes whether the answer brings a cookie. */
  takesData(listener: TcpListener, tcb: Tcb): boolean {
    const { core } = this;
    const { segment, words, context } = core;
    if (!listener.options.fastOpen || segment.fastOpenLength < 0) return false;
    if (segment.fastOpenLength === 0) {
      tcb.grantsCookie = true;
      return false;
    }
    const { fastOpenAt, fastOpenLength } = segment;
    const verdict = this.cookies.check(words, tcb.base, context.pool.bytes, fastOpenAt, fastOpenLength);
    tcb.grantsCookie = verdict !== cookieCheck.good;
    if (verdict === cookieCheck.bad) {
      context.counters.add("layer2.tcp.fast-open-refused");
      return false;
    }
    if (segment.payloadLength === 0) return false;
    context.counters.add("layer2.tcp.fast-open-accepted");
    return true;
  }

  // --- the client's side ----------------------------------------------------------------------------------------

  /** Bytes of what is queued that the first SYN carries. */
  bytesFor(tcb: Tcb): number {
    const { core } = this;
    if (!tcb.options.fastOpen || tcb.handshakeTries > 0 || tcb.queue.isEmpty) return 0;
    const count = tcb.version6 ? 4 : 1;
    const known = this.servers.find(core.words, tcb.base + node.peerAddress, count, core.timeMs);
    if (known === undefined || known.cookie.length === 0) return 0;
    return Math.min(tcb.queue.bytes, Math.max(0, known.mss - synOptionBytes));
  }

  /** What the SYN or SYN-ACK says of Fast Open. */
  fill(tcb: Tcb, isAnswer: boolean, syn: SynOptions): void {
    const { core } = this;
    syn.fastOpen = undefined;
    if (!tcb.options.fastOpen) return;
    if (isAnswer) {
      if (!tcb.grantsCookie) return;
      this.cookies.write(core.words, tcb.base, this.granted, 0);
      syn.fastOpen = this.granted;
      return;
    }
    const count = tcb.version6 ? 4 : 1;
    const at = tcb.base + node.peerAddress;
    if (tcb.handshakeTries > 0 || this.servers.isQuiet(core.words, at, count, core.timeMs)) return;
    syn.fastOpen = this.servers.find(core.words, at, count, core.timeMs)?.cookie ?? askForCookie;
  }

  /** The SYN-ACK at hand has come: its cookie is kept, and whether data in the SYN got through is learnt. */
  answered(tcb: Tcb): void {
    const { core } = this;
    if (!tcb.options.fastOpen) return;
    const { segment, words, context } = core;
    const count = tcb.version6 ? 4 : 1;
    const at = tcb.base + node.peerAddress;
    if (segment.fastOpenLength > 0) {
      const { fastOpenAt, fastOpenLength } = segment;
      const cookie = context.pool.bytes.subarray(fastOpenAt, fastOpenAt + fastOpenLength);
      this.servers.store(words, at, count, cookie, segment.mss || tcb.peerMss);
    }
    if (tcb.earlyBytes === 0) return;
    const taken = (segment.ack - tcb.iss - 1) | 0;
    context.counters.add(taken > 0 ? "layer2.tcp.fast-open-sent" : "layer2.tcp.fast-open-lost");
    // The SYN with data had no answer, the plain one had: something on the way swallows such SYNs.
    if (tcb.handshakeTries > 1) this.servers.silence(words, at, count, core.timeMs + quietMs);
  }
}

const synOptionBytes = 40;
