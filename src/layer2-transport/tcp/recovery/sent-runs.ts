/**
 * The scoreboard: runs of bytes that were sent and have not been acknowledged, in three lists that share their nodes.
 *
 * Layer 2, TCP. A run is what went out in one call, up to 64 KB; an ACK or SACK that covers a part splits it at the
 * byte. Each run is flying, lost or sacked. All are in order of sequence; flying ones also in order of the time they
 * went out (RACK asks for the oldest), lost ones in order of sequence (the next to retransmit is the first). Sacked
 * neighbours become one, so that a scoreboard has at most about two runs a hole. Knows nothing of windows or clocks.
 */
import { Delivery, flying, giveRun, lost, type SentRun, sacked, takeRun } from "./sent-run.ts";

export { type Delivery, flying, lost, type SentRun, sacked };

/** Steps over runs that the SACK blocks of one ACK may cost (CVE-2019-11478); what lies beyond them is ignored. */
export const maxSackSteps = 512;

/** Runs a scoreboard may always have, however little is in flight. */
const spareRuns = 64;

/** Steps backward to find a lost run's place. Beyond, the order of retransmission is not exact: no harm is done. */
const maxSortSteps = 64;

/** No run grows beyond this by merging. */
const maxRunBytes = 65_536;

export class SentRuns {
  first: SentRun | undefined = undefined;
  last: SentRun | undefined = undefined;
  /** The flying, by the time they went out. */
  oldest: SentRun | undefined = undefined;
  newest: SentRun | undefined = undefined;
  firstLost: SentRun | undefined = undefined;
  private lastLost: SentRun | undefined = undefined;
  /** Where the last SACK block ended: the next one is near. */
  private hint: SentRun | undefined = undefined;
  count = 0;
  flyingBytes = 0;
  lostBytes = 0;
  sackedBytes = 0;
  una = 0;
  nxt = 0;
  /** The end of the highest bytes known to be delivered (RACK.fack). */
  fack = 0;
  /** Marks the start of the present recovery for `Delivery.original`. */
  highSeq = 0;
  mss = 1460;
  /** The moment of what goes out. */
  nowUs = 0.5;
  /** Delivery rates are wanted: runs carry what they need for it. */
  isRated = false;
  /** The clock that the present ACK echoes; -1: none. */
  echoClock = -1;
  readonly delivery = new Delivery();
  /** Steps over runs that the SACK blocks of the present ACK took. */
  steps = 0;
  /** Pairs of edges taken in lately; (0, 0) is none, since no block is empty. */
  private readonly known = new Int32Array(8);
  private nextKnown = 0;
  private hasKnown = false;

  begin(seq: number, mss: number): void {
    if (this.first !== undefined) this.clear();
    if (this.hasKnown) this.forgetKnown();
    this.una = seq;
    this.nxt = seq;
    this.fack = seq;
    this.highSeq = seq;
    this.mss = mss;
  }

  /** Gives all runs back. */
  clear(): void {
    for (let run = this.first; run !== undefined; ) {
      const { next } = run;
      giveRun(run);
      run = next;
    }
    this.first = undefined;
    this.last = undefined;
    this.oldest = undefined;
    this.newest = undefined;
    this.firstLost = undefined;
    this.lastLost = undefined;
    this.hint = undefined;
    this.count = 0;
    this.flyingBytes = 0;
    this.lostBytes = 0;
    this.sackedBytes = 0;
    this.una = this.nxt;
  }

  /** New data at `nxt`. What goes out in the same moment with the same clock is one run. */
  append(length: number, clock: number): SentRun {
    const sentUs = this.nowUs;
    this.flyingBytes += length;
    const { last } = this;
    const seq = this.nxt;
    this.nxt = (seq + length) | 0;
    if (
      last !== undefined &&
      last.sentUs === sentUs &&
      last.state === flying &&
      last.resends === 0 &&
      last.clock === clock &&
      last.length + length <= maxRunBytes
    ) {
      last.length += length;
      return last;
    }
    const run = takeRun();
    run.seq = seq;
    run.length = length;
    run.state = flying;
    run.resends = 0;
    run.clock = clock;
    run.sentUs = sentUs;
    run.prev = last;
    if (last === undefined) this.first = run;
    else last.next = run;
    this.last = run;
    this.count += 1;
    this.pushNewest(run);
    return run;
  }

  /** `length` bytes of a run go out again; a run is cut when that is less than all of it. Returns what is sent. */
  resend(run: SentRun, length: number, clock: number): SentRun {
    if (length < run.length) this.split(run, length);
    if (run.state === lost) {
      this.unlinkLost(run);
      this.lostBytes -= run.length;
      this.flyingBytes += run.length;
      run.state = flying;
    } else if (run.state === flying) {
      this.unlinkTimed(run);
    } else {
      return run;
    }
    run.resends += 1;
    if (run.resends === 1) run.resendClock = clock;
    run.clock = clock;
    run.sentUs = this.nowUs;
    this.pushNewest(run);
    return run;
  }

