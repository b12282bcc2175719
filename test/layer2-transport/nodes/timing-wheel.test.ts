/** The timing wheel against a map from connections to deadlines. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NodeTable } from "../../../src/layer2-transport/nodes/node-table.ts";
import { TimingWheel } from "../../../src/layer2-transport/nodes/timing-wheel.ts";
import { createNodes, node } from "../../../src/layer2-transport/nodes/v-node.ts";

const slots = 4;
const dayMs = 86_400_000;
const ids = [0, 1, 2, 3, (5 << 20) | 0, (5 << 20) | 3, (15 << 20) | 2, (15 << 20) | 3];

function tableOfAll(): NodeTable {
  const table = new NodeTable(createNodes(slots));
  for (const shard of [0, 5, 15]) {
    table.adopt(shard);
    for (let i = 0; i < slots; i += 1) table.allocate(shard);
  }
  return table;
}

/** The same with a map: what is past when it is armed expires at the next tick. */
class Model {
  readonly due = new Map<number, number>();
  nowMs: number;

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  arm(id: number, deadlineMs: number): void {
    this.due.set(id, Math.max(deadlineMs, this.nowMs + 1));
  }

  advance(nowMs: number): number[] {
    const expired = [...this.due].filter(([, due]) => due <= nowMs).map(([id]) => id);
    for (const id of expired) this.due.delete(id);
    this.nowMs = nowMs;
    return expired;
  }

  earliest(): number {
    return Math.min(...this.due.values());
  }
}

// Short ones, those around the borders of levels, and any up to 24 days.
const spans = fc.oneof(
  fc.integer({ min: -5, max: 40 }),
  fc.constantFrom(...[10, 18, 25].flatMap((bits) => [-1, 0, 1].map((by) => 2 ** bits + by))),
  fc.integer({ min: 0, max: 1500 }),
  fc.integer({ min: 0, max: 300_000 }),
  fc.integer({ min: 0, max: 24 * dayMs }),
);
const moves = fc.array(
  fc.oneof(
    fc.record({ what: fc.constant("arm" as const), id: fc.constantFrom(...ids), by: spans }),
    fc.record({ what: fc.constant("cancel" as const), id: fc.constantFrom(...ids), by: fc.constant(0) }),
    fc.record({ what: fc.constant("advance" as const), id: fc.constant(0), by: spans }),
    fc.record({ what: fc.constant("wait" as const), id: fc.constant(0), by: fc.constant(0) }),
  ),
  { maxLength: 80 },
);
// Near where int32 wraps, near 0, and anywhere.
const starts = fc.oneof(
  fc.integer({ min: 2 ** 31 - 2000, max: 2 ** 31 + 2000 }),
  fc.integer({ min: 2 ** 32 - 2000, max: 2 ** 32 + 2000 }),
  fc.integer({ min: 0, max: 2 ** 33 }),
);

