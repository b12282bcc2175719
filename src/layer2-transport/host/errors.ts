/**
 * The kernel's and Node's error codes in the words of layer 1.
 *
 * Layer 2, host link. Every text names the address, and what to do where there is something to do.
 */

import { ApoError, type ErrorCode, errorCodes } from "../../layer1-app/errors.ts";

const renamed: Record<string, ErrorCode> = {
  EPIPE: "ECONNRESET",
  ECONNABORTED: "ECONNRESET",
  ERR_STREAM_PREMATURE_CLOSE: "ECONNRESET",
  ENOTFOUND: "EHOSTUNREACH",
  EAI_AGAIN: "EHOSTUNREACH",
  EAI_FAIL: "EHOSTUNREACH",
  ENETUNREACH: "EHOSTUNREACH",
  ENETDOWN: "EHOSTUNREACH",
  EHOSTDOWN: "EHOSTUNREACH",
  EPERM: "EACCES",
  EMFILE: "ENFILE",
  EAFNOSUPPORT: "EADDRNOTAVAIL",
  ERR_SOCKET_BAD_PORT: "EINVAL",
};

/** The system code of an error: of the first of several, when Node tried more than one address. */
export function systemCode(error: unknown): string {
  const { code, errors } = error as { code?: string; errors?: readonly { code?: string }[] };
  return code ?? errors?.[0]?.code ?? "EIO";
}

export function errorCodeOf(error: unknown): ErrorCode {
  const code = systemCode(error);
  if (code in errorCodes) return code as ErrorCode;
  return renamed[code] ?? "EIO";
}

const advice: Partial<Record<ErrorCode, string>> = {
  EADDRINUSE: "another listener or program has it; choose another port or stop that one (ss -lntup shows it)",
  EACCES: "ports below 1024 need the CAP_NET_BIND_SERVICE capability; choose a higher one",
  EADDRNOTAVAIL: "the address is not this machine's (ip address shows them)",
  EHOSTUNREACH: "the name is unknown or there is no way to the address",
  ECONNREFUSED: "nobody listens there",
  ENFILE: "no file descriptor is left (ulimit -n)",
};

/** An `ApoError` for `what` ("listen on tcp :::7"), with the remedy. */
export function explain(what: string, error: unknown): ApoError {
  const code = errorCodeOf(error);
  const text = advice[code] ?? `${errorCodes[code]} (${systemCode(error)})`;
  return new ApoError(code, `cannot ${what}: ${text}`, { cause: error });
}
