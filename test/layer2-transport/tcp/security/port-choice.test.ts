/** Choosing local ports: every place once, in an order of each destination's own that only the key tells (RFC 6056). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  allPorts,
  PortChoice,
  usualPorts,
} from "../../../../src/layer2-transport/tcp/security/port-choice.ts";
import { makeKey } from "../../../../src/layer2-transport/tcp/security/siphash.ts";
import { seededWords } from "../support.ts";

const server = Int32Array.of(0x0a000001);

function choiceOf(seed: number, range = usualPorts): PortChoice {
  const source = seededWords(seed);
  return new PortChoice(makeKey(source), source, range);
}

function nextPlaces(choice: PortChoice, remotePort: number, count: number, addresses = 1): number[] {
  choice.begin(server, 0, 1, remotePort, addresses);
  const places: number[] = [];
  while (places.length < count && choice.next()) places.push(choice.addressIndex * 65_536 + choice.port);
  return places;
}

describe("ports", () => {
  test("every address and port is proposed exactly once, then none", () => {
    const ranges = fc
      .tuple(fc.integer({ min: 1, max: 65_535 }), fc.integer({ min: 0, max: 300 }))
      .map(([first, more]) => ({ first, last: Math.min(65_535, first + more) }));
    fc.assert(
      fc.property(ranges, fc.integer({ min: 1, max: 5 }), fc.integer(), (range, addresses, seed) => {
        const choice = choiceOf(seed, range);
        const all = (range.last - range.first + 1) * addresses;
        const places = nextPlaces(choice, 80, all + 1, addresses);
        expect(places.length).toBe(all);
        expect(new Set(places).size).toBe(all);
        for (const place of places) {
          expect(place % 65_536).toBeGreaterThanOrEqual(range.first);
          expect(place % 65_536).toBeLessThanOrEqual(range.last);
          expect(Math.floor(place / 65_536)).toBeLessThan(addresses);
        }
        expect(choice.next()).toBe(false);
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
    const firsts = Array.from({ length: 200 }, (_, seed) => nextPlaces(choiceOf(seed), 80, 1)[0] as number);
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
    const indices = new Set<number>();
    for (let remote = 1; remote <= 2000; remote += 1) {
      choice.begin(server, 0, 1, remote, 260);
      choice.next();
      indices.add(choice.addressIndex);
    }
    expect(indices.size).toBeGreaterThan(250);
    expect(Math.max(...indices)).toBeLessThan(260);
  });
});
