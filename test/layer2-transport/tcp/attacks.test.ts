/**
 * Attacks on TCP that are known, one group for each, against the whole stack: what an attacker sends, and what must not
 * come of it. Each test names the rule that it holds; without that rule it fails.
 */
import { describe, expect, test, vi } from "vitest";
import { Evictor } from "../../../src/layer2-transport/guard/evictor.ts";
import { pressure } from "../../../src/layer2-transport/guard/memory-ceiling.ts";
import { node } from "../../../src/layer2-transport/nodes/v-node.ts";
import { AcceptAll, type SynVerdict, synVerdict } from "../../../src/layer2-transport/tcp/admission.ts";
import { SynCookies } from "../../../src/layer2-transport/tcp/security/syn-cookie.ts";
import { addressWords } from "../../../src/layer3-ip/ip-prefix.ts";
import { SteerHash } from "../../../src/layer3-ip/steer.ts";
import { type Fields, type Flow, pattern, type Sent, TcpScript } from "../../support/tcp-script.ts";
import { accepted, connected, handshake, reach } from "./conformance/states.ts";

test("segments that mean nothing leave an idle connection at rest", () => {
  const { script, flow } = accepted({}, { ts: 1000 });
  expect(script.stack.activeCount).toBe(0);
  const segments: [string, Fields][] = [
    ["R", { seq: -5, ts: 1000 }],
    ["R", { seq: 100_000, ts: 1000 }],
    ["", { seq: 1, ts: 1000 }],
    ["A", { seq: 1, ack: 1, ts: 10 }],
    ["A", { seq: -5, ack: 1, ts: 1000 }],
    ["A", { seq: 1, ack: 500, ts: 1000 }],
  ];
  for (const [flags, fields] of segments) {
    flow.inject(flags, fields);
    expect(script.stack.activeCount).toBe(0);
  }
  script.skip();
  expect(flow.state).toBe("ESTABLISHED");
  script.close();
});

const sum = (sent: Sent[]): number => sent.reduce((bytes, { length }) => bytes + length, 0);

describe("SACK panic and its kin (CVE-2019-11477, -11478, -11479, -5599)", () => {
  test.each([1, 8, 48])("a peer's MSS of %d does not make a segment of every few bytes", (mss) => {
    const { script, flow } = accepted({}, { mss });
    flow.write(4000);
    const sent = flow.takeAll();
    const segments = sent.reduce(
      (count, one) => count + Math.ceil(one.length / (one.segmentBytes || one.length)),
      0,
    );
    expect(segments).toBeLessThanOrEqual(Math.ceil(sum(sent) / 64) + 1);
    script.close();
  });

  test("blocks of single bytes, and blocks far apart, cost neither steps nor records without end", () => {
    const options = { initialWindow: 5000, recvBuffer: 2 ** 20 };
    const syn = { scale: 10, sackPermitted: true };
    const { script, flow } = accepted(options, syn, { largeFrames: 160 });
    flow.inject("A", { seq: 1, ack: 1, window: 60_000 });
    for (let i = 0; i < 4; i += 1) flow.write(1_000_000);
    script.run(1000);
    const out = sum(flow.takeAll());
    expect(out).toBeGreaterThan(3_900_000);
    const { runs } = flow.tcb.recovery as unknown as { runs: { count: number; steps: number } };
    let mostSteps = 0;
    const tell = (edges: number[]): void => {
      const sacks = edges.map((edge): [number, number] => [edge, edge + 1]);
      flow.inject("A", { seq: 1, ack: 1, window: 60_000, sacks });
      mostSteps = Math.max(mostSteps, runs.steps);
    };
    for (let at = 30_001; at + 6000 < out; at += 6000) tell([at, at + 2000, at + 4000]);
    // From one end to the middle and back, which is as far from everything that is known as can be.
    for (let i = 0; i < 50; i += 1) {
      tell([out / 2 + 61 * i, 3 * (out / 4) + 61 * i, out / 4 + 61 * i].map(Math.floor));
    }
    for (let at = 3; at < 20_000; at += 8) tell([at, at + 2, at + 4]);
    expect(mostSteps).toBeGreaterThan(200);
    expect(mostSteps).toBeLessThan(600);
    // Two for each segment that is out, and a few.
    expect(runs.count).toBeLessThan(100 + 2 * Math.ceil(out / 1460));
    script.skip();
    script.close();
  });

  test("blocks that make no sense are worth nothing", () => {
    const { script, flow } = accepted({}, { sackPermitted: true });
    flow.write(10_000);
    flow.takeAll();
    const before = flow.tcb.recovery.inFlight;
    for (const sacks of [
      [[20_000, 30_000]],
      [[5000, 4000]],
      [[-5000, 2000_000_000]],
      [[1, 1]],
      [[10_001, 10_002]],
    ] as [number, number][][]) {
      flow.inject("A", { seq: 1, ack: 1, sacks });
    }
    expect(flow.tcb.recovery.inFlight).toBe(before);
    flow.inject("A", { seq: 1, ack: 10_001 });
    expect(flow.events).toContain("sent 10000");
    script.skip();
    script.close();
  });
});

