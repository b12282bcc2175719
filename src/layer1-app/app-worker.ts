/**
 * The task that an app worker runs for as long as it lives: an app endpoint whose handlers come from modules.
 *
 * Layer 1. Piscina calls the default export; it returns when the runtime is closed. Connections stay with the worker
 * that got them, so a module may keep what it knows of them in plain variables.
 */

import { appCounterNames, Counters, FramePool } from "../layer2-transport/index.ts";
import { raise } from "./alarms.ts";
import type { OpenRecord } from "./app-connection.ts";
import type { AppWorkerStart, FromAppWorker, ModuleFacts, ModuleOpen, ToAppWorker } from "./app-control.ts";
import { Endpoint } from "./endpoint.ts";
import { ApoError } from "./errors.ts";
import type { FramingFunction, Handlers } from "./types.ts";

const handlerNames = ["connected", "request", "closed", "alarm"] as const;

export default function appWorker(start: AppWorkerStart): Promise<void> {
  const { port } = start;
  const tell = (message: FromAppWorker): void => port.postMessage(message);
  const endpoint: Endpoint = new Endpoint({
    pool: new FramePool(start.pool, start.party),
    nodes: start.nodes,
    owners: start.owners,
    counters: new Counters(appCounterNames, start.counters),
    isHost: start.isHost,
    alarm: (open, alarm, error) =>
      raise(open, alarm, endpoint.verbs, error, (text, detail) =>
        tell({ type: "warning", alarm: { ...alarm, text }, detail }),
      ),
  });
  return new Promise((resolve) => {
    port.on("message", (message: ToAppWorker) => {
      if (message.type === "link") endpoint.addLink(message.index, message.memory, message.port);
      else if (message.type === "unlink") {
        void endpoint
          .removeLink(message.index, message.dead)
          .then(() => tell({ type: "unlinked", call: message.call }));
      } else if (message.type === "unload") endpoint.removeOpen(message.open);
      else if (message.type === "load") {
        load(endpoint, message.open).then(
          (facts) => tell({ type: "loaded", call: message.call, facts }),
          (error: unknown) =>
            tell({ type: "loaded", call: message.call, error: loadError(message.open.url, error) }),
        );
      } else if (message.type === "alarm") {
        raise(endpoint.opens.get(message.open), message.alarm, endpoint.verbs, undefined, (text, detail) =>
          tell({ type: "warning", alarm: { ...message.alarm, text }, detail }),
        );
      } else {
        endpoint.exhaust();
        endpoint.close();
        port.close();
        resolve();
      }
    });
  });
}

/** Loads the module and takes its handlers. */
async function load(endpoint: Endpoint, open: ModuleOpen): Promise<ModuleFacts> {
  const exports = (await import(open.url)) as Record<string, unknown>;
  const found = { ...(exports.default as object | undefined), ...exports } as Record<string, unknown>;
  const handlers: Record<string, unknown> = {};
  for (const name of handlerNames) {
    if (found[name] === undefined) continue;
    if (typeof found[name] !== "function") {
      throw new ApoError("EINVAL", `the module ${open.url} exports ${name}, but it is not a function`);
    }
    handlers[name] = found[name];
  }
  if (Object.keys(handlers).length === 0) {
    throw new ApoError("EINVAL", `the module ${open.url} exports none of ${handlerNames.join(", ")}`);
  }
  const { framing } = found;
  const record: Omit<OpenRecord, "connections"> = {
    id: open.id,
    handlers: handlers as Handlers,
    name: open.name,
    recvlen: open.recvlen,
    msgpack: open.msgpack,
    framingFunction: typeof framing === "function" ? (framing as FramingFunction) : undefined,
    news: open.news,
    leaving: false,
  };
  endpoint.addOpen(record);
  return { framing: typeof framing === "function", alarm: "alarm" in handlers };
}

function loadError(url: string, error: unknown): { code: "EINVAL"; message: string } {
  if (error instanceof ApoError) return { code: "EINVAL", message: error.message };
  const text = error instanceof Error ? error.message : String(error);
  return { code: "EINVAL", message: `the module ${url} could not be loaded: ${text}` };
}
