/**
 * The policy for a TCP reader that does not keep up: hold it, let it go on at a key frame, or give it up.
 *
 * Layer 1, relay. Every step is counted and logged with the reader's address. No other reader notices any of it.
 */

import type { Sockfd } from "../types.ts";
import type { Member, MemberOwner } from "./audience.ts";
import type { Core } from "./core.ts";
import { formatBytes } from "./log.ts";
import type { Session } from "./session.ts";
import type { Track } from "./stream.ts";

export class TcpPlayer implements MemberOwner {
  readonly #core: Core;
  readonly #session: Session;
  readonly #members = new Map<Member, Track>();
  #slow = false;
  #writtenBytes = -1;
  #progressMs = 0;
  #skippedBefore = 0;

  constructor(core: Core, session: Session) {
    this.#core = core;
    this.#session = session;
  }

  /** Packets that it was not sent. */
  get skippedPackets(): number {
    let sum = this.#skippedBefore;
    for (const member of this.#members.keys()) sum += member.skippedPackets;
    return sum;
  }

  add(track: Track, member: Member): void {
    for (const old of this.#members.keys()) {
      if (old.state !== "apart") continue;
      this.#skippedBefore += old.skippedPackets;
      this.#members.delete(old);
    }
    this.#members.set(member, track);
  }

  overBudget(queuedBytes: number): void {
    for (const [member, track] of this.#members) track.audience.hold(member);
    if (this.#slow) return;
    this.#slow = true;
    this.#core.count("slow.readers");
    this.#tell(
      "reader-slow",
      `is slow: ${formatBytes(queuedBytes)} wait for it; dropping to the next key frame`,
    );
  }

  mayResume(member: Member): boolean {
    if (!this.#slow) return true;
    if (this.#leader() !== member) return false; // The others follow the one with the key frames.
    if (this.#core.apo.queued(member.sockfd) > this.#core.settings.budgetBytes / 2) return false;
    this.#slow = false;
    this.#tell("reader-caught-up", "has caught up");
    return true;
  }

  /**
   * Called every second; a connection that takes bytes is alive.
   * @returns true when the reader is slow and its connection has taken nothing for too long.
   */
  sweep(sockfd: Sockfd, nowMs: number): boolean {
    const queued = this.#core.apo.queued(sockfd);
    const written = this.#core.apo.status(sockfd).writtenBytes;
    if (written !== this.#writtenBytes) {
      if (this.#writtenBytes !== -1) this.#session.touch();
      this.#writtenBytes = written;
      this.#progressMs = nowMs;
    }
    if (!this.#slow || queued === 0 || nowMs - this.#progressMs <= this.#core.settings.stallMs) return false;
    this.#core.count("slow.disconnected");
    const seconds = Math.round((nowMs - this.#progressMs) / 1000);
    this.#tell("reader-stalled", `took nothing for ${seconds} s: disconnected`);
    return true;
  }

  /** The member whose key frames decide: the first with video, else the first. */
  #leader(): Member | undefined {
    let first: Member | undefined;
    for (const [member, track] of this.#members) {
      if (member.state === "apart") continue;
      first ??= member;
      if (track.media.type === "video") return member;
    }
    return first;
  }

  #tell(event: "reader-slow" | "reader-caught-up" | "reader-stalled", what: string): void {
    const { name, path } = this.#session;
    const fields = { path, reader: name };
    if (event === "reader-caught-up") this.#core.info(event, `${name} reading ${path} ${what}`, fields);
    else this.#core.warn(event, `${name} reading ${path} ${what}`, fields);
  }
}
