/**
 * Plain-text tables: the report for people. Knows rows and nothing of what they measure.
 */
import type { Row } from "./bench.ts";
import { rounded } from "./stats.ts";

/** Columns padded to their widest cell, numbers (`right` columns) to the right; no line ends in a space. */
export function aligned(lines: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const cells of lines) {
    cells.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const pad = (cell: string, column: number) =>
    right.includes(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!);
  return lines.map((cells) => cells.map(pad).join("  ").trimEnd()).join("\n");
}

/** The rows of a report with their marks; a missed one says MISSED. */
export function rowsTable(rows: readonly Row[]): string {
  const header = ["measure", "value", "unit", "mark", ""];
  const body = rows.map((row) => [
    row.name,
    String(rounded(row.value)),
    row.unit,
    row.op === null ? "" : `${row.op} ${row.target}`,
    row.pass === null ? "" : row.pass ? "reached" : "MISSED",
  ]);
  return aligned([header, ...body], [1]);
}