describe("SegmentSmack (CVE-2018-5390)", () => {
  test("every other byte, falling: gaps, frames and work stay bounded", () => {
    const { script, flow } = accepted({}, { sackPermitted: true });
    flow.inject("A", { seq: 60_001, ack: 1, data: 1 });
    const { reassembly } = flow.tcb;
    const { steps } = reassembly;
    const rounds = 5000;
    for (let i = rounds; i > 0; i -= 1) flow.inject("A", { seq: 1 + 2 * i, ack: 1, data: 1 });
    expect(reassembly.gaps).toBeLessThanOrEqual(128);
    expect(script.framesInUse).toBeLessThan(150);
    expect((reassembly.steps - steps) / rounds).toBeLessThan(8 + 6 * 128);
    expect(script.count("layer2.tcp.drop.reassembly")).toBeGreaterThan(4000);
    // The connection is as good as ever.
    script.skip();
    flow.inject("A", { seq: 1, ack: 1, data: 1000 });
    expect(flow.received.slice(0, 1000)).toBe(pattern(0, 1000));
    script.skip();
    script.close();
  });

  test("single bytes in order tie up no frame each while the app is busy", () => {
    const { script, flow } = accepted();
    flow.pause();
    for (let i = 0; i < 3000; i += 1) flow.inject("A", { seq: 1 + i, ack: 1, data: 1 });
    expect(script.framesInUse).toBeLessThan(20);
    flow.resume();
    expect(flow.received).toBe(pattern(0, 3000));
    script.skip();
    script.close();
  });

  test("data far ahead never count as more than the window", () => {
    const { script, flow } = accepted({ recvBuffer: 50_000 }, { sackPermitted: true });
    for (let i = 1; i < 100; i += 1) flow.inject("A", { seq: 1 + i * 1460, ack: 1, data: 1460 });
    expect(flow.tcb.reassembly.bytes).toBeLessThanOrEqual(65_536);
    script.skip();
    script.close();
  });
});

describe("the challenge ACKs' side channel (CVE-2016-5696)", () => {
  const challenges = (flow: Flow, count: number): number => {
    for (let i = 0; i < count; i += 1) flow.inject("RA", { seq: 500, ack: 1 });
    return flow.takeAll().length;
  };

  test("an attack on one connection uses up nothing of another's allowance", () => {
    const script = new TcpScript();
    script.listen();
    const [victim, other] = [script.flow(), script.flow()];
    handshake(victim);
    handshake(other);
    expect(challenges(victim, 2000)).toBeLessThanOrEqual(10);
    expect(challenges(other, 1)).toBe(1);
    script.close();
  });

  test("a connection sends few of them, and how few nobody can tell", () => {
    const script = new TcpScript();
    script.listen();
    const counts = Array.from({ length: 30 }, () => {
      const flow = script.flow();
      handshake(flow);
      return challenges(flow, 100);
    });
    expect(Math.max(...counts)).toBeLessThanOrEqual(10);
    expect(Math.min(...counts)).toBeGreaterThanOrEqual(3);
    expect(new Set(counts).size).toBeGreaterThan(3);
    script.close();
  });
});

