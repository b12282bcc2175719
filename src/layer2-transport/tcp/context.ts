/**
 * What a TCP stack is given from outside: memory, clock-free wheels and tables, randomness, a way out, and who is told.
 *
 * Layer 2. In a worker these are the real ones; in a simulation they are seeded, and the same calls give the same
 * packets. The stack itself reads no clock and draws no random number of its own.
 */

import type { ErrorCode } from "../../layer1-app/errors.ts";
import type { IpPrefix } from "../../layer3-ip/ip-prefix.ts";
import type { SteerHash } from "../../layer3-ip/steer.ts";
import type { Container } from "../container.ts";
import type { Counters, WorkerCounter } from "../counters.ts";
import type { CloseCode } from "../descriptor.ts";
import type { FramePool } from "../link.ts";
import type { Carrier } from "../nodes/carrier.ts";
import type { FlowIndex } from "../nodes/flow-index.ts";
import type { NodeTable } from "../nodes/node-table.ts";
import type { TimingWheel } from "../nodes/timing-wheel.ts";
import type { Admission } from "./admission.ts";
import type { InitialSequence } from "./security/initial-sequence.ts";
import type { Tcb, TcpListener } from "./tcb.ts";

export interface RandomSource {
  /** An int32, every value alike. */
  word(): number;
}

/** Where descriptors of packets go; a ring's producer fits it. */
export interface PacketOutput {
  readonly words: Int32Array;
  /** The first word of a free descriptor; -1: there is none just now. */
  reserve(): number;
}

export interface TcpEvents {
  /** A handshake with a listener is complete. False: it is refused, and the peer gets a reset. */
  accepted(listener: TcpListener, tcb: Tcb): boolean;
  /** Likewise one of ours. */
  connected(tcb: Tcb): boolean;
  connectFailed(tcb: Tcb, code: ErrorCode, text: string): void;
  /** In-order payload in a frame, of which one count is handed over. */
  received(tcb: Tcb, frame: number, offset: number, length: number): void;
  /**
   * The peer sends nothing more; all it sent has been delivered. True: somebody is still busy with that, and `ended` is
   * not to be told before `end` has been called, even if our side has ended too.
   */
  peerEnded(tcb: Tcb): boolean;
  /** A container is acknowledged to its last byte; `taken` false: thrown away. */
  sent(tcb: Tcb, container: Container, taken: boolean): void;
  /** The connection is over: once, if `accepted` or `connected` said true. */
  ended(tcb: Tcb, code: CloseCode, error?: ErrorCode): void;
}

export interface TcpContext {
  readonly pool: FramePool;
  readonly nodes: NodeTable;
  readonly wheel: TimingWheel;
  readonly index: FlowIndex;
  readonly carrier: Carrier;
  readonly output: PacketOutput;
  readonly random: RandomSource;
  /** A simulation's own, so that sequence numbers wrap often. */
  readonly initialSequence?: InitialSequence;
  readonly steer: SteerHash;
  /** Our own addresses, and whole prefixes of our own. */
  readonly addresses: readonly IpPrefix[];
  readonly prefixes: readonly IpPrefix[];
  readonly mtu: number;
  readonly events: TcpEvents;
  readonly counters: Counters<WorkerCounter>;
  readonly admission: Admission;
  /** Opens a TCP port at layer 3 for this worker, once for every user of it. Throws `EADDRINUSE`. */
  usePort(port: number): void;
  leavePort(port: number): void;
}
