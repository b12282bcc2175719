/** Opening a connection (RFC 9293 3.5), from both sides: options, repeated SYNs, simultaneous opens, refusals. */
import { describe, expect, test } from "vitest";
import { TcpScript } from "../../../support/tcp-script.ts";
import { accepted, connected, handshake } from "./states.ts";

describe("a passive open", () => {
  test("SYN, SYN-ACK, ACK: the connection stands and is accepted once", () => {
    const script = new TcpScript();
    script.listen({ quickack: true });
    const flow = script.flow();
    flow.inject("S", { mss: 1460, scale: 7, sackPermitted: true, ts: 1000 });
    const answer = flow.expect("SA", { seq: 0, ack: 1, mss: 1460, sackPermitted: true, length: 0, scale: 7 });
    expect(answer.ts?.[1]).toBe(1000);
    expect(flow.state).toBe("SYN-RECEIVED");
    expect(flow.events).toEqual([]);
    flow.inject("A", { seq: 1, ack: 1, ts: 1001 });
    expect(flow.state).toBe("ESTABLISHED");
    expect(flow.events).toEqual(["accepted"]);
    flow.inject("PA", { seq: 1, ack: 1, data: "hello", ts: 1002 });
    expect(flow.received).toBe("hello");
    flow.expect("A", { seq: 1, ack: 6 });
    script.close();
  });

  test.each([
    ["nothing", {}, { scale: -1, sackPermitted: false, ts: undefined }],
    ["SACK alone", { sackPermitted: true }, { scale: -1, sackPermitted: true, ts: undefined }],
    ["a scale of 0", { scale: 0 }, { scale: 7, sackPermitted: false, ts: undefined }],
  ])("only what the SYN offers is answered: %s", (_name, syn, answer) => {
    const script = new TcpScript();
    script.listen();
    const flow = script.flow();
    flow.inject("S", { mss: 1460, ...syn });
    flow.expect("SA", answer);
    script.close();
  });

  test("the SYN-ACK is repeated, later and later, and then the handshake is given up", () => {
    const script = new TcpScript();
    script.listen({ synRetries: 3 });
    const flow = script.flow();
    flow.inject("S");
    const first = flow.expect("SA");
    const waits: number[] = [];
    for (let last = first.atUs, i = 0; i < 3; i += 1) {
      script.run(16e6);
      const again = flow.expect("SA", { seq: 0, ack: 1 });
      waits.push(Math.round((again.atUs - last) / 1e6));
      last = again.atUs;
      const more = flow.takeAll();
      for (const one of more) {
        waits.push(Math.round((one.atUs - last) / 1e6));
        last = one.atUs;
      }
      if (more.length > 0) break;
    }
    script.run(60e6);
    expect(waits.slice(0, 3)).toEqual([1, 2, 4]);
    expect(flow.state).toBe("CLOSED");
    expect(flow.events).toEqual([]);
    expect(script.stack.halfOpenCount).toBe(0);
    script.close();
  });

  test("a repeated SYN is answered by the same SYN-ACK", () => {
    const script = new TcpScript();
    script.listen();
    const flow = script.flow();
    flow.inject("S", { mss: 1460 });
    const { irs } = flow;
    flow.expect("SA", { seq: 0, ack: 1 });
    flow.inject("S", { mss: 1460 });
    const before = flow.irs;
    flow.expect("SA", { seq: 0, ack: 1 });
    expect(flow.irs).toBe(before);
    expect(irs).not.toBe(before);
    script.close();
  });

  test("data and FIN may come with the third segment", () => {
    const script = new TcpScript();
    script.listen();
    const flow = script.flow();
    flow.inject("S");
    flow.expect("SA");
    flow.inject("FPA", { seq: 1, ack: 1, data: "all at once" });
    flow.expect("A", { ack: 13 });
    expect(flow.received).toBe("all at once");
    expect(flow.events).toEqual(["accepted", "peer-ended"]);
    expect(flow.state).toBe("CLOSE-WAIT");
    script.close();
  });

  test("data behind a lost third segment complete the handshake", () => {
    const script = new TcpScript();
    script.listen({ quickack: true });
    const flow = script.flow();
    flow.inject("S");
    flow.expect("SA");
    flow.inject("PA", { seq: 1001, ack: 1, data: 500 });
    expect(flow.state).toBe("ESTABLISHED");
    flow.expect("A", { ack: 1 });
    flow.inject("A", { seq: 1, ack: 1, data: 1000 });
    flow.expect("A", { ack: 1501 });
    expect(flow.received.length).toBe(1500);
    script.close();
  });

  test("whoever does not want it resets it", () => {
    const script = new TcpScript();
    script.listen();
    script.accepts = false;
    const flow = script.flow();
    flow.inject("S");
    flow.expect("SA");
    flow.inject("A", { seq: 1, ack: 1 });
    flow.expect("RA", { seq: 1, ack: 1 });
    expect(flow.state).toBe("CLOSED");
    script.close();
  });

  test("each connection has its own initial sequence number", () => {
    const script = new TcpScript();
    script.listen();
    const numbers = Array.from({ length: 50 }, () => {
      const flow = script.flow();
      flow.inject("S");
      flow.expect("SA");
      return flow.irs;
    });
    expect(new Set(numbers).size).toBe(50);
    script.close();
  });
});