describe("ACK storms", () => {
  test("two ends that have lost each other do not answer for ever", () => {
    const { script, flow } = accepted();
    for (const seq of [-1000, 200_000]) {
      for (let i = 0; i < 500; i += 1) flow.inject("A", { seq, ack: 1 });
      expect(flow.takeAll().length).toBeLessThanOrEqual(10);
      script.run(5e6);
    }
    script.close();
  });
});

describe("blind resets, SYNs and data (CVE-2004-0230, RFC 5961)", () => {
  test("of resets throughout the window only the exact one ends the connection", () => {
    const { script, flow } = accepted();
    for (let seq = 2; seq < 65_535; seq += 501) flow.inject("R", { seq });
    for (let seq = 2; seq < 65_535; seq += 501) flow.inject("RA", { seq, ack: 1 });
    expect(flow.state).toBe("ESTABLISHED");
    script.skip();
    flow.inject("R", { seq: 1 });
    expect(flow.events.at(-1)).toBe("ended reset ECONNRESET");
    script.close();
  });

  test("a SYN anywhere is challenged and ends nothing", () => {
    const { script, flow } = accepted();
    for (let seq = -70_000; seq < 140_000; seq += 1009) flow.inject("S", { seq });
    expect(flow.state).toBe("ESTABLISHED");
    expect(flow.takeAll().every(({ flags, seq, ack }) => flags === "A" && seq === 1 && ack === 1)).toBe(true);
    script.close();
  });

  test("data whose ACK lies beyond what was sent, or before the greatest window, are not taken", () => {
    const { script, flow } = accepted({}, { window: 5000 });
    for (const ack of [2, 1000, 2 ** 30, -5001, -70_000, -(2 ** 30)]) {
      flow.inject("PA", { seq: 1, ack, data: "evil" });
    }
    expect(flow.received).toBe("");
    expect(script.count("layer2.tcp.drop.bad-ack")).toBe(6);
    script.skip();
    // What a peer itself may say of before is taken.
    flow.inject("PA", { seq: 1, ack: -10, data: "good", window: 5000 });
    expect(flow.received).toBe("good");
    script.skip();
    script.close();
  });

  test("what came first stays: later data do not replace what waits", () => {
    const { script, flow } = accepted();
    flow.inject("A", { seq: 11, ack: 1, data: "genuine bytes" });
    flow.inject("A", { seq: 11, ack: 1, data: "injected here" });
    flow.inject("A", { seq: 1, ack: 1, data: "0123456789" });
    expect(flow.received.slice(10)).toBe("genuine bytes");
    script.skip();
    script.close();
  });
});

/** Answers every SYN with a cookie, and counts what is asked. */
class AlwaysCookies extends AcceptAll {
  asked = 0;

  override syn(): SynVerdict {
    this.asked += 1;
    return synVerdict.cookie;
  }
}

