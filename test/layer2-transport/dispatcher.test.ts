/**
 * The dispatcher with a transport of millions that is only played: which object a connection has and for how long,
 * what becomes of frames, and ends of many at once.
 */
import { beforeEach, describe, expect, test } from "vitest";
import type { Connection } from "../../src/layer2-transport/connection.ts";
import type { Container } from "../../src/layer2-transport/container.ts";
import { Counters, workerCounterNames } from "../../src/layer2-transport/counters.ts";
import { type CloseCode, closeBits, closeCodes, kind } from "../../src/layer2-transport/descriptor.ts";
import { Dispatcher } from "../../src/layer2-transport/dispatcher.ts";
import { createPool, FramePool, type LinkEnd } from "../../src/layer2-transport/link.ts";
import { createLocalLink, type LocalLink } from "../../src/layer2-transport/local-link.ts";
import { NodeTable } from "../../src/layer2-transport/nodes/node-table.ts";
import { createNodes, type FramingKind, node, nodeState } from "../../src/layer2-transport/nodes/v-node.ts";
import { defaultTcpOptions } from "../../src/layer2-transport/tcp/options.ts";
import type { ConnectionRules, ListenerRecord, Transport } from "../../src/layer2-transport/transport.ts";

const own = 0;
const app = 1;
const native = 2;

interface Descriptor {
  readonly kind: number;
  readonly sockfd24: number;
  readonly generation: number;
  readonly frame: number;
  readonly offset: number;
  readonly length: number;
  readonly arg0: number;
}

/** A transport that keeps its containers until it is told to report them, and paused frames until it is resumed. */
class PlayedTransport implements Transport {
  readonly endsInOrder = true;
  readonly active = new Map<number, Connection>();
  readonly queued: { connection: Connection; container: Container }[] = [];
  readonly calls: string[] = [];
  released_ = 0;
  paused = new Set<number>();
  /** Slots that stay taken after the app is through with them. */
  timeWait = false;
  dispatcher!: Dispatcher;

  async listen(): Promise<{ address: string; port: number }> {
    return { address: "10.0.0.1", port: 7 };
  }
  async unlisten(): Promise<void> {}
  connect(): void {}
  find(sockfd24: number): Connection | undefined {
    return this.take(sockfd24);
  }
  take(sockfd24: number): Connection {
    let connection = this.active.get(sockfd24);
    if (!connection) {
      connection = this.dispatcher.connection(sockfd24, { sockfd24 });
      this.active.set(sockfd24, connection);
    }
    return connection;
  }
  released(connection: Connection): void {
    this.active.delete(connection.sockfd);
    this.released_ += 1;
  }
  retired(): boolean {
    return this.timeWait;
  }
  send(connection: Connection, container: Container): void {
    this.queued.push({ connection, container });
  }
  pause(connection: Connection): void {
    this.calls.push("pause");
    this.paused.add(connection.sockfd);
  }
  resume(connection: Connection): void {
    this.calls.push("resume");
    this.paused.delete(connection.sockfd);
  }
  shutdown(): void {
    this.calls.push("shutdown");
  }
  end(): void {
    this.calls.push("end");
  }
  destroy(connection: Connection): void {
    this.calls.push("destroy");
    this.over(connection, "reset");
  }
  over(connection: Connection, code: CloseCode): void {
    for (const entry of this.queued.splice(0)) {
      if (entry.connection === connection) this.dispatcher.sent(connection, entry.container, false);
      else this.queued.push(entry);
    }
    this.active.delete(connection.sockfd);
    this.dispatcher.ended(connection, code);
  }
  sendAll(): void {
    for (const { connection, container } of this.queued.splice(0))
      this.dispatcher.sent(connection, container);
  }
  async close(): Promise<void> {}
}

class Bench {
  readonly memory = createPool({ partitions: 3, small: 256, large: 16 });
  readonly pool = new FramePool(this.memory, own);
  readonly appPool = new FramePool(this.memory, app);
  readonly nativePool = new FramePool(this.memory, native);
  readonly table = new NodeTable(createNodes(2 ** 14));
  readonly counters = new Counters(workerCounterNames);
  readonly transport = new PlayedTransport();
  readonly links = new Map<number, LinkEnd>();
  readonly link: LocalLink;
  readonly appEnd: LocalLink;
  readonly dispatcher: Dispatcher;
  readonly alarms: string[] = [];
  readonly listener: ListenerRecord;

