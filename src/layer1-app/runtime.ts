/**
 * A runtime: the shared memory, the layer-2 workers, the main thread's app endpoint, and the three verbs.
 *
 * Layer 1. It puts the parts together and sees them through deaths and the end. What a connection does is in
 * `endpoint.ts` (app side) and layer 2 (transport side).
 */

import {
  appCounterNames,
  type ConnectRequest,
  Counters,
  type FromWorker,
  type ListenerRecord,
  type LocalAddress,
  type RuntimeGuard,
  type TcpInfo,
  tallyWords,
} from "../layer2-transport/index.ts";
import type { Fanout, FanoutOptions } from "../layer3-ip/fanout-types.ts";
import { raise, warnProcess } from "./alarms.ts";
import type { OpenRecord } from "./app-connection.ts";
import type { FromAppWorker } from "./app-control.ts";
import { AppWorkers } from "./app-workers.ts";
import { Endpoint } from "./endpoint.ts";
import { namingEnvironment, withEnvironment } from "./environment.ts";
import { ApoError } from "./errors.ts";
import { framed } from "./framing.ts";
import { type GroupHost, RuntimeGroup } from "./group.ts";
import { RuntimeListener } from "./listener.ts";
import { checkOpenOptions, type OpenGround, type Opening, type OpenOptions } from "./options.ts";
import { checkRuntimeOptions, noGuardOnHost } from "./runtime-options.ts";
import type { Estate } from "./shard-moves.ts";
import { Threads } from "./threads.ts";
import type {
  Alarm,
  Apo,
  CloseOptions,
  ConnectionStatus,
  ConnectOptions,
  Group,
  GroupOptions,
  LinkFacts,
  Listener,
  ListenOptions,
  Peer,
  RuntimeOptions,
  Sockfd,
  TcpSettings,
} from "./types.ts";
import { Verbs } from "./verbs.ts";

/** What queued bytes are given to go out when the runtime is closed, in milliseconds. */
const closeGraceMs = 1000;

interface PendingConnect {
  readonly resolve: (sockfd: Sockfd) => void;
  readonly reject: (error: ApoError) => void;
  readonly worker: number;
  readonly module: boolean;
}

/** Handlers that are known where they will run. */
interface Prepared {
  /** Nothing is to be told of the connections but their messages. */
  readonly quiet: boolean;
  /** The parties that take the connections; with `inWorkers` each worker takes its own. */
  readonly endpoints: number[];
  readonly inWorkers: boolean;
}

function partyFor({ endpoints, inWorkers }: Prepared, worker: number, turn: number): number {
  return inWorkers ? worker : (endpoints[turn % endpoints.length] as number);
}

function requestOf(id: number, opening: Opening, endpoint: number): ConnectRequest {
  const { client, rules } = opening;
  if (!client) throw new ApoError("EINVAL", "opens: to is missing");
  const { address, port, connectMs, news } = client;
  const early = goesWithSyn(opening) && news !== undefined ? framed(rules.framing, news) : undefined;
  return { ...rules, id, address, port, connectMs, endpoint, early };
}

/**
 * Starts a runtime. It keeps the process alive until it is closed. What `options` leave open is taken from the
 * environment (APO_LINK and its like, as `apo run` sets them), then from the defaults.
 */
export async function createRuntime(options: RuntimeOptions = {}): Promise<Apo> {
  const { env } = process;
  const runtime = namingEnvironment(env, () => new Runtime(withEnvironment(options, env)));
  await runtime.start();
  return runtime;
}

export class Runtime implements Apo, GroupHost {
  readonly closed: Promise<ApoError | undefined>;
  /** For tests: the threads and memory behind the verbs. */
  readonly threads: Threads;
  readonly endpoint: Endpoint;
  private readonly verbs: Verbs;
  private readonly ground: OpenGround;
  private readonly counted = new Counters(appCounterNames);
  private readonly listeners = new Map<number, RuntimeListener>();
  private readonly groups = new Map<number, RuntimeGroup>();
  private readonly connects = new Map<number, PendingConnect>();
  private readonly fanouts = new Set<Fanout>();
  private readonly resolveClosed: (error: ApoError | undefined) => void;
  private closing = false;
  private ended: Promise<void> | undefined;
  private nextOpen = 1;
  private nextWorker = 0;

