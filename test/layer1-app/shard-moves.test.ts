/** Whose each shard is, over any order of deaths and successors. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Estate, ShardMoves } from "../../src/layer1-app/shard-moves.ts";
import { shards, type ToWorker } from "../../src/layer2-transport/index.ts";

/** Workers that do what they are told, and shards that may be in use. */
class Crew {
  readonly moves: ShardMoves;
  readonly words: Int32Array;
  readonly owned: Set<number>[];
  readonly alive: boolean[];
  readonly used = new Set<number>();
  readonly buried: { index: number; shards: readonly number[]; tag: number }[] = [];

  constructor(count: number) {
    this.owned = Array.from({ length: count }, () => new Set());
    this.alive = Array.from({ length: count }, () => true);
    this.moves = new ShardMoves(count, {
      post: (index, message) => this.obey(index, message),
      disown: async (index, asked) => this.disown(index, asked),
    });
    this.words = new Int32Array(this.moves.owners);
    for (let index = 0; index < count; index += 1) this.adopt(index, this.moves.first(index));
  }

  die(index: number): Estate {
    this.alive[index] = false;
    this.owned[index] = new Set();
    return this.moves.died(index);
  }

  async replace(index: number): Promise<void> {
    this.alive[index] = true;
    expect(this.moves.first(index)).toEqual([]);
    this.moves.replaced(index);
    for (let i = 0; i < 5; i += 1) await Promise.resolve();
  }

  /** Every shard has one owner, who knows it; nobody only while nobody is alive. */
  check(): void {
    for (let shard = 0; shard < shards; shard += 1) {
      const holders = this.owned.flatMap((set, index) => (set.has(shard) ? [index] : []));
      const expected = this.alive.includes(true) ? 1 : 0;
      expect(holders.length).toBe(expected);
      expect(this.words[shard]).toBe(expected === 0 ? 0 : (holders[0] as number) + 1);
      for (const holder of holders) expect(this.alive[holder]).toBe(true);
    }
  }

  private obey(index: number, message: ToWorker): void {
    expect(this.alive[index]).toBe(true);
    if (message.type === "adopt") this.adopt(index, message.shards);
    if (message.type === "bury") this.buried.push({ index, ...message });
  }

  private adopt(index: number, list: readonly number[]): void {
    for (const shard of list) {
      this.owned[index]?.add(shard);
      Atomics.store(this.words, shard, index + 1);
    }
  }

  private disown(index: number, asked: readonly number[]): readonly number[] {
    const given = asked.filter((shard) => this.owned[index]?.has(shard) && !this.used.has(shard));
    for (const shard of given) {
      this.owned[index]?.delete(shard);
      Atomics.store(this.words, shard, 0);
    }
    return given;
  }
}

describe("shards", () => {
  test("are spread over the workers at the start", () => {
    const crew = new Crew(3);
    crew.check();
    expect([...crew.words].slice(0, 6)).toEqual([1, 2, 3, 1, 2, 3]);
    crew.moves.close();
  });

  test("of a dead worker go to the others at once; its successor gets back what nobody uses", async () => {
    const crew = new Crew(2);
    crew.used.add(3);
    const estate = crew.die(1);
    expect(estate).toEqual({ shards: [1, 3, 5, 7, 9, 11, 13, 15], tag: 1 });
    crew.check();
    expect(new Set(crew.words)).toEqual(new Set([1]));
    crew.moves.bury(estate);
    expect(crew.buried).toMatchObject([{ index: 0, shards: estate.shards, tag: 1 }]);
    await crew.replace(1);
    crew.check();
    expect(crew.words[1]).toBe(2);
    expect(crew.words[3]).toBe(1);
    expect(crew.moves.tagOf(1)).toBe(17);
    crew.moves.close();
  });

  test("of the only worker wait for its successor, who buries what is left", async () => {
    const crew = new Crew(1);
    const estate = crew.die(0);
    crew.check();
    await crew.replace(0);
    crew.check();
    crew.moves.bury(estate);
    expect(crew.buried).toMatchObject([{ index: 0, tag: 0 }]);
    expect(crew.buried[0]?.shards.length).toBe(shards);
    crew.moves.close();
  });

  test("always have one owner, whoever dies and comes again", async () => {
    const event = fc.record({ index: fc.nat(3), use: fc.nat(shards - 1), bury: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(event, { maxLength: 40 }), async (events) => {
        const crew = new Crew(4);
        for (const { index, use, bury } of events) {
          if (use % 2 === 0) crew.used.add(use);
          else crew.used.delete(use - 1);
          if (crew.alive[index]) {
            const estate = crew.die(index);
            if (bury) crew.moves.bury(estate);
          } else {
            await crew.replace(index);
          }
          crew.check();
        }
        crew.moves.close();
      }),
    );
  });
});
