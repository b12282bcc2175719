/**
 * App endpoints beside their connections: handler modules that run in a layer-2 worker's own thread.
 *
 * Layer 2. A message goes from the dispatcher to its handler and the reply back by two plain queues, emptied in the
 * same turn: no ring, no wake-up, no other thread. What an endpoint is, layer 1 says: it names the script that makes
 * one, and this file knows its face only.
 */

import type { LinkEnd } from "./link.ts";
import { createLocalLink, type LocalLink } from "./local-link.ts";

/** Descriptors of one direction that are handled before the other gets its turn. */
const descriptorsAtOnce = 512;
/** How often the two directions alternate in one turn: what goes on beyond that gets another turn. */
const roundsAtOnce = 16;

/** What the script's default export is given. */
export interface LocalEndpointStart {
  /** The worker's index: its party, its partition of the pool, and the `peer` of the link. */
  readonly party: number;
  readonly pool: SharedArrayBuffer;
  readonly nodes: SharedArrayBuffer;
  readonly owners: SharedArrayBuffer;
  /** Where the endpoint counts; layer 1 knows what. */
  readonly counters: SharedArrayBuffer | undefined;
  readonly link: LinkEnd;
  /** Says something to the main thread. */
  tell(message: unknown): void;
}

/** What the script's default export returns. */
export interface LocalEndpoint {
  /** Loads a module. Resolves with what the main thread wants to know of it; rejects with an `ApoError`. */
  load(open: unknown): Promise<unknown>;
  unload(openId: number): void;
  alarm(openId: number, alarm: unknown): void;
  /** Handles one descriptor of the worker's. */
  receive(words: Int32Array, at: number): void;
  close(): void;
}

export interface LocalAppContext extends Omit<LocalEndpointStart, "link"> {
  /** Takes the worker's end of the link, from which descriptors come by `receive`. */
  connect(link: LinkEnd): void;
  /** Handles one descriptor of an endpoint's. */
  receive(link: LinkEnd, words: Int32Array, at: number): void;
}

export class LocalApp {
  private readonly context: LocalAppContext;
  private endpoint: LocalEndpoint | undefined;
  private starting: Promise<LocalEndpoint> | undefined;
  private workerEnd: LocalLink | undefined;
  private appEnd: LocalLink | undefined;
  private readonly toApp = (words: Int32Array, at: number): void => this.endpoint?.receive(words, at);
  private readonly toWorker = (words: Int32Array, at: number): void => {
    if (this.workerEnd) this.context.receive(this.workerEnd, words, at);
  };
  private readonly later = (): void => {
    this.isScheduled = false;
    this.serve();
  };
  private isScheduled = false;
  private isServing = false;

  constructor(context: LocalAppContext) {
    this.context = context;
  }

  /** Loads a module into the endpoint, which is made by `script` (a URL) when it is not there yet. */
  async load(script: string, open: unknown): Promise<unknown> {
    this.starting ??= this.start(script);
    return (await this.starting).load(open);
  }

  unload(openId: number): void {
    this.endpoint?.unload(openId);
  }

  alarm(openId: number, alarm: unknown): void {
    this.endpoint?.alarm(openId, alarm);
  }

  /** Handles what has been posted in both directions, and what follows from that. True: there was something. */
  serve(): boolean {
    const { workerEnd, appEnd } = this;
    if (!workerEnd || !appEnd || this.isServing) return false;
    this.isServing = true;
    let handled = 0;
    let rounds = 0;
    for (; rounds < roundsAtOnce; rounds += 1) {
      const some =
        appEnd.take(descriptorsAtOnce, this.toApp) + workerEnd.take(descriptorsAtOnce, this.toWorker);
      if (some === 0) break;
      handled += some;
    }
    this.isServing = false;
    if (rounds === roundsAtOnce) setImmediate(this.later);
    return handled > 0;
  }

  close(): void {
    this.serve();
    this.endpoint?.close();
    this.endpoint = undefined;
  }

  private async start(script: string): Promise<LocalEndpoint> {
    const { default: make } = (await import(script)) as {
      default: (start: LocalEndpointStart) => LocalEndpoint;
    };
    const { party, pool, nodes, owners, counters } = this.context;
    const { worker, app } = createLocalLink(party, () => this.schedule());
    const tell = (message: unknown): void => this.context.tell(message);
    this.workerEnd = worker;
    this.appEnd = app;
    this.endpoint = make({ party, pool, nodes, owners, counters, link: app, tell });
    this.context.connect(worker);
    return this.endpoint;
  }

  /** What is posted while nobody serves (by a handler that took its time) is handled before long. */
  private schedule(): void {
    if (this.isScheduled || this.isServing) return;
    this.isScheduled = true;
    queueMicrotask(this.later);
  }
}