  constructor(framing: FramingKind, change: Partial<ConnectionRules> = {}, party = app) {
    for (const shard of [0, 1]) this.table.adopt(shard);
    const ends = createLocalLink(party, () => {});
    this.link = ends.worker;
    this.appEnd = ends.app;
    this.links.set(party, this.link);
    this.dispatcher = new Dispatcher({
      index: 0,
      pool: this.pool,
      table: this.table,
      counters: this.counters,
      links: this.links,
      alarm: (_open, code) => this.alarms.push(code),
      clientConnected() {},
      clientFailed() {},
      clientEnded() {},
    });
    this.transport.dispatcher = this.dispatcher;
    this.dispatcher.attach(this.transport);
    this.listener = {
      ...{ protocol: "tcp", framing, recvlen: 4000, sendlen: 1e6, idleMs: 0, waiting: 4, ...change },
      ...{ tcp: defaultTcpOptions, id: 5, address: undefined, port: 7, shared: false, limit: 1e6 },
      ...{ counts: new SharedArrayBuffer(4), endpoints: [party] },
      ...change,
    } as ListenerRecord;
  }

  accept(): number {
    const sockfd24 = this.table.allocate(1);
    expect(this.dispatcher.acceptedNode(this.listener, sockfd24)).toBe(true);
    return sockfd24;
  }

  generation(sockfd24: number): number {
    return this.table.words[this.table.baseOf(sockfd24) + node.generation] as number;
  }

  state(sockfd24: number): number {
    return this.table.words[this.table.baseOf(sockfd24) + node.state] as number;
  }

  /** A frame as the native thread hands it over: the bytes stand at `offset`. */
  frameOf(bytes: string, offset = 66, large = false): number {
    const frame = this.nativePool.allocateFrame(large);
    this.nativePool.write(frame, offset, Buffer.from(bytes, "latin1"));
    return frame;
  }

  receive(sockfd24: number, bytes: string, large = false): number {
    const frame = this.frameOf(bytes, 66, large);
    this.dispatcher.receivedFrame(this.transport.take(sockfd24), frame, 66, bytes.length);
    return frame;
  }

  /** What the app has got. */
  posted(): Descriptor[] {
    const got: Descriptor[] = [];
    this.appEnd.takeAll((words, at) => {
      const [what = 0, sockfd24 = 0, generation = 0, frame = 0, offset = 0, length = 0, arg0 = 0] =
        words.subarray(at, at + 7);
      got.push({ kind: what, sockfd24, generation, frame, offset, length, arg0 });
    });
    return got;
  }

  messages(): Descriptor[] {
    return this.posted().filter(({ kind: what }) => what === kind.message);
  }

  textOf({ frame, offset, length }: Descriptor): string {
    return Buffer.concat(this.pool.views(frame, offset, length)).toString();
  }

  /** The app is through with a message. */
  done(message: Descriptor): void {
    this.appPool.drop(message.frame, app);
    this.tell(kind.done, message.sockfd24);
  }

  tell(what: number, sockfd24: number, arg0 = 0, arg1 = 0, frame = 0, length = 0): void {
    const words = Int32Array.from([what, sockfd24, this.generation(sockfd24), frame, 0, length, arg0, arg1]);
    this.dispatcher.receive(this.link, words, 0);
  }

  send(sockfd24: number, bytes: string): void {
    const frame = this.appPool.allocate(bytes.length);
    this.appPool.write(frame, 0, Buffer.from(bytes));
    this.appPool.hold(frame, own);
    const at = this.table.baseOf(sockfd24) + node.enqueued;
    Atomics.add(this.table.words, at, bytes.length);
    this.tell(kind.send, sockfd24, 0, 0, frame, bytes.length);
  }

  get framesInUse(): number {
    return this.pool.framesInUse();
  }
}

