/**
 * Brings an alarm to the handler that asked for it, or to the process's warnings.
 *
 * Layer 1. Nothing is lost silently: without an `alarm` handler an operator reads the warning on standard error.
 */

import type { OpenRecord } from "./app-connection.ts";
import type { Alarm, AppVerbs } from "./types.ts";

/** Calls the `alarm` handler; `warn` when there is none, or it fails itself. */
export function raise(
  open: OpenRecord | undefined,
  alarm: Alarm,
  verbs: AppVerbs,
  error: unknown,
  warn: (text: string, detail: string) => void,
): void {
  const detail = error instanceof Error ? (error.stack ?? "") : "";
  const handler = open?.handlers.alarm;
  if (!handler) {
    warn(alarm.text, detail);
    return;
  }
  const failed = (reason: unknown): void => {
    const text = reason instanceof Error ? reason.message : String(reason);
    warn(`${alarm.text} (and the alarm handler failed: ${text})`, detail);
  };
  try {
    handler.call(open.handlers, alarm, verbs)?.catch(failed);
  } catch (reason) {
    failed(reason);
  }
}

/** A warning of the process, with the alarm's code. */
export function warnProcess(alarm: Alarm, text: string, detail: string): void {
  const code = `APO_${alarm.code.toUpperCase().replaceAll("-", "_")}`;
  process.emitWarning(text, { type: "ApoWarning", code, ...(detail === "" ? {} : { detail }) });
}
