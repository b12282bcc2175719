/** docs/counters.md names every counter, and no other. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { appCounterNames, workerCounterNames } from "../../src/layer2-transport/counters.ts";
import { startRuntime } from "./support.ts";

const text = readFileSync(new URL("../../docs/counters.md", import.meta.url), "utf8");
const listed = [...text.matchAll(/^\| `(layer[\w.-]+)` \|/gm)].map((match) => match[1] as string);

test("docs/counters.md lists every counter once, and no other", () => {
  const names = [...appCounterNames, ...workerCounterNames, "layer3.pool.frames-in-use"];
  expect([...listed].sort()).toEqual([...names].sort());
});

test("a runtime shows them all, as numbers", async () => {
  const apo = await startRuntime({ workers: 2 });
  const counters = apo.counters();
  expect(Object.keys(counters).sort()).toEqual([...listed].sort());
  expect(Object.values(counters).every((value) => value === 0)).toBe(true);
});
