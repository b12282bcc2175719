/**
 * The words of a bench: rows, marks, what a bench is given and what it returns.
 *
 * Knows nothing of any one bench. A bench is a folder `bench/NAME` whose index.ts exports `bench`.
 */

/** "<=": the value must not be above the target; ">=": not below it. */
export type MarkOperator = "<=" | ">=";

/** One measured number. `op`, `target` and `pass` are null where there is no mark to reach. */
export interface Row {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly op: MarkOperator | null;
  readonly target: number | null;
  readonly pass: boolean | null;
}

/** What `--json` prints. `machine` and `date` say where and when (ISO 8601, UTC). */
export interface Report {
  readonly bench: string;
  readonly machine: string;
  readonly date: string;
  readonly rows: readonly Row[];
}

export interface BenchContext {
  /** Under 60 s in all, at the price of fewer rounds and shorter windows. */
  readonly quick: boolean;
  /** One line of progress; it goes to stderr. */
  say(line: string): void;
}

export interface Bench {
  /** The name on the command line, and of its folder. */
  readonly name: string;
  /** One line for `--list`. */
  readonly summary: string;
  run(context: BenchContext): Promise<Row[]>;
}

/** A mark: `{ op: "<=", target: 8 }`. */
export interface Mark {
  readonly op: MarkOperator;
  readonly target: number;
}

/** A row of a measured value, judged when there is a mark. A value that is not a number never passes. */
export function row(name: string, value: number, unit: string, mark?: Mark): Row {
  if (!mark) return { name, value, unit, op: null, target: null, pass: null };
  const pass = mark.op === "<=" ? value <= mark.target : value >= mark.target;
  return { name, value, unit, op: mark.op, target: mark.target, pass };
}