describe("SYN floods (RFC 4987)", () => {
  test("with cookies nothing is kept of a SYN", () => {
    const script = new TcpScript({ admission: new AlwaysCookies() });
    script.listen();
    for (let i = 0; i < 5000; i += 1) {
      const flow = script.flow(1024 + i);
      flow.inject("S", { mss: 1460 });
      script.skip();
      script.flows.pop();
    }
    expect([script.stack.activeCount, script.stack.halfOpenCount, script.nodes.usedInAll()]).toEqual([
      0, 0, 0,
    ]);
    expect(script.framesInUse).toBe(0);
    expect(script.stack.nextDeadlineUs).toBe(Infinity);
    script.close();
  });

  test("beyond the backlog cookies begin by themselves, and whoever means it gets in", () => {
    const script = new TcpScript();
    script.listen({ synBacklog: 8, quickack: true });
    for (let i = 0; i < 100; i += 1) {
      script.flow(1024 + i).inject("S", { mss: 1460 });
    }
    expect(script.stack.halfOpenCount).toBe(8);
    expect(script.stack.activeCount).toBe(8);
    script.skip();
    const honest = script.flow();
    handshake(honest, { mss: 1460 });
    honest.inject("PA", { seq: 1, ack: 1, data: "let me in" });
    honest.expect("A", { ack: 10 });
    expect(honest.received).toBe("let me in");
    script.close();
  });

  test("a cookie loses neither MSS nor window scale nor SACK", () => {
    const script = new TcpScript({ admission: new AlwaysCookies() });
    script.listen({ quickack: true });
    const flow = script.flow();
    handshake(flow, { mss: 1400, scale: 9, sackPermitted: true, ts: 700 });
    const { sendScale, receiveScale, sack, timestamps, peerMss } = flow.tcb;
    expect({ sendScale, receiveScale, sack, timestamps, peerMss }).toEqual({
      sendScale: 9,
      receiveScale: 7,
      sack: true,
      timestamps: true,
      peerMss: 1400,
    });
    flow.inject("A", { seq: 1001, ack: 1, data: 100, ts: 701 });
    flow.expect("A", { ack: 1, sacks: [[1001, 1101]] });
    script.close();
  });

  test("without timestamps a cookie offers nothing that it could not remember", () => {
    const script = new TcpScript({ admission: new AlwaysCookies() });
    script.listen();
    const flow = script.flow();
    flow.inject("S", { mss: 1460, scale: 9, sackPermitted: true });
    flow.expect("SA", { scale: -1, sackPermitted: false, ts: undefined });
    flow.inject("A", { seq: 1, ack: 1 });
    expect(flow.events).toEqual(["accepted"]);
    expect(flow.tcb.sendScale).toBe(0);
    script.close();
  });

  test("the first data segment brings the cookie as well as an ACK alone", () => {
    const script = new TcpScript({ admission: new AlwaysCookies() });
    script.listen({ quickack: true });
    const flow = script.flow();
    flow.inject("S", { mss: 1460, ts: 5 });
    flow.expect("SA");
    flow.inject("PA", { seq: 1, ack: 1, data: "at once", ts: 6 });
    flow.expect("A", { ack: 8 });
    expect(flow.received).toBe("at once");
    script.close();
  });

  test("a SYN that comes again when the flood is over does not displace the cookie that answered it", () => {
    const admission = new AlwaysCookies();
    const script = new TcpScript({ admission });
    script.listen({ quickack: true });
    const flow = script.flow();
    flow.inject("S", { mss: 1460, ts: 5 });
    flow.expect("SA");
    const cookie = flow.irs;
    admission.syn = () => synVerdict.take;
    flow.inject("S", { mss: 1460, ts: 5 });
    script.skip();
    expect(script.stack.halfOpenCount).toBe(1);
    flow.irs = cookie;
    flow.inject("PA", { seq: 1, ack: 1, data: "still here", ts: 6 });
    flow.expect("A", { ack: 11 });
    expect(flow.events).toEqual(["accepted"]);
    expect(flow.received).toBe("still here");
    expect([script.stack.halfOpenCount, script.nodes.usedInAll()]).toEqual([0, 1]);
    script.close();
  });

  test("cookies of before two minutes, of others, and guesses are worth a reset", () => {
    const script = new TcpScript({ admission: new AlwaysCookies() });
    script.listen();
    const [flow, thief] = [script.flow(), script.flow()];
    flow.inject("S", { mss: 1460 });
    flow.expect("SA");
    thief.irs = flow.irs;
    thief.inject("A", { seq: 1, ack: 1 });
    thief.expect("R");
    for (let guess = 2; guess < 2000; guess += 1) flow.inject("A", { seq: 1, ack: guess * 7919 });
    flow.takeAll();
    script.run(130e6);
    flow.inject("A", { seq: 1, ack: 1 });
    flow.expect("R");
    expect([flow.events, thief.events]).toEqual([[], []]);
    expect(script.stack.activeCount).toBe(0);
    script.close();
  });

  test("guesses are not even looked at when no cookie has been sent lately", () => {
    const look = vi.spyOn(SynCookies.prototype, "check");
    const script = new TcpScript({ admission: new AlwaysCookies() });
    script.listen();
    const flow = script.flow();
    const guess = (): number => {
      look.mockClear();
      flow.inject("A", { seq: 1, ack: 77 });
      flow.expect("R");
      return look.mock.calls.length;
    };
    expect(guess()).toBe(0);
    flow.inject("S", { mss: 1460 });
    flow.expect("SA");
    expect(guess()).toBe(1);
    script.run(129e6);
    expect(guess()).toBe(0);
    look.mockRestore();
    script.close();
  });

  test("the half-open are forgotten by and by", () => {
    const script = new TcpScript();
    script.listen({ synRetries: 2 });
    for (let i = 0; i < 50; i += 1) script.flow(1024 + i).inject("S");
    expect(script.stack.halfOpenCount).toBe(50);
    script.run(30e6);
    expect([script.stack.halfOpenCount, script.stack.activeCount, script.nodes.usedInAll()]).toEqual([
      0, 0, 0,
    ]);
    script.skip();
    script.close();
  });

  test("without memory there is no record, and no answer that would promise one", () => {
    class NoMemory extends AcceptAll {
      override memory(): boolean {
        return false;
      }
    }
    const script = new TcpScript({ admission: new NoMemory() });
    script.listen();
    script.flow().inject("S");
    script.expectNothing();
    expect(script.nodes.usedInAll()).toBe(0);
    script.close();
  });
});

