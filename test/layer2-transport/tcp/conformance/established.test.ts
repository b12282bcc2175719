/** A connection that stands: PAWS, acknowledgements, windows, small segments, probes, the end (RFC 9293 3.8). */
import { describe, expect, test } from "vitest";
import { pattern } from "../../../support/tcp-script.ts";
import { accepted, connected, reach } from "./states.ts";

const dayMs = 24 * 3600 * 1000;

describe("PAWS (RFC 7323 5)", () => {
  test("a segment with an older timestamp is dropped and acknowledged", () => {
    const { script, flow } = accepted({}, { ts: 1000 });
    flow.inject("PA", { seq: 1, ack: 1, data: 10, ts: 2000 });
    flow.expect("A", { ack: 11 });
    flow.inject("PA", { seq: 11, ack: 1, data: 10, ts: 1999 });
    const answer = flow.expect("A", { ack: 11 });
    expect(answer.ts?.[1]).toBe(2000);
    expect(flow.received.length).toBe(10);
    expect(script.count("layer2.tcp.drop.paws")).toBe(1);
    flow.inject("PA", { seq: 11, ack: 1, data: 10, ts: 2000 });
    flow.expect("A", { ack: 21 });
    script.close();
  });

  test("timestamps wrap", () => {
    const { script, flow } = accepted({}, { ts: -5 });
    flow.inject("PA", { seq: 1, ack: 1, data: 10, ts: 3 });
    flow.expect("A", { ack: 11 });
    flow.inject("PA", { seq: 11, ack: 1, data: 10, ts: -1 });
    flow.expect("A", { ack: 11 });
    expect(script.count("layer2.tcp.drop.paws")).toBe(1);
    script.close();
  });

  test("a reset is not held up by its timestamp (RFC 7323 5.2)", () => {
    const { script, flow } = accepted({}, { ts: 1000 });
    flow.inject("R", { seq: 1, ts: 1 });
    expect(flow.events).toEqual(["accepted", "ended reset ECONNRESET"]);
    script.close();
  });

  test.each([25, 40])("after %d days of silence any timestamp is good", (days) => {
    const { script, flow } = accepted({}, { ts: 1000 });
    script.run(days * dayMs * 1000);
    flow.inject("PA", { seq: 1, ack: 1, data: 10, ts: 900 });
    flow.expect("A", { ack: 11 });
    expect(flow.received.length).toBe(10);
    script.close();
  });

  test("after 23 days an older one is not", () => {
    const { script, flow } = accepted({}, { ts: 1000 });
    script.run(23 * dayMs * 1000);
    flow.inject("PA", { seq: 1, ack: 1, data: 10, ts: 900 });
    flow.expect("A", { ack: 1 });
    script.close();
  });

  test("the echoed timestamp is that of the segment that moved the window's left edge (RFC 7323 4.3)", () => {
    const { script, flow } = accepted({ quickack: false }, { ts: 1000, sackPermitted: true });
    flow.inject("PA", { seq: 101, ack: 1, data: 100, ts: 1500 });
    expect(flow.expect("A", { ack: 1 }).ts?.[1]).toBe(1000);
    flow.inject("PA", { seq: 1, ack: 1, data: 100, ts: 1600 });
    expect(flow.expect("A", { ack: 201 }).ts?.[1]).toBe(1600);
    script.close();
  });

  test("a segment without a timestamp is not refused: something on the way may strip them", () => {
    const { script, flow } = accepted({}, { ts: 1000 });
    flow.inject("PA", { seq: 1, ack: 1, data: 10 });
    flow.expect("A", { ack: 11 });
    expect(flow.received.length).toBe(10);
    script.close();
  });
});

