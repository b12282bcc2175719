/** Two runtimes at the ends of a socket pair. Needs no privileges, but a C compiler: Node makes no such pairs. */
import { closeSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runToEnd } from "../../../bench/lib/children.ts";
import { openWorkshop, type Workshop } from "../../../bench/lib/compile.ts";
import { createRuntime } from "../../../src/layer1-app/runtime.ts";
import { type FdPairReport, sizes } from "../../support/fd-pair.ts";
import { hasProgram } from "../../support/netns.ts";

const support = (name: string): string => fileURLToPath(new URL(`../../support/${name}`, import.meta.url));

const hasCompiler = hasProgram("cc");
if (!hasCompiler) console.warn("Skipped: runtimes at a socket pair: no cc here");

describe.skipIf(!hasCompiler)("a socket pair", () => {
  let workshop: Workshop;
  let socketPair: string;
  beforeAll(async () => {
    workshop = await openWorkshop();
    socketPair = await workshop.compile("socket_pair", [support("socket_pair.c")]);
  });
  afterAll(() => workshop.close());

  test.each([
    ["seqpacket", {}],
    ["seqpacket", { vnetHeader: true }],
    ["dgram", { vnetHeader: 12 }],
    ["dgram", { mtu: 65_535 }],
  ] as const)("of type %s with %j", async (type, options) => {
    const program = [process.execPath, support("fd-pair.ts"), JSON.stringify(options)] as const;
    const report = JSON.parse(await runToEnd([socketPair, type, ...program])) as FdPairReport;
    expect(report.echoed).toEqual(sizes);
    for (const counters of report.counters) {
      const dropped = Object.keys(counters).filter((name) => name.includes("drop"));
      expect(dropped, JSON.stringify(counters)).toEqual([]);
    }
    expect(report.afterwards["layer3.link.ended"]).toBe(1);
  });
});

test("a descriptor of no use is refused with a reason", async () => {
  const open = (fd: number) => createRuntime({ link: "fd", fd, address: "10.0.0.1/24", workers: 1 });
  await expect(open(987_654)).rejects.toThrow(/fd 987654 is not open in this process/);
  const source = openSync("/dev/null", "r");
  await expect(open(source)).rejects.toThrow(/is neither a TUN device .* nor a socket/);
  closeSync(source);
});
