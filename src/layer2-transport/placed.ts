/**
 * A worker's side of the app endpoint in its own thread: makes it, and carries descriptors between the two.
 *
 * Layer 2. Each side takes what the other has posted in turns, so neither is ever called from within its own work. It
 * knows no descriptors.
 */

import type { WorkerStart } from "./control.ts";
import { createLocalLink, type LocalLink, type TakeDescriptor } from "./local-link.ts";
import type { CreatePlaced, PlacedApp, PlaceStart } from "./placement.ts";

/** Descriptors that one side handles before it is the other's turn, and turns before packets have theirs. */
const descriptorsPerTurn = 512;
const turnsPerServe = 8;

export class Placed {
  /** The dispatcher's end. */
  readonly workerEnd: LocalLink;
  private readonly appEnd: LocalLink;
  private readonly start: WorkerStart;
  private readonly tell: (message: unknown) => void;
  private readonly toWorker: TakeDescriptor;
  private readonly toApp: TakeDescriptor;
  private app: PlacedApp | undefined;
  private readonly later = (): void => {
    this.scheduled = false;
    this.serve();
  };
  private scheduled = false;
  private serving = false;
  private posted = false;

  /** `toWorker` handles a descriptor that the endpoint has posted. */
  constructor(start: WorkerStart, tell: (message: unknown) => void, toWorker: TakeDescriptor) {
    this.start = start;
    this.tell = tell;
    this.toWorker = toWorker;
    this.toApp = (words, at) => this.app?.receive(words, at);
    const { worker, app } = createLocalLink(start.index, () => this.schedule());
    this.workerEnd = worker;
    this.appEnd = app;
  }

  /** Loads layer 1's part, and makes the endpoint. */
  async create(place: PlaceStart): Promise<void> {
    if (this.app) return;
    const { default: create } = (await import(place.url)) as { default: CreatePlaced };
    const { index, pool, nodes, owners } = this.start;
    this.app = create({ ...place, index, pool, nodes, owners, link: this.appEnd, tell: this.tell });
  }

  obey(message: unknown): void {
    this.app?.obey(message);
  }

  /** Lets both sides handle what has come for them, for a while. True: there was something. */
  serve(): boolean {
    if (!this.app || this.serving) return false;
    this.serving = true;
    let handled = 0;
    try {
      this.app.serve();
      for (let turn = 0; turn < turnsPerServe && this.posted; turn += 1) {
        this.posted = false;
        const up = this.appEnd.take(descriptorsPerTurn, this.toApp);
        const down = this.workerEnd.take(descriptorsPerTurn, this.toWorker);
        handled += up + down;
        if (up === descriptorsPerTurn || down === descriptorsPerTurn) this.posted = true;
      }
    } finally {
      this.serving = false;
    }
    if (this.posted) setImmediate(this.later);
    return handled > 0;
  }

  /** Handles all that has come by now: before an end that must not overtake it. */
  exhaust(): void {
    if (!this.app) return;
    this.appEnd.takeAll(this.toApp);
    this.workerEnd.takeAll(this.toWorker);
  }

  /** Tells the app what there is to tell of the end. */
  close(): void {
    this.exhaust();
    this.app?.close();
    this.app = undefined;
  }

  private schedule(): void {
    this.posted = true;
    if (this.scheduled || this.serving) return;
    this.scheduled = true;
    queueMicrotask(this.later);
  }
}
