/**
 * The lookup bench: what it costs to find a packet's connection among a million and among all there can be.
 *
 * See docs/benchmarks.md for the method.
 */
import { matches } from "../../src/layer2-transport/nodes/flow-match.ts";
import { type Bench, type BenchContext, type Row, row } from "../lib/bench.ts";
import { median } from "../lib/stats.ts";
import {
  type Population,
  packetHash,
  packetId,
  packetPorts,
  packetsOf,
  packetWords,
  populate,
} from "./population.ts";

const million = 2 ** 20;
const all = 2 ** 24;
const ratioMark = { op: ">=", target: 3 } as const;
const idMark = { op: "<=", target: 60 } as const;

export const bench: Bench = {
  name: "lookup",
  summary: "finding a packet's connection by echoed id and by hash, among 1M and 16.7M",
  run,
};

/** Packets a call, as many as a worker takes in a turn: the code is compiled as a worker's is, and not as one loop. */
const turnWords = 256 * packetWords;
const placeOfPorts = packetPorts;
const placeOfHash = packetHash;
const placeOfId = packetId;
const wordsOfPacket = packetWords;

/** Finds the connections of the packets from `from` up to `to`, checked; the sum of their numbers, modulo 2^32. */
type Finder = (population: Population, packets: Int32Array, from: number, to: number) => number;

const finders: readonly { readonly name: string; readonly find: Finder }[] = [
  { name: "by id", find: byId },
  { name: "by hash, as layer 3 gives it", find: byHash },
  { name: "by hash, hashed here", find: byHashOfOurs },
];

async function run({ quick, say }: BenchContext): Promise<Row[]> {
  const rows: Row[] = [];
  const rounds = quick ? 3 : 9;
  for (const count of quick ? [million, 4 * million] : [million, all]) {
    const began = performance.now();
    const population = populate(count);
    say(`${count} connections are there after ${((performance.now() - began) / 1000).toFixed(1)} s`);
    rows.push(...measured(population, rounds, count === all, say));
  }
  return rows;
}

function measured(population: Population, rounds: number, judged: boolean, say: BenchContext["say"]): Row[] {
  const count = population.sockfds.length;
  const ns: number[][] = finders.map(() => []);
  for (let round = 0; round <= rounds; round += 1) {
    const packets = packetsOf(population, million, round + 1);
    const sums = new Set<number>();
    const took = finders.map(({ find }) => {
      const began = performance.now();
      let sum = 0;
      for (let at = 0; at < packets.length; at += turnWords) {
        sum = (sum + find(population, packets, at, at + turnWords)) | 0;
      }
      sums.add(sum);
      return ((performance.now() - began) * 1e6) / million;
    });
    if (sums.size !== 1) throw new Error("the ways of finding a connection do not agree");
    say(
      `${count}, round ${round}: ${finders.map(({ name }, i) => `${name} ${took[i]?.toFixed(1)} ns`).join("; ")}`,
    );
    // The first warms up.
    if (round > 0) for (const [i, one] of took.entries()) ns[i]?.push(one);
  }
  const [id, given, ours] = ns as [number[], number[], number[]];
  const label = `${(count / 1e6).toFixed(1)}M`;
  return [
    row(`${label}: by id`, median(id), "ns", judged ? idMark : undefined),
    row(`${label}: by hash, as layer 3 gives it`, median(given), "ns"),
    row(`${label}: by hash, hashed here`, median(ours), "ns"),
    row(`${label}: by hash, hashed here / by id`, ratio(ours, id), "", ratioMark),
    row(`${label}: by hash, as layer 3 gives it / by id`, ratio(given, id), ""),
    row(`${label}: slowest insertion into the index`, population.worstInsertionUs, "us"),
  ];
}

/** The median of the rounds' own ratios. */
function ratio(over: readonly number[], under: readonly number[]): number {
  return median(over.map((value, round) => value / (under[round] as number)));
}

function byId({ table, carrier }: Population, packets: Int32Array, from: number, to: number): number {
  const { words } = table;
  let sum = 0;
  for (let at = from; at < to; at += wordsOfPacket) {
    const sockfd24 = carrier.sockfdOfWireId(packets[at + placeOfId] as number);
    if (sockfd24 < 0 || !table.isOurs(sockfd24)) continue;
    const base = table.baseOf(sockfd24);
    if (matches(words, base, packets, at, 1, packets[at + placeOfPorts] as number))
      sum = (sum + sockfd24) | 0;
  }
  return sum;
}

function byHash({ index }: Population, packets: Int32Array, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += wordsOfPacket) {
    const ports = packets[at + placeOfPorts] as number;
    sum = (sum + index.find(packets[at + placeOfHash] as number, packets, at, 1, ports)) | 0;
  }
  return sum;
}

function byHashOfOurs({ index, steer }: Population, packets: Int32Array, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += wordsOfPacket) {
    const ports = packets[at + placeOfPorts] as number;
    const hash = steer.hash(packets, at, ports >>> 16, packets, at + 4, ports & 0xffff, 1, 6);
    sum = (sum + index.find(hash, packets, at, 1, ports)) | 0;
  }
  return sum;
}
