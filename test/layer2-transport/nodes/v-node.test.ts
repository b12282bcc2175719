/** v-nodes: slots, generations, stale numbers, addresses. */
import { isIP } from "node:net";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NodeTable } from "../../../src/layer2-transport/nodes/node-table.ts";
import {
  createNodes,
  generationOf,
  node,
  nodeState,
  nodeWords,
  numberOf,
  shards,
  slotsPerShard,
  sockfd24Of,
  VNodeTable,
} from "../../../src/layer2-transport/nodes/v-node.ts";
import { formatAddress, parseAddress, plainAddress } from "../../../src/layer3-ip/address.ts";

const rules = { protocol: "tcp", framing: "line", sendlen: 1000 } as const;
const ends = {
  address: "192.0.2.7",
  port: 65_535,
  localAddress: "2001:db8::1",
  localPort: 554,
} as const;

/** A table whose owner has the shards named. */
function tableOf(slots: number, owned: readonly number[], memory = createNodes(slots)): NodeTable {
  const table = new NodeTable(memory);
  for (const shard of owned) table.adopt(shard);
  return table;
}

/** A connection that an app may see: its sockfd24. */
function openIn(table: NodeTable, shard: number): number {
  const sockfd24 = table.allocate(shard);
  if (sockfd24 < 0) return -1;
  const base = table.baseOf(sockfd24);
  table.setTextEnds(base, ends);
  table.open(base, rules, 30, 9);
  return sockfd24;
}

function number(table: VNodeTable, sockfd24: number): number {
  return table.numberAt(table.baseOf(sockfd24));
}

describe("an app's number", () => {
  test("keeps shard, slot and generation apart", () => {
    fc.assert(
      fc.property(fc.nat(2 ** 24 - 1), fc.integer({ min: 1, max: 2 ** 28 - 1 }), (sockfd24, generation) => {
        const sockfd = numberOf(sockfd24, generation);
        expect(Number.isSafeInteger(sockfd)).toBe(true);
        expect(sockfd24Of(sockfd)).toBe(sockfd24);
        expect(generationOf(sockfd)).toBe(generation);
      }),
    );
  });
});

