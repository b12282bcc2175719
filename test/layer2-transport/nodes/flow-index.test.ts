/** The flow index against a map that does it the slow way, and the check of a v-node against a packet's flow. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FlowIndex } from "../../../src/layer2-transport/nodes/flow-index.ts";
import { matches } from "../../../src/layer2-transport/nodes/flow-match.ts";
import { NodeTable } from "../../../src/layer2-transport/nodes/node-table.ts";
import { createNodes, node } from "../../../src/layer2-transport/nodes/v-node.ts";

interface Flow {
  readonly words: Int32Array;
  readonly wordCount: number;
  readonly ports: number;
  readonly hash: number;
}

const key = (flow: Flow): string => [...flow.words, flow.wordCount, flow.ports].join();

function tableOf(slots: number): NodeTable {
  const table = new NodeTable(createNodes(slots));
  for (let shard = 0; shard < 16; shard += 1) table.adopt(shard);
  return table;
}

function enter(table: NodeTable, index: FlowIndex, flow: Flow): number {
  const sockfd24 = table.allocate(flow.hash >>> 28);
  const base = table.baseOf(sockfd24);
  table.setEnds(base, flow.words, 1, flow.wordCount, flow.ports);
  table.words[base + node.hash] = flow.hash;
  index.add(sockfd24, flow.hash);
  return sockfd24;
}

function leave(table: NodeTable, index: FlowIndex, sockfd24: number): void {
  const hash = table.words[table.baseOf(sockfd24) + node.hash] as number;
  expect(index.remove(sockfd24, hash)).toBe(true);
  expect(index.remove(sockfd24, hash)).toBe(false);
  table.release(sockfd24);
}

function find(index: FlowIndex, flow: Flow): number {
  return index.find(flow.hash, flow.words, 1, flow.wordCount, flow.ports);
}

// Few values of each, so that flows differ in one word and hashes in one bit; homes lie close and at the very end.
const few = fc.constantFrom(0, 1, -1);
const hashes = fc
  .tuple(fc.constantFrom(0, 0x100_0000, 0xff00_0000 | 0), fc.constantFrom(0, 1, 2, 1022, 1023, 2047))
  .map(([tag, place]) => tag | place);
const flows = fc
  .record({
    words: fc.array(few, { minLength: 10, maxLength: 10 }),
    six: fc.boolean(),
    ports: few,
    hash: hashes,
  })
  .map(({ words, six, ports, hash }): Flow => {
    const used = Int32Array.from(words, (word, i) =>
      i === 0 || i > 8 || (!six && i !== 1 && i !== 5) ? 0 : word,
    );
    return { words: used, wordCount: six ? 4 : 1, ports, hash };
  });

describe("the index", () => {
  test("agrees with a map after every step, when hashes collide", () => {
    const steps = fc.array(fc.record({ flow: flows, add: fc.boolean() }), { maxLength: 120 });
    fc.assert(
      fc.property(steps, (moves) => {
        const table = tableOf(64);
        const index = new FlowIndex(table);
        const map = new Map<string, { flow: Flow; sockfd24: number }>();
        for (const { flow, add } of moves) {
          const known = map.get(key(flow));
          // A flow has one hash: the first that it was given.
          const asked = known ? known.flow : flow;
          expect(find(index, asked)).toBe(known ? known.sockfd24 : -1);
          if (add && !known) {
            map.set(key(flow), { flow, sockfd24: enter(table, index, flow) });
          } else if (!add && known) {
            leave(table, index, known.sockfd24);
            map.delete(key(flow));
          }
          expect(index.size).toBe(map.size);
        }
        for (const { flow, sockfd24 } of map.values()) expect(find(index, flow)).toBe(sockfd24);
      }),
      { numRuns: 300 },
    );
  });

  test("grows by a few entries at a time, and every connection is found at every moment", () => {
    const table = tableOf(512);
    const index = new FlowIndex(table);
    const held: { flow: Flow; sockfd24: number }[] = [];
    let seed = 1;
    let growing = 0;
    let began = 0;
    for (let i = 0; i < 8000; i += 1) {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) | 0;
      const words = Int32Array.of(0, i, 0, 0, 0, seed, 0, 0, 0, 0);
      // Every third hash falls into one sixteenth of the table: long clusters.
      const hash = i % 3 === 0 ? seed & ~0xf00 : seed;
      const was = index.growing;
      held.push({ flow: { words, wordCount: 1, ports: i, hash }, sockfd24: 0 });
      const last = held.at(-1) as { flow: Flow; sockfd24: number };
      last.sockfd24 = enter(table, index, last.flow);
      if (index.growing) growing += 1;
      if (index.growing && !was) began += 1;
      if (i % 5 === 4) {
        const at = (seed >>> 8) % held.length;
        const gone = held[at] as { flow: Flow; sockfd24: number };
        leave(table, index, gone.sockfd24);
        expect(find(index, gone.flow)).toBe(-1);
        held[at] = held.at(-1) as { flow: Flow; sockfd24: number };
        held.pop();
      }
      const probe = held[(seed >>> 4) % held.length] as { flow: Flow; sockfd24: number };
      expect(find(index, probe.flow)).toBe(probe.sockfd24);
      if (i % 500 === 0) for (const one of held) expect(find(index, one.flow)).toBe(one.sockfd24);
    }
    expect(index.size).toBe(held.length);
    expect(began).toBe(4);
    // A table of n entries is left in the course of n / 8 insertions at most, and not in one.
    expect(growing).toBeGreaterThan(200);
    expect(growing).toBeLessThan((1024 + 2048 + 4096 + 8192) / 8);
    for (const one of held) leave(table, index, one.sockfd24);
    expect(index.size).toBe(0);
  });

  test("does not take another protocol's record", () => {
    const table = tableOf(4);
    const tcp = new FlowIndex(table);
    const udp = new FlowIndex(table, 1);
    const flow = { words: Int32Array.of(0, 1, 0, 0, 0, 2, 0, 0, 0, 0), wordCount: 1, ports: 77, hash: 5 };
    const one = enter(table, tcp, flow);
    const other = table.allocate(0);
    const base = table.baseOf(other);
    table.setEnds(base, flow.words, 1, 1, flow.ports);
    table.open(base, { protocol: "udp", framing: "raw", sendlen: 1 }, 0, 0);
    table.words[base + node.hash] = flow.hash;
    udp.add(other, flow.hash);
    expect([find(tcp, flow), find(udp, flow)]).toEqual([one, other]);
    leave(table, tcp, one);
    expect([find(tcp, flow), find(udp, flow)]).toEqual([-1, other]);
  });
});

describe("a record and a flow match", () => {
  test.each([1, 4])("when all %d-word addresses and ports do, and not else", (wordCount) => {
    const table = tableOf(4);
    const sockfd24 = table.allocate(2);
    const base = table.baseOf(sockfd24);
    const words = Int32Array.of(99, 1, 2, 3, 4, 5, 6, 7, 8, 99);
    table.setEnds(base, words, 1, wordCount, 1234);
    const check = (ports = 1234, count = wordCount): boolean =>
      matches(table.words, base, words, 1, count, ports);
    expect(check()).toBe(true);
    expect(check(1235)).toBe(false);
    expect(check(1234, 5 - wordCount)).toBe(false);
    for (let i = 0; i < words.length; i += 1) {
      const used = i > 0 && i < 9 && (wordCount === 4 || i === 1 || i === 5);
      words[i] = (words[i] as number) ^ 1;
      expect(check()).toBe(!used);
      words[i] = (words[i] as number) ^ 1;
    }
    expect(matches(table.words, base, words, 1, wordCount, 1234, 1)).toBe(false);
    table.release(sockfd24);
    expect(check()).toBe(false);
  });
});
