/**
 * A connection between its v-node's words and its active record: `wake` unpacks it, `rest` packs it.
 *
 * Layer 2, TCP. At rest nothing is in flight, queued, out of order, unread or due, so that SND.UNA is SND.NXT and the
 * words say it all; RTT and congestion window survive in coarse units (64 us, segments).
 */

import { node } from "../nodes/v-node.ts";
import type { StackCore } from "./core.ts";
import { headerRoom } from "./packet-writer.ts";
import type { RecoveryTerms } from "./recovery/recovery.ts";
import { never, type Tcb, tcpState } from "./tcb.ts";

/** Bits of the word `terms`. */
export const termBit = { timestamps: 1, sack: 2, ecn: 4, client: 8, quiet: 16 } as const;
/** Bits 24-31 of the word `tcp`. */
const ownFlag = { ending: 1, finSent: 2, finTaken: 4, discarding: 8, endAwaited: 16 } as const;
export const rttUnitUs = 64;
const sixFlag = 4;

type Writable<T> = { -readonly [K in keyof T]: T[K] };
const windowMax = 65_535;

export class Rest {
  private readonly core: StackCore;
  /** Filled anew for each connection: nobody keeps it. */
  private readonly terms: Writable<RecoveryTerms> = {
    mss: 536,
    sack: false,
    timestamps: false,
    ecn: false,
    control: "cubic",
    initialWindow: 10,
    initialRtoUs: 1e6,
    minRtoUs: 200_000,
    maxRtoUs: 120e6,
  };

  constructor(core: StackCore) {
    this.core = core;
  }

  recoveryTerms(tcb: Tcb): RecoveryTerms {
    const { terms } = this;
    const { options } = tcb;
    terms.mss = tcb.mss;
    terms.sack = tcb.sack;
    terms.timestamps = tcb.timestamps;
    terms.ecn = tcb.ecn;
    terms.control = options.congestion;
    terms.initialWindow = options.initialWindow;
    terms.initialRtoUs = 1000 * options.initialRtoMs;
    terms.minRtoUs = 1000 * options.minRtoMs;
    return terms;
  }

  /** The connection's record: the one it has, or one unpacked from its words. */
  wake(sockfd24: number, base: number): Tcb {
    const { core } = this;
    const found = core.activeAt(base);
    if (found !== undefined) return found;
    const { words } = core;
    const allowance = words[base + node.active] as number;
    const tcb = core.activate(sockfd24, base);
    tcb.challenge = allowance < 0 ? ~allowance : 0;
    // Whatever it was woken for: it is looked at, at the end of the turn, and rests again if it was for nothing.
    core.markDirty(tcb);
    const terms = words[base + node.terms] as number;
    const tcp = words[base + node.tcp] as number;
    tcb.state = tcp & 15;
    tcb.version6 = ((words[base + node.flags] as number) & sixFlag) !== 0;
    tcb.isClient = (terms & termBit.client) !== 0;
    tcb.openId = words[base + node.open] as number;
    tcb.options = core.optionsOf(sockfd24, tcb.openId);
    tcb.told = tcb.state !== tcpState.timeWait;
    this.unpackSending(tcb, terms);
    this.unpackReceiving(tcb, terms, tcp);
    return tcb;
  }

