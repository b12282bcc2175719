/**
 * Segments at random, more or less near to what a connection expects, and an app that does this and that: the stack
 * never throws, its invariants hold after each, and in the end nothing is left of anything.
 */
import { expect, test } from "vitest";
import { RandomStream, SeedMixer } from "../../../src/layer3-ip/random-stream.ts";
import { type Fields, type Flow, TcpScript } from "../../support/tcp-script.ts";

const usualFlags = ["A", "A", "A", "PA", "PA", "AU", "AE", "ACE"];
const rareFlags = ["FA", "FPA", "S", "SA", "R", "RA", "", "F", "FSRPAU"];

class Storm {
  private readonly random: RandomStream;

  constructor(seed: number) {
    this.random = new RandomStream(new SeedMixer(BigInt(seed)));
  }

  below(count: number): number {
    return this.random.below(count);
  }

  oneOf<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  /** A number near one of these, or far from all. */
  near(...values: number[]): number {
    const kind = this.below(8);
    if (kind === 0) return this.random.next() | 0;
    const spread = this.oneOf([1, 1, 3, 2000, 70_000]);
    return this.oneOf(values) + this.below(2 * spread) - spread;
  }

  segment(flow: Flow, script: TcpScript): [string, Fields] {
    const tcb = script.stack.active().find((one) => one.sockfd24 === flow.sockfd24);
    const next = tcb ? (tcb.receiveNext - flow.iss) | 0 : 1;
    const una = tcb ? (tcb.sendUna - flow.irs) | 0 : 1;
    const sent = tcb ? (tcb.sendNext - flow.irs) | 0 : 1;
    const flags = this.oneOf(this.below(8) === 0 ? rareFlags : usualFlags);
    // Half of the time all is well but for one thing, so that connections live for a while.
    const isTame = this.below(2) === 0;
    const fields: Fields = {
      seq: isTame ? next : this.near(next, 0, 1),
      ack: isTame ? sent : this.near(una, sent, 1),
      window: this.oneOf([0, 1, 500, 10_000, 65_535]),
      data: this.below(3) === 0 ? this.oneOf([0, 1, 100, 1460]) : 0,
    };
    if (this.below(3) === 0) fields.ts = this.near(script.nowUs / 1000) | 0;
    if (this.below(4) === 0)
      fields.sacks = Array.from({ length: 1 + this.below(2) }, () => this.block(una, sent));
    if (flags.includes("S")) {
      fields.mss = this.oneOf([0, 1, 536, 1460, 65_535]);
      fields.scale = this.oneOf([-1, 0, 7, 14, 200]);
      fields.sackPermitted = this.below(2) === 0;
      delete fields.sacks;
    }
    if (this.below(20) === 0) fields.ecn = 3;
    return [flags, fields];
  }

  private block(una: number, sent: number): [number, number] {
    const left = this.near(una, sent);
    return [left, left + this.oneOf([-5, 0, 1, 1000, 30_000])];
  }
}

/** Something that an app does to a connection that stands. */
function act(storm: Storm, flow: Flow): void {
  const what = storm.below(12);
  if (what < 5) flow.write(1 + storm.below(4000));
  else if (what < 7) flow.pause();
  else if (what < 9) flow.resume();
  else if (what === 9) flow.shutdown();
  else if (what === 10) flow.end();
  else flow.abort();
}

function isOver(flow: Flow): boolean {
  return flow.events.some((event) => event.startsWith("ended") || event.startsWith("failed"));
}

const options = { synBacklog: 4, finTimeoutMs: 5000, timeWaitMs: 5000, maxRetries: 4, recvBuffer: 40_000 };

/** A connection that stands, or one of which only the first segment is known yet. */
function begin(script: TcpScript, storm: Storm): Flow {
  script.skip();
  const syn = { mss: 1460, scale: 7, sackPermitted: true, ...(storm.below(2) === 0 ? {} : { ts: 1 }) };
  const { mss: _mss, scale: _scale, sackPermitted: _sack, ...stamp } = syn;
  const isClient = storm.below(3) === 0;
  const flow = isClient ? script.connect(options) : script.flow();
  if (!isClient) flow.inject("S", syn);
  flow.takeAll();
  if (storm.below(6) === 0) return flow;
  if (isClient) flow.inject("SA", { seq: 0, ack: 1, ...syn });
  else flow.inject("A", { seq: 1, ack: 1, ...stamp });
  return flow;
}

test.each(Array.from({ length: 30 }, (_, i) => i + 1))(
  "a storm from seed %d leaves nothing behind",
  (seed) => {
    const storm = new Storm(seed);
    const script = new TcpScript({ seed, version6: seed % 3 === 0, smallFrames: 1024, largeFrames: 16 });
    script.listen({ ...options, ecn: true, nodelay: seed % 2 === 0, cork: seed % 5 === 0 });
    const flows = Array.from({ length: 5 }, () => begin(script, storm));
    for (let step = 0; step < 500; step += 1) {
      const place = storm.below(flows.length);
      let flow = flows[place] as Flow;
      if (isOver(flow)) {
        flow = begin(script, storm);
        flows[place] = flow;
      }
      const kind = storm.below(10);
      if (kind === 0) script.run(storm.oneOf([100, 50_000, 200_000, 1e6, 30e6]));
      else if (kind < 4 && flow.stands) act(storm, flow);
      else flow.inject(...storm.segment(flow, script));
      script.skip();
    }
    for (const flow of script.flows) if (flow.stands) flow.abort();
    script.run(600e6);
    script.skip();
    expect([script.stack.activeCount, script.stack.halfOpenCount, script.nodes.usedInAll()]).toEqual([
      0, 0, 0,
    ]);
    expect(script.wheel.armedCount).toBe(0);
    expect(script.framesInUse).toBe(0);
    const { received, queued, records } = script.admission.account;
    expect([received, queued, records]).toEqual([0, 0, 0]);
    // Each was told of once, and ended once; what was written was taken or thrown away, all of it.
    for (const { events } of script.flows) {
      const begun = events.filter((event) => event === "accepted" || event === "connected").length;
      const ended = events.filter((event) => event.startsWith("ended")).length;
      expect(ended).toBe(begun);
    }
    const told = script.flows.flatMap(({ events }) => events);
    expect(told.filter((event) => /^(sent|dropped)/.test(event)).length).toBe(script.writes);
    expect(told.length).toBeGreaterThan(20);
    script.close();
  },
);

test("the storms reach what they are for", () => {
  const told = new Set<string>();
  let received = 0;
  for (let seed = 100; seed < 106; seed += 1) {
    const storm = new Storm(seed);
    const script = new TcpScript({ seed });
    script.listen(options);
    for (let i = 0; i < 40; i += 1) {
      const flow = begin(script, storm);
      for (let step = 0; step < 15 && !isOver(flow); step += 1) {
        if (flow.stands && storm.below(3) === 0) act(storm, flow);
        else flow.inject(...storm.segment(flow, script));
        script.skip();
      }
      received += flow.received.length;
      for (const event of flow.events) told.add(event.split(" ").slice(0, 2).join(" ").replace(/\d+/, "n"));
    }
  }
  expect(received).toBeGreaterThan(10_000);
  for (const event of [
    "accepted",
    "connected",
    "sent n",
    "dropped n",
    "peer-ended",
    "ended reset",
    "ended end",
  ]) {
    expect([...told]).toContain(event);
  }
});
