/**
 * The public interface of `apo-runtime`: a table of contents.
 *
 * Layer 1's face. Nothing is defined here.
 */

// Starting a runtime, and what one message is.
export { createRuntime } from "./layer1-app/runtime.ts";
export { framing } from "./layer1-app/framing.ts";

// Errors: match on `code`.
export { ApoError, errorCodes } from "./layer1-app/errors.ts";
export type { ErrorCode } from "./layer1-app/errors.ts";

// The words of an app.
export type {
  Alarm,
  Apo,
  AppVerbs,
  BuiltInFraming,
  CloseReason,
  ConnectOptions,
  ConnectionStatus,
  FileSlice,
  Framing,
  FramingFunction,
  Handlers,
  ListenOptions,
  Listener,
  Message,
  Peer,
  RuntimeOptions,
  Sendable,
  Sockfd,
} from "./layer1-app/types.ts";

// The fan-out engine's words.
export type * from "./layer3-ip/fanout-types.ts";
