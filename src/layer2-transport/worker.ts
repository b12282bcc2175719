/**
 * A layer-2 worker thread: owns shards of connections, serves the links to the app endpoints, drives a transport.
 *
 * Layer 2. The entry point that `worker_threads` runs. It wires the parts together and obeys control messages;
 * what happens to connections is in `dispatcher.ts`.
 */

import { randomBytes } from "node:crypto";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { ApoError } from "../layer1-app/errors.ts";
import { AlarmGate } from "./alarm-gate.ts";
import type { FromWorker, ToWorker, WorkerStart } from "./control.ts";
import { Counters, workerCounterNames } from "./counters.ts";
import { Dispatcher, type DispatcherContext } from "./dispatcher.ts";
import { GroupRamps } from "./group-ramp.ts";
import type { GuardReport } from "./guard/report.ts";
import { TcpGuard } from "./guard/tcp-guard.ts";
import { FramePool, Link, type LinkEnd, Mailbox } from "./link.ts";
import { NodeTable } from "./nodes/node-table.ts";
import { Placed } from "./placed.ts";
import type { PlaceStart } from "./placement.ts";
import type { ListenerRecord, Transport } from "./transport.ts";

if (!parentPort) throw new Error("worker.ts runs in a worker thread only");
const port = parentPort;
const start = workerData as WorkerStart;
const links = new Map<number, LinkEnd>();
const listeners = new Map<number, ListenerRecord>();
const tell = (message: FromWorker): void => port.postMessage(message);
const alarms = new AlarmGate<"backlog" | "frames" | "udp-overflow">((open, code, text, count) =>
  tell({ type: "alarm", open, code, text, count }),
);

const table = new NodeTable(start.nodes, start.tag);
adopt(start.shards, 0);

const context: DispatcherContext = {
  index: start.index,
  pool: new FramePool(start.pool, start.index),
  table,
  counters: new Counters(workerCounterNames, start.counters),
  links,
  alarm: (open, code, text) => alarms.raise(open, code, text),
  clientConnected(request, sockfd) {
    if (request.group) groupConnected(request.id, sockfd);
    else tell({ type: "connected", open: request.id, sockfd });
  },
  clientFailed(request, code, text) {
    if (request.group) ramps.failed(request.id, code);
    else tell({ type: "failed", open: request.id, code, text });
  },
  clientEnded(request) {
    if (request.group) ramps.ended(request.id);
  },
};
const ramps = new GroupRamps(
  start.index,
  (request) => transport.connect(request),
  (open, over) => tell({ type: "group", open, over }),
);
const placed = new Placed(
  start,
  (message) => tell({ type: "app", message }),
  (words, at) => {
    dispatcher.receive(placed.workerEnd, words, at);
  },
);
const dispatcher = new Dispatcher(context);
// A turn of the event loop is a batch: sockets are read in its poll phase, `setImmediate` comes right after.
let handled = 0;
const mailbox = new Mailbox((link, words, at) => {
  handled += 1;
  dispatcher.receive(link, words, at);
  return false;
}, setImmediate);
const transport = await createTransport();
dispatcher.attach(transport);
port.on("message", (message: ToWorker) => obey(message));
tell({ type: "ready" });

async function createTransport(): Promise<Transport> {
  if (start.rawLink) {
    const { createRawTransport } = await import("./raw/transport.ts");
    const { pool, counters } = context;
    const report = (message: GuardReport): void => tell({ type: "guard", report: message });
    const random = (): number => randomBytes(4).readInt32LE();
    const guard = new TcpGuard({ ...start.guard, counters, random, report });
    const link = start.rawLink;
    const serveLocal = (): void => void placed.serve();
    return createRawTransport({
      link,
      events: dispatcher,
      pool,
      nodes: table,
      counters,
      serve,
      serveLocal,
      guard,
    });
  }
  const { createHostTransport } = await import("./host/transport.ts");
  return createHostTransport(dispatcher, context.pool, context.counters);
}

/** For a transport that sleeps outside the event loop: what has come for this worker. True: there was something. */
function serve(): boolean {
  const before = handled;
  for (let posted = receiveMessageOnPort(port); posted; posted = receiveMessageOnPort(port)) {
    handled += 1;
    obey(posted.message as ToWorker);
  }
  mailbox.wake();
  const started = ramps.pump();
  return placed.serve() || started || handled !== before;
}

