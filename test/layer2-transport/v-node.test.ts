/** v-nodes: slots, generations, stale numbers, addresses. */
import { isIP } from "node:net";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  createShard,
  generationOf,
  node,
  nodeWords,
  numberOf,
  OwnedVNodeTable,
  sockfd24Of,
  type VNodeTable,
} from "../../src/layer2-transport/v-node.ts";
import { formatAddress, parseAddress, plainAddress } from "../../src/layer3-ip/address.ts";

const fresh = {
  protocol: "tcp",
  framing: "line",
  endpoint: 3,
  open: 9,
  sendlen: 1000,
  address: "192.0.2.7",
  port: 65_535,
  localAddress: "2001:db8::1",
  localPort: 554,
} as const;

function number(table: VNodeTable, slot: number): number {
  return numberOf((table.shard << 20) | slot, table.words[slot * nodeWords + node.generation] as number);
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
    const table = new OwnedVNodeTable(createShard(8), 15);
    const slot = table.allocate(fresh);
    const base = table.find(number(table, slot));
    expect(base).toBe(slot * nodeWords);
    expect(table.protocolAt(base)).toBe("tcp");
    expect(table.framingAt(base)).toBe("line");
    expect(table.queuedAt(base)).toBe(0);
    const { port, localPort, address } = table.endsAt(base);
    expect([address, port, localPort]).toEqual(["192.0.2.7", 65_535, 554]);
  });

  test("a stale number finds nothing, though its slot is in use again", () => {
    const table = new OwnedVNodeTable(createShard(1), 0);
    const seen = new Set<number>();
    for (let round = 0; round < 50; round += 1) {
      const slot = table.allocate(fresh);
      expect(slot).toBe(0);
      const sockfd = number(table, slot);
      expect(seen.has(sockfd)).toBe(false);
      for (const old of seen) expect(table.find(old)).toBe(-1);
      expect(table.find(sockfd)).toBe(0);
      seen.add(sockfd);
      table.release(slot);
      expect(table.find(sockfd)).toBe(-1);
    }
  });

  test("generations wrap to 1, never to 0", () => {
    const memory = createShard(1);
    new Int32Array(memory)[node.generation] = 2 ** 28 - 1;
    const table = new OwnedVNodeTable(memory, 0);
    const slot = table.allocate(fresh);
    expect(generationOf(number(table, slot))).toBe(2 ** 28 - 1);
    table.release(slot);
    table.allocate(fresh);
    expect(generationOf(number(table, slot))).toBe(1);
  });

  test("marking a record as gone happens once", () => {
    const table = new OwnedVNodeTable(createShard(1), 0);
    const sockfd = number(table, table.allocate(fresh));
    expect(table.markGone(sockfd)).toBe(true);
    expect(table.markGone(sockfd)).toBe(false);
    expect(table.find(sockfd)).toBe(-1);
    expect(table.has(sockfd)).toBe(true);
    table.release(0);
    expect(table.has(sockfd)).toBe(false);
  });

  test("behaves as a set of slots", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 100 }), (moves) => {
        const table = new OwnedVNodeTable(createShard(4), 2);
        const open = new Map<number, number>();
        for (const move of moves) {
          if (move % 2 === 0) {
            const slot = table.allocate(fresh);
            expect(slot < 0).toBe(open.size === 4);
            if (slot < 0) continue;
            expect(open.has(slot)).toBe(false);
            open.set(slot, number(table, slot));
          } else if (open.size > 0) {
            const slot = [...open.keys()][move % open.size] as number;
            table.release(slot);
            open.delete(slot);
          }
          for (const sockfd of open.values()) expect(table.find(sockfd)).toBeGreaterThanOrEqual(0);
        }
      }),
    );
  });

  test("an owner that takes over a dead one's table frees what was left, and the old numbers are stale", () => {
    const memory = createShard(4);
    const dead = new OwnedVNodeTable(memory, 1);
    const numbers = [dead.allocate(fresh), dead.allocate(fresh)].map((slot) => number(dead, slot));
    const heir = new OwnedVNodeTable(memory, 1);
    for (const sockfd of numbers) expect(heir.find(sockfd)).toBe(-1);
    const slots = Array.from({ length: 4 }, () => heir.allocate(fresh));
    expect(new Set(slots)).toEqual(new Set([0, 1, 2, 3]));
    expect(heir.allocate(fresh)).toBe(-1);
  });

  test("nothing is queued when more was written off than enqueued", () => {
    const table = new OwnedVNodeTable(createShard(1), 0);
    table.words[node.enqueued] = 10;
    table.words[node.written] = 17;
    expect(table.queuedAt(0)).toBe(0);
  });

  test("queued bytes survive the wrap of their counts", () => {
    const table = new OwnedVNodeTable(createShard(1), 0);
    const base = table.allocate(fresh) * nodeWords;
    table.words[base + node.enqueued] = 5;
    table.words[base + node.written] = -10;
    expect(table.queuedAt(base)).toBe(15);
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
