/**
 * An app endpoint beside its connections, in the layer-2 worker itself (`placement: "worker"`).
 *
 * Layer 1. A layer-2 worker loads this module and calls its default export. Messages come and go by a link within the
 * thread; what is sent to another worker's connection goes by rings, as from any app thread.
 */

import {
  appCounterNames,
  Counters,
  type CreatePlaced,
  FramePool,
  type PlacedApp,
  type PlacedContext,
} from "../layer2-transport/index.ts";
import type { ToAppWorker } from "./app-control.ts";
import { AppHost } from "./app-host.ts";
import { Endpoint } from "./endpoint.ts";

class PlacedEndpoint implements PlacedApp {
  private readonly context: PlacedContext;
  private readonly endpoint: Endpoint;
  private readonly host: AppHost;

  constructor(context: PlacedContext) {
    const { index, pool, nodes, owners, counters, isHost, link } = context;
    this.context = context;
    this.endpoint = new Endpoint({
      pool: new FramePool(pool, index),
      nodes,
      owners,
      counters: new Counters(appCounterNames, counters),
      isHost,
      alarm: (open, alarm, error) => this.host.raise(open, alarm, error),
      // A turn of the worker's event loop is a batch.
      later: setImmediate,
    });
    this.endpoint.addLocalLink(index, link);
    this.host = new AppHost(
      this.endpoint,
      (message) => context.tell(message),
      () => {},
    );
  }

  receive(words: Int32Array, at: number): void {
    this.endpoint.receive(this.context.link, words, at);
  }

  serve(): void {
    this.endpoint.serve();
  }

  obey(message: unknown): void {
    this.host.obey(message as ToAppWorker);
  }

  close(): void {
    this.endpoint.close();
  }
}

const createPlaced: CreatePlaced = (context) => new PlacedEndpoint(context);
export default createPlaced;
