/** The guard's lists and limits as TypeScript sees them: reading, refusing, looking up. No packet is sent. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { startGuard } from "../../src/layer3-ip/guard.ts";
import { parsePrefix, prefixContains } from "../../src/layer3-ip/ip-prefix.ts";

const folder = mkdtempSync(join(tmpdir(), "apo-guard-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const code = (wanted: string, words: RegExp | string) =>
  expect.objectContaining({ code: wanted, message: expect.stringMatching(words) });

describe("lists", () => {
  test("the longest prefix of both lists decides; at equal length, allow", async () => {
    const guard = await startGuard({ block: ["10.0.0.0/8", "2001:db8::/32"], allow: ["10.1.2.3"] });
    expect(guard.verdict("10.1.2.3")).toBe("allowed");
    expect(guard.verdict("10.1.2.4")).toBe("blocked");
    expect(guard.verdict("11.1.2.3")).toBe("unlisted");
    expect(guard.verdict("2001:db8:5::1")).toBe("blocked");
    expect(guard.verdict("2001:db9::1")).toBe("unlisted");
    expect(await guard.allow("10.0.0.0/8")).toBe(1);
    expect(guard.verdict("10.1.2.4")).toBe("allowed");
    expect(await guard.block(["10.1.2.0/24", "10.1.2.0/24", "10.0.0.0/8"])).toBe(1);
    expect(guard.verdict("10.1.2.4")).toBe("blocked");
    expect(guard.entries()).toMatchObject({ blocked: 3, allowed: 2 });
    expect(await guard.unblock(["10.1.2.0/24", "192.0.2.0/24"])).toBe(1);
    expect(await guard.disallow(["10.0.0.0/8"])).toBe(1);
    expect(guard.verdict("10.1.2.4")).toBe("blocked");
    expect(await guard.unblock("10.0.0.0/8")).toBe(1);
    expect(guard.verdict("10.1.2.4")).toBe("unlisted");
    expect(guard.entries()).toMatchObject({ blocked: 1, allowed: 1 });
  });

  test("a short list is in force when the call returns", async () => {
    const guard = await startGuard();
    const done = guard.block(["192.0.2.0/24"]);
    expect(guard.verdict("192.0.2.9")).toBe("blocked");
    expect(await done).toBe(1);
  });

  test("agrees with a search from end to end", async () => {
    const four = fc.tuple(fc.nat(3), fc.nat(3), fc.nat(255), fc.nat(32)).map(([a, b, c, bits]) => {
      return `10.${a}.${b}.${c}/${bits}`;
    });
    const six = fc.tuple(fc.nat(3), fc.nat(3), fc.nat(128)).map(([a, b, bits]) => `2001:${a}::${b}/${bits}`);
    const lists = fc.array(fc.tuple(fc.oneof(four, six), fc.boolean()), { maxLength: 40 });
    const address = fc.oneof(four, six).map((text) => text.split("/")[0] as string);
    await fc.assert(
      fc.asyncProperty(lists, fc.array(address, { minLength: 5 }), async (prefixes, addresses) => {
        const guard = await startGuard();
        for (const [text, block] of prefixes) await (block ? guard.block(text) : guard.allow(text));
        for (const wanted of addresses) {
          const { words, version6 } = parsePrefix(wanted);
          let longest = -1;
          let verdict = "unlisted";
          for (const [text, block] of prefixes) {
            const prefix = parsePrefix(text);
            const { prefixBits } = prefix;
            if (prefix.version6 !== version6 || !prefixContains(prefix, words)) continue;
            if (prefixBits < longest || (prefixBits === longest && block)) continue;
            longest = prefixBits;
            verdict = block ? "blocked" : "allowed";
          }
          expect(guard.verdict(wanted)).toBe(verdict);
        }
      }),
      { numRuns: 200 },
    );
  });

  test("reads every address that a prefix may be written with", async () => {
    const texts = ["0.0.0.0", "255.255.255.255/32", " 1.2.3.4/0 ", "::/0", "::1", "2001:DB8::1:0:0:1/127"];
    const guard = await startGuard({ allow: texts });
    expect(guard.entries()).toMatchObject({ blocked: 0, allowed: 6 });
  });

  const wrong = [
    "", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/024", "1.2.3.4/-1",
    "1..3.4", "1.2.3.4/8/8", "x", "::/129", "::1%lo", "1.2.3.4 5", "fe80:::1", "1.2.3.4/1.1", "example.com",
  ]; // biome-ignore format: one list
  test.each(wrong)("refuses %j, and takes nothing of the list that has it", async (text) => {
    const guard = await startGuard();
    await expect(guard.block(["192.0.2.0/24", text])).rejects.toEqual(
      code("EINVAL", /^guard\.block, entry 2: .* is not a prefix: write "192\.0\.2\.0\/24"/),
    );
    expect(guard.entries()).toMatchObject({ blocked: 0, allowed: 0 });
  });

  test("refuses what is no list", async () => {
    const guard = await startGuard();
    await expect(guard.block(7 as unknown as string)).rejects.toEqual(code("EINVAL", "takes a prefix"));
    await expect(guard.allow([7] as unknown as string[])).rejects.toEqual(
      code("EINVAL", "entry 1: 7 is not"),
    );
    expect(() => guard.verdict("1.2.3.0/24")).toThrow(/is not an IP address/);
  });
});

describe("files", () => {
  test("one prefix a line; comments and empty lines are passed over", async () => {
    const path = file("list", "# a list\n192.0.2.0/24 ; SBL1\r\n\n  2001:db8::/32# the other\n198.51.100.7");
    const guard = await startGuard({ blockFile: path });
    expect(guard.entries().blocked).toBe(3);
    expect(guard.verdict("198.51.100.7")).toBe("blocked");
    expect(await guard.blockFile(path)).toBe(0);
  });

  test("an error names file and line", async () => {
    const path = file("wrong", "# first\n192.0.2.0/24\n\n192.0.2.0/240\n");
    await expect(startGuard({ blockFile: path })).rejects.toEqual(
      code("EINVAL", `${path}:4: "192.0.2.0/240" is not a prefix`),
    );
    const long = file("long", "1".repeat(200_000));
    await expect(startGuard({ blockFile: long })).rejects.toEqual(code("EINVAL", `${long}:1: "1111`));
  });

  test("a file that cannot be read is said to be", async () => {
    const guard = await startGuard();
    await expect(guard.blockFile(join(folder, "none"))).rejects.toEqual(code("ENOENT", "no such file"));
    await expect(guard.blockFile(folder)).rejects.toEqual(code("EINVAL", "it is a folder"));
  });
});

describe("a million prefixes", () => {
  test("are read, taken and given back, while the event loop lives", async () => {
    const guard = await startGuard();
    const count = 1_000_000;
    // An odd factor modulo 2^32: every address once, in no order.
    const address = (i: number): string => {
      const word = Math.imul(i, 0x9e3779b1) >>> 0;
      return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`;
    };
    const all = Array.from({ length: count }, (_, i) => address(i));
    let turns = 0;
    const ticking = setInterval(() => {
      turns += 1;
    });
    expect(await guard.block(all)).toBe(count);
    expect(turns).toBeGreaterThan(5);
    clearInterval(ticking);
    expect(guard.entries().blocked).toBe(count);
    expect(guard.entries().bytes).toBeLessThan(100e6);
    for (let i = 0; i < count; i += 997) expect(guard.verdict(address(i))).toBe("blocked");
    for (let i = count; i < 2 * count; i += 997) expect(guard.verdict(address(i))).toBe("unlisted");
    const path = file("million", all.join("\n"));
    expect(await guard.blockFile(path)).toBe(0);
    expect(await guard.unblock(all)).toBe(count);
    expect(guard.entries().blocked).toBe(0);
  }, 60_000);

  test("more than two million are refused before any is taken", async () => {
    const guard = await startGuard();
    function* many(): Generator<string> {
      for (let i = 0; i < 2_000_001; i += 1) yield `10.${(i >>> 16) & 255}.${(i >>> 8) & 255}.${i & 255}`;
    }
    await expect(guard.block(many())).rejects.toEqual(code("ENOBUFS", "more than 2000000 prefixes"));
    expect(guard.entries().blocked).toBe(0);
  }, 60_000);
});

describe("options", () => {
  const wrong: [string, object, RegExp][] = [
    ["a name", { blok: [] }, /unknown option "blok": there are block, allow/],
    ["a list", { block: "192.0.2.0/24" }, /block must be an array/],
    ["a file", { blockFile: 3 }, /blockFile must be the path/],
    ["a rate", { packetsPerSecond: -1 }, /packetsPerSecond must be a whole number from 0/],
    ["a burst", { packetsPerSecond: 10, burst: 0 }, /burst must be a whole number from 1/],
    ["a burst alone", { burst: 10 }, /give packetsPerSecond too/],
    ["bits", { packetsPerSecond: 10, prefixBits4: 33 }, /prefixBits4 must be a whole number from 0 to 32/],
    [
      "more bits",
      { packetsPerSecond: 10, prefixBits6: 1.5 },
      /prefixBits6 must be a whole number from 0 to 128/,
    ],
  ];
  test.each(wrong)("%s that is wrong is refused in words", async (_what, options, words) => {
    await expect(startGuard(options)).rejects.toEqual(code("EINVAL", words));
  });

  test("a limit that is wrong changes nothing", async () => {
    const guard = await startGuard({ packetsPerSecond: 1000 });
    expect(() => guard.limit({ pps: 1 } as object)).toThrow(/unknown option "pps"/);
    expect(() => guard.limit({ packetsPerSecond: 20_000_000 })).toThrow(/from 0 to 10000000/);
    guard.limit({ packetsPerSecond: 5, prefixBits6: 48 });
    guard.limit({});
    expect(guard.offenders()).toEqual([]);
  });
});
