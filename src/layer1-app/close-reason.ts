/**
 * Why a connection ended, in words.
 *
 * Layer 1, pure.
 */

import type { CloseCode } from "../layer2-transport/index.ts";
import type { OpenRecord } from "./app-connection.ts";
import { ApoError, type ErrorCode, errorCodes } from "./errors.ts";
import type { CloseReason } from "./types.ts";

/**
 * The reason that `closed` is given. `failure`: why this side ended it, if it did. `detail`: bytes that had arrived of
 * a message cut short.
 */
export function closeReason(
  open: OpenRecord,
  failure: ApoError | undefined,
  code: CloseCode,
  error: ErrorCode | undefined,
  detail: number,
): CloseReason {
  const cause = failure ?? reasonError(open, code, error, detail);
  return cause ? { code, error: cause } : { code };
}

function reasonError(
  open: OpenRecord,
  code: CloseCode,
  error: ErrorCode | undefined,
  detail: number,
): ApoError | undefined {
  const { name, recvlen } = open;
  switch (code) {
    case "recvlen":
      return new ApoError("EMSGSIZE", `${name}: a message was longer than recvlen (${recvlen} bytes)`);
    case "framing":
      return new ApoError(
        "EPROTO",
        `${name}: the peer sent bytes that no message of the framing starts with`,
      );
    case "end":
      if (detail === 0) return undefined;
      return new ApoError(
        "EPROTO",
        `${name}: the peer ended inside a message, ${detail} bytes of which had arrived`,
      );
    case "worker":
      return new ApoError("EWORKER", `${name}: the worker thread that owned the connection died`);
    case "reset":
      return new ApoError(error ?? "ECONNRESET", `${name}: ${errorCodes[error ?? "ECONNRESET"]}`);
    case "refused":
      return new ApoError(error ?? "ECONNREFUSED", `${name}: ${errorCodes[error ?? "ECONNREFUSED"]}`);
    default:
      return error ? new ApoError(error, `${name}: ${errorCodes[error]}`) : undefined;
  }
}