  private unpackSending(tcb: Tcb, terms: number): void {
    const { words, nowUs, nowMs } = this.core;
    const { base } = tcb;
    const windows = words[base + node.windows] as number;
    const rtt = words[base + node.rtt] as number;
    const cwnd = words[base + node.cwnd] as number;
    tcb.timestamps = (terms & termBit.timestamps) !== 0;
    tcb.sack = (terms & termBit.sack) !== 0;
    tcb.ecn = (terms & termBit.ecn) !== 0;
    tcb.quiet = (terms & termBit.quiet) !== 0;
    tcb.peerMss = terms >>> 16;
    tcb.mss = segmentBytes(tcb, this.core.context.mtu);
    tcb.sendScale = (terms >>> 12) & 15;
    tcb.receiveScale = (terms >>> 8) & 15;
    tcb.sendUna = words[base + node.sendUna] as number;
    tcb.sendNext = tcb.sendUna;
    tcb.sendWindow = (windows >>> 16) << tcb.sendScale;
    tcb.maxSendWindow = tcb.sendWindow;
    tcb.sendWl2 = tcb.sendUna;
    const idleMs = (nowMs - (words[base + node.lastHeard] as number)) | 0;
    tcb.lastHeardUs = nowUs - 1000 * Math.max(0, idleMs);
    tcb.recovery.resume(
      this.recoveryTerms(tcb),
      tcb.sendNext,
      (rtt >>> 16) * rttUnitUs,
      (rtt & 0xffff) * rttUnitUs,
      cwnd >>> 16,
      cwnd & 0xffff,
      1000 * Math.max(0, idleMs),
      nowUs,
    );
  }

  private unpackReceiving(tcb: Tcb, terms: number, tcp: number): void {
    const { words, nowUs } = this.core;
    const { base } = tcb;
    const windows = words[base + node.windows] as number;
    tcb.receiveNext = words[base + node.receiveNext] as number;
    tcb.sendWl1 = (tcb.receiveNext - 1) | 0;
    tcb.receiveBuffer = Math.max(initialBuffer(tcb), (windows & 0xffff) << tcb.receiveScale);
    tcb.receiveEdge = (tcb.receiveNext + ((windows & 0xffff) << tcb.receiveScale)) | 0;
    tcb.receiveMss = Math.min(tcb.peerMss, tcb.mss);
    tcb.lastAckSent = tcb.receiveNext;
    tcb.reassembly.reset(tcb.receiveNext);
    tcb.tsRecent = words[base + node.tsRecent] as number;
    tcb.tsRecentMs = words[base + node.lastHeard] as number;
    tcb.clock = (tcp >>> 4) & 0xff;
    tcb.echoedClock = (tcp >>> 12) & 0xff;
    tcb.clockTickedUs = tcb.lastHeardUs;
    tcb.probes = (tcp >>> 20) & 15;
    const flags = tcp >>> 24;
    tcb.ending = (flags & ownFlag.ending) !== 0;
    tcb.finSent = (flags & ownFlag.finSent) !== 0;
    tcb.finWanted = tcb.finSent;
    tcb.finTaken = (flags & ownFlag.finTaken) !== 0;
    tcb.discarding = (flags & ownFlag.discarding) !== 0;
    tcb.endAwaited = (flags & ownFlag.endAwaited) !== 0;
    tcb.label = tcb.isClient && (terms & termBit.client) !== 0 ? (words[base + node.hash] as number) : 0;
    if (!tcb.isClient) tcb.label = this.core.labelOf(tcb);
    tcb.openedUs = nowUs;
    if (tcb.state === tcpState.established || tcb.state === tcpState.closeWait) {
      if (tcb.options.keepalive) tcb.keepaliveAtUs = tcb.lastHeardUs + 1000 * tcb.options.keepaliveIdleMs;
    }
  }

  /** Whether the record says no more than the words could. */
  mayRest(tcb: Tcb): boolean {
    const { state } = tcb;
    if (state !== tcpState.established && state !== tcpState.closeWait && state !== tcpState.finWait2) {
      return false;
    }
    if (tcb.synAckOut || tcb.connection !== undefined || tcb.connecting || tcb.paused) return false;
    if (!tcb.queue.isEmpty || !tcb.recovery.isEmpty || tcb.finWanted !== tcb.finSent) return false;
    if (tcb.unread.bytes > 0 || tcb.reassembly.bytes > 0 || (tcb.hasFin && !tcb.finTaken)) return false;
    if (tcb.ackNow || tcb.unackedBytes > 0 || tcb.ecnEcho || tcb.probes > 0) return false;
    return tcb.persistAtUs === never && tcb.sendUna === tcb.sendNext;
  }

