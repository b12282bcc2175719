/**
 * Answers to an RTSP server's 401: Basic (RFC 7617) and Digest (RFC 2617, RFC 7616) with MD5 and SHA-256.
 *
 * Layer 1, relay/client: pure but for the random client nonce, which may be handed in. Passwords go into
 * hashes (and into Basic) and nowhere else: nothing here is ever logged.
 */

import { createHash, randomBytes } from "node:crypto";

/** Who we are to a server. */
export interface Credentials {
  readonly user: string;
  readonly password: string;
}

/** One way that a server offers. */
export interface Challenge {
  /** Lower case: "basic", "digest". */
  readonly scheme: string;
  /** Names in lower case, values without quotes. */
  readonly parameters: Readonly<Record<string, string>>;
}

const hashes: Readonly<Record<string, string>> = {
  MD5: "md5",
  "MD5-SESS": "md5",
  "SHA-256": "sha256",
  "SHA-256-SESS": "sha256",
};

/** Longest header that is looked at, and most challenges of it. */
const HEADER_MAX = 4096;
const CHALLENGES_MAX = 16;

/**
 * The challenges of the `WWW-Authenticate` headers, which may come a header each or several in one. What
 * makes no sense is left out.
 */
export function parseChallenges(values: readonly string[]): Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  for (const value of values) {
    const text = value.slice(0, HEADER_MAX);
    // Either `name = value` of the challenge before, or a word that starts another one.
    const pattern = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]*))?/g;
    let open = false; // Parameters belong to a challenge of this header.
    for (const match of text.matchAll(pattern)) {
      const [, name = "", raw] = match;
      if (raw === undefined) {
        if (challenges.length >= CHALLENGES_MAX) return challenges;
        challenges.push({ scheme: name.toLowerCase(), parameters: {} });
        open = true;
        continue;
      }
      const last = challenges.at(-1);
      if (open && last !== undefined) last.parameters[name.toLowerCase()] = unquote(raw);
    }
  }
  return challenges;
}

function unquote(text: string): string {
  return text.startsWith('"') ? text.slice(1, -1).replace(/\\(.)/g, "$1") : text;
}

/** Strength of a challenge that we can answer; 0 when we cannot. */
function strength(challenge: Challenge): number {
  if (challenge.scheme === "basic") return 1;
  if (challenge.scheme !== "digest" || challenge.parameters.nonce === undefined) return 0;
  const hash = hashes[algorithmOf(challenge)];
  if (hash === undefined || !qopPossible(challenge)) return 0;
  return hash === "sha256" ? 3 : 2;
}

function algorithmOf(challenge: Challenge): string {
  return (challenge.parameters.algorithm ?? "MD5").toUpperCase();
}

function qops(challenge: Challenge): string[] {
  const text = challenge.parameters.qop;
  return text === undefined ? [] : text.split(",").map((one) => one.trim().toLowerCase());
}

/** Without qop (RFC 2069, most cameras) or with "auth"; "auth-int" alone is not spoken by anybody. */
function qopPossible(challenge: Challenge): boolean {
  const offered = qops(challenge).filter((one) => one !== "");
  return offered.length === 0 || offered.includes("auth");
}

/** The strongest challenge that can be answered: SHA-256, then MD5, then Basic. */
export function chooseChallenge(challenges: readonly Challenge[]): Challenge | undefined {
  let best: Challenge | undefined;
  for (const challenge of challenges) {
    if (strength(challenge) > (best === undefined ? 0 : strength(best))) best = challenge;
  }
  return best;
}

/** Keeps what a server asked for and writes the `Authorization` header of each request. */
export class Authorizer {
  readonly #credentials: Credentials;
  readonly #clientNonce: () => string;
  #challenge: Challenge | undefined;
  #count = 0;

  /** `clientNonce` is for tests; it gives a fresh random one as a rule. */
  constructor(credentials: Credentials, clientNonce = () => randomBytes(8).toString("hex")) {
    this.#credentials = credentials;
    this.#clientNonce = clientNonce;
  }

  /** Takes a 401's challenges. False: none of them can be answered. */
  accept(values: readonly string[]): boolean {
    const challenge = chooseChallenge(parseChallenges(values));
    if (challenge === undefined) return false;
    if (challenge.parameters.nonce !== this.#challenge?.parameters.nonce) this.#count = 0;
    this.#challenge = challenge;
    return true;
  }

  /** The header's value for a request, or undefined as long as nobody has asked. */
  header(method: string, uri: string): string | undefined {
    const challenge = this.#challenge;
    if (challenge === undefined) return undefined;
    const { user, password } = this.#credentials;
    if (challenge.scheme === "basic") return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
    return this.#digest(challenge, method, uri);
  }

  #digest(challenge: Challenge, method: string, uri: string): string {
    const { user, password } = this.#credentials;
    const { nonce = "", realm = "", opaque } = challenge.parameters;
    const algorithm = algorithmOf(challenge);
    const hash = (text: string) =>
      createHash(hashes[algorithm] ?? "md5")
        .update(text)
        .digest("hex");
    const withQop = qops(challenge).includes("auth");
    const clientNonce = withQop || algorithm.endsWith("-SESS") ? this.#clientNonce() : "";
    let secret = hash(`${user}:${realm}:${password}`);
    if (algorithm.endsWith("-SESS")) secret = hash(`${secret}:${nonce}:${clientNonce}`);
    const request = hash(`${method}:${uri}`);
    const parts = [
      `username=${quote(user)}`,
      `realm=${quote(realm)}`,
      `nonce=${quote(nonce)}`,
      `uri=${quote(uri)}`,
    ];
    if (withQop) {
      this.#count += 1;
      const count = this.#count.toString(16).padStart(8, "0");
      const response = hash(`${secret}:${nonce}:${count}:${clientNonce}:auth:${request}`);
      parts.push(`response="${response}"`, "qop=auth", `nc=${count}`, `cnonce=${quote(clientNonce)}`);
    } else {
      parts.push(`response="${hash(`${secret}:${nonce}:${request}`)}"`);
      if (clientNonce !== "") parts.push(`cnonce=${quote(clientNonce)}`);
    }
    if (opaque !== undefined) parts.push(`opaque=${quote(opaque)}`);
    // Old servers that never named an algorithm may stumble over one.
    if (challenge.parameters.algorithm !== undefined) {
      parts.push(`algorithm=${challenge.parameters.algorithm}`);
    }
    return `Digest ${parts.join(", ")}`;
  }
}

function quote(text: string): string {
  return `"${text.replace(/(["\\])/g, "\\$1")}"`;
}