  /** Before the facts of an ACK are put in. */
  startAck(echoClock: number): void {
    const { delivery } = this;
    this.echoClock = echoClock;
    this.steps = 0;
    delivery.bytes = 0;
    delivery.sackedBytes = 0;
    delivery.rttSentUs = -1;
    delivery.rackSentUs = -1;
    delivery.original = false;
    delivery.spurious = false;
    delivery.resent = false;
    delivery.reordered = false;
  }

  /** The cumulative part of an ACK. Returns the bytes that it adds; 0 for an old one. */
  advance(ack: number): number {
    let end = ack;
    if (((end - this.nxt) | 0) > 0) end = this.nxt;
    const total = (end - this.una) | 0;
    if (total <= 0) return 0;
    const head = this.first;
    if (head !== undefined && head.resends > 0 && head.state !== sacked && this.echoClock >= 0) {
      this.delivery.spurious = (this.echoClock - head.resendClock) << 24 < 0;
    }
    let left = total;
    while (left > 0) {
      const run = this.first;
      if (run === undefined) break;
      const bytes = run.length <= left ? run.length : left;
      if (run.state === sacked) this.sackedBytes -= bytes;
      else this.deliver(run, (run.seq + bytes) | 0, bytes);
      left -= bytes;
      if (bytes === run.length) {
        if (run.state === flying) this.unlinkTimed(run);
        else if (run.state === lost) this.unlinkLost(run);
        this.unlink(run);
      } else {
        run.seq = (run.seq + bytes) | 0;
        run.length -= bytes;
      }
    }
    this.una = end;
    if (((this.fack - end) | 0) < 0) this.fack = end;
    return total;
  }

  /**
   * One SACK block within [una, nxt]: its bytes are sacked. What would take too many steps or runs is left out. Blocks
   * are repeated from ACK to ACK and grow at their right: what was taken in of the last few is skipped.
   */
  sack(left: number, right: number): void {
    // The echo is that of the last segment in order: it says nothing about this block.
    this.echoClock = -1;
    const { known } = this;
    let from = left;
    let place = -1;
    for (let i = 0; i < known.length; i += 2) {
      if (known[i] !== left) continue;
      const end = known[i + 1] as number;
      if (((right - end) | 0) <= 0) return;
      if (((end - this.una) | 0) > 0) from = end;
      place = i;
    }
    if (!this.sackRange(from, right)) return;
    if (place < 0) {
      place = this.nextKnown;
      this.nextKnown = (place + 2) % known.length;
      known[place] = left;
      this.hasKnown = true;
    }
    known[place + 1] = right;
  }

  /** False: not all of it was looked at. */
  private sackRange(left: number, right: number): boolean {
    let run = this.find(left);
    const limit = spareRuns + 2 * Math.ceil(((this.nxt - this.una) | 0) / this.mss);
    while (run !== undefined && ((run.seq - right) | 0) < 0) {
      this.steps += 1;
      if (this.steps > maxSackSteps) return false;
      if (run.state !== sacked) {
        const before = (left - run.seq) | 0;
        if (before > 0) {
          if (this.count >= limit) return false;
          run = this.split(run, before);
        }
        const bytes = (right - run.seq) | 0;
        if (bytes < run.length) {
          if (this.count >= limit) return false;
          this.split(run, bytes);
        }
        run = this.markSacked(run);
      }
      this.hint = run;
      run = run.next;
    }
    return run !== undefined || right === this.nxt;
  }

  markLost(run: SentRun): void {
    this.unlinkTimed(run);
    run.state = lost;
    this.flyingBytes -= run.length;
    this.lostBytes += run.length;
    this.linkLost(run);
  }

  /** Cuts a run; returns its second part, which follows it in each list. */
  split(run: SentRun, at: number): SentRun {
    const rest = takeRun();
    rest.seq = (run.seq + at) | 0;
    rest.length = run.length - at;
    run.length = at;
    rest.state = run.state;
    rest.resends = run.resends;
    rest.clock = run.clock;
    rest.resendClock = run.resendClock;
    rest.sentUs = run.sentUs;
    rest.deliveredBytes = run.deliveredBytes;
    rest.deliveredUs = run.deliveredUs;
    rest.flightStartUs = run.flightStartUs;
    rest.appLimited = run.appLimited;
    rest.prev = run;
    rest.next = run.next;
    if (run.next === undefined) this.last = rest;
    else run.next.prev = rest;
    run.next = rest;
    this.count += 1;
    if (run.state === sacked) return rest;
    rest.older = run;
    rest.newer = run.newer;
    if (run.newer !== undefined) run.newer.older = rest;
    else if (run.state === lost) this.lastLost = rest;
    else this.newest = rest;
    run.newer = rest;
    return rest;
  }

