/** An endpoint without threads: a table of v-nodes, and a link that keeps what is posted to it. */
import { Endpoint } from "../../src/layer1-app/endpoint.ts";
import type { AppLink } from "../../src/layer1-app/sending.ts";
import type { Alarm } from "../../src/layer1-app/types.ts";
import { appCounterNames, Counters } from "../../src/layer2-transport/counters.ts";
import { closeCodes, kind } from "../../src/layer2-transport/descriptor.ts";
import { createPool, FramePool, shapeFor } from "../../src/layer2-transport/link.ts";
import { NodeTable } from "../../src/layer2-transport/nodes/node-table.ts";
import { createNodes, type FramingKind, node, shards } from "../../src/layer2-transport/nodes/v-node.ts";
import { TestLink } from "./test-link.ts";

const workerParty = 0;
const appParty = 1;
const openId = 7;

/** One worker's side, played by the test, and the endpoint that it speaks to. */
export class Bench {
  readonly nodes = createNodes(2 ** 15);
  readonly table = new NodeTable(this.nodes);
  readonly link = new TestLink(workerParty);
  readonly alarms: Alarm[] = [];
  readonly pool: FramePool;
  readonly endpoint: Endpoint;
  private readonly words = new Int32Array(8);

  constructor() {
    const memory = createPool(shapeFor(2, 2 ** 20));
    this.pool = new FramePool(memory, workerParty);
    const owners = new SharedArrayBuffer(4 * shards);
    new Int32Array(owners).fill(workerParty + 1);
    for (let shard = 0; shard < shards; shard += 1) this.table.adopt(shard);
    this.endpoint = new Endpoint({
      pool: new FramePool(memory, appParty),
      nodes: this.nodes,
      owners,
      counters: new Counters(appCounterNames),
      isHost: false,
      alarm: (_, alarm) => this.alarms.push(alarm),
    });
    this.endpoint.addLocalLink(workerParty, this.link as AppLink);
  }

  /** Makes an `opens` known. */
  open(handlers: Parameters<Endpoint["addOpen"]>[0]["handlers"], more: object = {}): void {
    const name = "tcp port 7";
    this.endpoint.addOpen({
      id: openId,
      handlers,
      name,
      recvlen: 65_536,
      msgpack: false,
      leaving: false,
      quiet: false,
      ...more,
    });
  }

  /** Opens a connection in a shard, as a worker does: its sockfd24. The endpoint has not been told. */
  make(shard: number, framing: FramingKind = "raw", sendlen = 2 ** 20): number {
    const sockfd24 = this.table.allocate(shard);
    const rules = { protocol: "tcp", framing, sendlen } as const;
    this.table.open(this.table.baseOf(sockfd24), rules, appParty, openId);
    return sockfd24;
  }

  generation(sockfd24: number): number {
    return this.table.words[this.table.baseOf(sockfd24) + node.generation] as number;
  }

  post(
    what: number,
    sockfd24: number,
    generation: number,
    frame: number,
    length: number,
    arg0: number,
  ): void {
    this.words.set([what, sockfd24, generation, frame, 0, length, arg0, 0]);
    this.endpoint.receive(this.link as AppLink, this.words, 0);
  }

  connected(sockfd24: number): void {
    this.post(kind.connected, sockfd24, this.generation(sockfd24), 0, 0, openId);
  }

  message(sockfd24: number, bytes: Uint8Array, what: number = kind.message): void {
    const frame = this.pool.allocate(bytes.length);
    this.pool.write(frame, 0, bytes);
    this.pool.hold(frame, appParty);
    this.post(what, sockfd24, this.generation(sockfd24), frame, bytes.length, 0);
  }

  closed(sockfd24: number, generation = this.generation(sockfd24)): void {
    this.post(kind.closed, sockfd24, generation, 0, 0, closeCodes.indexOf("end"));
  }
}