describe("acknowledging (RFC 9293 3.8.6.3, RFC 5681 4.2)", () => {
  test("two full segments at once; one alone after a while", () => {
    const { script, flow } = accepted({ quickack: false });
    // The first ones are acknowledged at once, so that the peer gets going.
    for (let i = 0; i < 20; i += 1) flow.inject("A", { seq: 1 + 1460 * i, ack: 1, data: 1460 });
    script.skip();
    const from = 1 + 1460 * 20;
    script.run(1e6);
    script.skip();
    flow.inject("A", { seq: from, ack: 1, data: 1460 });
    script.expectNothing();
    flow.inject("A", { seq: from + 1460, ack: 1, data: 1460 });
    flow.expect("A", { ack: from + 2920 });
    flow.inject("A", { seq: from + 2920, ack: 1, data: 1460 });
    script.expectNothing();
    const { nowUs } = script;
    script.run(500_000);
    const late = flow.expect("A", { ack: from + 4380 });
    expect(late.atUs - nowUs).toBeLessThanOrEqual(500_000);
    script.close();
  });

  test("at once when a hole opens, and when it is filled", () => {
    const { script, flow } = accepted({ quickack: false }, { sackPermitted: true });
    flow.inject("A", { seq: 1461, ack: 1, data: 1460 });
    flow.expect("A", { ack: 1, sacks: [[1461, 2921]] });
    flow.inject("A", { seq: 4381, ack: 1, data: 1460 });
    flow.expect("A", {
      ack: 1,
      sacks: [
        [4381, 5841],
        [1461, 2921],
      ],
    });
    flow.inject("A", { seq: 1, ack: 1, data: 1460 });
    flow.expect("A", { ack: 2921, sacks: [[4381, 5841]] });
    expect(flow.received).toBe(pattern(0, 2920));
    script.close();
  });

  test("what comes twice is told by D-SACK (RFC 2883)", () => {
    const { script, flow } = accepted({}, { sackPermitted: true });
    flow.inject("A", { seq: 1, ack: 1, data: 500 });
    flow.expect("A", { ack: 501, sacks: [] });
    flow.inject("A", { seq: 1, ack: 1, data: 500 });
    flow.expect("A", { ack: 501, sacks: [[1, 501]] });
    flow.inject("A", { seq: 1001, ack: 1, data: 500 });
    flow.expect("A", { ack: 501, sacks: [[1001, 1501]] });
    flow.inject("A", { seq: 1101, ack: 1, data: 100 });
    flow.expect("A", {
      ack: 501,
      sacks: [
        [1101, 1201],
        [1001, 1501],
      ],
    });
    script.close();
  });

  test("at most three SACK blocks go with timestamps, four without", () => {
    for (const [ts, most] of [
      [undefined, 4],
      [9, 3],
    ] as const) {
      const stamp = ts === undefined ? {} : { ts };
      const { script, flow } = accepted({}, { sackPermitted: true, ...stamp });
      for (let i = 1; i <= 6; i += 1) flow.inject("A", { seq: 1 + 2000 * i, ack: 1, data: 1000, ...stamp });
      const last = flow.takeAll().at(-1);
      expect(last?.sacks.length).toBe(most);
      expect(last?.sacks[0]).toEqual([12_001, 13_001]);
      script.close();
    }
  });

  test("without SACK being agreed none is sent", () => {
    const { script, flow } = accepted();
    flow.inject("A", { seq: 1001, ack: 1, data: 500 });
    flow.expect("A", { ack: 1, sacks: [] });
    script.close();
  });

  test("the answer carries the acknowledgement", () => {
    const { script, flow } = accepted({ quickack: false });
    script.stack.turn(script.nowUs);
    flow.inject("PA", { seq: 1, ack: 1, data: "ping" });
    script.skip();
    flow.write("pong");
    flow.expect("PA", { seq: 1, ack: 5, data: "pong" });
    script.close();
  });
});

