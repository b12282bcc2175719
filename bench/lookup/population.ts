/**
 * Connections for the benches of layer 2's tables: v-nodes with addresses and ports, and packets that ask for them.
 *
 * It uses the runtime's own table, index and hash, filled as the transport fills them.
 */
import { randomBytes } from "node:crypto";
import { Carrier } from "../../src/layer2-transport/nodes/carrier.ts";
import { FlowIndex } from "../../src/layer2-transport/nodes/flow-index.ts";
import { NodeTable } from "../../src/layer2-transport/nodes/node-table.ts";
import { createNodes, node, shards } from "../../src/layer2-transport/nodes/v-node.ts";
import { SteerHash } from "../../src/layer3-ip/steer.ts";

/** A packet as the stack has read it: the flow's ends (8 words), ports, hash, echoed id. */
export const packetWords = 12;
export const packetPorts = 8;
export const packetHash = 9;
export const packetId = 10;

const serverAddress = 0x0a000001;
const serverPort = 443;
const tcp = 6;

export interface Population {
  readonly table: NodeTable;
  readonly index: FlowIndex;
  readonly carrier: Carrier;
  readonly steer: SteerHash;
  /** The slowest insertion into the index, in microseconds: what its growing costs at once. */
  readonly worstInsertionUs: number;
  /** By connection: its sockfd24. */
  readonly sockfds: Int32Array;
}

/** A table of which this thread owns all shards. */
export function wholeTable(): NodeTable {
  const table = new NodeTable(createNodes());
  for (let shard = 0; shard < shards; shard += 1) table.adopt(shard);
  return table;
}

/** `count` connections of one server, each from an address and port of its own. */
export function populate(count: number): Population {
  const random = { word: () => randomBytes(4).readInt32LE(0) };
  const table = wholeTable();
  const index = new FlowIndex(table);
  const steer = new SteerHash({ low: random.word(), high: random.word() });
  const sockfds = new Int32Array(count);
  const ends = new Int32Array(8);
  ends[4] = serverAddress;
  let worstMs = 0;
  for (let i = 0; i < count; i += 1) {
    const port = portOf(i);
    ends[0] = addressOf(i);
    const hash = steer.hash(ends, 0, port, ends, 4, serverPort, 1, tcp);
    const sockfd24 = table.allocate(hash >>> 28);
    const base = table.baseOf(sockfd24);
    table.setEnds(base, ends, 0, 1, (port << 16) | serverPort);
    table.words[base + node.hash] = hash;
    const beganMs = performance.now();
    index.add(sockfd24, hash);
    worstMs = Math.max(worstMs, performance.now() - beganMs);
    sockfds[i] = sockfd24;
  }
  const carrier = new Carrier(random);
  return { table, index, carrier, steer, worstInsertionUs: worstMs * 1000, sockfds };
}

/** `count` packets, each of a connection picked at random of those that have an id (all but 64 of 16.7M). */
export function packetsOf({ table, carrier, sockfds }: Population, count: number, seed: number): Int32Array {
  const packets = new Int32Array(count * packetWords);
  const { words } = table;
  let state = seed | 0;
  for (let i = 0; i < count; ) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    const sockfd24 = sockfds[pick(state, sockfds.length)] as number;
    const id = carrier.wireId(sockfd24);
    if (id === carrier.reservedId) continue;
    const base = table.baseOf(sockfd24);
    const at = i * packetWords;
    i += 1;
    packets[at] = words[base + node.peerAddress] as number;
    packets[at + 4] = words[base + node.localAddress] as number;
    packets[at + packetPorts] = words[base + node.ports] as number;
    packets[at + packetHash] = words[base + node.hash] as number;
    packets[at + packetId] = id;
  }
  return packets;
}

/** A number below `count` from 32 random bits, whose low ones are the poorest. */
export function pick(bits: number, count: number): number {
  return Math.floor((((bits ^ (bits >>> 15)) >>> 0) / 2 ** 32) * count);
}

function addressOf(i: number): number {
  return 0x0a400000 + Math.floor(i / 256);
}

/** 256 ports an address. */
function portOf(i: number): number {
  return 32_768 + (i & 255);
}
