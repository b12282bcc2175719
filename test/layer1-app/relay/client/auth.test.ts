/** Authorization: the RFCs' own examples, and challenges as they come. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  Authorizer,
  chooseChallenge,
  parseChallenges,
} from "../../../../src/layer1-app/relay/client/auth.ts";

const field = (header: string | undefined, name: string): string | undefined =>
  new RegExp(`${name}="?([^",]+)"?`).exec(header ?? "")?.[1];

describe("authorization against the RFCs' own examples", () => {
  test("RFC 2617 3.5: Digest MD5 with qop=auth", () => {
    const authorizer = new Authorizer({ user: "Mufasa", password: "Circle Of Life" }, () => "0a4f113b");
    expect(
      authorizer.accept([
        'Digest realm="testrealm@host.com", qop="auth,auth-int", ' +
          'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"',
      ]),
    ).toBe(true);
    const header = authorizer.header("GET", "/dir/index.html");
    expect(field(header, "response")).toBe("6629fae49393a05397450978507c4ef1");
    expect(field(header, "opaque")).toBe("5ccc069c403ebaf9f0171e9517f40e41");
    expect(field(header, "nc")).toBe("00000001");
  });

  const rfc7616 =
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", ' +
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"';
  const digest = (algorithm: string) =>
    `Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=${algorithm}, ${rfc7616}`;
  const clientNonce = () => "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

  test("RFC 7616 3.9.1: both offered, SHA-256 is chosen", () => {
    const authorizer = new Authorizer({ user: "Mufasa", password: "Circle of Life" }, clientNonce);
    authorizer.accept([digest("MD5"), digest("SHA-256")]);
    const header = authorizer.header("GET", "/dir/index.html");
    expect(field(header, "response")).toBe(
      "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
    );
    expect(field(header, "algorithm")).toBe("SHA-256");
  });

  test("RFC 7616 3.9.1: MD5 alone", () => {
    const authorizer = new Authorizer({ user: "Mufasa", password: "Circle of Life" }, clientNonce);
    authorizer.accept([digest("MD5")]);
    expect(field(authorizer.header("GET", "/dir/index.html"), "response")).toBe(
      "8ca523f5e9506fed4657c9700eebdbec",
    );
  });

  test("RFC 7617 2: Basic", () => {
    const authorizer = new Authorizer({ user: "Aladdin", password: "open sesame" });
    authorizer.accept(['Basic realm="WallyWorld"']);
    expect(authorizer.header("OPTIONS", "rtsp://h/")).toBe("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
  });

  test("RFC 2069 2.4: what cameras do, no qop", () => {
    const authorizer = new Authorizer({ user: "Mufasa", password: "CircleOfLife" });
    authorizer.accept(['Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"']);
    const header = authorizer.header("GET", "/dir/index.html");
    // The RFC prints a digest that its own formula does not give; this is the one of its errata.
    expect(field(header, "response")).toBe("1949323746fe6a43ef61f9606e7febea");
    expect(header).not.toContain("qop");
    expect(header).not.toContain("algorithm");
  });
});

describe("challenges", () => {
  test("several in one header, Basic before Digest, spaces and commas anywhere", () => {
    const challenges = parseChallenges(['Basic realm="a, b" , Digest realm = "c",nonce="n", stale=FALSE']);
    expect(challenges).toEqual([
      { scheme: "basic", parameters: { realm: "a, b" } },
      { scheme: "digest", parameters: { realm: "c", nonce: "n", stale: "FALSE" } },
    ]);
    expect(chooseChallenge(challenges)?.scheme).toBe("digest");
  });

  test("what cannot be answered is passed over", () => {
    expect(chooseChallenge(parseChallenges(["Negotiate"]))).toBeUndefined();
    expect(chooseChallenge(parseChallenges(['Digest realm="x"']))).toBeUndefined();
    const odd = parseChallenges(['Digest realm="x", nonce="n", algorithm=SHA-512-256', 'Basic realm="x"']);
    expect(chooseChallenge(odd)?.scheme).toBe("basic");
    expect(chooseChallenge(parseChallenges(['Digest realm="x", nonce="n", qop="auth-int"']))).toBeUndefined();
  });

  test("a new nonce starts the count again, the same one goes on", () => {
    const authorizer = new Authorizer({ user: "u", password: "p" }, () => "c");
    authorizer.accept(['Digest realm="r", nonce="1", qop="auth"']);
    expect(field(authorizer.header("PLAY", "u"), "nc")).toBe("00000001");
    expect(field(authorizer.header("PLAY", "u"), "nc")).toBe("00000002");
    authorizer.accept(['Digest realm="r", nonce="2", qop="auth"']);
    expect(field(authorizer.header("PLAY", "u"), "nc")).toBe("00000001");
  });

  test("any text: never throws, and a quote in a name cannot leave its quotes", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string(), { maxLength: 5 }),
        fc.string(),
        fc.string(),
        (values, user, password) => {
          const authorizer = new Authorizer({ user, password }, () => "c");
          const accepted = authorizer.accept(values);
          expect(authorizer.header("PLAY", "rtsp://h/p") !== undefined).toBe(accepted);
        },
      ),
    );
    const authorizer = new Authorizer({ user: 'a", uri="x', password: "p" });
    authorizer.accept(['Digest realm="r", nonce="n"']);
    expect(authorizer.header("PLAY", "u")).toContain('username="a\\", uri=\\"x"');
  });
});
