/** The endpoint by itself: what it keeps of connections, ends that come twice, numbers that are stale, dead workers. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { CloseReason, Message } from "../../src/layer1-app/types.ts";
import { closeBits, kind } from "../../src/layer2-transport/descriptor.ts";
import { nodeState } from "../../src/layer2-transport/nodes/v-node.ts";
import { Bench } from "./endpoint-support.ts";
import { expectCode, until } from "./support.ts";

function counting(): { ends: CloseReason[]; closed(sockfd: number, reason: CloseReason): void } {
  const ends: CloseReason[] = [];
  return {
    ends,
    closed: (_, reason) => {
      ends.push(reason);
    },
  };
}

describe("an idle connection", () => {
  test("costs the heap nothing: 200,000 of them are opened, asked and closed", () => {
    const script = fileURLToPath(new URL("./idle-costs-nothing.ts", import.meta.url));
    const flags = ["--expose-gc", "--no-warnings"];
    const output = execFileSync(process.execPath, [...flags, script], { encoding: "utf8", timeout: 60_000 });
    const { grown, ...counts } = JSON.parse(output) as Record<string, number>;
    const all = 202_000;
    expect(counts).toEqual({
      open: 200_000,
      connected: all,
      handled: all,
      closed: all,
      done: all,
      retired: all,
    });
    // Not one byte each.
    expect(grown).toBeLessThan(200_000);
  });
});

describe("ends", () => {
  test("one that comes twice is told once, and the slot is given back once", () => {
    const bench = new Bench();
    const { ends, closed } = counting();
    bench.open({ closed });
    const sockfd24 = bench.make(3);
    bench.connected(sockfd24);
    expect(bench.endpoint.connectionCount()).toBe(1);
    bench.closed(sockfd24);
    bench.closed(sockfd24);
    expect(ends.map((reason) => reason.code)).toEqual(["end"]);
    expect(bench.link.counts[kind.retire]).toBe(1);
    expect(bench.endpoint.connectionCount()).toBe(0);
    expect(bench.endpoint.connectionCount(7)).toBe(0);
  });

  test("of another generation is nobody's; of a connection that was never told, the number alone is given back", () => {
    const bench = new Bench();
    const { ends, closed } = counting();
    bench.open({ closed });
    const [known, unknown] = [bench.make(0), bench.make(0)];
    bench.connected(known);
    bench.closed(known, bench.generation(known) + 1);
    expect(bench.link.posted).toEqual([]);
    bench.closed(unknown);
    expect(ends).toEqual([]);
    expect(bench.link.posted).toMatchObject([{ kind: kind.retire, sockfd24: unknown }]);
  });

  test("of a quiet opens: its messages are handled without an introduction, and nothing is counted", () => {
    const bench = new Bench();
    const got: string[] = [];
    const request = (_: number, message: Message): void => {
      got.push(message.text());
    };
    bench.open({ request }, { quiet: true });
    const sockfd24 = bench.make(12);
    bench.message(sockfd24, Buffer.from("one"));
    bench.closed(sockfd24);
    bench.closed(sockfd24);
    bench.message(sockfd24, Buffer.from("late"));
    expect(got).toEqual(["one"]);
    expect(bench.endpoint.connectionCount()).toBe(0);
    expect(bench.link.posted.map((one) => one.kind)).toEqual([kind.done, kind.retire]);
    expect(bench.pool.framesInUse()).toBe(0);
  });

  test("a connection told twice counts once", () => {
    const bench = new Bench();
    let connected = 0;
    bench.open({
      connected: () => {
        connected += 1;
      },
    });
    const sockfd24 = bench.make(0);
    bench.connected(sockfd24);
    bench.connected(sockfd24);
    expect([connected, bench.endpoint.connectionCount()]).toEqual([1, 1]);
  });

  test("a message that comes after the end is dropped, and its frame is free again", () => {
    const bench = new Bench();
    let handled = 0;
    bench.open({
      request: () => {
        handled += 1;
      },
    });
    const sockfd24 = bench.make(9);
    bench.connected(sockfd24);
    bench.closed(sockfd24);
    bench.message(sockfd24, Buffer.from("late"));
    expect(handled).toBe(0);
    expect(bench.pool.framesInUse()).toBe(0);
  });

  test("waiters for an end are told when it comes, and those of a stale number at once", async () => {
    const bench = new Bench();
    bench.open({});
    const sockfd24 = bench.make(1);
    bench.connected(sockfd24);
    const sockfd = bench.table.numberAt(bench.table.baseOf(sockfd24));
    let told = 0;
    const waits = [1, 2].map(() => bench.endpoint.ended(sockfd).then(() => (told += 1)));
    await null;
    expect(told).toBe(0);
    bench.closed(sockfd24);
    await Promise.all(waits);
    await bench.endpoint.ended(sockfd);
    expect(told).toBe(2);
  });

  test("a stale number is refused when its slot serves the next connection", async () => {
    const bench = new Bench();
    bench.open({});
    const sockfd24 = bench.make(1);
    bench.connected(sockfd24);
    const stale = bench.table.numberAt(bench.table.baseOf(sockfd24));
    bench.closed(sockfd24);
    bench.table.release(sockfd24);
    expect(bench.make(1)).toBe(sockfd24);
    bench.connected(sockfd24);
    await expectCode("ESTALE", () => bench.endpoint.verbs.sendto(stale, "x"));
    bench.endpoint.verbs.close(stale);
    bench.endpoint.verbs.close(stale, { reset: true });
    expect(bench.link.counts[kind.close]).toBe(0);
    expect(bench.endpoint.connectionCount()).toBe(1);
  });
});

describe("while something is pending", () => {
  test("a message waits for `connected`, and is dropped when the connection ends first", async () => {
    const bench = new Bench();
    const release: (() => void)[] = [];
    const got: string[] = [];
    bench.open({
      connected: () => new Promise<void>((resolve) => release.push(resolve)),
      request: (_, message) => {
        got.push(message.text());
      },
    });
    const [one, two] = [bench.make(0), bench.make(5)];
    for (const sockfd24 of [one, two]) {
      bench.connected(sockfd24);
      bench.message(sockfd24, Buffer.from(`of ${sockfd24}`));
    }
    expect(got).toEqual([]);
    bench.closed(two);
    for (const resolve of release) resolve();
    await until("the first is handled", () => got.length === 1);
    expect(got).toEqual([`of ${one}`]);
    expect(bench.pool.framesInUse()).toBe(0);
    expect(bench.link.counts[kind.done]).toBe(1);
  });

  test("a handler that throws closes its connection alone, with the reason that `closed` is given", () => {
    const bench = new Bench();
    const { ends, closed } = counting();
    bench.open({
      closed,
      request: () => {
        throw new Error("no");
      },
    });
    const sockfd24 = bench.make(2);
    bench.connected(sockfd24);
    bench.message(sockfd24, Buffer.from("x"));
    expect(bench.link.posted.map((one) => [one.kind, one.arg1])).toEqual([[kind.close, 0]]);
    expect(bench.alarms.map((alarm) => alarm.code)).toEqual(["handler"]);
    bench.closed(sockfd24);
    expect(ends[0]?.error?.code).toBe("EHANDLER");
    expect(bench.pool.framesInUse()).toBe(0);
  });

  test("a framing function's bytes are kept until they are a message", () => {
    const bench = new Bench();
    const got: string[] = [];
    const { ends, closed } = counting();
    const request = (_: number, message: Message): void => {
      got.push(message.text());
    };
    bench.open({ closed, request }, { framingFunction: (bytes: Uint8Array) => bytes.indexOf(33) + 1 });
    const sockfd24 = bench.make(2);
    bench.connected(sockfd24);
    for (const part of ["a", "b!c", "!", "d"]) bench.message(sockfd24, Buffer.from(part), kind.chunk);
    expect(got).toEqual(["ab!", "c!"]);
    expect(bench.link.counts[kind.done]).toBe(4);
    expect(bench.pool.framesInUse()).toBe(0);
    bench.closed(sockfd24);
    expect(ends[0]?.error?.message).toContain("1 bytes of which had arrived");
  });

  test("a message whose bytes nobody asked for in time gives none of somebody else's", () => {
    const bench = new Bench();
    const kept: Message[] = [];
    bench.open({
      request: (_, message) => {
        kept.push(message);
      },
    });
    const sockfd24 = bench.make(2);
    bench.connected(sockfd24);
    bench.message(sockfd24, Buffer.from("secret"));
    expect(() => kept[0]?.bytes).toThrow("after its handler was done");
    expect(() => kept[0]?.text()).toThrow("after its handler was done");
  });
});

describe("a worker that dies", () => {
  test("its connections end, those of other shards and other endpoints do not", async () => {
    const bench = new Bench();
    const { ends, closed } = counting();
    bench.open({ closed });
    const told = [bench.make(4), bench.make(4), bench.make(6), bench.make(5)];
    for (const sockfd24 of told) bench.connected(sockfd24);
    bench.closed(told[0] as number);
    bench.make(4); // It has not been told of this one,
    const strange = bench.table.allocate(4); // and this is another's.
    bench.table.open(bench.table.baseOf(strange), { protocol: "tcp", framing: "raw", sendlen: 1 }, 9, 7);
    expect(bench.table.words[bench.table.baseOf(strange)]).toBe(nodeState.open);
    const sockfd = bench.table.numberAt(bench.table.baseOf(told[1] as number));
    const flushed = bench.endpoint.verbs.flushed(sockfd);
    const info = expectCode("EWORKER", () => bench.endpoint.verbs.info(sockfd));
    await bench.endpoint.removeLink(0, { shards: [4, 6], tag: 0 });
    await flushed;
    await info;
    expect(ends.map((reason) => reason.code)).toEqual(["end", "worker", "worker"]);
    expect(ends[1]?.error?.code).toBe("EWORKER");
    expect(bench.endpoint.connectionCount()).toBe(1);
    await bench.endpoint.removeLink(0, { shards: [4, 6], tag: 0 });
    expect(ends.length).toBe(3);
    // The dead are not told of; the heirs of a million connections have better things to do.
    expect(bench.link.counts[kind.retire]).toBe(1);
  });

  test("an opens that is to go goes with its last connection", () => {
    const bench = new Bench();
    const { ends, closed } = counting();
    bench.open({ closed });
    const sockfd24 = bench.make(4);
    bench.connected(sockfd24);
    bench.endpoint.removeOpen(7);
    bench.closed(sockfd24);
    expect(ends.length).toBe(1);
    expect(bench.endpoint.opens.size).toBe(0);
    const next = bench.make(4);
    bench.connected(next);
    expect(bench.link.posted.at(-1)).toMatchObject({ kind: kind.close, arg1: closeBits.reset });
  });

  test("closing the endpoint ends what is left", async () => {
    const bench = new Bench();
    const { ends, closed } = counting();
    bench.open({ closed });
    for (const shard of [0, 7, 15]) bench.connected(bench.make(shard));
    bench.endpoint.close();
    expect(ends.map((reason) => reason.code)).toEqual(["shutdown", "shutdown", "shutdown"]);
  });
});
