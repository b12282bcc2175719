/** A simulated app's two ends over a perfect pipe: every kind of plan comes to its end; and over broken ones, told. */
import { describe, expect, test } from "vitest";
import type { Content } from "../../../src/layer2-transport/simulation/content.ts";
import { type Plan, planKinds, totals } from "../../../src/layer2-transport/simulation/plan.ts";
import { type Pipe, Session } from "../../../src/layer2-transport/simulation/session.ts";

const base: Plan = {
  id: 7,
  kind: "exchange",
  client: 0,
  server: 1,
  version6: false,
  startUs: 0,
  up: 5000,
  down: 70_000,
  rounds: 3,
  write: 1700,
  gapUs: 0,
  pauseUs: 1000,
  serverFirst: false,
  pinned: false,
};

/** Time, and two pipes back to back that may be tampered with. */
class Bench {
  readonly faults: string[] = [];
  readonly client: Session;
  readonly server: Session;
  /** What the wire does to the bytes of one write; returns how many of them are delivered. */
  tamper: (bytes: Uint8Array, toServer: boolean) => Uint8Array = (bytes) => bytes;
  private readonly tasks: { atUs: number; order: number; call: () => void }[] = [];
  private nowUs = 0;
  private order = 0;
  private readonly shut = new Set<Session>();
  private readonly over = new Set<Session>();

  constructor(plan: Plan) {
    this.client = new Session(plan, true, this.faults);
    this.server = new Session(plan, false, this.faults);
  }

  run(): void {
    this.later(0, () => this.client.opened(this.pipe(this.client, this.server)));
    this.later(0, () => this.server.opened(this.pipe(this.server, this.client)));
    for (let left = 100_000; left > 0 && this.tasks.length > 0; left -= 1) {
      this.tasks.sort((a, b) => a.atUs - b.atUs || a.order - b.order);
      const { atUs, call } = this.tasks.shift() as { atUs: number; call: () => void };
      this.nowUs = atUs;
      call();
    }
  }

  later(us: number, call: () => void): void {
    this.order += 1;
    this.tasks.push({ atUs: this.nowUs + us, order: this.order, call });
  }

  end(session: Session, code: string): void {
    if (this.over.has(session)) return;
    this.over.add(session);
    this.later(5, () => session.takeEnd(code, ""));
  }

  private pipe(from: Session, to: Session): Pipe {
    const alive = (call: () => void) => () => {
      if (!this.over.has(from)) call();
    };
    return {
      write: (content: Content, position: number, length: number) => {
        const bytes = new Uint8Array(length);
        content.write(bytes, 0, position, length);
        const left = this.tamper(bytes, from === this.client);
        this.later(10, () => {
          if (!this.over.has(to) && left.length > 0) to.take(left, 0, left.length);
        });
        this.later(
          20,
          alive(() => from.wrote(length, true)),
        );
        return "queued";
      },
      shutdown: () => {
        this.shut.add(from);
        this.later(15, () => {
          if (!this.over.has(to)) to.takePeerEnd();
        });
        if (!this.shut.has(to)) return;
        this.later(30, () => this.end(from, "end"));
        this.later(30, () => this.end(to, "end"));
      },
      end: () => {
        if (!this.shut.has(from)) this.pipe(from, to).shutdown();
      },
      abort: () => {
        this.end(from, "reset");
        this.end(to, "reset");
      },
      pause: () => {},
      resume: () => {},
      later: (us, call) => this.later(us, alive(call)),
    };
  }
}

describe("the ends of a simulated connection", () => {
  test.each(planKinds.flatMap((kind) => [false, true].map((serverFirst) => ({ kind, serverFirst }))))(
    "$kind, server first: $serverFirst",
    ({ kind, serverFirst }) => {
      const plan = { ...base, kind, serverFirst };
      const bench = new Bench(plan);
      bench.run();
      expect(bench.faults).toEqual([]);
      expect([bench.client.ending, bench.server.ending].every(Boolean)).toBe(true);
      const { up, down } = totals(plan);
      if (kind !== "abort") expect([bench.client.received, bench.server.received]).toEqual([down, up]);
    },
  );

  test("a byte that is wrong is named by its position", () => {
    const bench = new Bench({ ...base, kind: "upload" });
    let at = 0;
    bench.tamper = (bytes) => {
      const here = 2000 - at;
      at += bytes.length;
      if (here >= 0 && here < bytes.length) bytes[here] = (bytes[here] as number) ^ 1;
      return bytes;
    };
    bench.run();
    expect(bench.faults[0]).toMatch(/connection 7 \(upload\), server: the byte at position 2000 is wrong/);
  });

  test.each([
    ["lost", (bytes: Uint8Array) => bytes.subarray(1), /is wrong/],
    ["doubled", (bytes: Uint8Array) => Buffer.concat([bytes, bytes]), /is wrong|sent in all/],
  ])("bytes that are %s are told", (_what, tamper, text) => {
    const bench = new Bench({ ...base, kind: "upload" });
    bench.tamper = tamper;
    bench.run();
    expect(bench.faults.join("\n")).toMatch(text);
  });

  test("so are bytes that are cut off at the end, and what comes after it", () => {
    const faults: string[] = [];
    const one = new Session({ ...base, kind: "upload" }, false, faults);
    one.takePeerEnd();
    one.takePeerEnd();
    one.take(new Uint8Array(1), 0, 1);
    one.takeEnd("end", "");
    one.takeEnd("end", "");
    expect(faults.join("\n")).toMatch(/after 0 bytes of 5000/);
    expect(faults.join("\n")).toMatch(/told twice that the other has ended/);
    expect(faults.join("\n")).toMatch(/data after the other's end/);
    expect(faults.join("\n")).toMatch(/told twice that it ended/);
  });
});
