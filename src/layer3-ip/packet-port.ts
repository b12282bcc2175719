/**
 * A worker's end of a raw link: packets in, packets out, which UDP ports are open, and where the worker sleeps.
 *
 * Layer 3. Shared memory between one worker and the native thread; it knows nothing of connections. The port words
 * are mirrored in native/rawsock/native_thread_napi.cc:
 *
 *   word 0        the worker's doorbell: rung (one added, and woken) by whoever has something for a sleeping worker
 *   word 16       1 while the worker sleeps or is about to: producers that are no rings' ends look here
 *   word 32 + n   bit b: the worker has something at UDP port 32 n + b
 */

import { loadNative } from "./native.ts";
import { createRing, RingConsumer, RingProducer } from "./ring.ts";
import type { SteerKey } from "./steer.ts";

const doorbellWord = 0;
const asleepWord = 16;
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
  readonly port: PacketPortMemory;
  /** Word 0: the native thread's doorbell; words 16 to 31: who owns each shard (worker index + 1). */
  readonly control: SharedArrayBuffer;
  /** As the user wrote them: `address/bits`. */
  readonly addresses: readonly string[];
  readonly mtu: number;
  readonly steerKey: SteerKey;
}

export function createPacketPort(): PacketPortMemory {
  return {
    receive: createRing(packetRingCapacity),
    transmit: createRing(packetRingCapacity),
    words: new SharedArrayBuffer(4 * portWords),
  };
}

/** Rings a worker's doorbell if it sleeps: for whoever has put something into another ring of that worker. */
export function wakeWorker(words: Uint32Array): void {
  if (Atomics.load(words, asleepWord) === 0) return;
  Atomics.add(words, doorbellWord, 1);
  loadNative().futexWake(words, doorbellWord, 1);
}

/** What the worker looks at, between saying that it will sleep and sleeping. True: there is work, do not sleep. */
export type LookAgain = () => boolean;

export class PacketPort {
  readonly received: RingConsumer;
  readonly toSend: RingProducer;
  private readonly words: Uint32Array;
  private readonly control: Uint32Array;
  private readonly native = loadNative();

  constructor(link: LinkDescription) {
    this.received = new RingConsumer(link.port.receive);
    this.toSend = new RingProducer(link.port.transmit);
    this.words = new Uint32Array(link.port.words);
    this.control = new Uint32Array(link.control);
    this.words.fill(0, portsWord);
  }

  /** From here on datagrams to the port come to this worker; before, their senders are told "unreachable". */
  openUdpPort(port: number): void {
    Atomics.or(this.words, portsWord + (port >>> 5), 1 << (port & 31));
  }

  closeUdpPort(port: number): void {
    Atomics.and(this.words, portsWord + (port >>> 5), ~(1 << (port & 31)));
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
    Atomics.store(this.words, asleepWord, 1);
    let timedOut = false;
    if (this.received.sleep() && !lookAgain()) {
      timedOut = this.native.futexWait(this.words, doorbellWord, seen, timeoutMicroseconds) === 2;
    }
    this.received.wake();
    Atomics.store(this.words, asleepWord, 0);
    return timedOut;
  }
}