  /** A timeout (RFC 6298 5.4): what flew and satisfies `sentUs <= untilUs` is lost, and the first run in any case. */
  timeOut(untilUs: number): void {
    const { first } = this;
    if (first !== undefined && first.state === flying) this.markLost(first);
    for (let run = this.oldest; run !== undefined && run.sentUs <= untilUs; run = this.oldest) {
      this.markLost(run);
    }
  }

  /** The peer threw away what it had selectively acknowledged (RFC 2018 8): all of it is lost. */
  renege(): void {
    for (let run = this.first; run !== undefined; run = run.next) {
      if (run.state !== sacked) continue;
      this.sackedBytes -= run.length;
      this.lostBytes += run.length;
      run.state = lost;
      run.resends += 1;
      this.linkLost(run);
    }
    this.hint = undefined;
    this.forgetKnown();
    this.fack = this.una;
  }

  private forgetKnown(): void {
    this.known.fill(0);
    this.hasKnown = false;
  }

  /**
   * The losses were none: what was marked flies on. What went out once and what went out again are each nearly in the
   * order of their times, so two fingers find the places.
   */
  unmarkLost(): void {
    let nearOnce = this.oldest;
    let nearAgain = this.oldest;
    for (let run = this.firstLost; run !== undefined; run = this.firstLost) {
      this.unlinkLost(run);
      run.state = flying;
      this.lostBytes -= run.length;
      this.flyingBytes += run.length;
      if (run.resends === 0) {
        this.insertTimed(run, nearOnce);
        nearOnce = run;
      } else {
        this.insertTimed(run, nearAgain);
        nearAgain = run;
      }
    }
  }

  /** What is wrong, in words: for tests and the simulator. */
  faults(): string[] {
    const found: string[] = [];
    let seq = this.una;
    let runs = 0;
    const bytes = [0, 0, 0];
    for (let run = this.first; run !== undefined; run = run.next) {
      if (run.seq !== seq) found.push(`run at ${run.seq}, not ${seq}`);
      if (run.length <= 0) found.push(`run of ${run.length} bytes`);
      if (run.next === undefined ? this.last !== run : run.next.prev !== run) found.push("links are wrong");
      seq = (seq + run.length) | 0;
      bytes[run.state] = (bytes[run.state] ?? 0) + run.length;
      runs += 1;
    }
    if (seq !== this.nxt) found.push(`runs end at ${seq}, SND.NXT is ${this.nxt}`);
    if (runs !== this.count) found.push(`${runs} runs, counted ${this.count}`);
    if (bytes[flying] !== this.flyingBytes)
      found.push(`${bytes[flying]} flying, counted ${this.flyingBytes}`);
    if (bytes[lost] !== this.lostBytes) found.push(`${bytes[lost]} lost, counted ${this.lostBytes}`);
    if (bytes[sacked] !== this.sackedBytes)
      found.push(`${bytes[sacked]} sacked, counted ${this.sackedBytes}`);
    this.listFaults(this.oldest, flying, bytes[flying] ?? 0, found);
    this.listFaults(this.firstLost, lost, bytes[lost] ?? 0, found);
    return found;
  }

  private listFaults(head: SentRun | undefined, state: number, bytes: number, found: string[]): void {
    let sum = 0;
    for (let run = head; run !== undefined; run = run.newer) {
      if (run.state !== state) found.push(`a run of state ${run.state} in the list of ${state}`);
      if (run.newer === undefined) {
        if ((state === lost ? this.lastLost : this.newest) !== run) found.push(`end of list ${state}`);
      } else {
        if (run.newer.older !== run) found.push(`links of list ${state}`);
        if (state === flying && run.newer.sentUs < run.sentUs) found.push("not in order of time");
      }
      sum += run.length;
    }
    if (sum !== bytes) found.push(`the list of ${state} has ${sum} bytes, not ${bytes}`);
  }

  /** Bytes of a run arrive for the first time. */
  private deliver(run: SentRun, end: number, bytes: number): void {
    const { delivery } = this;
    if (run.state === flying) this.flyingBytes -= bytes;
    else this.lostBytes -= bytes;
    delivery.bytes += bytes;
    const sentUs = run.sentUs;
    if (run.resends === 0) {
      if (sentUs > delivery.rttSentUs) delivery.rttSentUs = sentUs;
      if (((end - this.highSeq) | 0) <= 0) delivery.original = true;
      if (((end - this.fack) | 0) < 0) delivery.reordered = true;
    } else {
      delivery.resent = true;
      // The ACK may be for the original: its echo tells (RFC 8985 6.2 step 2).
      if (this.echoClock >= 0 && (this.echoClock - run.clock) << 24 < 0) {
        this.moveFack(end);
        return;
      }
    }
    if (
      sentUs > delivery.rackSentUs ||
      (sentUs === delivery.rackSentUs && ((end - delivery.rackEndSeq) | 0) > 0)
    ) {
      delivery.rackSentUs = sentUs;
      delivery.rackEndSeq = end;
      delivery.rackResent = run.resends !== 0;
      if (this.isRated) {
        delivery.rateBytes = run.deliveredBytes;
        delivery.rateUs = run.deliveredUs;
        delivery.rateFlightStartUs = run.flightStartUs;
        delivery.rateAppLimited = run.appLimited;
      }
    }
    this.moveFack(end);
  }

