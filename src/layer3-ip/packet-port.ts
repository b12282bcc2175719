/**
 * A worker's end of a raw link: packets in, packets out, which UDP ports are open, and where the worker sleeps.
 *
 * Layer 3. Shared memory between one worker and the native thread; it knows nothing of connections. The port words
 * are mirrored in native/rawsock/napi/native_thread_napi.cc:
 *
 *   word 0        the worker's doorbell: rung (one added, and woken) by whoever has something for a sleeping worker
 *   word 16       how to wake the worker: 0 it polls, no need to; 1 it sleeps, ring; 2 it does not poll, post a message
 *   word 32 + n   bit b: the worker has something at UDP port 32 n + b
 */

import { loadNative } from "./native.ts";
import { createRing, RingConsumer, RingProducer } from "./ring.ts";
import { SteerHash, type SteerKey, shardOfHash } from "./steer.ts";

const doorbellWord = 0;
const stateWord = 16;
const stateOf = { polling: 0, asleep: 1, away: 2 } as const;
const shardsWord = 16; // of the control words
const portsWord = 32;
const portWords = portsWord + 65_536 / 32;

/** Descriptors a ring to or from the native thread holds. */
const packetRingCapacity = 4096;

/** The memory that one worker shares with the native thread. Plain data: it crosses threads. */
export interface PacketPortMemory {
  readonly receive: SharedArrayBuffer;
  readonly transmit: SharedArrayBuffer;
  readonly words: SharedArrayBuffer;
}

/** What a worker must know of its link. Plain data: it crosses threads. */
export interface LinkDescription {
  /** The worker's index. */
  readonly worker: number;
  readonly port: PacketPortMemory;
  /** Word 0: the native thread's doorbell; words 16 to 31: who owns each shard (worker index + 1). */
  readonly control: SharedArrayBuffer;
  /** As the user wrote them: `address/bits`. */
  readonly addresses: readonly string[];
  readonly mtu: number;
  readonly steerKey: SteerKey;
}

export function createPacketPort(): PacketPortMemory {
  const words = new SharedArrayBuffer(4 * portWords);
  new Uint32Array(words)[stateWord] = stateOf.away;
  return { receive: createRing(packetRingCapacity), transmit: createRing(packetRingCapacity), words };
}

/**
 * Wakes a worker for whoever has put something into another ring of it, or has posted it a message. `words` are the
 * port's. False: it does not poll (not yet, or no more), and only a message to one of its ports reaches it.
 */
export function wakeWorker(words: Uint32Array): boolean {
  const state = Atomics.load(words, stateWord);
  if (state === stateOf.asleep) {
    Atomics.add(words, doorbellWord, 1);
    loadNative().futexWake(words, doorbellWord, 1);
  }
  return state !== stateOf.away;
}

/** What the worker looks at, between saying that it will sleep and sleeping. True: there is work, do not sleep. */
export type LookAgain = () => boolean;

export class PacketPort {
  readonly received: RingConsumer;
  readonly toSend: RingProducer;
  readonly steer: SteerHash;
  private readonly worker: number;
  private readonly words: Uint32Array;
  private readonly control: Uint32Array;
  private readonly native = loadNative();

  constructor(link: LinkDescription) {
    this.received = new RingConsumer(link.port.receive);
    this.toSend = new RingProducer(link.port.transmit);
    this.words = new Uint32Array(link.port.words);
    this.control = new Uint32Array(link.control);
    this.steer = new SteerHash(link.steerKey);
    this.worker = link.worker;
  }

  /** Says that the worker looks at its rings by itself from here on. */
  startPolling(): void {
    Atomics.store(this.words, stateWord, stateOf.polling);
  }

  stopPolling(): void {
    Atomics.store(this.words, stateWord, stateOf.away);
  }

  /** From here on datagrams to the port come to this worker; before, their senders are told "unreachable". */
  openUdpPort(port: number): void {
    Atomics.or(this.words, portsWord + (port >>> 5), 1 << (port & 31));
  }

  closeUdpPort(port: number): void {
    Atomics.and(this.words, portsWord + (port >>> 5), ~(1 << (port & 31)));
  }

  /** Whether packets of a flow with this hash come to this worker. */
  owns(hash: number): boolean {
    return Atomics.load(this.control, shardsWord + shardOfHash(hash)) === this.worker + 1;
  }

  /** Hands everything reserved in `toSend` to the native thread. */
  flush(): void {
    if (!this.toSend.publish()) return;
    Atomics.add(this.control, doorbellWord, 1);
    this.native.futexWake(this.control, doorbellWord, 1);
  }

  /** Sleeps until something comes, at most `timeoutMicroseconds`. True: it slept that long and nothing came. */
  sleep(timeoutMicroseconds: number, lookAgain: LookAgain): boolean {
    const seen = Atomics.load(this.words, doorbellWord);
    Atomics.store(this.words, stateWord, stateOf.asleep);
    let timedOut = false;
    if (this.received.sleep() && !lookAgain()) {
      timedOut = this.native.futexWait(this.words, doorbellWord, seen, timeoutMicroseconds) === 2;
    }
    this.received.wake();
    Atomics.store(this.words, stateWord, stateOf.polling);
    return timedOut;
  }
}
