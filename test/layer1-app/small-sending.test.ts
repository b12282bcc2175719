/** Small messages take a short way out: what leaves must be what the framing says, whatever the text or the bytes. */
import fc from "fast-check";
import { pack } from "msgpackr";
import { expect, test } from "vitest";
import { kind } from "../../src/layer2-transport/descriptor.ts";
import { type FramingKind, node } from "../../src/layer2-transport/nodes/v-node.ts";
import { frontBytes } from "../../src/layer2-transport/tcp/packet-writer.ts";
import { Bench } from "./endpoint-support.ts";
import { expectCode } from "./support.ts";

const framings: readonly FramingKind[] = ["raw", "line", "length16", "length32", "msgpack", "chunks"];

/** What a framing makes of a message, written down plainly. */
function framedPlainly(framing: FramingKind, data: Uint8Array | string): Buffer {
  const bytes = framing === "msgpack" && typeof data === "string" ? pack(data) : Buffer.from(data as string);
  if (framing === "line") return bytes.at(-1) === 10 ? bytes : Buffer.concat([bytes, Buffer.from("\n")]);
  const header = framing === "length16" ? 2 : framing === "length32" ? 4 : 0;
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length.subarray(4 - header), bytes]);
}

/** Bytes of a posted container, which is then dropped. */
function taken(bench: Bench): { offset: number; bytes: Buffer } {
  const { frame, offset, length } = bench.link.posted.at(-1) as (typeof bench.link.posted)[number];
  const bytes = Buffer.concat(bench.pool.views(frame, offset, length).map((view) => Buffer.from(view)));
  bench.pool.drop(frame, bench.pool.partition);
  return { offset, bytes };
}

const texts = fc.oneof(
  fc.string({ maxLength: 200 }),
  fc.string({ unit: "binary", maxLength: 200 }),
  fc.nat(700).map((length) => "é".repeat(length)),
  fc.nat(2500).map((length) => "x".repeat(length)),
  fc.string({ maxLength: 20 }).map((text) => `${text}\n`),
);
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 100 }),
  fc.integer({ min: 1900, max: 2100 }).map((length) => new Uint8Array(length).fill(10)),
);

test("what leaves is what the framing says, and it is counted as queued", () => {
  const bench = new Bench();
  bench.open({}, { quiet: true });
  const places = framings.map((framing, shard) => [framing, bench.make(shard, framing)] as const);
  fc.assert(
    fc.property(fc.constantFrom(...places), fc.oneof(texts, bytes), ([framing, sockfd24], data) => {
      const base = bench.table.baseOf(sockfd24);
      const before = bench.table.words[base + node.enqueued] as number;
      void bench.endpoint.verbs.sendto(bench.table.numberAt(base), data);
      const sent = taken(bench);
      expect(sent.bytes).toEqual(framedPlainly(framing, data));
      expect(((bench.table.words[base + node.enqueued] as number) - before) | 0).toBe(sent.bytes.length);
      // Small ones have room before them, so that headers need no copy.
      if (sent.bytes.length < 600) expect([0, frontBytes]).toContain(sent.offset);
      bench.table.words[base + node.written] = bench.table.words[base + node.enqueued] as number;
    }),
    { numRuns: 500 },
  );
  expect(bench.pool.framesInUse()).toBe(0);
});

test("a small text and small bytes leave with room for headers before them", () => {
  const bench = new Bench();
  bench.open({}, { quiet: true });
  const sockfd = bench.table.numberAt(bench.table.baseOf(bench.make(0, "line")));
  for (const data of ["hello", Buffer.from("hello")]) {
    void bench.endpoint.verbs.sendto(sockfd, data);
    expect(taken(bench)).toEqual({ offset: frontBytes, bytes: Buffer.from("hello\n") });
  }
});

test("the limit of what may be queued holds to the byte, and no frame is lost by a refusal", async () => {
  const bench = new Bench();
  bench.open({}, { quiet: true });
  const sockfd = bench.table.numberAt(bench.table.baseOf(bench.make(0, "line", 12)));
  void bench.endpoint.verbs.sendto(sockfd, "hello");
  await expectCode("ENOBUFS", () => bench.endpoint.verbs.sendto(sockfd, "world!"));
  void bench.endpoint.verbs.sendto(sockfd, "world");
  await expectCode("ENOBUFS", () => bench.endpoint.verbs.sendto(sockfd, ""));
  expect(bench.link.counts[kind.send]).toBe(2);
  expect(bench.pool.framesInUse()).toBe(2);
});