describe("a v-node table", () => {
  test("a record holds what it was filled with", () => {
    const table = tableOf(8, [15]);
    const sockfd24 = openIn(table, 15);
    expect(sockfd24 >>> 20).toBe(15);
    const base = table.find(number(table, sockfd24));
    expect(base).toBe(15 * 8 * nodeWords);
    expect(table.protocolAt(base)).toBe("tcp");
    expect(table.framingAt(base)).toBe("line");
    expect(table.endpointAt(base)).toBe(30);
    expect(table.words[base + node.open]).toBe(9);
    expect(table.words[base + node.sendlen]).toBe(1000);
    expect(table.queuedAt(base)).toBe(0);
    const { port, localPort, address } = table.endsAt(base);
    expect([address, port, localPort]).toEqual(["192.0.2.7", 65_535, 554]);
  });

  test.each([1, 4])("ends of %d words are written as packets have them", (wordCount) => {
    const table = tableOf(2, [0]);
    const base = table.baseOf(table.allocate(0));
    const text = wordCount === 4 ? ["2001:db8::1", "2001:db8::2"] : ["192.0.2.1", "192.0.2.2"];
    const words = new Int32Array(10);
    parseAddress(text[0] as string, words, 1);
    parseAddress(text[1] as string, words, 5);
    table.setEnds(base, words, 1, wordCount, (50_000 << 16) | 80);
    table.open(base, { ...rules, protocol: "udp", framing: "raw" }, 0, 1);
    expect(table.endsAt(base)).toEqual({
      address: text[0],
      localAddress: text[1],
      port: 50_000,
      localPort: 80,
    });
    expect(table.protocolAt(base)).toBe("udp");
  });

  test("every number has a record of its own", () => {
    const table = new VNodeTable(createNodes());
    fc.assert(
      fc.property(fc.nat(2 ** 24 - 1), fc.nat(2 ** 24 - 1), (one, other) => {
        expect(table.baseOf(one)).toBe(one * nodeWords);
        expect(table.sockfd24At(table.baseOf(one))).toBe(one);
        expect(table.baseOf(one) === table.baseOf(other)).toBe(one === other);
      }),
    );
    expect(table.slots).toBe(slotsPerShard);
    expect(table.baseOf(numberOf(2 ** 24 - 1, 2 ** 28 - 1)) + nodeWords).toBe(table.words.length);
  });

  test("in a smaller table no number finds another's record", () => {
    const table = tableOf(8, [2, 3]);
    const sockfd24 = openIn(table, 3);
    // Slot 8 of shard 2 would stand where slot 0 of shard 3 does.
    expect(table.find(numberOf((2 << 20) | 8, 1))).toBe(-1);
    expect(table.find(numberOf(sockfd24, 1))).toBe(3 * 8 * nodeWords);
    expect(table.sockfd24At(table.baseOf(sockfd24))).toBe(sockfd24);
  });

  test("a record that is the transport's alone is found by no app", () => {
    const table = tableOf(2, [0]);
    const sockfd24 = table.allocate(0);
    const base = table.baseOf(sockfd24);
    expect(table.words[base + node.state]).toBe(nodeState.transport);
    expect(table.find(number(table, sockfd24))).toBe(-1);
    expect(table.has(number(table, sockfd24))).toBe(false);
    table.open(base, rules, 1, 1);
    expect(table.find(number(table, sockfd24))).toBe(base);
  });

  test("a stale number finds nothing, though its slot is in use again", () => {
    const table = tableOf(1, [0]);
    const seen = new Set<number>();
    for (let round = 0; round < 50; round += 1) {
      const sockfd24 = openIn(table, 0);
      expect(sockfd24).toBe(0);
      const sockfd = number(table, sockfd24);
      expect(seen.has(sockfd)).toBe(false);
      for (const old of seen) expect(table.find(old)).toBe(-1);
      expect(table.find(sockfd)).toBe(0);
      seen.add(sockfd);
      table.release(sockfd24);
      expect(table.find(sockfd)).toBe(-1);
    }
  });

  test("generations wrap to 1, never to 0", () => {
    const memory = createNodes(1);
    new Int32Array(memory)[node.generation] = 2 ** 28 - 1;
    const table = tableOf(1, [0], memory);
    const sockfd24 = openIn(table, 0);
    expect(generationOf(number(table, sockfd24))).toBe(2 ** 28 - 1);
    table.release(sockfd24);
    expect(generationOf(number(table, openIn(table, 0)))).toBe(1);
  });

  test("marking a record as gone happens once", () => {
    const table = tableOf(1, [0]);
    const sockfd24 = openIn(table, 0);
    const sockfd = number(table, sockfd24);
    expect(table.markGone(sockfd)).toBe(true);
    expect(table.markGone(sockfd)).toBe(false);
    expect(table.find(sockfd)).toBe(-1);
    expect(table.has(sockfd)).toBe(true);
    table.release(sockfd24);
    expect(table.has(sockfd)).toBe(false);
  });

  test("nothing is queued when more was written off than enqueued", () => {
    const table = tableOf(1, []);
    table.words[node.enqueued] = 10;
    table.words[node.written] = 17;
    expect(table.queuedAt(0)).toBe(0);
  });

  test("queued bytes survive the wrap of their counts", () => {
    const table = tableOf(1, [0]);
    const base = table.baseOf(openIn(table, 0));
    table.words[base + node.enqueued] = 5;
    table.words[base + node.written] = -10;
    expect(table.queuedAt(base)).toBe(15);
  });
});

