/**
 * The task that an app worker runs for as long as it lives: an app endpoint whose handlers come from modules.
 *
 * Layer 1. Piscina calls the default export; it returns when the runtime is closed. Connections stay with the worker
 * that got them, so a module may keep what it knows of them in plain variables.
 */

import { appCounterNames, Counters, FramePool } from "../layer2-transport/index.ts";
import type { AppWorkerStart, ToAppWorker } from "./app-control.ts";
import { AppHost } from "./app-host.ts";
import { Endpoint } from "./endpoint.ts";

export default function appWorker(start: AppWorkerStart): Promise<void> {
  const { port } = start;
  const endpoint = new Endpoint({
    pool: new FramePool(start.pool, start.party),
    nodes: start.nodes,
    owners: start.owners,
    counters: new Counters(appCounterNames, start.counters),
    isHost: start.isHost,
    alarm: (open, alarm, error) => host.raise(open, alarm, error),
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  const host = new AppHost(
    endpoint,
    (message) => port.postMessage(message),
    () => {
      port.close();
      resolve();
    },
  );
  port.on("message", (message: ToAppWorker) => host.obey(message));
  return promise;
}