  /** Packs the record into the v-node and gives it back. The timer of what is due then is the caller's. */
  rest(tcb: Tcb): void {
    const { core } = this;
    const { words } = core;
    const { base, recovery, mss } = tcb;
    const scale = 1 << tcb.sendScale;
    const window = Math.min(0xffff, Math.floor(tcb.sendWindow / scale));
    // Rounded up: what has been told is never taken back.
    const told = Math.max(0, (tcb.receiveEdge - tcb.receiveNext) | 0);
    const edge = Math.min(0xffff, Math.ceil(told / 2 ** tcb.receiveScale));
    words[base + node.sendUna] = tcb.sendUna;
    words[base + node.receiveNext] = tcb.receiveNext;
    words[base + node.windows] = (window << 16) | edge;
    words[base + node.tsRecent] = tcb.tsRecent;
    words[base + node.terms] = this.packTerms(tcb);
    const srtt = Math.min(0xffff, Math.ceil(recovery.srttUs / rttUnitUs));
    const rttvar = Math.min(0xffff, Math.ceil(recovery.rttvarUs / rttUnitUs));
    words[base + node.rtt] = (srtt << 16) | rttvar;
    const cwnd = Math.min(0xffff, Math.max(1, Math.floor(recovery.cwnd / mss)));
    const ssthresh = Math.min(0xffff, Math.floor(recovery.ssthresh / mss));
    words[base + node.cwnd] = (cwnd << 16) | ssthresh;
    words[base + node.lastHeard] = Math.floor(tcb.lastHeardUs / 1000) | 0;
    words[base + node.tcp] = this.packTcp(tcb);
    if (tcb.isClient) words[base + node.hash] = tcb.label;
    core.deactivate(tcb);
  }

  /** The word `terms`. */
  packTerms(tcb: Tcb): number {
    return (
      (tcb.peerMss << 16) |
      (tcb.sendScale << 12) |
      (tcb.receiveScale << 8) |
      (tcb.timestamps ? termBit.timestamps : 0) |
      (tcb.sack ? termBit.sack : 0) |
      (tcb.ecn ? termBit.ecn : 0) |
      (tcb.isClient ? termBit.client : 0) |
      (tcb.quiet ? termBit.quiet : 0)
    );
  }

  private packTcp(tcb: Tcb): number {
    const flags =
      (tcb.ending ? ownFlag.ending : 0) |
      (tcb.finSent ? ownFlag.finSent : 0) |
      (tcb.finTaken ? ownFlag.finTaken : 0) |
      (tcb.discarding ? ownFlag.discarding : 0) |
      (tcb.endAwaited ? ownFlag.endAwaited : 0);
    return tcb.state | (tcb.clock << 4) | (tcb.echoedClock << 12) | ((tcb.probes & 15) << 20) | (flags << 24);
  }
}

/** What a connection starts with: Linux's 64 KiB, or all of a smaller buffer. */
export function initialBuffer(tcb: Tcb): number {
  return Math.min(tcb.options.recvBuffer, 65_536);
}

/** Payload bytes of a segment without SACK blocks: RFC 6691, and RFC 7323's advice on timestamps. */
export function segmentBytes(tcb: Tcb, mtu: number): number {
  const { maxseg } = tcb.options;
  const mine = mtu - headerRoom(tcb.version6);
  const limit = Math.min(tcb.peerMss, mine, maxseg > 0 ? maxseg : mine);
  return Math.max(leastMss, limit - (tcb.timestamps ? 12 : 0));
}

/** No peer makes our segments shorter than this (CVE-2019-11479). */
export const leastMss = 88 - 12;

/** The shift with which 16 bits reach the largest buffer (RFC 7323 2.3). */
export function scaleFor(bufferBytes: number): number {
  // Asked for every SYN, nearly always of the same buffer.
  if (bufferBytes === scaledBytes) return scaledBy;
  let scale = 0;
  while (scale < 14 && windowMax * 2 ** scale < bufferBytes) scale += 1;
  scaledBytes = bufferBytes;
  scaledBy = scale;
  return scale;
}

let scaledBytes = windowMax;
let scaledBy = 0;
