/**
 * What the parts of the layer-3 bench are given, and what they give.
 *
 * Knows nothing of any one part.
 */
import type { Row } from "../lib/bench.ts";

/** How long and how often a part measures. */
export interface Effort {
  /** Rounds that count; one more goes before them to warm up. */
  readonly rounds: number;
  /** Length of one measurement of a path, in milliseconds. */
  readonly windowMs: number;
  /** One line of progress. */
  say(line: string): void;
}

/** One group of rows. A part that cannot run throws `CannotRun` with a sentence; the bench says it and goes on. */
export interface Part {
  readonly name: string;
  measure(effort: Effort): Promise<Row[]>;
}

/** Why rows are missing, in one line. */
export class CannotRun extends Error {}
