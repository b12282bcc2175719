/**
 * Why an RTSP session with somebody else's server did not come about or ended.
 *
 * Layer 1, relay/client.
 */

/** What kind of failure; stable, for programs. */
export const failureCodes = {
  unreachable: "no connection to the server",
  timeout: "the server did not answer in time",
  closed: "the server closed the connection",
  protocol: "the server's bytes or answers make no sense",
  unauthorized: "the server does not take the user name and password, or wants some",
  "not-found": "the server does not have the stream",
  refused: "the server refused a request",
  transport: "the server and we have no transport in common",
  description: "the stream's description cannot be used",
  redirect: "the server points to somewhere that cannot be followed",
  unsupported: "the URL is of a kind that is not supported",
  stalled: "no packet for too long",
  ended: "the source said that it has ended",
  replaced: "somebody else publishes the path",
  stopped: "we were told to stop",
} as const;

export type FailureCode = keyof typeof failureCodes;

/** A failure with its code, and the server's status where it was an answer. */
export class RtspFailure extends Error {
  override readonly name = "RtspFailure";
  readonly code: FailureCode;
  readonly status: number | undefined;

  constructor(code: FailureCode, message: string, status?: number) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** Any error as a failure; faults of our own program are passed on as they are. */
export function asFailure(error: unknown): RtspFailure {
  if (error instanceof RtspFailure) return error;
  throw error;
}