describe("a connection of a transport of millions", () => {
  let bench: Bench;
  beforeEach(() => {
    bench = new Bench("line");
  });

  test("has no object while nothing goes on, and none is made when it is accepted", () => {
    const sockfds = [bench.accept(), bench.accept(), bench.accept()];
    expect(bench.transport.active.size).toBe(0);
    expect(bench.dispatcher.unended).toBe(3);
    expect(bench.posted().map((it) => [it.kind, it.sockfd24, it.arg0])).toEqual(
      sockfds.map((sockfd24) => [kind.connected, sockfd24, 5]),
    );
    expect(bench.state(sockfds[0] as number)).toBe(nodeState.open);
    expect(bench.table.endpointAt(bench.table.baseOf(sockfds[0] as number))).toBe(app);
    expect(new Int32Array(bench.listener.counts)[0]).toBe(3);
  });

  test("has one from a message until its answer is out; it is another's then", () => {
    const [one, two] = [bench.accept(), bench.accept()];
    bench.posted();
    bench.receive(one, "hello\n");
    const [message] = bench.messages();
    const object = bench.transport.active.get(one);
    bench.send(one, "answer\n");
    bench.done(message as Descriptor);
    expect(bench.transport.active.get(one)).toBe(object);
    bench.transport.sendAll();
    expect(bench.transport.active.size).toBe(0);
    expect(bench.transport.released_).toBe(1);
    expect(bench.framesInUse).toBe(0);
    bench.receive(two, "hello\n");
    expect(bench.transport.active.get(two)).toBe(object);
    const words = bench.table.words.subarray(bench.table.baseOf(one));
    expect([words[node.enqueued], words[node.written], words[node.receivedBytes]]).toEqual([7, 7, 6]);
    expect(words[node.receivedMessages]).toBe(1);
  });

  test("has one for as long as half a message is there", () => {
    const sockfd24 = bench.accept();
    bench.posted();
    bench.receive(sockfd24, "hel");
    expect(bench.transport.active.size).toBe(1);
    expect(bench.framesInUse).toBe(0); // It has been copied: half a line is not worth a frame.
    bench.receive(sockfd24, "lo\n");
    const [message] = bench.messages();
    expect(bench.textOf(message as Descriptor)).toBe("hello");
    bench.done(message as Descriptor);
    expect(bench.transport.active.size).toBe(0);
  });

  test("a flush of an idle one is answered, and leaves it idle", () => {
    const sockfd24 = bench.accept();
    bench.posted();
    bench.tell(kind.flush, sockfd24, 77);
    expect(bench.posted()).toMatchObject([{ kind: kind.answered, arg0: 77 }]);
    expect(bench.transport.active.size).toBe(0);
  });
});

