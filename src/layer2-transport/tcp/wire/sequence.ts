/**
 * Sequence space: numbers of 32 bits that wrap, compared by the sign of their difference (RFC 9293 3.4).
 *
 * Layer 2, pure. Numbers come and go as signed 32-bit integers, so that V8 keeps them as small integers where it can;
 * a comparison means something only for numbers less than 2^31 apart, which windows of at most 2^30 bytes ensure.
 */

/** How far `a` lies beyond `b`: negative when it lies before it. */
export function distance(a: number, b: number): number {
  return (a - b) | 0;
}

/** a < b */
export function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** a > b */
export function after(a: number, b: number): boolean {
  return ((b - a) | 0) < 0;
}

/** a <= b */
export function atMost(a: number, b: number): boolean {
  return ((b - a) | 0) >= 0;
}

/** a >= b */
export function atLeast(a: number, b: number): boolean {
  return ((a - b) | 0) >= 0;
}

/** low <= value < high, by one unsigned comparison; never true when low equals high. */
export function between(low: number, value: number, high: number): boolean {
  return (value - low) >>> 0 < (high - low) >>> 0;
}

/** The later of the two. */
export function latest(a: number, b: number): number {
  return ((a - b) | 0) < 0 ? b | 0 : a | 0;
}

/** The earlier of the two. */
export function earliest(a: number, b: number): number {
  return ((a - b) | 0) < 0 ? a | 0 : b | 0;
}
