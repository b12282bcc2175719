/**
 * The readers of one track on TCP: each frame goes out as one `sendto` for all that use the same channel number.
 *
 * Layer 1, relay. The hot path of TCP readers: a frame costs a walk over its packets to write the channel byte,
 * and one look at `queued` a reader. It knows sockfds and channels; when to hold a reader and when to let it go
 * on is decided by its player.
 */

import type { FramesEvent, KeyFrames, StartPosition } from "../../layer3-ip/fanout-types.ts";
import type { Sockfd } from "../types.ts";
import type { Core } from "./core.ts";
import { payloadOctets } from "./protocol/rtp-packet.ts";

/** A reader waits no longer for its first key frame: a stream may have none that can be told. */
const KEY_WAIT_MS = 10_000;

/** Decides for all tracks of one TCP reader. */
export interface MemberOwner {
  /** More is queued than the budget allows: hold every member. */
  overBudget(queuedBytes: number): void;
  /** A packet to start on has come for a member that waits: may it go on with it? */
  mayResume(member: Member): boolean;
}

/** One track of one TCP reader. */
export class Member {
  readonly owner: MemberOwner;
  readonly sockfd: Sockfd;
  readonly channel: number;
  state: "apart" | "catching" | "waiting" | "live" = "apart";
  /** Its place in its group's arrays while live. */
  slot = 0;
  ticket = 0;
  /** Sent before the present time of being live. */
  packets = 0;
  octets = 0;
  /** The audience's totals when it went live, and when it was held (-1: it waits for its first key frame). */
  livePackets = 0;
  liveOctets = 0;
  heldPackets = -1;
  skippedPackets = 0;
  waitingSinceMs = 0;

  constructor(owner: MemberOwner, sockfd: Sockfd, channel: number) {
    this.owner = owner;
    this.sockfd = sockfd;
    this.channel = channel;
  }
}

/** Live members with the same channel number: parallel arrays, so that `sendto` takes one of them as it is. */
interface Group {
  readonly channel: number;
  readonly sockfds: Sockfd[];
  readonly members: Member[];
}

export class Audience {
  readonly #core: Core;
  readonly #track: number;
  /** Every packet can be started on, as far as anybody can tell. */
  readonly #keyless: boolean;
  readonly #members = new Set<Member>();
  readonly #groups = new Map<number, Group>();
  readonly #waiting = new Set<Member>();
  readonly #catching = new Map<number, Member>();
  /** What every live member was sent, since the start. */
  #packets = 0;
  #octets = 0;

  constructor(core: Core, track: number, keyFrames: KeyFrames) {
    this.#core = core;
    this.#track = track;
    this.#keyless = keyFrames === "none" || keyFrames === "any";
  }

  get members(): ReadonlySet<Member> {
    return this.#members;
  }

