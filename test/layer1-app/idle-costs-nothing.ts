/**
 * A child process of endpoint.test.ts (with --expose-gc): what 200,000 connections that are open and idle cost the heap
 * of the thread that has their handlers.
 */
import { kind } from "../../src/layer2-transport/descriptor.ts";
import { Bench } from "./endpoint-support.ts";

const connections = 200_000;
const collect = (globalThis as { gc?: () => void }).gc;
const bench = new Bench();
bench.link.keeping = false;
let connected = 0;
let handled = 0;
let closed = 0;
bench.open({
  connected: () => {
    connected += 1;
  },
  request: async (_, message) => {
    handled += message.bytes.length;
  },
  closed: () => {
    closed += 1;
  },
});

function heap(): number {
  collect?.();
  collect?.();
  return process.memoryUsage().heapUsed;
}

// Everything once, so that what is compiled and grown on first use is there.
for (let i = 0; i < 2000; i += 1) {
  const sockfd24 = bench.make(15);
  bench.connected(sockfd24);
  bench.message(sockfd24, Buffer.from("x"));
  await null;
  bench.closed(sockfd24);
}
const numbers = new Int32Array(connections);
const before = heap();
for (let i = 0; i < connections; i += 1) {
  const sockfd24 = bench.make(i % 8);
  numbers[i] = sockfd24;
  bench.connected(sockfd24);
  bench.message(sockfd24, Buffer.from("x"));
  // The handler's promise settles before the next one starts.
  if (i % 64 === 0) await null;
}
await new Promise((resolve) => setImmediate(resolve));
const grown = heap() - before;
const open = bench.endpoint.connectionCount();
for (const sockfd24 of numbers) bench.closed(sockfd24);
const done = bench.link.counts[kind.done];
const retired = bench.link.counts[kind.retire];
console.log(JSON.stringify({ grown, open, connected, handled, closed, done, retired }));