describe("a frame with messages", () => {
  test("goes to the app as it is when it holds one", () => {
    const bench = new Bench("line");
    const sockfd24 = bench.accept();
    bench.posted();
    const frame = bench.receive(sockfd24, "hello\r\n");
    const [message] = bench.messages();
    expect(message).toMatchObject({ frame, offset: 66, length: 5 });
    // It is the app's alone: should the app die, it is found by its mark; should the worker, nothing is.
    expect(bench.pool.dropAll(own)).toBe(0);
    expect(bench.pool.dropAll(app)).toBe(1);
    expect(bench.framesInUse).toBe(0);
  });

  test("gives them one after another, from where they are", () => {
    const bench = new Bench("length16");
    const sockfd24 = bench.accept();
    bench.posted();
    const frame = bench.receive(sockfd24, "\0\x03one\0\x03two\0\x05th");
    const seen: string[] = [];
    for (let [message] = bench.messages(); message; [message] = bench.messages()) {
      seen.push(bench.textOf(message));
      expect(message.frame).toBe(frame);
      bench.done(message);
    }
    expect(seen).toEqual(["one", "two"]);
    expect(bench.framesInUse).toBe(0); // What is left has been copied.
    bench.receive(sockfd24, "ree");
    const [last] = bench.messages();
    expect(bench.textOf(last as Descriptor)).toBe("three");
    bench.done(last as Descriptor);
    expect(bench.framesInUse).toBe(0);
    expect(bench.transport.active.size).toBe(0);
  });

  test("the rest of it is found by the worker's mark while it waits", () => {
    const bench = new Bench("line");
    bench.receive(bench.accept(), "one\ntwo\n");
    expect(bench.pool.dropAll(own)).toBe(1);
    expect(bench.pool.dropAll(app)).toBe(1);
    expect(bench.framesInUse).toBe(0);
  });

  test("is not kept by a little message in a long one", () => {
    const bench = new Bench("line");
    const sockfd24 = bench.accept();
    bench.posted();
    const frame = bench.receive(sockfd24, "hello\n", true);
    const [message] = bench.messages();
    expect(message?.frame).not.toBe(frame);
    expect(bench.textOf(message as Descriptor)).toBe("hello");
    expect(bench.framesInUse).toBe(1);
  });

  test("for an endpoint in the worker's own thread: a message that does not take it has a frame of its own", () => {
    const bench = new Bench("line", {}, own);
    const sockfd24 = bench.accept();
    bench.posted();
    const frame = bench.receive(sockfd24, "one\ntwo\n");
    const [first] = bench.messages();
    expect(first?.frame).not.toBe(frame);
    expect(bench.textOf(first as Descriptor)).toBe("one");
    bench.pool.drop(first?.frame as number, own);
    bench.tell(kind.done, sockfd24);
    const [second] = bench.messages();
    expect(second?.frame).toBe(frame);
    bench.pool.drop(frame, own);
    bench.tell(kind.done, sockfd24);
    expect(bench.framesInUse).toBe(0);
    expect(bench.transport.active.size).toBe(0);
  });

  test.each(["line", "length16", "length32", "raw"] as const)(
    "%s: any cut of the stream gives the same bytes in order, and no frame is left",
    (framing) => {
      const bench = new Bench(framing, { recvlen: 300 });
      const sockfd24 = bench.accept();
      bench.posted();
      const texts = Array.from({ length: 60 }, (_, i) => `${i}:${"x".repeat((i * 37) % 290)}`);
      const framed = texts.map((text) => {
        if (framing === "line") return `${text}\n`;
        const high = String.fromCharCode(text.length >> 8, text.length & 255);
        return framing === "length16"
          ? `${high}${text}`
          : framing === "length32"
            ? `\0\0${high}${text}`
            : text;
      });
      const stream = framed.join("");
      const seen: string[] = [];
      const take = (): void => {
        for (let [message] = bench.messages(); message; [message] = bench.messages()) {
          seen.push(bench.textOf(message));
          bench.done(message);
        }
      };
      for (let at = 0, cut = 1; at < stream.length; cut = (cut * 7 + 3) % 1400) {
        const part = stream.slice(at, at + cut);
        at += part.length;
        if (part.length > 0) bench.receive(sockfd24, part, cut % 3 === 0);
        // The app keeps up only sometimes.
        if (cut % 2 === 0) take();
      }
      take();
      if (framing === "raw") expect(seen.join("")).toBe(stream);
      else expect(seen).toEqual(texts);
      expect(bench.framesInUse).toBe(0);
      expect(bench.transport.active.size).toBe(0);
    },
  );
});

describe("a sender that goes on while a message is with the app", () => {
  test("is held off once enough waits, and goes on when all of that is handled", () => {
    const bench = new Bench("raw");
    const sockfd24 = bench.accept();
    bench.posted();
    let sent = 0;
    while (!bench.transport.paused.has(sockfd24)) {
      bench.receive(sockfd24, "y".repeat(1900));
      sent += 1900;
    }
    expect(sent).toBeLessThan(80_000);
    expect(bench.counters.get("layer2.receive.pauses")).toBe(1);
    let got = 0;
    for (let [message] = bench.messages(); message; [message] = bench.messages()) {
      got += message.length;
      bench.done(message);
    }
    expect(got).toBe(sent);
    expect(bench.transport.calls).toEqual(["pause", "resume"]);
    expect(bench.framesInUse).toBe(0);
  });

  test("little segments are copied together and tie up no frames", () => {
    const bench = new Bench("line");
    const sockfd24 = bench.accept();
    bench.posted();
    bench.receive(sockfd24, "first\n");
    for (let i = 0; i < 1000; i += 1) bench.receive(sockfd24, "a\n");
    expect(bench.framesInUse).toBe(1);
  });

  test("with the pool empty, the message waits", async () => {
    const bench = new Bench("line");
    const sockfd24 = bench.accept();
    bench.posted();
    bench.receive(sockfd24, "hel");
    const taken: number[] = [];
    for (let frame = bench.pool.allocate(1); frame !== 0; frame = bench.pool.allocate(1)) taken.push(frame);
    bench.receive(sockfd24, "lo\n");
    expect(bench.messages()).toEqual([]);
    expect(bench.alarms).toEqual(["frames"]);
    for (const frame of taken) bench.pool.release(frame);
    let message: Descriptor | undefined;
    while (!message) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      [message] = bench.messages();
    }
    expect(bench.textOf(message)).toBe("hello");
  });
});