describe("receivers that lie (Savage 1999, Sherwood 2005)", () => {
  test("ACK division: a segment acknowledged byte by byte opens the window no further (RFC 3465)", () => {
    const grown = (acks: number): number => {
      const { script, flow } = accepted();
      flow.write(14_600);
      flow.takeAll();
      const before = flow.tcb.recovery.cwnd;
      for (let i = 1; i <= acks; i += 1) {
        flow.inject("A", { seq: 1, ack: 1 + Math.round((1460 * i) / acks) });
      }
      const after = flow.tcb.recovery.cwnd;
      script.skip();
      script.close();
      return after - before;
    };
    const honest = grown(1);
    expect(honest).toBeGreaterThan(0);
    expect(honest).toBeLessThanOrEqual(2 * 1460);
    expect(grown(1460)).toBeLessThanOrEqual(honest + 1460);
  });

  test("optimistic ACKs of what was never sent are challenged, and count for nothing", () => {
    const { script, flow } = accepted();
    flow.write(100_000);
    const out = sum(flow.takeAll());
    expect(out).toBeLessThan(20_000);
    const { cwnd } = flow.tcb.recovery;
    for (let i = 1; i < 50; i += 1) flow.inject("A", { seq: 1, ack: 1 + out + 1460 * i });
    const answers = flow.takeAll();
    expect(sum(answers)).toBe(0);
    expect(answers.length).toBeLessThanOrEqual(10);
    expect(flow.tcb.recovery.cwnd).toBe(cwnd);
    script.close();
  });

  test.each([false, true])(
    "duplicate ACKs beyond what is out let nothing more out (SACK: %s)",
    (sackPermitted) => {
      const { script, flow } = accepted({}, { sackPermitted });
      flow.write(500_000);
      const out = sum(flow.takeAll());
      const { cwnd } = flow.tcb.recovery;
      for (let i = 0; i < 2000; i += 1) flow.inject("A", { seq: 1, ack: 1 });
      const more = sum(flow.takeAll());
      // Each segment that is out can have left the network once, and some are sent again.
      expect(more).toBeLessThanOrEqual(2 * out);
      expect(flow.tcb.recovery.cwnd).toBeLessThanOrEqual(Math.max(cwnd, out) + 2 * 1460);
      script.close();
    },
  );

  test("a window of nothing at all is not believed to be larger than the peer says", () => {
    const { script, flow } = connected({}, { window: 1000 });
    flow.write(50_000);
    expect(sum(flow.takeAll())).toBeLessThanOrEqual(1000);
    script.close();
  });
});