describe("slots", () => {
  test("behave as a set, and a full shard borrows of the owner's others", () => {
    const owned = [1, 6];
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 100 }), (moves) => {
        const table = tableOf(4, owned);
        const open = new Map<number, number>();
        for (const move of moves) {
          if (move % 3 < 2) {
            const wanted = owned[move % 2] as number;
            const full = table.used(wanted) === 4;
            const sockfd24 = openIn(table, wanted);
            expect(sockfd24 < 0).toBe(open.size === 8);
            if (sockfd24 < 0) continue;
            expect(sockfd24 >>> 20 === wanted).toBe(!full);
            expect(owned).toContain(sockfd24 >>> 20);
            expect(open.has(sockfd24)).toBe(false);
            open.set(sockfd24, number(table, sockfd24));
          } else if (open.size > 0) {
            const sockfd24 = [...open.keys()][move % open.size] as number;
            table.release(sockfd24);
            open.delete(sockfd24);
          }
          for (const sockfd of open.values()) expect(table.find(sockfd)).toBeGreaterThanOrEqual(0);
          expect(table.usedInAll()).toBe(open.size);
          expect(table.used(1) + table.used(6)).toBe(open.size);
        }
      }),
    );
  });

  test("of shards that are another's are never given out", () => {
    const table = tableOf(1, [4]);
    expect(table.owns(4)).toBe(true);
    expect(table.owns(5)).toBe(false);
    expect(table.allocate(5)).toBe(4 << 20);
    expect(table.allocate(5)).toBe(-1);
    expect(table.allocateAnywhere()).toBe(-1);
    table.disown(4);
    expect(table.owns(4)).toBe(false);
    expect(table.usedInAll()).toBe(0);
    expect(table.allocate(4)).toBe(-1);
  });

  test("of a full shard's connections stand elsewhere, and the shard is in use until they are gone", () => {
    const table = tableOf(1, [4, 5]);
    expect(table.isUnused(4)).toBe(true);
    const [own, stray] = [openIn(table, 4), openIn(table, 4)];
    expect([own >>> 20, stray >>> 20]).toEqual([4, 5]);
    table.release(own);
    expect([table.used(4), table.isUnused(4), table.isUnused(5)]).toEqual([0, false, false]);
    table.release(stray);
    expect([table.isUnused(4), table.isUnused(5)]).toEqual([true, true]);
    expect(table.protocolAt(table.baseOf(openIn(table, 5)))).toBe("tcp");
  });

  test("released twice are given out once", () => {
    const table = tableOf(2, [0]);
    const sockfd24 = table.allocate(0);
    table.release(sockfd24);
    table.release(sockfd24);
    expect([table.allocate(0), table.allocate(0), table.allocate(0)].sort()).toEqual([-1, 0, 1]);
  });

  test("of a dead owner stay until they are buried; new numbers never hit them", () => {
    const memory = createNodes(4);
    const dead = tableOf(4, [1, 2], memory);
    const numbers = [openIn(dead, 1), openIn(dead, 1), openIn(dead, 2)].map((it) => number(dead, it));
    const halfOpen = dead.allocate(1);
    dead.words[dead.baseOf(halfOpen) + node.timerNext] = 7;
    dead.release(sockfd24Of(numbers[1] as number));
    const heir = new NodeTable(memory, 16);
    // Of the end of one with tag 0 not all apps have been told.
    expect(heir.adopt(1, 1)).toBe(1);
    expect(heir.adopt(2, 2)).toBe(0);
    expect(heir.adopt(3, 1)).toBe(0);
    expect([heir.used(1), heir.used(2), heir.used(3)]).toEqual([1, 0, 0]);
    const first = numbers[0] as number;
    expect(heir.find(first)).toBe(heir.baseOf(sockfd24Of(first)));
    expect(heir.tagAt(heir.find(first))).toBe(0);
    const given = Array.from({ length: 3 }, () => openIn(heir, 1));
    expect(new Set(given).size).toBe(3);
    expect(given).not.toContain(sockfd24Of(first));
    expect(given.every((sockfd24) => sockfd24 >>> 20 === 1)).toBe(true);
    expect(given.every((sockfd24) => heir.tagAt(heir.baseOf(sockfd24)) === 16)).toBe(true);
    expect(openIn(heir, 1) >>> 20).toBe(2);
    expect(heir.bury(1, 0)).toBe(1);
    expect(heir.bury(1, 0)).toBe(0);
    expect(heir.bury(9, 0)).toBe(0);
    for (const sockfd of numbers) expect(heir.find(sockfd)).toBe(-1);
    expect(openIn(heir, 1)).toBe(sockfd24Of(first));
    expect(given.every((sockfd24) => heir.words[heir.baseOf(sockfd24)] === nodeState.open)).toBe(true);
  });

  test("an empty record is given out, whatever stood in it", () => {
    const table = tableOf(1, [0]);
    const base = table.baseOf(openIn(table, 0));
    table.words.fill(-1, base + node.flags, base + node.timerNext);
    table.words.fill(-1, base + node.deadline, base + nodeWords);
    table.release(0);
    table.allocate(0);
    expect([...table.words.subarray(base + node.flags, base + nodeWords)]).toEqual(
      Array.from({ length: nodeWords - node.flags }, () => 0),
    );
  });

  test("a table has 16 shards", () => {
    expect(shards).toBe(16);
    expect(createNodes(4).byteLength).toBe(16 * 4 * 128);
  });
});

describe("addresses", () => {
  test.each([
    ["0.0.0.0"],
    ["255.255.255.255"],
    ["::"],
    ["::1"],
    ["2001:db8::1"],
    ["fe80::1:0:0:1"],
    ["1:2:3:4:5:6:7:8"],
    ["1::8"],
  ])("%s is read and written as it is", (text) => {
    const words = new Int32Array(4);
    const six = parseAddress(text, words, 0);
    expect(formatAddress(words, 0, six)).toBe(text);
  });

  test("IPv4 in IPv6 is IPv4", () => {
    const words = new Int32Array(4);
    expect(plainAddress("::ffff:192.0.2.1")).toBe("192.0.2.1");
    expect(formatAddress(words, 0, parseAddress("::ffff:192.0.2.1", words, 0))).toBe("192.0.2.1");
  });

  test("any address survives", () => {
    const words = new Int32Array(4);
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
        const six = parseAddress(text, words, 0);
        const once = formatAddress(words, 0, six);
        expect(isIP(once)).toBe(six ? 6 : 4);
        const again = new Int32Array(4);
        expect(parseAddress(once, again, 0)).toBe(six);
        expect([...again]).toEqual([...words]);
      }),
    );
  });
});
