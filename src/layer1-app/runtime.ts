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
} from "../layer2-transport/index.ts";
import type { Fanout, FanoutOptions } from "../layer3-ip/fanout-types.ts";
import { raise, warnProcess } from "./alarms.ts";
import type { OpenRecord } from "./app-connection.ts";
import { Endpoint } from "./endpoint.ts";
import { namingEnvironment, withEnvironment } from "./environment.ts";
import { ApoError } from "./errors.ts";
import { framed } from "./framing.ts";
import { RuntimeListener } from "./listener.ts";
import { checkOpenOptions, type OpenGround, type Opening } from "./options.ts";
import { checkRuntimeOptions, noGuardOnHost } from "./runtime-options.ts";
import type { Estate } from "./shard-moves.ts";
import { Threads } from "./threads.ts";
import type {
  Alarm,
  Apo,
  CloseOptions,
  ConnectionStatus,
  ConnectOptions,
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

export class Runtime implements Apo {
  readonly closed: Promise<ApoError | undefined>;
  /** For tests: the threads and memory behind the verbs. */
  readonly threads: Threads;
  readonly endpoint: Endpoint;
  private readonly verbs: Verbs;
  private readonly ground: OpenGround;
  private readonly counted = new Counters(appCounterNames);
  private readonly listeners = new Map<number, RuntimeListener>();
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
  opens(options: ConnectOptions): Promise<Sockfd>;
  async opens(options: ListenOptions | ConnectOptions): Promise<Listener | Sockfd> {
    const opening = checkOpenOptions(options, this.ground);
    this.checkOpen();
    const id = this.nextOpen++;
    const parties = await this.prepare(id, opening);
    try {
      if (opening.server) return await this.listen(id, opening, parties);
      return await this.connect(id, opening, parties);
    } catch (error) {
      this.endpoint.removeOpen(id);
      if (opening.module) this.threads.apps?.unload(id);
      throw error;
    }
  }

  sendto(to: Sockfd | readonly Sockfd[], data: unknown): Promise<void> | undefined {
    return this.verbs.sendto(to, data);
  }

  async close(what?: Sockfd | Listener, options?: CloseOptions): Promise<void> {
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
    const fanout = await createFanout(options);
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
    await Promise.all(listeners.map((listener) => listener.drain()));
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

  /** Makes the handlers known where they will run. Returns the parties that take the connections. */
  private async prepare(id: number, opening: Opening): Promise<number[]> {
    const { name, module } = opening;
    const { recvlen } = opening.rules;
    const msgpack = opening.rules.framing === "msgpack";
    const news = goesWithSyn(opening) ? undefined : opening.client?.news;
    if (!module) {
      const { handlers, framingFunction } = opening;
      const leaving = opening.client !== undefined;
      this.endpoint.addOpen({ id, handlers, name, recvlen, msgpack, framingFunction, news, leaving });
      return [this.threads.mainParty];
    }
    const apps = this.threads.startApps();
    const facts = await apps.load({ id, url: module, name, recvlen, msgpack, news });
    if (facts.framing) Object.assign(opening.rules, { framing: "chunks" });
    if (facts.alarm) this.threads.moduleAlarms.add(id);
    return apps.parties;
  }

  private async listen(id: number, opening: Opening, endpoints: number[]): Promise<Listener> {
    const { server, rules } = opening;
    if (!server) throw new ApoError("EINVAL", "opens: port is missing");
    const { count } = this.threads;
    const counts = new SharedArrayBuffer(4 * count);
    const { address, port, limit } = server;
    const asked: ListenerRecord = {
      ...rules,
      id,
      address,
      port,
      shared: count > 1,
      limit,
      counts,
      endpoints,
    };
    const bound = (await this.threads.workers.call(0, {
      type: "listen",
      listener: asked,
      first: true,
    })) as LocalAddress;
    const record: ListenerRecord = { ...asked, address: bound.address, port: bound.port };
    const listener = new RuntimeListener(this, record);
    listener.address = bound.address;
    listener.port = bound.port;
    this.listeners.set(id, listener);
    try {
      for (let index = 1; index < count; index += 1) {
        await this.threads.workers.call(index, { type: "listen", listener: record, first: false });
      }
    } catch (error) {
      await listener.close();
      throw error;
    }
    return listener;
  }

  private connect(id: number, opening: Opening, parties: readonly number[]): Promise<Sockfd> {
    const { client, rules, module } = opening;
    if (!client) throw new ApoError("EINVAL", "opens: to is missing");
    const worker = this.nextWorker++ % this.threads.count;
    const endpoint = parties[id % parties.length] as number;
    const { address, port, connectMs } = client;
    const early =
      goesWithSyn(opening) && client.news !== undefined ? framed(rules.framing, client.news) : undefined;
    const request: ConnectRequest = { ...rules, id, address, port, connectMs, endpoint, early };
    return new Promise((resolve, reject) => {
      this.connects.set(id, { resolve, reject, worker, module: module !== undefined });
      const open = this.endpoint.opens.get(id);
      if (open) open.connected = (sockfd) => this.connectDone(id, sockfd);
      this.threads.workers.post(worker, { type: "connect", request });
    });
  }

  private connectDone(id: number, outcome: Sockfd | ApoError): void {
    const pending = this.connects.get(id);
    if (!pending) return;
    this.connects.delete(id);
    if (typeof outcome === "number") pending.resolve(outcome);
    else pending.reject(outcome);
  }

  // --- what listeners ask -------------------------------------------------------------------------------------

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
    this.endpoint.removeOpen(id);
    this.threads.moduleAlarms.delete(id);
    this.threads.apps?.unload(id);
  }

  // --- what workers tell --------------------------------------------------------------------------------------

  private hear(index: number, message: FromWorker): void {
    if (message.type === "connected") {
      // Where the handlers run in this thread, the ring tells, and in order with the messages.
      if (this.connects.get(message.open)?.module) this.connectDone(message.open, message.sockfd);
    } else if (message.type === "failed") {
      this.connectDone(message.open, new ApoError(message.code, message.text));
    } else if (message.type === "alarm") {
      const { code, text, count } = message;
      this.tellAlarm(message.open, { code, text, count });
    } else if (message.type === "guard") this.threads.guard?.hear(index, message.report);
  }

  private tellAlarm(openId: number, alarm: Alarm): void {
    if (this.threads.moduleAlarms.has(openId)) this.threads.apps?.alarm(openId, alarm);
    else this.raise(this.endpoint.opens.get(openId), alarm, undefined);
  }

  private raise(open: OpenRecord | undefined, alarm: Alarm, error: unknown): void {
    raise(open, alarm, this, error, (text, detail) => warnProcess(alarm, text, detail));
  }

  private workerDied(index: number, dead: Estate, error: Error, again: boolean): Promise<void> {
    const told = this.endpoint.removeLink(index, dead);
    for (const listener of this.listeners.values()) listener.forgetWorker(index);
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

  private async listenAgain(index: number, { accepting, record }: RuntimeListener): Promise<void> {
    if (!accepting) return;
    try {
      await this.threads.workers.call(index, { type: "listen", listener: record, first: false });
    } catch (error) {
      const text = `the fresh worker ${index} cannot listen: ${(error as Error).message}`;
      this.tellAlarm(record.id, { code: "worker", text, count: 1 });
    }
  }

  private appWorkerDied(_party: number, error: Error, again: boolean): void {
    const more = again ? "" : "; it died too often to be started again";
    const text = `an app worker died (${error.message}): its connections are closed${more}`;
    this.alarmAll({ code: "worker", text, count: 1 });
  }

  private appWorkerReplaced(party: number): void {
    for (const listener of this.listeners.values()) {
      if (this.endpoint.opens.has(listener.record.id)) continue;
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
    await this.threads.terminate();
    this.resolveClosed(error);
  }
}

/** Whether the first message is the SYN's to carry (TCP Fast Open): the worker sends it then, in any case. */
function goesWithSyn({ rules, client }: Opening): boolean {
  return rules.protocol === "tcp" && rules.tcp.fastOpen && client?.news !== undefined;
}