describe("ICMP (RFC 5927)", () => {
  const unreachable = 3;
  const tooBig = { type: unreachable, code: 4 };

  function sending(bytes = 14_600): { script: TcpScript; flow: Flow; out: number } {
    const { script, flow } = accepted();
    flow.write(bytes);
    return { script, flow, out: sum(flow.takeAll()) };
  }

  test("a packet that is too big must be one that is out", () => {
    const { script, flow, out } = sending();
    for (const seq of [-1, -100_000, 1 + out, 1_000_000, 2 ** 30]) {
      script.icmp(tooBig.type, tooBig.code, flow.quoted(seq), 1000, flow.hash);
    }
    expect(flow.tcb.mss).toBe(1460);
    expect(script.count("layer2.drop.icmp-ignored")).toBe(5);
    script.icmp(tooBig.type, tooBig.code, flow.quoted(1), 1000, flow.hash);
    expect(flow.tcb.mss).toBe(960);
    script.skip();
    script.close();
  });

  test.each([0, 68, 100, 575])("a path of %d bytes is not believed", (mtu) => {
    const { script, flow } = sending();
    script.icmp(tooBig.type, tooBig.code, flow.quoted(1), mtu, flow.hash);
    expect(flow.tcb.mss).toBe(1460);
    script.skip();
    script.close();
  });

  test("nor one of less than 1,280 bytes on IPv6 (RFC 8201 4)", () => {
    const { script, flow } = accepted({}, { mss: 1440 }, { version6: true });
    flow.write(14_400);
    flow.takeAll();
    script.icmp(2, 0, flow.quoted(1, 60), 1279, flow.hash);
    expect(flow.tcb.mss).toBe(1440);
    script.icmp(2, 0, flow.quoted(1, 60), 1280, flow.hash);
    expect(flow.tcb.mss).toBe(1220);
    script.skip();
    script.close();
  });

  test("while full segments get through, a narrower path is believed only when they do not any more", () => {
    const { script, flow } = sending(60_000);
    flow.inject("A", { seq: 1, ack: 1 + 2920 });
    flow.takeAll();
    script.icmp(tooBig.type, tooBig.code, flow.quoted(1 + 2920), 600, flow.hash);
    expect(flow.tcb.mss).toBe(1460);
    // Progress: what was quoted has arrived.
    const end = (flow.tcb.sendNext - flow.irs) | 0;
    flow.inject("A", { seq: 1, ack: end });
    script.skip();
    expect(flow.tcb.mss).toBe(1460);
    // No progress: it was true.
    script.icmp(tooBig.type, tooBig.code, flow.quoted(end), 1000, flow.hash);
    expect(flow.tcb.mss).toBe(1460);
    script.run(3e6);
    expect(flow.tcb.mss).toBe(960);
    const again = flow.takeAll().at(-1);
    expect(again?.segmentBytes || again?.length).toBeLessThanOrEqual(960);
    script.close();
  });

  test("no error ends a connection that stands", () => {
    const { script, flow } = sending();
    for (let code = 0; code < 16; code += 1) {
      if (code !== 4) script.icmp(unreachable, code, flow.quoted(1), 0, flow.hash);
    }
    script.icmp(11, 0, flow.quoted(1), 0, flow.hash);
    script.icmp(4, 0, flow.quoted(1), 0, flow.hash);
    expect(flow.state).toBe("ESTABLISHED");
    expect(flow.tcb.recovery.cwnd).toBeGreaterThanOrEqual(14_600);
    script.close();
  });

  test("one about our SYN refuses the call, one about another SYN does not", () => {
    const script = new TcpScript();
    const flow = script.connect();
    flow.expect("S");
    script.icmp(unreachable, 3, flow.quoted(5), 0, flow.hash);
    expect(flow.state).toBe("SYN-SENT");
    script.icmp(unreachable, 3, flow.quoted(0), 0, flow.hash);
    expect(flow.events).toEqual(["failed ECONNREFUSED"]);
    script.close();
  });
});

