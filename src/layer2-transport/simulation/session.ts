/**
 * One end of a simulated connection, as an app sees it: it follows its script, and checks everything that it is told.
 *
 * Layer 2, simulation only. It knows a stack by the few verbs of `Pipe`, and no time but what it asks for by `later`.
 * What it finds wrong goes to `faults`.
 */

import { Content } from "./content.ts";
import { isClean, type Plan, type Step, scriptsOf, totals } from "./plan.ts";

/** `full`: no memory now, ask again later. `gone`: the connection is no more, the app will be told. */
export type WriteResult = "queued" | "full" | "gone";

/** What an app may do to its connection. */
export interface Pipe {
  /** Queues these bytes of the content as one container. */
  write(content: Content, position: number, length: number): WriteResult;
  shutdown(): void;
  end(): void;
  abort(): void;
  pause(): void;
  resume(): void;
  /** Calls back after so much virtual time, if the connection is still there. */
  later(us: number, call: () => void): void;
}

/** How it ended: "clean", "reset", "lost", and so on, as the stack says. */
export interface Ending {
  readonly code: string;
  readonly error: string;
}

const writesQueuedMax = 8;
const bytesQueuedMax = 262_144;
const retryUs = 5000;

export class Session {
  readonly plan: Plan;
  readonly isClient: boolean;
  readonly faults: string[];
  received = 0;
  peerEnded = false;
  /** Undefined while it lives. */
  ending: Ending | undefined;
  /** Its host has crashed: it is not told anything any more. */
  dead = false;
  /** All steps are done. */
  finished = false;
  /** Its own `abort` or `end` was the reason for its end. */
  gaveUp = false;
  /** A write was thrown away: the connection goes to its end, and nothing more is written. */
  thrownAway = false;
  private pipe: Pipe | undefined;
  private readonly incoming: Content;
  private readonly outgoing: Content;
  private readonly steps: readonly Step[];
  private readonly expected: number;
  private readonly pausesUs: number;
  private step = 0;
  private sendStart = 0;
  private written = 0;
  private readonly queued: number[] = [];
  private queuedBytes = 0;
  private paused = false;
  private blocked = false;
  private running = false;
  private nextPauseAt = 0;

  constructor(plan: Plan, isClient: boolean, faults: string[]) {
    this.plan = plan;
    this.isClient = isClient;
    this.faults = faults;
    this.incoming = new Content(plan.id, !isClient);
    this.outgoing = new Content(plan.id, isClient);
    const scripts = scriptsOf(plan);
    const { up, down } = totals(plan);
    this.steps = isClient ? scripts.client : scripts.server;
    this.expected = isClient ? down : up;
    this.pausesUs = plan.kind === "slowReader" && !isClient ? plan.pauseUs : 0;
    this.nextPauseAt = Math.ceil(this.expected / 4);
  }

  get name(): string {
    return `connection ${this.plan.id} (${this.plan.kind}), ${this.isClient ? "client" : "server"}`;
  }

  /** It will say by itself when it is through, and is not to be told the end before. */
  get holdsEnd(): boolean {
    return this.plan.id % 3 === 0 && !this.finished && !this.thrownAway;
  }

  /** The connection stands. */
  opened(pipe: Pipe): void {
    if (this.pipe) this.fault("it was opened twice");
    this.pipe = pipe;
    this.advance();
  }

  /** In-order payload. */
  take(bytes: Uint8Array, at: number, length: number): void {
    if (this.ending) this.fault("it was given data after its end");
    if (this.peerEnded) this.fault("it was given data after the other's end");
    if (length <= 0) this.fault(`it was given ${length} bytes`);
    const right = this.incoming.match(bytes, at, this.received, length);
    if (right < length) this.fault(`the byte at position ${this.received + right} is wrong`);
    this.received += length;
    if (this.received > this.expected) {
      this.fault(`it was given ${this.received} bytes; ${this.expected} are sent in all`);
    }
    this.maybePause();
    this.advance();
  }

