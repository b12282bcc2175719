/**
 * An app endpoint whose handlers come from modules, and the control messages that it obeys.
 *
 * Layer 1. It lives in an app worker, or beside its connections in a layer-2 worker; where, it does not know.
 */

import { raise } from "./alarms.ts";
import type { OpenRecord } from "./app-connection.ts";
import type { FromAppWorker, ModuleFacts, ModuleOpen, ToAppWorker } from "./app-control.ts";
import type { Endpoint } from "./endpoint.ts";
import { ApoError } from "./errors.ts";
import type { Alarm, FramingFunction, Handlers } from "./types.ts";

const handlerNames = ["connected", "request", "closed", "alarm"] as const;

export class AppHost {
  private readonly endpoint: Endpoint;
  private readonly tell: (message: FromAppWorker) => void;
  private readonly stopped: () => void;

  /** `stopped` is called when the endpoint has been closed because it was asked to. */
  constructor(endpoint: Endpoint, tell: (message: FromAppWorker) => void, stopped: () => void) {
    this.endpoint = endpoint;
    this.tell = tell;
    this.stopped = stopped;
  }

  obey(message: ToAppWorker): void {
    const { endpoint } = this;
    if (message.type === "link") endpoint.addLink(message.index, message.memory, message.port);
    else if (message.type === "unload") endpoint.removeOpen(message.open);
    else if (message.type === "alarm") this.raise(endpoint.opens.get(message.open), message.alarm, undefined);
    else if (message.type === "load") void this.load(message.call, message.open);
    else if (message.type === "unlink") {
      const { call } = message;
      void endpoint.removeLink(message.index, message.dead).then(() => this.tell({ type: "unlinked", call }));
    } else {
      endpoint.exhaust();
      endpoint.close();
      this.stopped();
    }
  }

  /** Brings an alarm to the module's handler, or to the main thread, which warns of it. */
  raise(open: OpenRecord | undefined, alarm: Alarm, error: unknown): void {
    raise(open, alarm, this.endpoint.verbs, error, (text, detail) =>
      this.tell({ type: "warning", alarm: { ...alarm, text }, detail }),
    );
  }

  private async load(call: number, open: ModuleOpen): Promise<void> {
    try {
      this.tell({ type: "loaded", call, facts: await load(this.endpoint, open) });
    } catch (error) {
      this.tell({ type: "loaded", call, error: loadError(open.url, error) });
    }
  }
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
    quiet: open.many && !found.connected && !found.closed && open.news === undefined,
    leaving: false,
  };
  endpoint.addOpen(record);
  return { framing: typeof framing === "function", alarm: "alarm" in handlers, quiet: record.quiet };
}

function loadError(url: string, error: unknown): { code: "EINVAL"; message: string } {
  if (error instanceof ApoError) return { code: "EINVAL", message: error.message };
  const text = error instanceof Error ? error.message : String(error);
  return { code: "EINVAL", message: `the module ${url} could not be loaded: ${text}` };
}
