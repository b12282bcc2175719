/** Fast Open: cookies that only their address can use, and a client's bounded memory of servers (RFC 7413). */
import { describe, expect, test } from "vitest";
import {
  cookieBytes,
  cookieCheck,
  FastOpenCache,
  FastOpenCookies,
} from "../../../../src/layer2-transport/tcp/security/fast-open.ts";
import { makeKey, SipHash } from "../../../../src/layer2-transport/tcp/security/siphash.ts";
import { nodeWith, seededWords, type TestEnds } from "../support.ts";

const keys = [1, 2, 3].map((seed) => makeKey(seededWords(seed)));
const [firstKey, secondKey, thirdKey] = keys as [Uint32Array, Uint32Array, Uint32Array];

function cookieOf(server: FastOpenCookies, ends: Partial<TestEnds> = {}): Uint8Array {
  const { words, base } = nodeWith(ends);
  const bytes = new Uint8Array(cookieBytes + 6).fill(0xa5);
  expect(server.write(words, base, bytes, 3)).toBe(cookieBytes);
  expect([...bytes.subarray(0, 3), ...bytes.subarray(11)]).toEqual([0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5]);
  return bytes.slice(3, 11);
}

function check(server: FastOpenCookies, cookie: Uint8Array, ends: Partial<TestEnds> = {}): number {
  const { words, base } = nodeWith(ends);
  const bytes = new Uint8Array(cookie.length + 4).fill(0xa5);
  bytes.set(cookie, 2);
  return server.check(words, base, bytes, 2, cookie.length);
}

const six = { peer: [0x20010db8, 0, 0, 2], local: [0x20010db8, 0, 0, 1] };

describe("a server's cookie", () => {
  test("is the hash of the addresses, lowest byte first, and not of the ports", () => {
    const hash = new SipHash(firstKey);
    hash.begin();
    hash.add(0x0a000002);
    hash.add(0x0a000001);
    hash.finish();
    const server = new FastOpenCookies(firstKey);
    const cookie = cookieOf(server);
    expect([...new Int32Array(cookie.buffer)]).toEqual([hash.low, hash.high]);
    expect(cookieOf(server, { peerPort: 5, localPort: 6 })).toEqual(cookie);
    expect(check(server, cookie, { peerPort: 9 })).toBe(cookieCheck.good);
  });

  test("is good for its address alone, IPv4 and IPv6", () => {
    const server = new FastOpenCookies(firstKey);
    expect(check(server, cookieOf(server), { peer: [0x0a000003] })).toBe(cookieCheck.bad);
    const cookie = cookieOf(server, six);
    expect(check(server, cookie, six)).toBe(cookieCheck.good);
    for (let i = 0; i < 4; i += 1) {
      const peer = six.peer.map((word, at) => (at === i ? word ^ 1 : word));
      expect(check(server, cookie, { ...six, peer })).toBe(cookieCheck.bad);
    }
  });

  test("every wrong bit, and every wrong length, is seen", () => {
    const server = new FastOpenCookies(firstKey);
    const cookie = cookieOf(server);
    for (let bit = 0; bit < 64; bit += 1) {
      const wrong = cookie.slice();
      wrong[bit >> 3] = (wrong[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(check(server, wrong)).toBe(cookieCheck.bad);
    }
    for (const length of [0, 4, 6, 16]) expect(check(server, new Uint8Array(length))).toBe(cookieCheck.bad);
    expect(check(new FastOpenCookies(secondKey), cookie)).toBe(cookieCheck.bad);
  });

  test("outlives one change of the key, marked as old, and not two", () => {
    const server = new FastOpenCookies(firstKey);
    const cookie = cookieOf(server);
    server.rotate(secondKey);
    expect(check(server, cookie)).toBe(cookieCheck.old);
    const renewed = cookieOf(server);
    expect(renewed).not.toEqual(cookie);
    expect(check(server, renewed)).toBe(cookieCheck.good);
    server.rotate(thirdKey);
    expect(check(server, cookie)).toBe(cookieCheck.bad);
    expect(check(server, renewed)).toBe(cookieCheck.old);
  });
});

describe("a client's memory", () => {
  const address = (i: number): Int32Array => Int32Array.of(i);

  test("gives back what a server has given, by its whole address", () => {
    const cache = new FastOpenCache();
    const words = Int32Array.of(9, ...six.peer);
    const cookie = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    cache.store(words, 1, 4, cookie, 1440);
    cookie.fill(0);
    expect(cache.find(words, 1, 4, 0)).toMatchObject({
      cookie: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
      mss: 1440,
    });
    expect(cache.find(words, 1, 1, 0)).toBeUndefined();
    cache.forget(words, 1, 4);
    expect(cache.find(words, 1, 4, 0)).toBeUndefined();
  });

  test("is bounded: what was used least recently goes", () => {
    const cache = new FastOpenCache(3);
    for (const i of [1, 2, 3]) cache.store(address(i), 0, 1, new Uint8Array(8), 536);
    cache.find(address(1), 0, 1, 0);
    for (let i = 4; i < 1000; i += 1) {
      cache.store(address(i), 0, 1, new Uint8Array(8), 536);
      expect(cache.size).toBe(3);
      if (i === 4) expect(cache.find(address(2), 0, 1, 0)).toBeUndefined();
      expect(cache.find(address(1), 0, 1, 0)).toBeDefined();
    }
  });

  test("leaves a server alone for a while, on the way to which data in SYNs get lost", () => {
    const cache = new FastOpenCache();
    cache.store(address(1), 0, 1, Uint8Array.of(1, 2, 3, 4), 1460);
    cache.silence(address(1), 0, 1, 5000);
    cache.silence(address(2), 0, 1, 5000);
    expect(cache.find(address(1), 0, 1, 4999)).toBeUndefined();
    expect(cache.isQuiet(address(1), 0, 1, 4999)).toBe(true);
    expect(cache.find(address(1), 0, 1, 5000)).toMatchObject({
      mss: 1460,
      cookie: Uint8Array.of(1, 2, 3, 4),
    });
    expect(cache.isQuiet(address(2), 0, 1, 4999)).toBe(true);
    expect(cache.isQuiet(address(2), 0, 1, 5000)).toBe(false);
    expect(cache.isQuiet(address(3), 0, 1, 0)).toBe(false);
  });
});
