/**
 * The public interface of `apo-runtime`: a table of contents.
 *
 * Layer 1's face. Nothing is defined here.
 */

// Errors: match on `code`.
export { ApoError, type ErrorCode, errorCodes } from "./layer1-app/errors.ts";
// Starting a runtime, and what one message is.
export { framing } from "./layer1-app/framing.ts";
// The relay: an app on layer 1 like any other.
export type { BackoffOptions } from "./layer1-app/relay/client/backoff.ts";
export type { Keepalive } from "./layer1-app/relay/client/pull-session.ts";
export { type Pull, type PullOptions, startPull } from "./layer1-app/relay/client/pull-source.ts";
export type { LogEntry, RelayEvent, RelayLog } from "./layer1-app/relay/log.ts";
export type { Sdp, SdpMedia } from "./layer1-app/relay/protocol/sdp.ts";
export { createRelay } from "./layer1-app/relay/relay.ts";
export type {
  Expectation,
  Publication,
  PublishOptions,
  Relay,
  RelayOptions,
  RelayStats,
  SourceStatus,
} from "./layer1-app/relay/types.ts";
export { createRuntime } from "./layer1-app/runtime.ts";
// The words of an app.
export type {
  Alarm,
  Apo,
  AppVerbs,
  BuiltInFraming,
  CloseOptions,
  CloseReason,
  ConnectionStatus,
  ConnectOptions,
  FileSlice,
  Framing,
  FramingFunction,
  Group,
  GroupOptions,
  Handlers,
  JoinSettings,
  LinkFacts,
  Listener,
  ListenOptions,
  Message,
  Peer,
  RuntimeGuardOptions,
  RuntimeOptions,
  Sendable,
  Sockfd,
  TcpSettings,
  UdpSettings,
} from "./layer1-app/types.ts";
// The links, and the wire of `mem`.
export type {
  Attack,
  AttackKind,
  Guard,
  GuardLimit,
  GuardOptions,
  LinkKind,
  LinkOptions,
  LinkRoute,
  Offender,
  RuntimeGuard,
  TcpGuardOptions,
  TcpInfo,
  TcpStateName,
  TimedBlock,
  TraceRecord,
} from "./layer2-transport/index.ts";
export {
  createWire,
  type GilbertElliott,
  type Impairments,
  openWire,
  type Wire,
  type WireMirror,
  type WireOptions,
} from "./layer2-transport/index.ts";
// The words of the fan-out engine.
export type * from "./layer3-ip/fanout-types.ts";
