/** Initial sequence numbers: they depend on the key and on both ends, and move with the clock (RFC 6528). */
import { describe, expect, test } from "vitest";
import { InitialSequence } from "../../../../src/layer2-transport/tcp/security/initial-sequence.ts";
import { makeKey, SipHash } from "../../../../src/layer2-transport/tcp/security/siphash.ts";
import { nodeWith, seededWords, type TestEnds } from "../support.ts";

const key = makeKey(seededWords(1));
const sequence = new InitialSequence(key);

function isnOf(ends: Partial<TestEnds>, nowUs: number, of = sequence): number {
  const { words, base } = nodeWith(ends);
  return of.isn(words, base, nowUs);
}

const six = { peer: [0x20010db8, 0, 0, 2], local: [0x20010db8, 0, 0, 1] };

describe("an initial sequence number", () => {
  test("is the keyed hash of the ends, as laid out in a v-node, plus the 4 us clock", () => {
    const hash = new SipHash(key);
    hash.begin();
    for (const word of [(40_000 << 16) | 80, 0x0a000002, 0x0a000001]) hash.add(word);
    hash.finish();
    expect(isnOf({}, 0)).toBe(hash.low);
    expect(isnOf({}, 4001)).toBe((hash.low + 1000) | 0);
    hash.begin();
    for (const word of [(40_000 << 16) | 80, ...six.peer, ...six.local]) hash.add(word);
    hash.finish();
    expect(isnOf(six, 0)).toBe(hash.low);
  });

  test("steps by one every 4 us, through the wrap and after months", () => {
    for (const nowUs of [0, 17_179_869_180, 1e13, 4e15]) {
      expect((isnOf({}, nowUs + 4) - isnOf({}, nowUs)) | 0).toBe(1);
      expect((isnOf({}, nowUs + 4e6) - isnOf({}, nowUs)) | 0).toBe(1e6);
    }
  });

  test("looks at nothing but the ends", () => {
    const plain = nodeWith({});
    const full = nodeWith({}, -1);
    expect(sequence.isn(full.words, full.base, 8)).toBe(sequence.isn(plain.words, plain.base, 8));
  });

  test("differs with each part of the ends, and with the key, by amounts that tell nothing", () => {
    const others: Partial<TestEnds>[] = [
      { peerPort: 40_001 },
      { localPort: 81 },
      { peer: [0x0a000003] },
      { local: [0x0a000005] },
      ...[0, 1, 2, 3].map((i) => ({
        ...six,
        peer: six.peer.map((word, at) => (at === i ? word ^ 1 : word)),
      })),
      ...[0, 1, 2, 3].map((i) => ({
        ...six,
        local: six.local.map((word, at) => (at === i ? word ^ 1 : word)),
      })),
      six,
    ];
    const found = [{}, ...others].map((ends) => isnOf(ends, 0));
    expect(new Set(found).size).toBe(found.length);
    const otherKey = new InitialSequence(makeKey(seededWords(2)));
    expect(isnOf({}, 0, otherKey)).not.toBe(isnOf({}, 0));
    // Neighbouring ports under two keys: were the steps between them alike, one's own ports would tell of others'.
    const steps = (of: InitialSequence): number[] =>
      Array.from({ length: 50 }, (_, i) => {
        return (isnOf({ peerPort: 1001 + i }, 0, of) - isnOf({ peerPort: 1000 + i }, 0, of)) | 0;
      });
    expect(new Set([...steps(sequence), ...steps(otherKey)]).size).toBe(100);
  });
});