  private moveFack(end: number): void {
    if (((end - this.fack) | 0) > 0) this.fack = end;
  }

  /** Returns the run that now has its bytes: itself or the sacked neighbour before it. */
  private markSacked(run: SentRun): SentRun {
    this.deliver(run, (run.seq + run.length) | 0, run.length);
    this.delivery.sackedBytes += run.length;
    this.sackedBytes += run.length;
    if (run.state === flying) this.unlinkTimed(run);
    else this.unlinkLost(run);
    run.state = sacked;
    let merged = run;
    const { prev } = run;
    if (prev !== undefined && prev.state === sacked) {
      prev.length += run.length;
      this.unlink(run);
      merged = prev;
    }
    const { next } = merged;
    if (next !== undefined && next.state === sacked) {
      merged.length += next.length;
      this.unlink(next);
    }
    return merged;
  }

  /**
   * The run that holds `seq`, which is in [una, nxt). Looked for from the front, from the back and from the last place
   * at once, since distances in bytes say little about runs. Undefined: too far.
   */
  private find(seq: number): SentRun | undefined {
    let near = this.hint;
    const isBehind = near !== undefined && ((seq - near.seq) | 0) < 0;
    let front = this.first;
    let back = this.last;
    while (this.steps < maxSackSteps) {
      if (front === undefined || back === undefined) return undefined;
      if (((seq - front.seq) | 0) < front.length) return front;
      if (((seq - back.seq) | 0) >= 0) return back;
      if (near !== undefined) {
        const at: number = (seq - near.seq) | 0;
        if (at >= 0 && at < near.length) return near;
        near = isBehind ? near.prev : near.next;
      }
      this.steps += 1;
      front = front.next;
      back = back.prev;
    }
    return undefined;
  }

  /** Takes a run out of the order of sequence and gives it back. */
  private unlink(run: SentRun): void {
    const { prev, next } = run;
    if (this.hint === run) this.hint = prev;
    if (prev === undefined) this.first = next;
    else prev.next = next;
    if (next === undefined) this.last = prev;
    else next.prev = prev;
    this.count -= 1;
    giveRun(run);
  }

  private pushNewest(run: SentRun): void {
    const { newest } = this;
    run.older = newest;
    run.newer = undefined;
    if (newest === undefined) this.oldest = run;
    else newest.newer = run;
    this.newest = run;
  }

  /** Into the order by time, looked for from a run that is near. */
  private insertTimed(run: SentRun, near: SentRun | undefined): void {
    let place = near;
    while (place !== undefined && place.sentUs <= run.sentUs) place = place.newer;
    let older = place === undefined ? this.newest : place.older;
    while (older !== undefined && older.sentUs > run.sentUs) older = older.older;
    const newer = older === undefined ? this.oldest : older.newer;
    run.older = older;
    run.newer = newer;
    if (older === undefined) this.oldest = run;
    else older.newer = run;
    if (newer === undefined) this.newest = run;
    else newer.older = run;
  }

  private unlinkTimed(run: SentRun): void {
    const { older, newer } = run;
    if (older === undefined) this.oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.newest = older;
    else newer.older = older;
    run.older = undefined;
    run.newer = undefined;
  }

  private linkLost(run: SentRun): void {
    let before = this.lastLost;
    // The very first goes to the front whatever lies between: it is what the peer waits for.
    const { firstLost } = this;
    if (firstLost !== undefined && ((run.seq - firstLost.seq) | 0) < 0) before = undefined;
    for (let i = 0; i < maxSortSteps && before !== undefined && ((before.seq - run.seq) | 0) > 0; i += 1) {
      before = before.older;
    }
    const after = before === undefined ? this.firstLost : before.newer;
    run.older = before;
    run.newer = after;
    if (before === undefined) this.firstLost = run;
    else before.newer = run;
    if (after === undefined) this.lastLost = run;
    else after.older = run;
  }

  private unlinkLost(run: SentRun): void {
    const { older, newer } = run;
    if (older === undefined) this.firstLost = newer;
    else older.newer = newer;
    if (newer === undefined) this.lastLost = older;
    else newer.older = older;
    run.older = undefined;
    run.newer = undefined;
  }
}
