/** SYN cookies: what went in comes back, for two minutes at most, and for nobody else (RFC 4987). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeKey } from "../../../../src/layer2-transport/tcp/security/siphash.ts";
import {
  CookieTerms,
  cookieMss,
  cookieTimestamp,
  cookieTimestampBits,
  readCookieTimestamp,
  SynCookies,
} from "../../../../src/layer2-transport/tcp/security/syn-cookie.ts";
import { nodeWith, seededWords } from "../support.ts";

const cookies = new SynCookies(makeKey(seededWords(1)));
const minuteUs = 60e6;
const word = fc.integer();
const port = fc.integer({ min: 1, max: 65_535 });
const ends = fc.constantFrom(1, 4).chain((count) =>
  fc.record({
    peer: fc.array(word, { minLength: count, maxLength: count }),
    local: fc.array(word, { minLength: count, maxLength: count }),
    peerPort: port,
    localPort: port,
  }),
);
const mss = fc.oneof(
  fc.integer({ min: 0, max: 65_535 }),
  fc.constantFrom(...cookieMss),
  fc.constantFrom(...cookieMss.map((size) => size - 1)),
);
const times = fc.integer({ min: 0, max: 2 ** 50 });

describe("a cookie", () => {
  test("has the greatest class of MSS that the peer can take, for a minute at least", () => {
    const ages = fc.integer({ min: 0, max: 64e6 });
    fc.assert(
      fc.property(ends, word, mss, times, ages, (given, peerIsn, size, nowUs, ageUs) => {
        const { words, base } = nodeWith(given, -1);
        const isn = cookies.make(words, base, peerIsn, size, nowUs);
        expect(isn).toBe(isn | 0);
        const index = cookies.check(words, base, peerIsn, isn, nowUs + ageUs);
        const fitting = cookieMss.filter((one) => one <= size);
        expect(cookieMss[index]).toBe(fitting.at(-1) ?? 536);
      }),
    );
  });

  test("has classes for what IPv4 and IPv6 need", () => {
    for (const size of [536, 1220, 1440, 1460, 8940, 8960]) expect(cookieMss).toContain(size);
    expect(cookieMss).toEqual([...cookieMss].sort((a, b) => a - b));
  });

  test("is refused after two steps of the clock, long after, and before it was made", () => {
    const { words, base } = nodeWith();
    for (const madeUs of [0, 1e9, 64e6 * 255, 64e6 * 256 - 1]) {
      const isn = cookies.make(words, base, 77, 1460, madeUs);
      const step = Math.floor(madeUs / 64e6) * 64e6;
      expect(cookies.check(words, base, 77, isn, step + 128e6 - 1)).toBe(5);
      for (const laterUs of [128e6, 5 * minuteUs, 64e6 * 256, 64e6 * 257, 64e6 * 1000]) {
        expect(cookies.check(words, base, 77, isn, step + laterUs)).toBe(-1);
      }
      if (step > 0) expect(cookies.check(words, base, 77, isn, step - 1)).toBe(-1);
    }
  });

  test("is nobody else's: other ends, another number of the peer's, another key, another guess", () => {
    const { words, base } = nodeWith();
    const isn = cookies.make(words, base, 77, 1460, 1e9);
    expect(cookies.check(words, base, 77, isn, 1e9)).toBe(5);
    for (const other of [
      { peerPort: 40_001 },
      { localPort: 81 },
      { peer: [0x0a000003] },
      { local: [0x0a000005] },
    ]) {
      const theirs = nodeWith(other);
      expect(cookies.check(theirs.words, theirs.base, 77, isn, 1e9)).toBe(-1);
    }
    expect(cookies.check(words, base, 78, isn, 1e9)).toBe(-1);
    expect(cookies.check(words, base, 76, isn, 1e9)).toBe(-1);
    const otherKey = new SynCookies(makeKey(seededWords(2)));
    expect(otherKey.check(words, base, 77, isn, 1e9)).toBe(-1);
    const random = seededWords(3);
    let guessed = 0;
    for (let i = 0; i < 100_000; i += 1) {
      const guess = random.word();
      // A neighbour of the right one is another MSS class of the same cookie: only the peer itself knows it.
      if (Math.abs((guess - isn) | 0) > 8 && cookies.check(words, base, 77, guess, 1e9) >= 0) guessed += 1;
    }
    expect(guessed).toBe(0);
  });

  test("moves on with the peer's number, so that a new connection does not run into an old one", () => {
    const { words, base } = nodeWith();
    const offset = (peerIsn: number): number => cookies.make(words, base, peerIsn, 1460, 1e9) >> 24;
    expect((offset(1 << 28) - offset(0)) & 0xff).toBeGreaterThanOrEqual(15);
    expect((offset(1 << 28) - offset(0)) & 0xff).toBeLessThanOrEqual(17);
  });
});

describe("a cookie's timestamp", () => {
  test("keeps scale, SACK and ECN in 6 bits, and the rest as it was", () => {
    const terms = new CookieTerms();
    fc.assert(
      fc.property(
        word,
        fc.integer({ min: -1, max: 14 }),
        fc.boolean(),
        fc.boolean(),
        (head, scale, sack, ecn) => {
          const value = cookieTimestamp(head, scale, sack, ecn);
          expect(value).toBe(value | 0);
          expect(value & ~cookieTimestampBits).toBe(head & ~cookieTimestampBits);
          readCookieTimestamp(value, terms);
          expect(terms).toEqual({ scale, sack, ecn });
        },
      ),
    );
  });

  test("any echo is read as terms that a SYN can have", () => {
    const terms = new CookieTerms();
    for (let echo = 0; echo < 64; echo += 1) {
      readCookieTimestamp(echo, terms);
      expect(terms.scale).toBeGreaterThanOrEqual(-1);
      expect(terms.scale).toBeLessThanOrEqual(14);
    }
  });
});