describe("an active open", () => {
  test("SYN with all it offers, SYN-ACK, ACK", () => {
    const script = new TcpScript();
    const flow = script.connect();
    expect(flow.state).toBe("SYN-SENT");
    const syn = flow.expect("S", { seq: 0, mss: 1460, scale: 7, sackPermitted: true, length: 0 });
    expect(syn.ts?.[1]).toBe(0);
    flow.inject("SA", { seq: 0, ack: 1, mss: 1400, scale: 3, sackPermitted: true, ts: 500 });
    const ack = flow.expect("A", { seq: 1, ack: 1 });
    expect(ack.ts?.[1]).toBe(500);
    expect(flow.events).toEqual(["connected"]);
    flow.write(3000);
    flow.expect("PA", { seq: 1, length: 3000, segmentBytes: 1388 });
    script.close();
  });

  test("the SYN is repeated after 1, 2, 4 seconds, and fails when nobody answers", () => {
    const script = new TcpScript();
    const flow = script.connect({ synRetries: 3 });
    script.run(60e6);
    const sent = flow.takeAll();
    expect(sent.map(({ flags }) => flags)).toEqual(["S", "S", "S", "S"]);
    const waits = sent.slice(1).map((one, i) => Math.round((one.atUs - (sent[i]?.atUs ?? 0)) / 1e6));
    expect(waits).toEqual([1, 2, 4]);
    expect(new Set(sent.map(({ seq }) => seq))).toEqual(new Set([0]));
    expect(flow.events).toEqual(["failed ETIMEDOUT"]);
    expect(flow.state).toBe("CLOSED");
    script.close();
  });

  test("a time limit ends it earlier", () => {
    const script = new TcpScript();
    const flow = script.connect({}, 2500);
    script.run(10e6);
    expect(flow.takeAll().length).toBe(2);
    expect(flow.events).toEqual(["failed ETIMEDOUT"]);
    script.close();
  });

  test("RST, ACK refuses it", () => {
    const script = new TcpScript();
    const flow = script.connect();
    flow.expect("S");
    flow.inject("RA", { seq: 0, ack: 1 });
    expect(flow.events).toEqual(["failed ECONNREFUSED"]);
    script.close();
  });

  test("a wrong ACK is answered by a reset, and the call goes on", () => {
    const script = new TcpScript();
    const flow = script.connect();
    flow.expect("S");
    flow.inject("SA", { seq: 0, ack: 500 });
    flow.expect("R", { seq: 500 });
    flow.inject("A", { seq: 0, ack: -3 });
    flow.expect("R", { seq: -3 });
    flow.inject("SA", { seq: 0, ack: 1 });
    flow.expect("A", { seq: 1, ack: 1 });
    script.close();
  });

  test("data in the SYN-ACK are taken, or come again", () => {
    const script = new TcpScript();
    const flow = script.connect({ quickack: true });
    flow.expect("S");
    flow.inject("SA", { seq: 0, ack: 1, data: "early" });
    flow.expect("A", { seq: 1 });
    script.skip();
    flow.inject("PA", { seq: 1, ack: 1, data: "early" });
    expect(flow.received).toBe("early");
    script.skip();
    script.close();
  });

  test("both ends call at once", () => {
    const script = new TcpScript();
    const flow = script.connect({ quickack: true });
    flow.expect("S", { seq: 0 });
    flow.inject("S", { seq: 0, mss: 1460 });
    flow.expect("SA", { seq: 0, ack: 1 });
    expect(flow.state).toBe("SYN-RECEIVED");
    flow.inject("SA", { seq: 0, ack: 1, mss: 1460 });
    expect(flow.state).toBe("ESTABLISHED");
    expect(flow.events).toEqual(["connected"]);
    script.skip();
    flow.inject("PA", { seq: 1, ack: 1, data: "yes" });
    flow.expect("A", { seq: 1, ack: 4 });
    expect(flow.received).toBe("yes");
    script.close();
  });

  test("both ends call at once, and the answer is a plain ACK", () => {
    const script = new TcpScript();
    const flow = script.connect();
    flow.expect("S");
    flow.inject("S", { seq: 0 });
    flow.expect("SA");
    flow.inject("A", { seq: 1, ack: 1 });
    expect(flow.events).toEqual(["connected"]);
    expect(flow.state).toBe("ESTABLISHED");
    script.close();
  });

  test("an old connection at the other end is found out and reset (RFC 9293 3.5.1)", () => {
    const script = new TcpScript();
    const flow = script.connect();
    flow.expect("S");
    flow.inject("A", { seq: 300, ack: 100 });
    flow.expect("R", { seq: 100 });
    expect(flow.state).toBe("SYN-SENT");
    script.run(1.1e6);
    flow.expect("S");
    flow.inject("SA", { seq: 0, ack: 1 });
    flow.expect("A");
    script.close();
  });
});