describe("the peer's window (RFC 9293 3.8.6)", () => {
  test("is never overrun, and goes on when it opens", () => {
    const { script, flow } = accepted({}, { window: 4000 });
    flow.write(20_000);
    const first = flow.takeAll().reduce((sum, { length }) => sum + length, 0);
    expect(first).toBeLessThanOrEqual(4000);
    expect(first).toBeGreaterThan(4000 - 1460);
    flow.inject("A", { seq: 1, ack: 1 + first, window: 8000 });
    const second = flow.takeAll();
    const end = Math.max(...second.map(({ seq, length }) => seq + length));
    expect(end).toBeLessThanOrEqual(1 + first + 8000);
    expect(end).toBeGreaterThan(1 + first + 8000 - 1460);
    script.close();
  });

  test("an old segment does not change it", () => {
    const { script, flow } = accepted({}, { window: 4000 });
    flow.inject("A", { seq: 101, ack: 1, window: 4000, data: 100 });
    flow.expect("A");
    // It is acceptable, and it fills the gap, but it was sent before the one that told of 4,000.
    flow.inject("A", { seq: 1, ack: 1, window: 60_000, data: 100 });
    expect(flow.received.length).toBe(200);
    script.skip();
    flow.write(20_000);
    expect(flow.takeAll().reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(4000);
    script.close();
  });

  test("closed, it is asked after, later and later, for as long as the peer answers", () => {
    const { script, flow } = accepted({}, { window: 4000 });
    flow.inject("A", { seq: 1, ack: 1, window: 0 });
    flow.write(1000);
    script.expectNothing();
    const gaps: number[] = [];
    let lastUs = script.nowUs;
    for (let i = 0; i < 40; i += 1) {
      script.run(61e6);
      const [probe, ...more] = flow.takeAll();
      expect(probe?.length ?? 9).toBeLessThanOrEqual(1);
      for (const one of [probe, ...more]) {
        if (one === undefined) continue;
        gaps.push(one.atUs - lastUs);
        lastUs = one.atUs;
      }
      flow.inject("A", { seq: 1, ack: 1, window: 0 });
    }
    expect(gaps[0]).toBeGreaterThanOrEqual(200_000);
    // Each wait is at least as long as the one before, until it stays at the greatest one.
    for (let i = 1; i < 8; i += 1) expect(gaps[i] ?? 0).toBeGreaterThanOrEqual((gaps[i - 1] ?? 0) * 0.99);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(125e6);
    expect(flow.state).toBe("ESTABLISHED");
    flow.inject("A", { seq: 1, ack: 1, window: 5000 });
    flow.expect("PA", { seq: 1, length: 1000 });
    script.close();
  });

  test("closed, and probes not answered, the connection ends", () => {
    const { script, flow } = accepted({ maxRetries: 4 }, { window: 4000 });
    flow.inject("A", { seq: 1, ack: 1, window: 0 });
    flow.write(1000);
    script.run(600e6);
    expect(flow.events).toContain("ended timeout ETIMEDOUT");
    script.skip();
    script.close();
  });

  test("closed with data in flight, it opens again by what was lost (no probe is needed)", () => {
    const { script, flow } = accepted({}, { window: 4000 });
    flow.write(3000);
    flow.takeAll();
    flow.inject("A", { seq: 1, ack: 1, window: 0 });
    script.run(20e6);
    const again = flow.takeAll();
    expect(again.length).toBeGreaterThan(0);
    flow.inject("A", { seq: 1, ack: 3001, window: 4000 });
    expect(flow.events).toContain("sent 3000");
    script.close();
  });

  test("a window that shrinks below what is out does no harm", () => {
    const { script, flow } = accepted({}, { window: 8000 });
    flow.write(12_000);
    const sent = flow.takeAll().reduce((sum, { length }) => sum + length, 0);
    flow.inject("A", { seq: 1, ack: 1461, window: 1000 });
    script.expectNothing();
    flow.inject("A", { seq: 1, ack: 1 + sent, window: 30_000 });
    const rest = flow.takeAll().reduce((sum, { length }) => sum + length, 0);
    expect(rest).toBe(12_000 - sent);
    script.close();
  });
});

describe("small segments (RFC 9293 3.7.4 and 3.8.6.2)", () => {
  test("a sender waits for a window that is worth a segment", () => {
    const { script, flow } = accepted({}, { window: 14_600 });
    flow.write(30_000);
    const sent = flow.takeAll().reduce((sum, { length }) => sum + length, 0);
    // The window is filled to the last byte but 100.
    flow.inject("A", { seq: 1, ack: 1 + sent, window: 100 });
    script.expectNothing();
    flow.inject("A", { seq: 1, ack: 1 + sent, window: 2920 });
    expect(flow.takeAll().reduce((sum, { length }) => sum + length, 0)).toBe(2920);
    script.close();
  });

  test("Nagle: without `nodelay` only one small segment is out", () => {
    const { script, flow } = accepted({ nodelay: false });
    flow.write("a");
    flow.expect("PA", { data: "a" });
    flow.write("b");
    flow.write("c");
    script.expectNothing();
    flow.inject("A", { seq: 1, ack: 2 });
    flow.expect("PA", { seq: 2, data: "bc" });
    script.close();
  });

  test("with `nodelay` each leaves at once", () => {
    const { script, flow } = accepted();
    flow.write("a");
    flow.expect("PA", { data: "a" });
    flow.write("b");
    flow.expect("PA", { seq: 2, data: "b" });
    script.close();
  });

  test("cork: only full segments leave, the rest after 200 ms", () => {
    const { script, flow } = accepted({ cork: true });
    flow.write(2000);
    const [first, ...more] = flow.takeAll();
    expect([first?.length, more.length]).toEqual([1460, 0]);
    flow.inject("A", { seq: 1, ack: 1461 });
    script.expectNothing();
    const { nowUs } = script;
    script.run(250_000);
    const tail = flow.expect("PA", { seq: 1461, length: 540 });
    expect(tail.atUs - nowUs).toBeLessThanOrEqual(201_000);
    script.close();
  });

  test("a receiver whose app takes nothing closes its window, and opens it by a step worth a segment", () => {
    const { script, flow } = accepted({ recvBuffer: 20_000 });
    flow.pause();
    let at = 1;
    let window = 20_000;
    while (window > 0 && at < 100_000) {
      flow.inject("A", { seq: at, ack: 1, data: Math.min(1460, window) });
      at += Math.min(1460, window);
      const last = flow.takeAll().at(-1);
      expect(last?.ack).toBe(at);
      window = last?.window ?? 0;
    }
    expect(at - 1).toBeLessThanOrEqual(20_000);
    expect(at - 1).toBeGreaterThan(20_000 - 2 * 1460);
    // What comes beyond is refused and answered.
    flow.inject("A", { seq: at, ack: 1, data: 1 });
    expect(flow.expect("A", { ack: at }).window).toBe(0);
    expect(flow.received).toBe("");
    flow.resume();
    expect(flow.expect("A", { ack: at }).window).toBeGreaterThanOrEqual(10_000);
    expect(flow.received.length).toBe(at - 1);
    script.close();
  });

  test("the right edge of the window never moves back", () => {
    // With a shift of 3, by which lengths like these are not divided.
    const { script, flow } = accepted({ recvBuffer: 300_000 }, { scale: 0 });
    expect(flow.tcb.receiveScale).toBe(3);
    flow.pause();
    let at = 1;
    let edge = 0;
    for (let i = 0; i < 60; i += 1) {
      const length = 1 + ((i * 37) % 700);
      flow.inject("A", { seq: at, ack: 1, data: length });
      const sent = flow.takeAll();
      for (const { ack, window } of sent) {
        expect(ack + 8 * window).toBeGreaterThanOrEqual(edge);
        edge = ack + 8 * window;
      }
      at = Math.max(at, sent.at(-1)?.ack ?? at);
      if (i % 10 === 5) {
        flow.resume();
        for (const { ack, window } of flow.takeAll()) {
          expect(ack + 8 * window).toBeGreaterThanOrEqual(edge);
          edge = ack + 8 * window;
        }
        flow.pause();
      }
    }
    script.close();
  });
});

describe("the end (RFC 9293 3.6)", () => {
  test("a half-close: the other direction goes on", () => {
    const { script, flow } = accepted();
    flow.inject("FA", { seq: 1, ack: 1 });
    flow.expect("A", { ack: 2 });
    expect(flow.events).toEqual(["accepted", "peer-ended"]);
    flow.write(5000);
    expect(flow.takeAll().reduce((sum, { length }) => sum + length, 0)).toBe(5000);
    flow.inject("A", { seq: 2, ack: 5001 });
    flow.shutdown();
    flow.expect("FA", { seq: 5001, ack: 2 });
    flow.inject("A", { seq: 2, ack: 5002 });
    expect(flow.state).toBe("CLOSED");
    expect(flow.events.at(-1)).toBe("ended end");
    script.close();
  });

  test("a FIN rides on the last data", () => {
    const { script, flow } = accepted();
    flow.act((tcb, stack) => {
      const frame = script.pool.allocate(4);
      script.pool.hold(frame, script.pool.partition);
      script.pool.write(frame, 0, Buffer.from("last"));
      stack.send(tcb, script.containers.take(frame, 0, 4));
      stack.end(tcb);
    });
    flow.expect("FPA", { seq: 1, data: "last" });
    flow.inject("A", { seq: 1, ack: 6 });
    expect(flow.state).toBe("FIN-WAIT-2");
    script.close();
  });

  test("a FIN is repeated until it is acknowledged", () => {
    const { script, flow } = accepted();
    flow.end();
    flow.expect("FA", { seq: 1 });
    script.run(3e6);
    const again = flow.takeAll();
    expect(again.length).toBeGreaterThanOrEqual(2);
    for (const one of again) expect([one.flags, one.seq]).toEqual(["FA", 1]);
    flow.inject("A", { seq: 1, ack: 2 });
    expect(flow.state).toBe("FIN-WAIT-2");
    script.close();
  });

  test("FIN-WAIT-2 of a connection that nobody has is given up", () => {
    const { script, flow } = accepted({ finTimeoutMs: 5000 });
    flow.end();
    flow.expect("FA");
    flow.inject("A", { seq: 1, ack: 2 });
    expect(flow.state).toBe("FIN-WAIT-2");
    script.run(5.1e6);
    expect(flow.state).toBe("CLOSED");
    script.close();
  });

  test("a half-closed connection may wait for ever", () => {
    const { script, flow } = accepted({ finTimeoutMs: 5000 });
    flow.shutdown();
    flow.expect("FA");
    flow.inject("A", { seq: 1, ack: 2 });
    script.run(3600e6);
    expect(flow.state).toBe("FIN-WAIT-2");
    flow.inject("PA", { seq: 1, ack: 2, data: "late" });
    flow.expect("A", { ack: 5 });
    expect(flow.received).toBe("late");
    script.close();
  });

  test("TIME-WAIT holds the number for a minute, and a repeated FIN begins it anew", () => {
    const { script, flow, next } = reach("TIME-WAIT");
    script.run(40e6);
    flow.inject("FA", { seq: next - 1, ack: 2 });
    flow.expect("A", { seq: 2, ack: next });
    script.run(40e6);
    expect(flow.state).toBe("TIME-WAIT");
    script.run(21e6);
    expect(flow.state).toBe("CLOSED");
    script.close();
  });

  test("a FIN that comes early waits for what lies before it", () => {
    const { script, flow } = accepted({}, { sackPermitted: true });
    flow.inject("FA", { seq: 11, ack: 1 });
    flow.expect("A", { ack: 1 });
    expect(flow.state).toBe("ESTABLISHED");
    flow.inject("A", { seq: 1, ack: 1, data: 10 });
    flow.expect("A", { ack: 12 });
    expect(flow.state).toBe("CLOSE-WAIT");
    expect(flow.received.length).toBe(10);
    script.close();
  });

  test("nothing is delivered behind a FIN, whatever comes", () => {
    const { script, flow, next } = reach("CLOSE-WAIT");
    flow.inject("PA", { seq: next, ack: 1, data: 10 });
    flow.inject("FPA", { seq: next + 10, ack: 1, data: 10 });
    script.skip();
    expect(flow.received).toBe("");
    expect(flow.events).toEqual(["accepted", "peer-ended"]);
    script.close();
  });

  test("an abort tells the peer, and drops what was queued", () => {
    const { script, flow } = connected({}, { window: 100 });
    flow.write(5000);
    script.skip();
    flow.abort();
    flow.expect("RA", { ack: 1 });
    expect(flow.events.slice(1)).toEqual(["dropped 5000", "ended reset"]);
    expect(flow.state).toBe("CLOSED");
    script.close();
  });

  test("`lingerMs` 0 makes a close an abort", () => {
    const { script, flow } = accepted({ lingerMs: 0 });
    flow.end();
    flow.expect("RA", { seq: 1, ack: 1 });
    expect(flow.state).toBe("CLOSED");
    script.close();
  });
});

describe("silence", () => {
  test("keepalive asks an idle peer, and ends the connection when nothing comes back", () => {
    const options = {
      keepalive: true,
      keepaliveIdleMs: 10_000,
      keepaliveIntervalMs: 2000,
      keepaliveProbes: 3,
    };
    const { script, flow } = accepted(options);
    script.run(9.9e6);
    script.expectNothing();
    script.run(0.2e6);
    flow.expect("A", { seq: 0, ack: 1, length: 0 });
    flow.inject("A", { seq: 1, ack: 1 });
    script.run(9e6);
    script.expectNothing();
    script.run(20e6);
    expect(flow.takeAll().filter(({ flags }) => flags === "A").length).toBe(3);
    expect(flow.events.at(-1)).toBe("ended timeout ETIMEDOUT");
    script.close();
  });

  test("a peer's keepalive is answered", () => {
    const { script, flow } = accepted();
    for (let i = 0; i < 50; i += 1) {
      script.run(20_000);
      flow.inject("A", { seq: 0, ack: 1 });
      flow.expect("A", { seq: 1, ack: 1 });
    }
    script.close();
  });

  test("the user timeout ends a connection whose data nobody acknowledges", () => {
    const { script, flow } = accepted({ userTimeoutMs: 5000 });
    flow.write(100);
    script.run(4e6);
    expect(flow.state).toBe("ESTABLISHED");
    script.run(10e6);
    script.skip();
    expect(flow.events.at(-1)).toBe("ended timeout ETIMEDOUT");
    script.close();
  });
});