  constructor(options: RuntimeOptions) {
    const { promise, resolve } = Promise.withResolvers<ApoError | undefined>();
    this.closed = promise;
    this.resolveClosed = resolve;
    const settings = checkRuntimeOptions(options);
    const isHost = settings.link === undefined;
    this.ground = { tcp: settings.tcp, sendlen: settings.sendlen, isHost };
    this.threads = new Threads(settings, {
      message: (index, message) => this.hear(index, message),
      workerDied: (index, dead, error, again) => this.workerDied(index, dead, error, again),
      workerReplaced: (index) => this.workerReplaced(index),
      appWorkerDied: (party, error, again) => this.appWorkerDied(party, error, again),
      appWorkerReplaced: (party) => this.appWorkerReplaced(party),
      warn: (alarm, detail) => warnProcess(alarm, alarm.text, detail),
    });
    this.endpoint = new Endpoint({
      pool: this.threads.pool,
      nodes: this.threads.nodes,
      owners: this.threads.owners,
      counters: this.counted,
      isHost,
      alarm: (open, alarm, error) => this.raise(open, alarm, error),
    });
    this.verbs = new Verbs(this.endpoint.sending, this.endpoint.streams, isHost);
    this.endpoint.verbs = this;
  }

  async start(): Promise<void> {
    try {
      await this.threads.start(this.endpoint);
      const { guard } = this.threads;
      if (guard)
        guard.onAttack = (attack, text, count) => this.alarmAll({ code: "attack", text, count, attack });
    } catch (error) {
      await this.threads.terminate();
      throw error;
    }
  }

  // --- the verbs ----------------------------------------------------------------------------------------------

  opens(options: ListenOptions): Promise<Listener>;
  opens(options: GroupOptions): Promise<Group>;
  opens(options: ConnectOptions): Promise<Sockfd>;
  async opens(options: OpenOptions): Promise<Listener | Group | Sockfd> {
    const opening = checkOpenOptions(options, this.ground);
    this.checkOpen();
    const id = this.nextOpen++;
    const prepared = await this.prepare(id, opening);
    try {
      if (opening.server) return await this.listen(id, opening, prepared);
      if (opening.client?.group) return this.openGroup(id, opening, prepared);
      return await this.connect(id, opening, prepared);
    } catch (error) {
      this.forgetOpen(id);
      throw error;
    }
  }

  sendto(to: Sockfd | readonly Sockfd[], data: unknown): Promise<void> | undefined {
    return this.verbs.sendto(to, data);
  }

  async close(what?: Sockfd | Listener | Group, options?: CloseOptions): Promise<void> {
    if (what === undefined) return this.shutDown(undefined);
    if (typeof what !== "number") return what.close();
    if (options?.shutdown !== undefined && !options.reset) return this.verbs.close(what, options);
    const ended = this.endpoint.ended(what);
    this.verbs.close(what, options);
    await ended;
  }

  queued(sockfd: Sockfd): number {
    return this.verbs.queued(sockfd);
  }

  flushed(sockfd: Sockfd): Promise<void> {
    return this.verbs.flushed(sockfd);
  }

  peer(sockfd: Sockfd): Peer {
    return this.verbs.peer(sockfd);
  }

  status(sockfd: Sockfd): ConnectionStatus {
    return this.verbs.status(sockfd);
  }

  tune(sockfd: Sockfd, options: TcpSettings): void {
    this.verbs.tune(sockfd, options);
  }

  info(sockfd: Sockfd): Promise<TcpInfo> {
    return this.verbs.info(sockfd);
  }

