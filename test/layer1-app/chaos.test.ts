/**
 * Many clients that do anything at any time, from a seed: afterwards nothing is left of them, and the counters add up.
 *
 * Runs again with the same seed by APO_SEED.
 */
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import type { Framing, Sockfd } from "../../src/layer1-app/types.ts";
import { dial, framesInUse, startRuntime, until } from "./support.ts";

const seed = Number(process.env.APO_SEED ?? Math.floor(Math.random() * 2 ** 31));

/** Pseudo-random whole numbers below `limit` (mulberry32). */
function random(start: number): (limit: number) => number {
  let state = start;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

const kinds: [string, Framing][] = [
  ["line", framing.line()],
  ["a function", (bytes) => bytes.indexOf(10) + 1],
];

describe("clients that do anything at any time", () => {
  test.each(kinds)("%s framing", { timeout: 120_000 }, async (_name, kind) => {
    const draw = random(seed);
    const apo = await startRuntime({ workers: 2, poolBytes: 4 * 2 ** 20 });
    const open = new Set<Sockfd>();
    let connected = 0;
    let closed = 0;
    const inHand = new Set<Sockfd>();
    // A failed expectation in a handler would only end its connection, so what is wrong is kept for the end.
    const wrong: string[] = [];
    const hold = (what: string, holds: boolean): void => {
      if (!holds) wrong.push(what);
    };
    const listener = await apo.opens({
      protocol: "tcp",
      port: 0,
      address: "127.0.0.1",
      recvlen: 4000,
      sendlen: 200_000,
      framing: kind,
      alarm(alarm) {
        hold(alarm.text, alarm.code !== "handler" || alarm.text.endsWith("by chance"));
      },
      connected(sockfd) {
        hold("a number is given out twice", !open.has(sockfd));
        open.add(sockfd);
        connected += 1;
      },
      async request(sockfd, message) {
        hold("a message of no connection", open.has(sockfd));
        hold("two messages at once", !inHand.has(sockfd));
        inHand.add(sockfd);
        const text = message.text();
        const dice = draw(100);
        if (dice < 30) await new Promise((resolve) => setTimeout(resolve, draw(5)));
        inHand.delete(sockfd);
        if (dice < 3) throw new Error("by chance");
        if (dice < 6) return void apo.close(sockfd, { reset: dice === 3 });
        if (dice < 12) return void apo.sendto([...open], "to all\n");
        if (dice < 14) return void apo.sendto(sockfd, pieces(draw(20)));
        if (apo.queued(sockfd) < 100_000) await apo.sendto(sockfd, text.repeat(1 + draw(20)));
      },
      closed(sockfd) {
        hold("closed without connected", open.delete(sockfd));
        inHand.delete(sockfd);
        closed += 1;
      },
    });
    async function* pieces(count: number): AsyncGenerator<string> {
      for (let i = 0; i < count; i += 1) {
        if (i % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
        yield `${"piece ".repeat(draw(500))}\n`;
      }
    }
    const client = async (): Promise<void> => {
      const talker = await dial(listener.port);
      if (draw(4) === 0) talker.socket.pause();
      for (let i = draw(15); i > 0 && !talker.closed; i -= 1) {
        const line = `${"x".repeat(draw(draw(20) === 0 ? 5000 : 300))}\n`;
        const cut = draw(line.length);
        talker.write(line.slice(0, cut));
        if (draw(3) === 0) await new Promise((resolve) => setTimeout(resolve, draw(4)));
        talker.write(line.slice(cut));
        talker.chunks.length = 0;
      }
      const end = draw(4);
      if (end === 0) talker.socket.resetAndDestroy();
      else if (end === 1) talker.socket.destroy();
      else if (end === 2) talker.socket.end("cut short");
      else talker.socket.end();
      await new Promise((resolve) => setTimeout(resolve, draw(10)));
      talker.socket.resetAndDestroy();
    };
    const rounds = 40;
    for (let round = 0; round < rounds; round += 1) await Promise.all(Array.from({ length: 10 }, client));
    const told = `seed ${seed}`;
    await until(`all connections have ended (${told})`, () => listener.connections === 0 && open.size === 0);
    await until(`all frames are back (${told})`, () => framesInUse(apo) === 0);
    const counters = apo.counters();
    expect(wrong, told).toEqual([]);
    expect(closed, told).toBe(connected);
    expect(counters["layer2.connections.accepted"], told).toBe(connected);
    expect(counters["layer2.connections.ended"], told).toBe(connected);
    // It did happen.
    expect(connected, told).toBeGreaterThan(rounds * 5);
    expect(counters["layer1.receive.messages"], told).toBeGreaterThan(rounds * 10);
    expect(counters["layer1.handler.errors"], told).toBeGreaterThan(0);
  });
});
