/** The counters of a raw link: their names agree with docs/native.md, and none is counted twice. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { loadNative } from "../../src/layer3-ip/native.ts";

test("docs/native.md lists the counters that there are", () => {
  const page = readFileSync(new URL("../../docs/native.md", import.meta.url), "utf8");
  const listed = [...page.matchAll(/^\| `layer3\.([\w.]+)` \|/gm)].map(([, name]) => name);
  const names = loadNative().linkCounterNames();
  expect(listed).toEqual(names);
  expect(new Set(names).size).toBe(names.length);
});