describe("the peer's MSS (RFC 9293 3.7.1, RFC 6691)", () => {
  test.each([
    ["its MSS", { mss: 1000 }, 1000],
    ["536 when it names none", {}, 536],
    ["no more than our own link takes", { mss: 9000 }, 1460],
    ["less by the timestamps' 12 bytes", { mss: 1000, ts: 5 }, 988],
  ])("segments have %s", (_name, syn, bytes) => {
    const script = new TcpScript();
    script.listen();
    const flow = script.flow();
    handshakeOf(flow, syn);
    flow.write(3000);
    const sent = flow.takeAll();
    expect(sent.map(({ length }) => length).reduce((sum, length) => sum + length)).toBe(3000);
    expect(sent[0]?.segmentBytes).toBe(bytes);
    script.close();
  });

  test("1,220 when it names none on IPv6", () => {
    const script = new TcpScript({ version6: true });
    script.listen();
    const flow = script.flow();
    handshakeOf(flow, {});
    flow.write(3000);
    expect(flow.takeAll()[0]?.segmentBytes).toBe(1220);
    script.close();
  });

  test("`maxseg` bounds both what we send and what we name", () => {
    const script = new TcpScript();
    script.listen({ maxseg: 700 });
    const flow = script.flow();
    flow.inject("S", { mss: 1460 });
    flow.expect("SA", { mss: 700 });
    flow.inject("A", { seq: 1, ack: 1 });
    flow.write(2000);
    expect(flow.takeAll()[0]?.segmentBytes).toBe(700);
    script.close();
  });

  test("our own is the link's MTU less 40 bytes, or 60 on IPv6, options not counted", () => {
    for (const [version6, mtu, mss] of [
      [false, 1500, 1460],
      [true, 1500, 1440],
      [false, 9000, 8960],
    ] as const) {
      const script = new TcpScript({ version6, mtu });
      script.listen();
      const flow = script.flow();
      flow.inject("S", { ts: 1 });
      flow.expect("SA", { mss });
      script.close();
    }
  });

  function handshakeOf(flow: ReturnType<TcpScript["flow"]>, syn: { mss?: number; ts?: number }): void {
    flow.inject("S", syn);
    flow.expect("SA");
    flow.inject("A", { seq: 1, ack: 1, ...(syn.ts === undefined ? {} : { ts: syn.ts }) });
  }
});

describe("window scale (RFC 7323 2)", () => {
  test("is used when both sides name one, and a SYN's own window is not scaled", () => {
    const { script, flow } = accepted({}, { scale: 2, window: 1000 });
    flow.write(10_000);
    // 1000 * 4 bytes of window are there.
    const sent = flow.takeAll().reduce((sum, { length }) => sum + length, 0);
    expect(sent).toBeGreaterThan(3000 - 1460);
    expect(sent).toBeLessThanOrEqual(4000);
    script.close();
  });

  test("a peer's SYN window counts as it is", () => {
    const { script, flow } = connected({}, { scale: 10, window: 2000 });
    flow.write(10_000);
    expect(flow.takeAll().reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(2000);
    script.close();
  });

  test("a shift beyond 14 is 14", () => {
    const { script, flow } = accepted({}, { scale: 15 });
    expect(flow.tcb.sendScale).toBe(14);
    script.close();
  });

  test("ours is what the receive buffer needs, and none when the peer names none", () => {
    for (const [recvBuffer, scale] of [
      [65_535, 0],
      [65_536, 1],
      [6 * 2 ** 20, 7],
      [2 ** 30, 14],
    ] as const) {
      const script = new TcpScript();
      script.listen({ recvBuffer });
      const flow = script.flow();
      flow.inject("S", { scale: 1 });
      flow.expect("SA", { scale });
      script.close();
    }
    const { script, flow } = accepted();
    flow.inject("PA", { seq: 1, ack: 1, data: 100 });
    const { window } = flow.expect("A");
    expect(window).toBeGreaterThan(60_000);
    script.close();
  });

  test("the window that we offer is scaled in every segment but the SYN", () => {
    const { script, flow } = accepted({ recvBuffer: 6 * 2 ** 20 }, { scale: 0 });
    flow.inject("PA", { seq: 1, ack: 1, data: 100 });
    const { window } = flow.expect("A");
    expect(window * 128).toBeGreaterThan(60_000);
    expect(window * 128).toBeLessThanOrEqual(6 * 2 ** 20);
    script.close();
  });
});

test("a listener's many connections do not mix", () => {
  const script = new TcpScript();
  script.listen({ quickack: true });
  const flows = Array.from({ length: 40 }, () => script.flow());
  for (const flow of flows) handshake(flow);
  flows.forEach((flow, i) => {
    flow.inject("PA", { seq: 1, ack: 1, data: `I am ${i}` });
  });
  flows.forEach((flow, i) => {
    flow.expect("A");
    expect(flow.received).toBe(`I am ${i}`);
  });
  script.close();
});
