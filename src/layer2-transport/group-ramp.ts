/**
 * Opens a group of client connections in one worker: so many, so fast, and counts what becomes of them.
 *
 * Layer 2. `opens({ to, connections })` becomes one `ConnectRequest` a worker, and the same request stands for all its
 * connections: there is no object, promise or message for each. The counts are in shared memory, a block for each
 * worker, written by that worker alone and read by the app as it likes. It knows no packets: a `Transport` connects.
 */

import type { ErrorCode } from "../layer1-app/errors.ts";
import { errorWord } from "./descriptor.ts";
import type { ConnectRequest } from "./transport.ts";

/** Words of a worker's block. `failed` is the first of one word for each error code, in the order of descriptors. */
export const tally = { started: 0, opened: 1, open: 2, failed: 3 } as const;
export const tallyWords = 64;

/** Handshakes under way at once: more would overflow the ring that their answers come by (8,192 packets). */
const pendingMost = 1024;
/** Connections started in one turn: the packets of those before must get their turn too. */
const startedPerTurn = 256;
const turnMs = 1;

interface Ramp {
  readonly request: ConnectRequest;
  readonly counts: Int32Array;
  readonly block: number;
  readonly count: number;
  readonly ratePerMs: number;
  started: number;
  pending: number;
  open: number;
  done: boolean;
  startedAtMs: number;
  stopped: boolean;
}

export class GroupRamps {
  private readonly index: number;
  private readonly connect: (request: ConnectRequest) => void;
  private readonly report: (openId: number, over: boolean) => void;
  private readonly ramps = new Map<number, Ramp>();
  private timer: NodeJS.Timeout | undefined;

  /**
   * `connect` starts one connection of the request; `connected` or `failed` must follow, sooner or later. `report` is
   * called once when all of a group have been tried, and once more when none of them is left.
   */
  constructor(
    index: number,
    connect: (request: ConnectRequest) => void,
    report: (openId: number, over: boolean) => void,
  ) {
    this.index = index;
    this.connect = connect;
    this.report = report;
  }

  /** Starts opening the connections of `request.group`. */
  start(request: ConnectRequest): void {
    const { group } = request;
    if (!group) return;
    this.ramps.set(request.id, {
      request,
      counts: new Int32Array(group.tally),
      block: this.index * tallyWords,
      count: group.count,
      ratePerMs: group.rate / 1000,
      started: 0,
      pending: 0,
      open: 0,
      done: false,
      startedAtMs: performance.now(),
      stopped: false,
    });
    this.turn();
  }

  /** A connection of the group stands. False: it is to be closed at once. */
  connected(openId: number): boolean {
    const ramp = this.ramps.get(openId);
    if (!ramp) return false;
    ramp.pending -= 1;
    ramp.open += 1;
    this.add(ramp, tally.opened, 1);
    this.add(ramp, tally.open, 1);
    this.settle(ramp);
    return !ramp.stopped;
  }

  /** A connection of the group did not come about. */
  failed(openId: number, code: ErrorCode): void {
    const ramp = this.ramps.get(openId);
    if (!ramp) return;
    ramp.pending -= 1;
    this.add(ramp, tally.failed + errorWord(code) - 1, 1);
    this.settle(ramp);
  }

  /** A connection of the group has ended. */
  ended(openId: number): void {
    const ramp = this.ramps.get(openId);
    if (!ramp) return;
    ramp.open -= 1;
    this.add(ramp, tally.open, -1);
    this.settle(ramp);
  }

  /** No more are started; those under way and those that stand go on. */
  stop(openId: number): void {
    const ramp = this.ramps.get(openId);
    if (!ramp) return;
    ramp.stopped = true;
    this.settle(ramp);
  }

  close(): void {
    clearTimeout(this.timer);
    this.ramps.clear();
  }

  /** For each turn of a worker that polls: starts what is due now. True: there was something. */
  pump(): boolean {
    if (this.ramps.size === 0) return false;
    const nowMs = performance.now();
    let started = 0;
    for (const ramp of this.ramps.values()) {
      started -= ramp.started;
      this.startDue(ramp, nowMs);
      started += ramp.started;
    }
    return started > 0;
  }

  /** Starts what is due of every group, and sees to it that the rest follows. */
  private turn(): void {
    const nowMs = performance.now();
    let left = false;
    for (const ramp of this.ramps.values()) {
      this.startDue(ramp, nowMs);
      if (!ramp.stopped && ramp.started < ramp.count) left = true;
    }
    if (!left) return;
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.turn();
    }, turnMs);
  }

  private startDue(ramp: Ramp, nowMs: number): void {
    const { request, ratePerMs } = ramp;
    const due = ratePerMs === 0 ? ramp.count : Math.ceil((nowMs - ramp.startedAtMs) * ratePerMs);
    const most = Math.min(ramp.count, due, ramp.started + startedPerTurn);
    while (ramp.started < most && ramp.pending < pendingMost && !ramp.stopped) {
      ramp.started += 1;
      ramp.pending += 1;
      this.add(ramp, tally.started, 1);
      this.connect(request);
    }
  }

  private settle(ramp: Ramp): void {
    if (ramp.pending > 0 || (!ramp.stopped && ramp.started < ramp.count)) return;
    const { id } = ramp.request;
    if (!ramp.done) {
      ramp.done = true;
      this.report(id, false);
    }
    if (ramp.open > 0) return;
    this.ramps.delete(id);
    this.report(id, true);
  }

  private add(ramp: Ramp, word: number, by: number): void {
    Atomics.add(ramp.counts, ramp.block + word, by);
  }
}