describe("guessing initial sequence numbers (RFC 6528)", () => {
  function numbers(seed: number): number[] {
    const script = new TcpScript({ seed });
    script.listen();
    return Array.from({ length: 100 }, () => {
      const flow = script.flow();
      flow.inject("S");
      flow.expect("SA");
      return flow.irs;
    });
  }

  test("one's own connections tell nothing of another's", () => {
    const found = numbers(1);
    const steps = found.slice(1).map((isn, i) => (isn - (found[i] ?? 0)) | 0);
    expect(new Set(steps).size).toBe(99);
    expect(steps.filter((step) => Math.abs(step) < 2 ** 24).length).toBeLessThan(10);
  });

  test("another runtime's are others", () => {
    const second = new Set(numbers(2));
    expect(numbers(1).filter((isn) => second.has(isn))).toEqual([]);
  });

  test("the same ends get numbers that go up with time, so that a new connection follows an old one", () => {
    const script = new TcpScript();
    script.listen({ timeWaitMs: 0 });
    const isns = [0, 1, 2, 3].map(() => {
      const flow = script.flow(5555);
      flow.inject("S");
      flow.expect("SA");
      flow.inject("R", { seq: 1 });
      script.run(1e6);
      return flow.irs;
    });
    for (let i = 1; i < 4; i += 1) expect(((isns[i] ?? 0) - (isns[i - 1] ?? 0)) | 0).toBe(250_000);
    script.close();
  });
});

describe("guessing local ports (RFC 6056, CVE-2022-32296)", () => {
  function ports(seed: number, calls: number): number[] {
    const script = new TcpScript({ seed });
    return Array.from({ length: calls }, () => script.connect().localPort);
  }

  test("where the ports towards a destination begin depends on the key and on the destination", () => {
    const firsts = Array.from({ length: 30 }, (_, seed) => ports(seed + 1, 1)[0] ?? 0);
    expect(new Set(firsts).size).toBeGreaterThan(28);
    // Each call goes to another destination.
    const found = ports(1, 30);
    const steps = found.slice(1).map((port, i) => Math.abs(port - (found[i] ?? 0)));
    expect(steps.filter((step) => step < 16).length).toBeLessThan(3);
    expect(Math.min(...found)).toBeGreaterThanOrEqual(32_768);
  });
});

describe("TIME-WAIT assassination (RFC 1337), and its reuse (RFC 6191)", () => {
  test("resets and old segments do not end it", () => {
    const { script, flow, next, sent } = reach("TIME-WAIT");
    flow.inject("R", { seq: next });
    flow.inject("RA", { seq: next, ack: sent });
    flow.inject("A", { seq: next - 50, ack: sent, data: 10 });
    flow.inject("A", { seq: next - 50, ack: sent - 1 });
    expect(flow.state).toBe("TIME-WAIT");
    script.skip();
    script.close();
  });

  test("an old SYN does not open it again, a new one does", () => {
    const { script, flow, next } = reach("TIME-WAIT");
    flow.inject("S", { seq: -5000 });
    flow.inject("S", { seq: next - 1 });
    expect(flow.state).toBe("TIME-WAIT");
    script.skip();
    flow.iss = (flow.iss + 100_000) | 0;
    flow.inject("S", { seq: 0 });
    flow.expect("SA", { seq: 0, ack: 1 });
    flow.inject("A", { seq: 1, ack: 1 });
    expect(flow.events.at(-1)).toBe("accepted");
    script.close();
  });

  test("by timestamps a newer SYN opens it even with a lower number, an older one does not", () => {
    const { script, flow } = accepted({}, { ts: 1000 });
    flow.shutdown();
    flow.expect("FA");
    flow.inject("FA", { seq: 1, ack: 2, ts: 1001 });
    flow.expect("A", { ack: 2 });
    expect(flow.state).toBe("TIME-WAIT");
    flow.inject("S", { seq: 100_000, ts: 900 });
    expect(flow.state).toBe("TIME-WAIT");
    script.skip();
    flow.iss = (flow.iss - 100_000) | 0;
    flow.inject("S", { seq: 0, ts: 1002 });
    flow.expect("SA", { seq: 0, ack: 1 });
    script.close();
  });
});

