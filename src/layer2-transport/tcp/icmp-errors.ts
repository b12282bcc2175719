/**
 * ICMP errors about segments of ours: what can be believed of them, and what follows.
 *
 * Layer 2, TCP (RFC 5927, RFC 1122 4.2.3.9, RFC 1191, RFC 8201). Anybody can send them, so the quoted sequence number
 * must be one that is out; a connection that stands is never ended by one, and its path's MTU only shrinks so far.
 */

import type { ErrorCode } from "../../layer1-app/errors.ts";
import * as descriptor from "../../layer3-ip/descriptor.ts";
import { smallFrameBytes } from "../link.ts";
import type { Closing } from "./closing.ts";
import type { StackCore } from "./core.ts";
import type { Finder } from "./finder.ts";
import { headerRoom } from "./packet-writer.ts";
import { type Tcb, tcpState } from "./tcb.ts";

const quotedAt = 8;
/** A path narrower than this is not believed (RFC 791's 576, RFC 8201 4). */
const leastMtu = { four: 576, six: 1280 } as const;

export class IcmpErrors {
  private readonly core: StackCore;
  private readonly finder: Finder;
  private readonly closing: Closing;

  constructor(core: StackCore, finder: Finder, closing: Closing) {
    this.core = core;
    this.finder = finder;
    this.closing = closing;
  }

  take(words: Int32Array, at: number): void {
    const { core } = this;
    const { bytes } = core.context.pool;
    const six = descriptor.isVersion6(words, at);
    const upper = descriptor.frameOf(words, at) * smallFrameBytes + descriptor.upperOffsetOf(words, at);
    const seq = this.finder.readQuoted(bytes, upper + quotedAt, six);
    const sockfd24 = this.finder.findQuoted();
    const tcb = sockfd24 < 0 ? undefined : core.activeAt(core.context.nodes.baseOf(sockfd24));
    const isOut = tcb !== undefined && this.isOut(tcb, seq);
    if (tcb === undefined || !isOut) {
      core.context.counters.add("layer2.drop.icmp-ignored");
      return;
    }
    const type = descriptor.labelOf(words, at) >>> 8;
    const code = descriptor.labelOf(words, at) & 0xff;
    if (six ? type === 2 : type === 3 && code === 4) {
      const mtu = six
        ? bytes32(bytes, upper + 4)
        : ((bytes[upper + 6] as number) << 8) | (bytes[upper + 7] as number);
      this.tooBig(tcb, mtu);
    } else if (six ? type === 1 : type === 3) this.unreachable(tcb, six, code);
    else core.context.counters.add("layer2.drop.icmp-ignored");
  }

  /** Quotes what is out; RFC 5927 4.1. */
  private isOut(tcb: Tcb, seq: number): boolean {
    const first = tcb.state <= tcpState.synReceived ? tcb.iss : tcb.sendUna;
    return ((seq - first) | 0) >= 0 && ((seq - tcb.sendNext) | 0) < 0;
  }

  private unreachable(tcb: Tcb, six: boolean, code: number): void {
    const { core } = this;
    // RFC 1122 4.2.3.9 has hard errors end connections; RFC 5927 6 says what becomes of that. Only a call may fail.
    if (tcb.state !== tcpState.synSent) {
      core.context.counters.add("layer2.tcp.icmp-soft-errors");
      return;
    }
    const isRefusal = code === (six ? 4 : 3) || (!six && code === 2);
    const error: ErrorCode = isRefusal ? "ECONNREFUSED" : "EHOSTUNREACH";
    this.closing.abort(tcb, false, "refused", error);
  }

  /** Narrower than thought: segments become shorter, and what was too long goes out again. */
  private tooBig(tcb: Tcb, mtu: number): void {
    const { core } = this;
    const floor = tcb.version6 ? leastMtu.six : leastMtu.four;
    const mss = mtu - headerRoom(tcb.version6) - (tcb.timestamps ? 12 : 0);
    if (mtu < floor || mss >= tcb.mss || tcb.state < tcpState.established) {
      core.context.counters.add("layer2.drop.icmp-ignored");
      return;
    }
    // RFC 5927 7.2: longer ones do get through, so it can wait until they do not any more.
    if (mss < tcb.provenMss && tcb.recovery.backoffs === 0) {
      tcb.doubtfulMss = mss;
      return;
    }
    narrowPath(core, tcb, mss);
  }
}

/** The path takes no longer segments than these: what was too long goes out again. */
export function narrowPath(core: StackCore, tcb: Tcb, mss: number): void {
  core.context.counters.add("layer2.tcp.path-mtu-changes");
  tcb.peerMss = Math.min(tcb.peerMss, mss + (tcb.timestamps ? 12 : 0));
  tcb.mss = mss;
  tcb.doubtfulMss = 0;
  tcb.recovery.pathShrank(mss, core.nowUs);
  core.markDirty(tcb);
}

function bytes32(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  return high * 65_536 + (((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number));
}
