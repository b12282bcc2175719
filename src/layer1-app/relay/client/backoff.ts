/**
 * How long to wait before another try: exponential backoff with full jitter.
 *
 * Layer 1, relay/client: pure; the random source is handed in. A hundred relays that lost the same camera
 * must not come back in the same instant, so the wait is anywhere below a ceiling that doubles with each
 * failure.
 */

export interface BackoffOptions {
  /** The first ceiling (1,000). */
  readonly minMs?: number;
  /** The highest ceiling (60,000). */
  readonly maxMs?: number;
  /** A number in [0, 1) (`Math.random`). */
  readonly random?: () => number;
}

/** No wait is shorter than this part of the first ceiling: a refused connection takes no time at all. */
const FLOOR = 0.1;

export class Backoff {
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #failures = 0;

  constructor(options: BackoffOptions = {}) {
    this.#minMs = options.minMs ?? 1_000;
    this.#maxMs = Math.max(options.maxMs ?? 60_000, this.#minMs);
    this.#random = options.random ?? Math.random;
  }

  /** Failures since the last `reset`. */
  get failures(): number {
    return this.#failures;
  }

  /** The ceiling of the next wait. */
  get ceilingMs(): number {
    return Math.min(this.#maxMs, this.#minMs * 2 ** Math.min(this.#failures, 40));
  }

  /** One more failure: how long to wait now, milliseconds. */
  next(): number {
    const ceiling = this.ceilingMs;
    this.#failures += 1;
    const floor = this.#minMs * FLOOR;
    return Math.round(floor + this.#random() * (ceiling - floor));
  }

  /**
   * A failure that trying again soon would make worse (wrong credentials lock accounts): half the highest
   * ceiling at the least.
   */
  nextSlow(): number {
    this.#failures = Math.max(this.#failures + 1, Math.ceil(Math.log2(this.#maxMs / this.#minMs)));
    return Math.round((this.#maxMs / 2) * (1 + this.#random()));
  }

  /** What was tried has worked for long enough to count. */
  reset(): void {
    this.#failures = 0;
  }
}