describe("peers that take nothing (slow read, sockstress, a window of 0)", () => {
  test("a user timeout ends a connection whose window stays closed, though every probe is answered", () => {
    const { script, flow } = accepted({ userTimeoutMs: 60_000 }, { window: 3000 });
    flow.inject("A", { seq: 1, ack: 1, window: 0 });
    flow.write(5000);
    for (let i = 0; i < 200 && flow.state === "ESTABLISHED"; i += 1) {
      script.run(1e6);
      if (flow.takeAll().some(({ flags }) => flags === "A" || flags === "PA")) {
        flow.inject("A", { seq: 1, ack: 1, window: 0 });
      }
    }
    expect(flow.events.at(-1)).toBe("ended timeout ETIMEDOUT");
    expect(flow.events).toContain("dropped 5000");
    script.skip();
    script.close();
  });

  test("probes become rare, so that a thousand such peers cost little", () => {
    const { script, flow } = accepted({}, { window: 3000 });
    flow.inject("A", { seq: 1, ack: 1, window: 0 });
    flow.write(5000);
    let probes = 0;
    for (let i = 0; i < 3600; i += 1) {
      script.run(1e6);
      const sent = flow.takeAll();
      probes += sent.length;
      if (sent.length > 0) flow.inject("A", { seq: 1, ack: 1, window: 0 });
    }
    expect(flow.state).toBe("ESTABLISHED");
    expect(probes).toBeGreaterThan(20);
    expect(probes).toBeLessThan(80);
    script.close();
  });

  test("under pressure for memory those that stand still are ended, and those that go on are not", () => {
    const script = new TcpScript();
    script.listen();
    const [stuck, busy] = [script.flow(), script.flow()];
    for (const flow of [stuck, busy]) handshake(flow, { window: 10_000 });
    for (const flow of [stuck, busy]) flow.write(200_000);
    script.skip();
    stuck.inject("A", { seq: 1, ack: 1, window: 0 });
    for (let i = 0; i < 5; i += 1) {
      script.run(1e6);
      const out = (busy.tcb.sendNext - busy.irs) | 0;
      busy.inject("A", { seq: 1, ack: out, window: 10_000 });
    }
    script.skip();
    const evictor = new Evictor(script.stack, { slow: () => {}, evicted: () => {} }, 20_000);
    evictor.turn(pressure.some, 1e6);
    script.flush();
    expect(stuck.state).toBe("CLOSED");
    expect(busy.state).toBe("ESTABLISHED");
    script.skip();
    script.close();
  });

  test("what the app does not take is bounded by the window, whatever comes", () => {
    const { script, flow } = accepted({ recvBuffer: 30_000 });
    flow.pause();
    for (let seq = 1; seq < 300_000; seq += 1460) flow.inject("A", { seq, ack: 1, data: 1460 });
    expect(flow.tcb.unread.bytes + flow.tcb.reassembly.bytes).toBeLessThanOrEqual(30_000);
    script.skip();
    script.close();
  });
});

describe("flooding the table of connections", () => {
  test("peers who would collide under a hash that they know are spread under the runtime's own key", () => {
    const known = new SteerHash({ low: 0, high: 0 });
    const local = addressWords("10.0.0.1")?.words ?? new Int32Array(4);
    const script = new TcpScript({ smallFrames: 1024 });
    script.listen();
    const peers: { port: number; address: string }[] = [];
    for (let host = 1; host < 250 && peers.length < 300; host += 1) {
      const address = `10.0.7.${host}`;
      const words = addressWords(address)?.words ?? new Int32Array(4);
      for (let port = 1024; port < 1024 + 512; port += 1) {
        if ((known.hash(words, 0, port, local, 0, 80, 1, 6) & 0x1ff) === 5) peers.push({ port, address });
      }
    }
    const places = new Set<number>();
    for (const { port, address } of peers.slice(0, 200)) {
      const flow = script.flow(port, address);
      flow.inject("S");
      script.skip();
      const tcb = script.stack.active().at(-1);
      places.add((script.nodes.words[(tcb?.base ?? 0) + node.hash] ?? 0) & 0x1ff);
    }
    expect(peers.length).toBeGreaterThanOrEqual(200);
    expect(places.size).toBeGreaterThan(100);
    script.close();
  });
});