  async fanout(options?: FanoutOptions): Promise<Fanout> {
    this.checkOpen();
    const { createFanout } = await import("../layer3-ip/fanout.ts");
    const fanout = await createFanout(options, this.threads.attachEngine());
    this.fanouts.add(fanout);
    return fanout;
  }

  link(): LinkFacts {
    return this.threads.linkFacts();
  }

  get guard(): RuntimeGuard {
    if (this.threads.guard) return this.threads.guard;
    throw noGuardOnHost();
  }

  counters(): Record<string, number> {
    const sum: Record<string, number> = {};
    this.counted.addTo(sum);
    this.threads.addCounters(sum);
    return sum;
  }

  async drain(): Promise<void> {
    const listeners = [...this.listeners.values()];
    const groups = [...this.groups.values()];
    await Promise.all([
      ...listeners.map((listener) => listener.drain()),
      ...groups.map((group) => group.closed),
    ]);
    while (!this.closing && this.endpoint.connectionCount() > 0) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // --- opening ------------------------------------------------------------------------------------------------

  private checkOpen(): void {
    if (this.closing) throw new ApoError("ECLOSED", "the runtime has been closed");
  }

  /** Makes the handlers known where they will run. */
  private async prepare(id: number, opening: Opening): Promise<Prepared> {
    const { name, module, handlers, framingFunction, inWorkers, client } = opening;
    const { recvlen } = opening.rules;
    const msgpack = opening.rules.framing === "msgpack";
    const news = goesWithSyn(opening) ? undefined : client?.news;
    const many = !client || client.group !== undefined;
    if (!module) {
      const quiet = many && !handlers.connected && !handlers.closed && news === undefined;
      this.endpoint.addOpen({
        ...{ id, handlers, name, recvlen, msgpack, framingFunction, news, quiet },
        leaving: !many,
      });
      return { quiet, endpoints: [this.threads.mainParty], inWorkers };
    }
    const apps = inWorkers ? this.threads.startPlaced() : this.threads.startApps();
    const facts = await apps.load({ id, url: module, name, recvlen, msgpack, news, many });
    if (facts.framing) Object.assign(opening.rules, { framing: "chunks" });
    if (facts.alarm) this.threads.moduleAlarms.add(id);
    const endpoints = apps instanceof AppWorkers ? apps.parties : [];
    return { quiet: facts.quiet, endpoints, inWorkers };
  }

  /** Undoes `prepare`. */
  private forgetOpen(id: number): void {
    this.endpoint.removeOpen(id);
    this.threads.moduleAlarms.delete(id);
    this.threads.apps?.unload(id);
    this.threads.placed?.unload(id);
  }

  private async listen(id: number, opening: Opening, prepared: Prepared): Promise<Listener> {
    const { server, rules } = opening;
    if (!server) throw new ApoError("EINVAL", "opens: port is missing");
    const { count } = this.threads;
    const counts = new SharedArrayBuffer(4 * count);
    const { address, port, limit } = server;
    const { quiet, endpoints, inWorkers } = prepared;
    const asked: ListenerRecord = {
      ...rules,
      ...{ id, address, port, shared: count > 1, limit, counts, endpoints, quiet },
    };
    const first = inWorkers ? { ...asked, endpoints: [0] } : asked;
    const body = { type: "listen", listener: first, first: true } as const;
    const bound = (await this.threads.workers.call(0, body)) as LocalAddress;
    const record: ListenerRecord = { ...asked, address: bound.address, port: bound.port };
    const listener = new RuntimeListener(this, record, inWorkers);
    listener.address = bound.address;
    listener.port = bound.port;
    this.listeners.set(id, listener);
    try {
      for (let index = 1; index < count; index += 1) {
        await this.threads.workers.call(index, {
          type: "listen",
          listener: listener.recordFor(index),
          first: false,
        });
      }
    } catch (error) {
      await listener.close();
      throw error;
    }
    return listener;
  }

  private connect(id: number, opening: Opening, prepared: Prepared): Promise<Sockfd> {
    const { module } = opening;
    const worker = this.nextWorker++ % this.threads.count;
    const request = requestOf(id, opening, partyFor(prepared, worker, id));
    return new Promise((resolve, reject) => {
      this.connects.set(id, { resolve, reject, worker, module: module !== undefined });
      const open = this.endpoint.opens.get(id);
      if (open) open.connected = (sockfd) => this.connectDone(id, sockfd);
      this.threads.workers.post(worker, { type: "connect", request });
    });
  }

  /** Has every worker open its share of many connections. */
  private openGroup(id: number, opening: Opening, prepared: Prepared): Group {
    const { client } = opening;
    if (!client?.group) throw new ApoError("EINVAL", "opens: connections is missing");
    const { connections, rate } = client.group;
    const { count } = this.threads;
    const memory = new SharedArrayBuffer(4 * tallyWords * count);
    const shares = Array.from({ length: count }, (_, index) => Math.floor((connections + index) / count));
    const group = new RuntimeGroup(this, id, memory, shares);
    this.groups.set(id, group);
    for (const [worker, share] of shares.entries()) {
      if (share === 0) continue;
      const part = { count: share, rate: (rate * share) / connections, tally: memory };
      const request = requestOf(id, opening, partyFor(prepared, worker, worker));
      this.threads.workers.post(worker, {
        type: "connect",
        request: { ...request, quiet: prepared.quiet, group: part },
      });
    }
    return group;
  }

  private connectDone(id: number, outcome: Sockfd | ApoError): void {
    const pending = this.connects.get(id);
    if (!pending) return;
    this.connects.delete(id);
    if (typeof outcome === "number") pending.resolve(outcome);
    else pending.reject(outcome);
  }

  // --- what listeners and groups ask --------------------------------------------------------------------------

  async unlisten(listener: RuntimeListener): Promise<void> {
    const { id } = listener.record;
    const asked = Array.from({ length: this.threads.count }, (_, index) =>
      this.threads.workers.call(index, { type: "unlisten", listener: id }),
    );
    await Promise.allSettled(asked);
  }

  finish(listener: RuntimeListener): void {
    this.endpoint.flush();
    this.threads.tellWorkers({ type: "finish", listener: listener.record.id });
  }

  untold(listener: RuntimeListener): number {
    return this.endpoint.connectionCount(listener.record.id);
  }

  forget(listener: RuntimeListener): void {
    const { id } = listener.record;
    this.listeners.delete(id);
    this.forgetOpen(id);
  }

  finishGroup(group: RuntimeGroup): void {
    this.endpoint.flush();
    this.threads.tellWorkers({ type: "finish", listener: group.id });
  }

  untoldOf(group: RuntimeGroup): number {
    return this.endpoint.connectionCount(group.id);
  }

  forgetGroup(group: RuntimeGroup): void {
    this.groups.delete(group.id);
    this.forgetOpen(group.id);
  }

  // --- what workers tell --------------------------------------------------------------------------------------

  private hear(index: number, message: FromWorker): void {
    if (message.type === "connected") {
      // Where the handlers run in this thread, the ring tells, and in order with the messages.
      if (this.connects.get(message.open)?.module) this.connectDone(message.open, message.sockfd);
    } else if (message.type === "app") {
      this.threads.placed?.hear(message.message as FromAppWorker);
    } else if (message.type === "group") {
      this.groups.get(message.open)?.told(index, message.over);
    } else if (message.type === "failed") {
      this.connectDone(message.open, new ApoError(message.code, message.text));
    } else if (message.type === "alarm") {
      const { code, text, count } = message;
      this.tellAlarm(message.open, { code, text, count });
    } else if (message.type === "guard") this.threads.guard?.hear(index, message.report);
  }

  private tellAlarm(openId: number, alarm: Alarm): void {
    const { moduleAlarms, apps, placed } = this.threads;
    if (moduleAlarms.has(openId)) {
      if (!placed?.alarm(openId, alarm)) apps?.alarm(openId, alarm);
    } else this.raise(this.endpoint.opens.get(openId), alarm, undefined);
  }

  private raise(open: OpenRecord | undefined, alarm: Alarm, error: unknown): void {
    raise(open, alarm, this, error, (text, detail) => warnProcess(alarm, text, detail));
  }

  private workerDied(index: number, dead: Estate, error: Error, again: boolean): Promise<void> {
    const told = this.endpoint.removeLink(index, dead);
    for (const listener of this.listeners.values()) listener.forgetWorker(index);
    for (const group of [...this.groups.values()]) group.forgetWorker(index);
    for (const [id, pending] of [...this.connects]) {
      if (pending.worker === index)
        this.connectDone(id, new ApoError("EWORKER", `a worker died: ${error.message}`));
    }
    const text = `layer-2 worker ${index} died (${error.message}): its connections are closed`;
    this.alarmAll({ code: "worker", text, count: 1 });
    if (!again) void this.shutDown(new ApoError("EWORKER", `${text}; it died too often to be started again`));
    return told;
  }

  /** Resolves when the fresh worker listens where the others do. */
  private async workerReplaced(index: number): Promise<void> {
    if (this.closing) return;
    this.threads.connectMain(this.endpoint, index);
    const asked = [...this.listeners.values()].map((listener) => this.listenAgain(index, listener));
    await Promise.all(asked);
  }

  private async listenAgain(index: number, listener: RuntimeListener): Promise<void> {
    if (!listener.accepting) return;
    try {
      const record = listener.recordFor(index);
      await this.threads.workers.call(index, { type: "listen", listener: record, first: false });
    } catch (error) {
      const text = `the fresh worker ${index} cannot listen: ${(error as Error).message}`;
      this.tellAlarm(listener.record.id, { code: "worker", text, count: 1 });
    }
  }

  private appWorkerDied(_party: number, error: Error, again: boolean): void {
    const more = again ? "" : "; it died too often to be started again";
    const text = `an app worker died (${error.message}): its connections are closed${more}`;
    this.alarmAll({ code: "worker", text, count: 1 });
  }

  private appWorkerReplaced(party: number): void {
    for (const listener of this.listeners.values()) {
      if (this.endpoint.opens.has(listener.record.id) || listener.inWorkers) continue;
      listener.record.endpoints.push(party);
      this.threads.tellWorkers({ type: "endpoint", listener: listener.record.id, party });
    }
  }

  private alarmAll(alarm: Alarm): void {
    let told = false;
    for (const id of this.listeners.keys()) {
      this.tellAlarm(id, alarm);
      told = true;
    }
    if (!told) warnProcess(alarm, alarm.text, "");
  }

  // --- the end ------------------------------------------------------------------------------------------------

  private shutDown(error: ApoError | undefined): Promise<void> {
    this.closing = true;
    this.ended ??= this.endAll(error);
    return this.ended;
  }

  private async endAll(error: ApoError | undefined): Promise<void> {
    for (const fanout of this.fanouts) await fanout.close();
    this.endpoint.flush();
    await this.threads.workers.stop(closeGraceMs);
    this.endpoint.exhaust();
    this.endpoint.close();
    for (const [id] of [...this.connects])
      this.connectDone(id, new ApoError("ECLOSED", "the runtime has been closed"));
    for (const listener of this.listeners.values()) listener.abort(error);
    this.listeners.clear();
    for (const group of this.groups.values()) group.abort(error);
    this.groups.clear();
    await this.threads.terminate();
    this.resolveClosed(error);
  }
}

/** Whether the first message is the SYN's to carry (TCP Fast Open): the worker sends it then, in any case. */
function goesWithSyn({ rules, client }: Opening): boolean {
  return rules.protocol === "tcp" && rules.tcp.fastOpen && client?.news !== undefined;
}
