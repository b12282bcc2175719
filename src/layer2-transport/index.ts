/**
 * What layer 1 may use of layer 2: a table of contents.
 *
 * Layer 2's face. The worker thread's side (`worker.ts`, `dispatcher.ts`, the transports) is not here: layer 1 speaks
 * to it by rings and control messages only.
 */

// The lists and limits of raw links, from layer 3.
export { copyBytes } from "../layer3-ip/copy-bytes.ts";
export {
  type Guard,
  type GuardLimit,
  type GuardOptions,
  type Offender,
  startGuard,
} from "../layer3-ip/guard.ts";
// The wire of the `mem` link.
export type { GilbertElliott, Impairments } from "../layer3-ip/impairment-options.ts";
// What links there are, and their options, from layer 3.
export {
  checkOptionsBelong,
  type LinkKind,
  type LinkOptions,
  type LinkRoute,
  linkKinds,
  linkOptionNames,
  type RawLinkKind,
} from "../layer3-ip/links/link-options.ts";
export { checkLinkOptions, type LinkSettings } from "../layer3-ip/links/link-settings.ts";
export {
  createWire,
  openWire,
  type Wire,
  type WireMirror,
  type WireOptions,
} from "../layer3-ip/links/mem.ts";
export { type LinkProbe, probeLinks } from "../layer3-ip/links/probe.ts";
export type { RawEngine } from "../layer3-ip/raw-engine.ts";
export { type RawLink, startRawLink } from "../layer3-ip/raw-link.ts";
// Small things that both layers need.
export { AlarmGate } from "./alarm-gate.ts";
// Starting workers, and what is said to them.
export type { FromWorker, ToWorker, WorkerStart } from "./control.ts";
export {
  type AppCounter,
  appCounterNames,
  Counters,
  type WorkerCounter,
  workerCounterNames,
} from "./counters.ts";
// The rings, the pool, and the words in them.
export {
  appParty,
  type CloseCode,
  closeBits,
  closeCodes,
  errorOfWord,
  kind,
  mainParty,
  maxAppWorkers,
  maxWorkers,
  nativeParty,
  type Parties,
} from "./descriptor.ts";
export { Fifo } from "./fifo.ts";
export { tally, tallyWords } from "./group-ramp.ts";
// The guard, as an operator sees it.
export { createCeilingMemory } from "./guard/memory-ceiling.ts";
export { type Attack, OperatorGuard, type RuntimeGuard, type TraceRecord } from "./guard/operator-guard.ts";
export type { AttackKind } from "./guard/report.ts";
export { checkTcpGuardOptions, type TcpGuardOptions, type TcpGuardSettings } from "./guard/settings.ts";
export type { TimedBlock } from "./guard/timed-blocks.ts";
export {
  createLinkMemory,
  createPool,
  FramePool,
  Link,
  type LinkEnd,
  type LinkMemory,
  largeFrameBytes,
  Mailbox,
  shapeFor,
  smallFrameBytes,
  wakeWorker,
} from "./link.ts";
// Connections as every thread sees them.
export {
  createNodes,
  type FramingKind,
  framingKinds,
  framingShift,
  generationOf,
  goneFlag,
  knownFlag,
  node,
  nodeState,
  nodeWords,
  numberOf,
  type Protocol,
  protocols,
  shards,
  sockfd24Of,
  toldFlag,
  VNodeTable,
} from "./nodes/v-node.ts";
// App endpoints in layer-2 workers.
export type { CreatePlaced, PlacedApp, PlacedContext, PlaceStart } from "./placement.ts";
// The options of connections, and what is told of them.
export { defaultUdpOptions, type GroupJoin, type UdpOptions } from "./raw/udp-options.ts";
export { StreamBuffer } from "./stream-buffer.ts";
export type { TcpInfo, TcpStateName } from "./tcp/info.ts";
export {
  congestionControls,
  defaultTcpOptions,
  handshakeOptions,
  type TcpOptions,
  tcpOptionNames,
  tcpOptionWord,
} from "./tcp/options.ts";
export { frontBytes } from "./tcp/packet-writer.ts";
export type { ConnectionRules, ConnectRequest, ListenerRecord, LocalAddress } from "./transport.ts";
