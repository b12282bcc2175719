/**
 * How a worker on a raw link spends its time: it polls, and when nothing comes it sleeps on its doorbell.
 *
 * Layer 2. A turn of the worker's event loop is a turn here (by `setImmediate`), so timers, files and control messages
 * have their place; but a sleeping worker sleeps on the futex and not in the event loop, since that wakes ten times
 * faster. Whoever has something for it rings: the native thread, the app's rings, the sender of a control message.
 * What does not ring (timers, file reads) bounds the sleep.
 */

import type { PacketPort } from "../../layer3-ip/packet-port.ts";

/** Empty turns before the worker sleeps: ten microseconds or so. More of them gain nothing where cores are few. */
const idleTurns = 8;
/** Turns between two of the event loop's, at most. */
const turnsAtOnce = 4;
/** The first sleep, then twice as long each time nothing came, up to the last. A timer may be late by one sleep. */
const firstSleepUs = 500;
const longestSleepUs = 50_000;
/** How long it sleeps while the kernel reads a file for it. */
const fileSleepUs = 100;

export interface PollLoopWork {
  /** Takes and sends packets. True: there was something to do. */
  poll(): boolean;
  /** Serves the rings of the app endpoints and the control port. True: there was something. */
  serve(): boolean;
  /** Microseconds that it may sleep at most: until the next timer. */
  sleepUs(): number;
}

export class PollLoop {
  private readonly port: PacketPort;
  private readonly work: PollLoopWork;
  private readonly turn: () => void;
  private readonly lookAgain: () => boolean;
  private idle = 0;
  private sleepUs = firstSleepUs;
  private running = true;

  constructor(port: PacketPort, work: PollLoopWork) {
    this.port = port;
    this.work = work;
    this.lookAgain = () => this.work.serve();
    this.turn = () => this.run();
    port.startPolling();
    setImmediate(this.turn);
  }

  /** The worker lives on by its event loop alone. */
  stop(): void {
    this.running = false;
    this.port.stopPolling();
    this.work.serve();
  }

  private run(): void {
    if (!this.running) return;
    let busy = this.work.serve();
    // A turn of the event loop costs as much as twenty packets: while they come, several of ours make up one.
    for (let turns = 0; turns < turnsAtOnce; turns += 1) {
      if (!this.work.poll()) break;
      busy = true;
      if (turns + 1 < turnsAtOnce) this.work.serve();
    }
    if (busy) {
      this.idle = 0;
      this.sleepUs = firstSleepUs;
    } else {
      this.idle += 1;
      if (this.idle > idleTurns) this.sleep();
    }
    setImmediate(this.turn);
  }

  private sleep(): void {
    const readsFile = process.getActiveResourcesInfo().some((name) => name.startsWith("FSReq"));
    const most = Math.min(readsFile ? fileSleepUs : this.sleepUs, this.work.sleepUs());
    if (most < 1) return;
    if (this.port.sleep(Math.ceil(most), this.lookAgain)) {
      this.sleepUs = Math.min(longestSleepUs, 2 * this.sleepUs);
    } else {
      this.sleepUs = firstSleepUs;
      this.idle = 0;
    }
  }
}
