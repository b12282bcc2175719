/** Pieces that wait: against a plain array. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { PieceQueue } from "../../src/layer2-transport/piece-queue.ts";

interface Piece {
  readonly frame: number;
  offset: number;
  size: number;
}

const step = fc.oneof(
  fc.record({ do: fc.constant("push" as const), size: fc.integer({ min: 1, max: 65_536 }) }),
  fc.record({ do: fc.constant("shift" as const), size: fc.constant(0) }),
  fc.record({ do: fc.constant("consume" as const), size: fc.integer({ min: 1, max: 1000 }) }),
);

test("any order of pushing, shifting and consuming gives what an array gives", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const queue = new PieceQueue();
      const model: Piece[] = [];
      let frame = 0;
      for (const { do: what, size } of steps) {
        const first = model[0];
        if (what === "push") {
          frame += 1;
          queue.push(frame, frame * 7, size);
          model.push({ frame, offset: frame * 7, size });
        } else if (first && what === "shift") {
          queue.shift();
          model.shift();
        } else if (first && size < first.size) {
          queue.consume(size);
          first.offset += size;
          first.size -= size;
        }
        expect(queue.length).toBe(model.length);
        expect(queue.bytes).toBe(model.reduce((sum, piece) => sum + piece.size, 0));
        if (model[0])
          expect({ frame: queue.frame, offset: queue.offset, size: queue.size }).toEqual(model[0]);
      }
    }),
  );
});
