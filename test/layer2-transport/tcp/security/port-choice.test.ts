/** Choosing local ports: every place once, in an order of each destination's own that only the key tells (RFC 6056). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  allPorts,
  PortChoice,
  usualPorts,
} from "../../../../src/layer2-transport/tcp/security/port-choice.ts";
import { makeKey } from "../../../../src/layer2-transport/tcp/security/siphash.ts";
import { type IpPrefix, parsePrefix } from "../../../../src/layer3-ip/ip-prefix.ts";
import { seededWords } from "../support.ts";

const server = Int32Array.of(0x0a000001);

function choiceOf(seed: number, range = usualPorts): PortChoice {
  const source = seededWords(seed);
  return new PortChoice(makeKey(source), source, range);
}

/** So many single addresses: 10.1.0.0, 10.1.0.1 and so on. */
function sourcesOf(count: number): IpPrefix[] {
  return Array.from({ length: count }, (_, i) => parsePrefix(`10.1.${i >> 8}.${i & 255}`));
}

/** The next places, as address words and port. */
function nextPlaces(choice: PortChoice, remotePort: number, count: number, sources = sourcesOf(1)): string[] {
  const local = new Int32Array(4);
  expect(choice.begin(sources, server, 1, remotePort)).toBe(true);
  const places: string[] = [];
  while (places.length < count) {
    const port = choice.next(local);
    if (port < 0) break;
    places.push(`${local.join(".")}:${port}`);
  }
  return places;
}

const portOf = (place: string | undefined): number => Number(place?.split(":")[1]);

describe("ports", () => {
  test("every address and port is proposed exactly once, then none", () => {
    const ranges = fc
      .tuple(fc.integer({ min: 1, max: 65_535 }), fc.integer({ min: 0, max: 300 }))
      .map(([first, more]) => ({ first, last: Math.min(65_535, first + more) }));
    fc.assert(
      fc.property(ranges, fc.integer({ min: 1, max: 5 }), fc.integer(), (range, addresses, seed) => {
        const choice = choiceOf(seed, range);
        const all = (range.last - range.first + 1) * addresses;
        const sources = sourcesOf(addresses);
        const places = nextPlaces(choice, 80, all + 1, sources);
        expect(places.length).toBe(all);
        expect(new Set(places).size).toBe(all);
        for (const place of places) {
          expect(portOf(place)).toBeGreaterThanOrEqual(range.first);
          expect(portOf(place)).toBeLessThanOrEqual(range.last);
        }
        expect(new Set(places.map((place) => Number(place.split(".")[0])))).toEqual(
          new Set(sources.map(({ words }) => words[0])),
        );
        expect(choice.next(new Int32Array(4))).toBe(-1);
      }),
      { numRuns: 40 },
    );
  });

  test("the ranges are Linux's, and all but the lowest", () => {
    expect(usualPorts).toEqual({ first: 32_768, last: 60_999 });
    expect(allPorts).toEqual({ first: 1024, last: 65_535 });
    expect(() => choiceOf(1, { first: 0, last: 10 })).toThrow(/no range of ports/);
    expect(() => choiceOf(1, { first: 10, last: 9 })).toThrow(/no range of ports/);
    expect(() => choiceOf(1, { first: 10, last: 65_536 })).toThrow(/no range of ports/);
  });

  test("one connection after another gets another port, though each begins anew", () => {
    const choice = choiceOf(1);
    const ports = Array.from({ length: 1000 }, () => nextPlaces(choice, 80, 1)[0]);
    expect(new Set(ports).size).toBe(1000);
  });

  test("where a destination begins depends on the key", () => {
    const firsts = Array.from({ length: 200 }, (_, seed) => portOf(nextPlaces(choiceOf(seed), 80, 1)[0]));
    expect(new Set(firsts).size).toBeGreaterThan(190);
    const middle = (usualPorts.first + usualPorts.last) / 2;
    const high = firsts.filter((port) => port > middle).length;
    expect(high).toBeGreaterThan(60);
    expect(high).toBeLessThan(140);
    expect(nextPlaces(choiceOf(7), 80, 5)).toEqual(nextPlaces(choiceOf(7), 80, 5));
  });

  test("connections to one destination do not show in the ports towards another (CVE-2022-32296)", () => {
    let moved = 0;
    for (let port = 1000; port < 1400; port += 1) {
      const [busy, idle] = [choiceOf(5), choiceOf(5)];
      nextPlaces(busy, 80, 64);
      if (nextPlaces(busy, port, 1)[0] !== nextPlaces(idle, port, 1)[0]) moved += 1;
    }
    // Destinations share 2^14 counters, so that one pair in 16,384 does see each other.
    expect(moved).toBeLessThanOrEqual(2);
  });

  test("16 million places of many addresses are spread over all of them", () => {
    const choice = choiceOf(3, allPorts);
    const found = new Set<number>();
    const local = new Int32Array(4);
    const sources = sourcesOf(260);
    for (let remote = 1; remote <= 2000; remote += 1) {
      choice.begin(sources, server, 1, remote);
      choice.next(local);
      found.add(local[0] as number);
    }
    expect(found.size).toBeGreaterThan(250);
  });

  test("a whole prefix offers all of its addresses but the first and the last", () => {
    const whole = { ...parsePrefix("10.2.0.9/28"), whole: true };
    const choice = choiceOf(1, { first: 5000, last: 5001 });
    const places = nextPlaces(choice, 80, 1000, [...sourcesOf(1), whole]);
    const expected = [0x0a010000, ...Array.from({ length: 14 }, (_, i) => 0x0a020001 + i)];
    expect(new Set(places.map((place) => Number(place.split(".")[0])))).toEqual(new Set(expected));
    expect(places.length).toBe(30);
  });

  test("a whole IPv6 prefix keeps what stands before its last 16 bits", () => {
    const whole = { ...parsePrefix("2001:db8:1:2:3:4:5:6/64"), whole: true };
    const choice = choiceOf(1);
    const local = new Int32Array(4);
    const target = Int32Array.of(0x20010db8, 0, 0, 1);
    const last = new Set<number>();
    for (let remote = 1; remote <= 500; remote += 1) {
      choice.begin([whole], target, 4, remote);
      expect(choice.next(local)).toBeGreaterThan(0);
      expect([...local.subarray(0, 3)]).toEqual([0x20010db8, 0x00010002, 0x00030004]);
      expect((local[3] as number) >>> 16).toBe(5);
      last.add((local[3] as number) & 0xffff);
    }
    expect(last.size).toBeGreaterThan(490);
    expect(last.has(0) || last.has(0xffff)).toBe(false);
  });

  test("without an address to send from there is none", () => {
    const choice = choiceOf(1);
    expect(choice.begin([], server, 1, 80)).toBe(false);
    expect(choice.next(new Int32Array(4))).toBe(-1);
  });
});