describe("the wheel and a map agree", () => {
  test("whatever is armed, put off, brought forward and cancelled, and however time goes", () => {
    fc.assert(
      fc.property(starts, moves, (startMs, steps) => {
        const wheel = new TimingWheel(tableOfAll(), startMs);
        const model = new Model(startMs);
        let nowMs = startMs;
        const expired: number[] = [];
        for (const { what, id, by } of steps) {
          if (what === "arm") {
            wheel.arm(id, nowMs + by);
            model.arm(id, nowMs + by);
          } else if (what === "cancel") {
            wheel.cancel(id);
            model.due.delete(id);
          } else {
            nowMs = what === "advance" ? nowMs + Math.max(0, by) : nowMs + ahead(wheel, nowMs);
            expired.length = 0;
            const count = wheel.advance(nowMs, (sockfd24) => expired.push(sockfd24));
            expect(count).toBe(expired.length);
            expect(expired.sort()).toEqual(model.advance(nowMs).sort());
          }
          expect(wheel.armedCount).toBe(model.due.size);
          for (const one of ids) expect(wheel.isArmed(one)).toBe(model.due.has(one));
          if (model.due.size > 0) {
            expect(ahead(wheel, nowMs)).toBeGreaterThan(0);
            expect(nowMs + ahead(wheel, nowMs)).toBeLessThanOrEqual(model.earliest());
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("when expiring ones are armed again at once, cancel others and bring others forward", () => {
    fc.assert(
      fc.property(starts, fc.array(spans, { minLength: 8, maxLength: 60 }), (startMs, times) => {
        const wheel = new TimingWheel(tableOfAll(), startMs);
        const due = new Map<number, number>();
        let nowMs = startMs;
        let at = 0;
        const nextTime = (): number => Math.max(1, times[at++ % times.length] as number);
        for (const id of ids) {
          const deadline = nowMs + nextTime();
          wheel.arm(id, deadline);
          due.set(id, deadline);
        }
        for (let round = 0; round < 30; round += 1) {
          nowMs += Math.abs(nextTime() % 100_000);
          wheel.advance(nowMs, (sockfd24) => {
            expect(due.get(sockfd24)).toBeLessThanOrEqual(nowMs);
            due.delete(sockfd24);
            const deadline = nowMs + nextTime();
            const other = ids[at % ids.length] as number;
            wheel.arm(sockfd24, deadline);
            due.set(sockfd24, deadline);
            if (at % 3 === 0) {
              wheel.cancel(other);
              due.delete(other);
            } else if (at % 3 === 1) {
              wheel.arm(other, nowMs + 1);
              due.set(other, nowMs + 1);
            }
          });
          for (const [id, deadline] of due) {
            expect(deadline).toBeGreaterThan(nowMs);
            expect(wheel.isArmed(id)).toBe(true);
          }
          expect(wheel.armedCount).toBe(due.size);
        }
      }),
    );
  });
});

/** How far the wheel would sleep. */
function ahead(wheel: TimingWheel, nowMs: number): number {
  return (wheel.nextMs() - nowMs) | 0;
}

describe("the wheel", () => {
  test("expires at the very millisecond, not before", () => {
    for (const [startMs, span] of [
      [0, 1],
      [1000, 24],
      [1023, 1],
      [5, 262_144],
      [2 ** 31 - 3, 7 * dayMs],
      [77, 24 * dayMs],
    ] as const) {
      const wheel = new TimingWheel(tableOfAll(), startMs);
      const expired: number[] = [];
      wheel.arm(3, startMs + span);
      expect(wheel.advance(startMs + span - 1, (id) => expired.push(id))).toBe(0);
      expect(wheel.advance(startMs + span, (id) => expired.push(id))).toBe(1);
      expect(expired).toEqual([3]);
      expect(wheel.isArmed(3)).toBe(false);
    }
  });

  test("asks to be woken at most once a level before the deadline", () => {
    const wheel = new TimingWheel(tableOfAll(), 123);
    wheel.arm(1, 123 + 20 * dayMs);
    let wakes = 0;
    let nowMs = 123;
    for (let count = 0; count === 0; wakes += 1) {
      nowMs += ahead(wheel, nowMs);
      count = wheel.advance(nowMs, () => {});
    }
    expect(nowMs).toBe(123 + 20 * dayMs);
    expect(wakes).toBeLessThanOrEqual(4);
  });

  test("putting off moves nothing: the links stay as they are", () => {
    const table = tableOfAll();
    const wheel = new TimingWheel(table, 0);
    wheel.arm(2, 50);
    const links = (): number[] =>
      [node.timerNext, node.timerPrev].map((word) => table.words[64 + word] as number);
    const before = links();
    for (let by = 51; by < 1_000_000; by *= 2) wheel.arm(2, by);
    expect(links()).toEqual(before);
    expect(wheel.advance(835_583, () => {}) + wheel.advance(835_584, () => {})).toBe(1);
  });

  test("looks at no more entries than it is allowed to, and loses none", () => {
    const wheel = new TimingWheel(tableOfAll(), 0);
    // Half of them expire at a level's border; the others are to move down there.
    for (const [i, id] of ids.entries()) wheel.arm(id, 2048 + (i % 2) * 300);
    const expired: number[] = [];
    for (let turns = 0; turns < 6; turns += 1) {
      expect(wheel.nextMs()).toBeLessThanOrEqual(2048);
      wheel.advance(2100, (id) => expired.push(id), 1);
      // Armed and cancelled in the middle of it.
      wheel.arm(ids[0] as number, 9000);
      wheel.cancel(ids[1] as number);
    }
    wheel.advance(2100, (id) => expired.push(id));
    expect(expired.every((id) => ids.indexOf(id) % 2 === 0)).toBe(true);
    expect(wheel.advance(3000, (id) => expired.push(id), 2)).toBe(2);
    expect(wheel.advance(3000, (id) => expired.push(id))).toBe(1);
    expect(wheel.isArmed(ids[0] as number)).toBe(true);
    expect(wheel.armedCount).toBe(1);
  });

  test("one that is always armed for now does not keep it from coming to an end", () => {
    const wheel = new TimingWheel(tableOfAll(), 10);
    wheel.arm(0, 10);
    expect(wheel.advance(20, (id) => wheel.arm(id, 0))).toBe(10);
  });

  test("time that stands still or goes back does nothing", () => {
    const wheel = new TimingWheel(tableOfAll(), 10);
    wheel.arm(0, 5);
    expect(wheel.advance(10, () => {})).toBe(0);
    expect(wheel.advance(9, () => {})).toBe(0);
    expect(wheel.advance(11, () => {})).toBe(1);
  });

  test("a slot whose timer is armed cannot be given back", () => {
    const table = tableOfAll();
    const wheel = new TimingWheel(table, 0);
    wheel.arm(1, 10);
    expect(() => table.release(1)).toThrow(/timer is armed/);
    wheel.cancel(1);
    table.release(1);
    expect(table.allocate(0)).toBe(1);
    expect(wheel.isArmed(1)).toBe(false);
  });
});