function obey(message: ToWorker): void {
  switch (message.type) {
    case "link": {
      const link = new Link(mailbox, "worker", message.party, message.memory, message.port);
      links.set(message.party, link);
      mailbox.add(link);
      return;
    }
    case "unlink":
      reply(message.call, unlink(message.party));
      return;
    case "endpoint":
      listeners.get(message.listener)?.endpoints.push(message.party);
      return;
    case "listen":
      reply(message.call, listen(message.listener, message.first));
      return;
    case "unlisten":
      reply(message.call, transport.unlisten(message.listener));
      return;
    case "finish":
      // What was sent before travels by the rings, and must not be overtaken.
      mailbox.exhaust();
      placed.exhaust();
      ramps.stop(message.listener);
      listeners.delete(message.listener);
      dispatcher.finishAll(message.listener, "closed");
      dispatcher.forgetListener(message.listener);
      return;
    case "connect":
      if (message.request.group) ramps.start(message.request);
      else transport.connect(message.request);
      return;
    case "adopt":
      adopt(message.shards, message.untold);
      return;
    case "bury":
      for (const shard of message.shards) table.bury(shard, message.tag);
      return;
    case "disown":
      reply(message.call, disown(message.shards));
      return;
    case "place":
      reply(message.call, place(message.place));
      return;
    case "app":
      placed.obey(message.message);
      return;
    case "stop":
      reply(message.call, stop(message.graceMs));
      return;
  }
}

/** Each is served as soon as it has been gone over, whatever the others take. */
function adopt(shards: readonly number[], untold: number): void {
  const owners = new Int32Array(start.owners);
  for (const shard of shards) {
    table.adopt(shard, untold);
    Atomics.store(owners, shard, start.index + 1);
  }
}

/** Gives up those of the shards that nobody uses. */
async function disown(shards: readonly number[]): Promise<readonly number[]> {
  const owners = new Int32Array(start.owners);
  const unused = shards.filter((shard) => table.owns(shard) && table.isUnused(shard));
  for (const shard of unused) {
    Atomics.store(owners, shard, 0);
    table.disown(shard);
  }
  return unused;
}

/** A group that is being closed wants none of the connections that still come about. */
function groupConnected(openId: number, sockfd: number): void {
  if (ramps.connected(openId)) return;
  const generation = Math.floor(sockfd / 2 ** 24);
  setImmediate(() => dispatcher.finishNode(sockfd & 0xffffff, generation, "closed"));
}

/** Makes an app endpoint in this thread: its party is the worker's index. */
async function place(what: PlaceStart): Promise<void> {
  await placed.create(what);
  links.set(start.index, placed.workerEnd);
}

/** An app endpoint has died: what it had sent still goes out, then its connections end. */
async function unlink(party: number): Promise<void> {
  const link = links.get(party);
  if (!link) return;
  mailbox.exhaust();
  links.delete(party);
  for (const listener of listeners.values()) {
    const at = listener.endpoints.indexOf(party);
    if (at >= 0) listener.endpoints.splice(at, 1);
  }
  await dispatcher.dropEndpoint(link);
  if (link instanceof Link) mailbox.remove(link);
}

async function listen(listener: ListenerRecord, first: boolean): Promise<unknown> {
  listeners.set(listener.id, listener);
  try {
    return await transport.listen(listener, first);
  } catch (error) {
    listeners.delete(listener.id);
    throw error;
  }
}

/** Ends everything: what was sent goes out if the peers take it within `graceMs`. */
async function stop(graceMs: number): Promise<void> {
  for (const id of listeners.keys()) await transport.unlisten(id);
  ramps.close();
  mailbox.exhaust();
  placed.exhaust();
  dispatcher.finishAll(undefined, "shutdown");
  await allEnded(graceMs);
  await dispatcher.abortAll("shutdown", performance.now() + graceMs / 2);
  await allEnded(graceMs / 2);
  await transport.close();
  placed.close();
  dispatcher.stop();
  alarms.close();
  // The app must find the last descriptors when it hears that we have stopped.
  await new Promise((resolve) => setImmediate(resolve));
  mailbox.flush();
}

/** Waits until no connection is left, but not longer than `mostMs`. */
async function allEnded(mostMs: number): Promise<void> {
  const deadline = performance.now() + mostMs;
  while (dispatcher.unended > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function reply(call: number, result: Promise<unknown>): void {
  result.then(
    (value) => tell({ type: "reply", call, value }),
    (error: unknown) => {
      const code = error instanceof ApoError ? error.code : "EIO";
      tell({ type: "reply", call, error: { code, message: String((error as Error).message ?? error) } });
    },
  );
}