  /** The other end has no more to send. */
  takePeerEnd(): void {
    if (this.peerEnded) this.fault("it was told twice that the other has ended");
    if (this.ending) this.fault("it was told that the other has ended after its own end");
    this.peerEnded = true;
    if (isClean(this.plan) && this.received !== this.expected) {
      this.fault(`the other ended after ${this.received} bytes of ${this.expected}`);
    }
    this.advance();
  }

  /** The oldest write is through: acknowledged (`taken`), or thrown away. */
  wrote(length: number, taken: boolean): void {
    const oldest = this.queued.shift();
    if (oldest !== length) this.fault(`a write of ${length} bytes came back where one of ${oldest} was due`);
    if (this.ending) this.fault("a write came back after its end");
    if (!taken) this.thrownAway = true;
    this.queuedBytes -= length;
    this.advance();
  }

  /** The connection is no more. */
  takeEnd(code: string, error: string): void {
    if (this.ending) this.fault(`it was told twice that it ended: ${this.ending.code}, then ${code}`);
    this.ending = { code, error };
    if (this.queued.length > 0) this.fault(`it ended with ${this.queued.length} writes still out`);
  }

  private fault(what: string): void {
    this.faults.push(`${this.name}: ${what}`);
  }

  /** Does what can be done now; what it does may come back here, and then the outer call goes on. */
  private advance(): void {
    if (this.running) return;
    this.running = true;
    while (!this.ending && this.pipe && this.step < this.steps.length) {
      if (!this.doStep(this.steps[this.step] as Step, this.pipe)) break;
      this.step += 1;
      this.sendStart = this.written;
    }
    this.finished = this.step >= this.steps.length;
    this.running = false;
  }

  /** True: the step is done. */
  private doStep(step: Step, pipe: Pipe): boolean {
    switch (step.what) {
      case "send":
        return this.sendSome(step.bytes, step.write, step.gapUs, pipe);
      case "receive":
        return this.received >= step.total;
      case "peerEnd":
        return this.peerEnded;
      case "wait":
        return this.waitFor(step.us, pipe);
      case "shutdown":
        pipe.shutdown();
        return true;
      case "end":
      case "abort":
        this.gaveUp = true;
        if (step.what === "end") pipe.end();
        else pipe.abort();
        return true;
    }
  }

  private sendSome(bytes: number, write: number, gapUs: number, pipe: Pipe): boolean {
    while (!this.blocked && !this.ending && !this.thrownAway) {
      const left = bytes - (this.written - this.sendStart);
      if (left <= 0) return true;
      if (this.queued.length >= writesQueuedMax || this.queuedBytes >= bytesQueuedMax) return false;
      const length = Math.min(left, write, bytesQueuedMax);
      this.queued.push(length);
      this.queuedBytes += length;
      this.written += length;
      const result = pipe.write(this.outgoing, this.written - length, length);
      if (result !== "queued") {
        this.queued.pop();
        this.queuedBytes -= length;
        this.written -= length;
        if (result === "gone") this.thrownAway = true;
        else this.block(retryUs, pipe);
      } else if (gapUs > 0 && left > length) this.block(gapUs, pipe);
    }
    return false;
  }

  private block(us: number, pipe: Pipe): void {
    this.blocked = true;
    pipe.later(us, () => {
      this.blocked = false;
      this.advance();
    });
  }

  private waitFor(us: number, pipe: Pipe): boolean {
    if (this.blocked) return false;
    pipe.later(us, () => {
      this.step += 1;
      this.sendStart = this.written;
      this.blocked = false;
      this.advance();
    });
    this.blocked = true;
    return false;
  }

  /** A slow reader stops four times on its way. */
  private maybePause(): void {
    const { pipe } = this;
    if (this.pausesUs === 0 || this.paused || !pipe || this.received < this.nextPauseAt) return;
    this.nextPauseAt += Math.max(1, Math.ceil(this.expected / 4));
    this.paused = true;
    pipe.pause();
    pipe.later(this.pausesUs, () => {
      this.paused = false;
      pipe.resume();
    });
  }
}
