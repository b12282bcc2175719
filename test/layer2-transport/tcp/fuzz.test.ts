/**
 * Segments at random, more or less near to what a connection expects, and an app that does this and that: the stack
 * never throws, its invariants hold after each, and in the end nothing is left of anything.
 */
import { expect, test } from "vitest";
import { RandomStream, SeedMixer } from "../../../src/layer3-ip/random-stream.ts";
import { type Fields, type Flow, TcpScript } from "../../support/tcp-script.ts";

const flagSets = [
  "A",
  "A",
  "A",
  "A",
  "PA",
  "PA",
  "FA",
  "FPA",
  "S",
  "SA",
  "R",
  "RA",
  "",
  "F",
  "FSRPAU",
  "AU",
  "AE",
  "ACE",
];

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
    const flags = this.oneOf(flagSets);
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

function stands(script: TcpScript, flow: Flow): boolean {
  return flow.sockfd24 >= 0 && flow.state !== "CLOSED" && script.stack.find(flow.sockfd24) !== undefined;
}

test.each(Array.from({ length: 30 }, (_, i) => i + 1))(
  "a storm from seed %d leaves nothing behind",
  (seed) => {
    const storm = new Storm(seed);
    const script = new TcpScript({ seed, version6: seed % 3 === 0, smallFrames: 1024, largeFrames: 16 });
    const options = {
      synBacklog: 4,
      finTimeoutMs: 5000,
      timeWaitMs: 5000,
      maxRetries: 4,
      recvBuffer: 40_000,
    };
    script.listen({ ...options, ecn: true, nodelay: seed % 2 === 0, cork: seed % 5 === 0 });
    const flows = Array.from({ length: 4 }, () => script.flow());
    flows.push(script.connect(options), script.connect(options));
    for (const flow of flows.slice(0, 3)) {
      flow.inject("S", { mss: 1460, scale: 7, sackPermitted: true, ts: 1 });
      flow.takeAll();
      flow.inject("A", { seq: 1, ack: 1, ts: 1 });
    }
    for (let step = 0; step < 400; step += 1) {
      const flow = storm.oneOf(flows);
      const kind = storm.below(10);
      if (kind === 0) script.run(storm.oneOf([100, 50_000, 1e6, 30e6]));
      else if (kind === 1 && stands(script, flow) && flow.events.at(-1)?.startsWith("ended") !== true)
        act(storm, flow);
      else flow.inject(...storm.segment(flow, script));
      for (const one of flows) one.takeAll();
      script.skip();
    }
    for (const flow of flows) {
      if (stands(script, flow) && flow.events.at(-1)?.startsWith("ended") !== true) flow.abort();
    }
    script.run(600e6);
    script.skip();
    expect([script.stack.activeCount, script.stack.halfOpenCount, script.nodes.usedInAll()]).toEqual([
      0, 0, 0,
    ]);
    expect(script.wheel.armedCount).toBe(0);
    expect(script.framesInUse).toBe(0);
    const { received, queued } = script.admission.account;
    expect([received, queued]).toEqual([0, 0]);
    // Each was told of once, and ended once.
    for (const { events } of flows) {
      const begun = events.filter((event) => event === "accepted" || event === "connected").length;
      const ended = events.filter((event) => event.startsWith("ended")).length;
      expect(ended).toBe(begun);
    }
    script.close();
  },
);