  /** Lets a reader in: first what is cached, then live. The position is that of its first packet. */
  join(member: Member): StartPosition {
    if (this.#members.size === 0) this.#core.fanout.tap(this.#track, true);
    this.#members.add(member);
    const start = this.#core.fanout.cached(this.#track);
    member.state = "catching";
    member.ticket = start.ticket;
    this.#catching.set(start.ticket, member);
    return start;
  }

  leave(member: Member): void {
    if (!this.#members.delete(member)) return;
    this.#detach(member);
    member.state = "apart";
    if (this.#members.size === 0) this.#core.fanout.tap(this.#track, false);
  }

  /** Sends a slow reader nothing more until `mayResume`. */
  hold(member: Member): void {
    if (member.state === "apart" || (member.state === "waiting" && member.heldPackets >= 0)) return;
    this.#detach(member);
    member.heldPackets = this.#packets;
    this.#wait(member);
  }

  /** Packets and payload octets sent to a member so far. */
  sent(member: Member): { packets: number; octets: number } {
    const live = member.state === "live";
    return {
      packets: member.packets + (live ? this.#packets - member.livePackets : 0),
      octets: member.octets + (live ? this.#octets - member.liveOctets : 0),
    };
  }

  /** The engine's packets, live or for one reader's ticket. */
  onFrames(event: FramesEvent): void {
    if (event.ticket !== 0) this.#catchUp(event);
    else this.#live(event);
  }

  close(): void {
    for (const member of [...this.#members]) this.leave(member);
  }

  #live(event: FramesEvent): void {
    if (this.#waiting.size > 0) this.#letIn(event.key || this.#keyless);
    const budget = this.#core.settings.budgetBytes;
    const apo = this.#core.apo;
    for (const group of this.#groups.values()) {
      // From the end: a member that is held is replaced by the last one, which has been looked at.
      for (let i = group.sockfds.length - 1; i >= 0; i--) {
        const queued = apo.queued(group.sockfds[i] ?? 0);
        if (queued > budget) group.members[i]?.owner.overBudget(queued);
      }
      if (group.sockfds.length === 0) continue;
      writeChannel(event, group.channel);
      this.#core.send(group.sockfds, event.bytes);
    }
    this.#packets += event.packets;
    this.#octets += octetsOf(event);
  }

  #catchUp(event: FramesEvent): void {
    const member = this.#catching.get(event.ticket);
    if (member === undefined) return; // It left, or was held, while this was on its way.
    if (event.packets > 0) {
      writeChannel(event, member.channel);
      this.#core.send(member.sockfd, event.bytes);
      member.packets += event.packets;
      member.octets += octetsOf(event);
    }
    if (!event.last) return;
    this.#catching.delete(event.ticket);
    if (member.packets > 0 || this.#keyless) this.#goLive(member);
    else this.#wait(member);
  }

  #letIn(startable: boolean): void {
    const overdueMs = this.#core.now() - KEY_WAIT_MS;
    for (const member of [...this.#waiting]) {
      const first = member.heldPackets < 0;
      if (!startable && !(first && member.waitingSinceMs < overdueMs)) continue;
      if (member.owner.mayResume(member)) this.#goLive(member);
    }
  }

  #wait(member: Member): void {
    member.state = "waiting";
    member.waitingSinceMs = this.#core.now();
    this.#waiting.add(member);
  }

  #goLive(member: Member): void {
    this.#waiting.delete(member);
    if (member.heldPackets >= 0) {
      const skipped = this.#packets - member.heldPackets;
      member.skippedPackets += skipped;
      member.heldPackets = -1;
      this.#core.count("slow.packets", skipped);
    }
    let group = this.#groups.get(member.channel);
    if (group === undefined) {
      group = { channel: member.channel, sockfds: [], members: [] };
      this.#groups.set(member.channel, group);
    }
    member.state = "live";
    member.livePackets = this.#packets;
    member.liveOctets = this.#octets;
    member.slot = group.members.length;
    group.members.push(member);
    group.sockfds.push(member.sockfd);
  }

  /** Out of whichever list it is in. */
  #detach(member: Member): void {
    if (member.state === "catching") this.#catching.delete(member.ticket);
    this.#waiting.delete(member);
    if (member.state !== "live") return;
    const { packets, octets } = this.sent(member);
    member.packets = packets;
    member.octets = octets;
    const group = this.#groups.get(member.channel);
    const lastMember = group?.members.pop();
    const lastSockfd = group?.sockfds.pop();
    if (group === undefined || lastMember === undefined || lastSockfd === undefined) return;
    if (lastMember !== member) {
      group.members[member.slot] = lastMember;
      group.sockfds[member.slot] = lastSockfd;
      lastMember.slot = member.slot;
    }
    if (group.members.length === 0) this.#groups.delete(group.channel);
  }
}

function writeChannel(event: FramesEvent, channel: number): void {
  const { bytes, offsets, packets } = event;
  for (let i = 0; i < packets; i++) bytes[(offsets[i] ?? 0) + 1] = channel;
}

function octetsOf(event: FramesEvent): number {
  const { bytes, offsets, packets } = event;
  let octets = 0;
  for (let i = 0; i < packets; i++) {
    const at = offsets[i] ?? 0;
    octets += payloadOctets(bytes, at + 4, ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0));
  }
  return octets;
}
