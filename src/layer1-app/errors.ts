/**
 * The one error class of layer 1. Match on `code`; the text says what was wrong, where, and what to do.
 *
 * Layer 1, used by all: it knows nothing but itself.
 */

/** Every code there is, with what it means. A test holds `docs/errors.md` against this list. */
export const errorCodes = {
  ESTALE: "the sockfd's connection has ended",
  EINVAL: "an argument is not what it must be",
  ENOTSUP: "this link or this build cannot do that",
  EPIPE: "the sending side of the connection has been closed",
  ENOBUFS: "more is queued than the limit allows",
  EMSGSIZE: "a message is longer than its limit or its framing allows",
  EPROTO: "the peer sent bytes that no message can start with",
  EADDRINUSE: "the port is taken",
  EADDRNOTAVAIL: "the address is not this machine's",
  EACCES: "the user may not do that",
  ECONNREFUSED: "the peer refused the connection",
  ECONNRESET: "the connection was reset",
  ETIMEDOUT: "no answer in time",
  EHOSTUNREACH: "no way to the address, or the name is unknown",
  ENOMEM: "there is not enough memory",
  ENFILE: "no connection number, file or socket is left",
  ENOENT: "the file is not there",
  EIO: "reading or writing failed",
  ECLOSED: "the runtime, listener or engine has been closed",
  EHANDLER: "a handler threw",
  EWORKER: "a worker thread died",
  ENATIVE: "the native addon could not be built or loaded",
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** An operating error with a stable `code`. */
export class ApoError extends Error {
  override readonly name = "ApoError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