describe("one container for many", () => {
  test("wakes each, is sent to each, and goes when the last is through", () => {
    const bench = new Bench("raw");
    const sockfds = Array.from({ length: 1000 }, () => bench.accept());
    const stale = bench.accept();
    const frame = bench.appPool.allocate(5);
    const list = bench.appPool.allocateFrame(true);
    const pairs = new Int32Array(bench.memory, list * 2048, 2 * 1001);
    [...sockfds, stale].forEach((sockfd24, i) => {
      const generation = bench.generation(sockfd24);
      pairs.set([sockfd24, sockfd24 === stale ? generation + 1 : generation], 2 * i);
    });
    for (const held of [frame, list]) bench.appPool.hold(held, own);
    bench.dispatcher.receive(bench.link, Int32Array.from([kind.sendMany, 0, 0, frame, 0, 5, 1001, list]), 0);
    expect(bench.transport.queued.length).toBe(1000);
    expect(bench.counters.get("layer2.drop.send-after-end")).toBe(1);
    expect(bench.framesInUse).toBe(1);
    bench.transport.sendAll();
    expect(bench.framesInUse).toBe(0);
    expect(bench.transport.active.size).toBe(0);
  });
});

describe("ends", () => {
  const codeOf = (code: CloseCode): number => closeCodes.indexOf(code);
  const closed = (bench: Bench): string[] =>
    bench
      .posted()
      .filter((it) => it.kind === kind.closed)
      .map((it) => closeCodes[it.arg0] as string);

  test("an end follows what is queued, at once; the number is free when the app has said so", () => {
    const bench = new Bench("raw");
    const sockfd24 = bench.accept();
    bench.send(sockfd24, "last words");
    bench.tell(kind.close, sockfd24, codeOf("closed"));
    expect(bench.transport.calls).toEqual(["end"]);
    const connection = bench.transport.active.get(sockfd24) as Connection;
    bench.transport.sendAll();
    bench.transport.over(connection, "end");
    expect(closed(bench)).toEqual(["closed"]);
    expect(bench.state(sockfd24)).toBe(nodeState.ended);
    expect(bench.dispatcher.unended).toBe(0);
    const generation = bench.generation(sockfd24);
    bench.tell(kind.retire, sockfd24);
    expect(bench.state(sockfd24)).toBe(nodeState.free);
    expect(bench.generation(sockfd24)).toBe(generation + 1);
  });

  test("a number stays taken for as long as the transport says", () => {
    const bench = new Bench("raw");
    bench.transport.timeWait = true;
    const sockfd24 = bench.accept();
    bench.transport.over(bench.transport.take(sockfd24), "reset");
    bench.tell(kind.retire, sockfd24);
    expect(bench.state(sockfd24)).toBe(nodeState.ended);
  });

  test("what a dead worker of this index had opened is nobody's here", () => {
    const bench = new Bench("raw");
    const dead = new NodeTable(bench.table.words.buffer as SharedArrayBuffer, 16);
    dead.adopt(1);
    const sockfd24 = dead.allocate(1);
    dead.open(dead.baseOf(sockfd24), bench.listener, app, 5);
    bench.table.adopt(1, 1 << 16);
    expect(bench.dispatcher.find(sockfd24, bench.generation(sockfd24))).toBeUndefined();
    Atomics.store(bench.table.words, bench.table.baseOf(sockfd24) + node.state, nodeState.ended);
    bench.transport.timeWait = true; // It would keep one of its own.
    bench.tell(kind.retire, sockfd24);
    expect(bench.state(sockfd24)).toBe(nodeState.free);
  });

  test("a linger time of 0 cuts a close off", () => {
    const bench = new Bench("raw", { tcp: { ...defaultTcpOptions, lingerMs: 0 } });
    const sockfd24 = bench.accept();
    bench.send(sockfd24, "never heard");
    bench.tell(kind.close, sockfd24, codeOf("closed"));
    expect(bench.transport.calls).toEqual(["destroy"]);
    expect(closed(bench)).toEqual(["closed"]);
    expect(bench.counters.get("layer2.drop.send-unsent")).toBe(1);
    expect(bench.framesInUse).toBe(0);
  });

  test("a linger time cuts off whoever takes longer", async () => {
    const bench = new Bench("raw", { tcp: { ...defaultTcpOptions, lingerMs: 1 } });
    const sockfd24 = bench.accept();
    bench.send(sockfd24, "never heard");
    bench.tell(kind.close, sockfd24, codeOf("closed"));
    expect(bench.transport.calls).toEqual(["end"]);
    while (bench.dispatcher.unended > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(bench.transport.calls).toEqual(["end", "destroy"]);
    expect(closed(bench)).toEqual(["closed"]);
  });

  test("of one direction: nothing more is sent, what comes is delivered, to the last of it", () => {
    const bench = new Bench("line");
    const sockfd24 = bench.accept();
    bench.posted();
    bench.tell(kind.close, sockfd24, codeOf("closed"), closeBits.write);
    bench.tell(kind.close, sockfd24, codeOf("closed"), closeBits.write);
    expect(bench.transport.calls).toEqual(["shutdown"]);
    bench.send(sockfd24, "too late");
    expect(bench.counters.get("layer2.drop.send-after-end")).toBe(1);
    bench.receive(sockfd24, "one\ntwo\n");
    const connection = bench.transport.active.get(sockfd24) as Connection;
    bench.dispatcher.peerEnded(connection);
    bench.transport.over(connection, "end");
    const [first] = bench.messages();
    bench.done(first as Descriptor);
    const [second] = bench.posted();
    expect(bench.textOf(second as Descriptor)).toBe("two");
    expect(bench.dispatcher.unended).toBe(1);
    bench.done(second as Descriptor);
    expect(closed(bench)).toEqual(["end"]);
    expect(bench.dispatcher.unended).toBe(0);
    expect(bench.framesInUse).toBe(0);
  });

  test("of the reading direction: what comes is dropped and counted", () => {
    const bench = new Bench("line");
    const sockfd24 = bench.accept();
    bench.tell(kind.close, sockfd24, codeOf("closed"), closeBits.read);
    bench.receive(sockfd24, "unheard\n");
    expect(bench.messages()).toEqual([]);
    expect(bench.counters.get("layer2.drop.read-shutdown")).toBe(8);
    expect(bench.framesInUse).toBe(0);
    bench.send(sockfd24, "still sent");
    expect(bench.transport.queued.length).toBe(1);
  });

  test("of a listener with tens of thousands: all of them, no other's, a bounded number at a time", async () => {
    const bench = new Bench("raw");
    const sockfds = Array.from({ length: 30_000 }, () => bench.accept());
    const other = bench.table.allocate(1);
    bench.dispatcher.acceptedNode({ ...bench.listener, id: 6, counts: new SharedArrayBuffer(4) }, other);
    bench.posted();
    let most = 0;
    bench.dispatcher.finishAll(5, "closed");
    while (bench.dispatcher.unended > 1) {
      most = Math.max(most, bench.transport.active.size);
      expect(bench.dispatcher.endingCount).toBe(bench.transport.active.size);
      for (const connection of [...bench.transport.active.values()]) bench.transport.over(connection, "end");
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    expect(most).toBeLessThan(25_000);
    expect(closed(bench).length).toBe(sockfds.length);
    expect(bench.state(other)).toBe(nodeState.open);
    expect(new Int32Array(bench.listener.counts)[0]).toBe(0);
  });

  test("when an app endpoint has died: all of its own, nobody is told, their numbers are free", async () => {
    const bench = new Bench("raw");
    const sockfds = Array.from({ length: 20_000 }, () => bench.accept());
    const busy = sockfds[7] as number;
    bench.receive(busy, "with the dead one");
    bench.transport.over(bench.transport.take(sockfds[8] as number), "end");
    bench.posted();
    bench.links.delete(app);
    await bench.dispatcher.dropEndpoint(bench.link);
    expect(bench.dispatcher.unended).toBe(0);
    expect(bench.posted()).toEqual([]);
    expect(sockfds.every((sockfd24) => bench.state(sockfd24) === nodeState.free)).toBe(true);
    expect(bench.pool.dropAll(app)).toBe(1);
    expect(bench.framesInUse).toBe(0);
  });

  test("when the worker stops, as many as there is time for", async () => {
    const [patient, hasty] = [new Bench("raw"), new Bench("raw")];
    for (const bench of [patient, hasty]) for (let i = 0; i < 20_000; i += 1) bench.accept();
    await patient.dispatcher.abortAll("shutdown", performance.now() + 60_000);
    expect(patient.dispatcher.unended).toBe(0);
    await hasty.dispatcher.abortAll("shutdown", performance.now() - 1);
    expect(hasty.dispatcher.unended).toBeGreaterThan(0);
    expect(hasty.dispatcher.unended).toBeLessThan(20_000);
  });
});
