/**
 * A worker's end of a raw link: packets in, packets out, which ports are open, and where the worker sleeps.
 *
 * Layer 3. Shared memory between one worker and the native thread of each of the link's queues; it knows nothing of
 * connections. The words are mirrored in native/rawsock/napi/native_thread_napi.cc:
 *
 *   port, word 0          the worker's doorbell: rung (one added, and woken) by whoever has something for it asleep
 *   port, word 16         how to wake it: 0 it polls, no need to; 1 it sleeps, ring; 2 it does not poll, post a message
 *   port, word 32 + n     bit b: the worker has something at UDP port 32 n + b
 *   port, word 2080 + n   likewise TCP
 *   control, word 0       the doorbell of a queue's native thread (which may have an eventfd instead)
 *   owners, word s        who owns shard s: the worker's index + 1; 0 is nobody
 */

import { constants } from "node:os";
import { ApoError } from "../layer1-app/errors.ts";
import { loadNative } from "./native.ts";
import { createRing, RingConsumer, RingProducer } from "./ring.ts";
import { SteerHash, type SteerKey, shardOfHash } from "./steer.ts";

const doorbellWord = 0;
const stateWord = 16;
const stateOf = { polling: 0, asleep: 1, away: 2 } as const;
const portBitmapWords = 65_536 / 32;
const udpPortsWord = 32;
const tcpPortsWord = udpPortsWord + portBitmapWords;
const portWords = tcpPortsWord + portBitmapWords;
const tcpProtocol = 6;
const udpProtocol = 17;
const icmpProtocol = 1;

/** Shards of the steering hash. */
export const shardCount = 16;
/** Words of a queue's control. */
export const controlWords = 16;
/** Descriptors a ring to or from the native thread holds. */
export const packetRingCapacity = 8192;

/** What a worker shares with the native thread of one queue. Plain data: it crosses threads. */
export interface QueueMemory {
  readonly receive: SharedArrayBuffer;
  readonly transmit: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  /** The eventfd that wakes the native thread; -1: it sleeps on the control's doorbell. */
  readonly wakeFd: number;
}

/** What a worker must know of its link. Plain data: it crosses threads. */
export interface LinkDescription {
  /** The worker's index. */
  readonly worker: number;
  /** The link's number in this process, and its kind: "mem", "tun". */
  readonly link: number;
  readonly kind: string;
  readonly words: SharedArrayBuffer;
  readonly queues: readonly QueueMemory[];
  readonly owners: SharedArrayBuffer;
  /** Our own: `address/bits`. */
  readonly addresses: readonly string[];
  /** Whole prefixes of our own: `address/bits`. */
  readonly prefixes: readonly string[];
  readonly mtu: number;
  readonly steerKey: SteerKey;
}

export function createPacketPort(): SharedArrayBuffer {
  const words = new SharedArrayBuffer(4 * portWords);
  new Uint32Array(words)[stateWord] = stateOf.away;
  return words;
}

/** Whether whoever has these port words has something at a UDP port. */
export function isUdpPortOpen(words: Uint32Array, port: number): boolean {
  return (((words[udpPortsWord + (port >>> 5)] as number) >>> (port & 31)) & 1) !== 0;
}

export function markUdpPort(words: Uint32Array, port: number): void {
  Atomics.or(words, udpPortsWord + (port >>> 5), 1 << (port & 31));
}

export function createQueueMemory(control: SharedArrayBuffer, wakeFd: number): QueueMemory {
  const receive = createRing(packetRingCapacity);
  const transmit = createRing(packetRingCapacity);
  return { receive, transmit, control, wakeFd };
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
  /** What each queue's native thread has received. */
  readonly received: readonly RingConsumer[];
  /** Where this worker sends: to one queue, so that its packets stay in order. */
  readonly toSend: RingProducer;
  readonly steer: SteerHash;
  private readonly worker: number;
  private readonly link: number;
  private readonly words: Uint32Array;
  private readonly owners: Uint32Array;
  private readonly control: Uint32Array;
  private readonly wakeFd: number;
  private readonly native = loadNative();

  constructor(link: LinkDescription) {
    const out = link.queues[link.worker % link.queues.length] as QueueMemory;
    this.received = link.queues.map((queue) => new RingConsumer(queue.receive));
    this.toSend = new RingProducer(out.transmit);
    this.words = new Uint32Array(link.words);
    this.owners = new Uint32Array(link.owners);
    this.control = new Uint32Array(out.control);
    this.wakeFd = out.wakeFd;
    this.steer = new SteerHash(link.steerKey);
    this.worker = link.worker;
    this.link = link.link;
  }

  /** Says that the worker looks at its rings by itself from here on. */
  startPolling(): void {
    Atomics.store(this.words, stateWord, stateOf.polling);
  }

  stopPolling(): void {
    Atomics.store(this.words, stateWord, stateOf.away);
  }

  /**
   * From here on datagrams to the port come to this worker; before, their senders are told "unreachable". Throws
   * `EADDRINUSE` when the kernel, whose address the link shares, has given the port to somebody else.
   */
  openUdpPort(port: number): void {
    this.openPort(udpProtocol, udpPortsWord, port);
  }

  closeUdpPort(port: number): void {
    this.closePort(udpProtocol, udpPortsWord, port);
  }

  /** Likewise for TCP segments; before, their senders get a reset. */
  openTcpPort(port: number): void {
    this.openPort(tcpProtocol, tcpPortsWord, port);
  }

  closeTcpPort(port: number): void {
    this.closePort(tcpProtocol, tcpPortsWord, port);
  }

  /** Likewise for replies to echo requests with this identifier; a link of our own address has them anyway. */
  openEcho(identifier: number): void {
    const errno = this.native.openPort(this.link, icmpProtocol, identifier);
    if (errno !== 0) throw new ApoError("EIO", `the link could not open an echo identifier (errno ${errno})`);
  }

  closeEcho(identifier: number): void {
    this.native.closePort(this.link, icmpProtocol, identifier);
  }

  /**
   * Datagrams to a multicast group come in from here on, to workers that have their port open, and the network is told;
   * as often as it is joined, it is to be left. `records`: see `groupRecords`. Throws `ENOBUFS`, `EIO`.
   */
  joinGroup(records: Uint8Array): void {
    const errno = this.native.joinGroup(this.link, records);
    if (errno === constants.errno.ENOBUFS) {
      throw new ApoError(
        "ENOBUFS",
        "the link has joined as many multicast groups, or sources of one, as it can",
      );
    }
    if (errno !== 0) throw new ApoError("EIO", `the link could not join a multicast group (errno ${errno})`);
    this.ring();
  }

  leaveGroup(records: Uint8Array): void {
    this.native.leaveGroup(this.link, records);
    this.ring();
  }

  /** Whether packets of a flow with this hash come to this worker. */
  owns(hash: number): boolean {
    return Atomics.load(this.owners, shardOfHash(hash)) === this.worker + 1;
  }

  /** Hands everything reserved in `toSend` to the native thread. */
  flush(): void {
    if (this.toSend.publish()) this.ring();
  }

  /** Wakes the native thread. */
  private ring(): void {
    Atomics.add(this.control, doorbellWord, 1);
    if (this.wakeFd >= 0) this.native.ringEvent(this.wakeFd);
    else this.native.futexWake(this.control, doorbellWord, 1);
  }

  /** Sleeps until something comes, at most `timeoutMicroseconds`. True: it slept that long and nothing came. */
  sleep(timeoutMicroseconds: number, lookAgain: LookAgain): boolean {
    const seen = Atomics.load(this.words, doorbellWord);
    Atomics.store(this.words, stateWord, stateOf.asleep);
    let timedOut = false;
    let idle = true;
    for (const ring of this.received) if (!ring.sleep()) idle = false;
    if (idle && !lookAgain()) {
      timedOut = this.native.futexWait(this.words, doorbellWord, seen, timeoutMicroseconds) === 2;
    }
    for (const ring of this.received) ring.wake();
    Atomics.store(this.words, stateWord, stateOf.polling);
    return timedOut;
  }

  private openPort(protocol: number, firstWord: number, port: number): void {
    const errno = this.native.openPort(this.link, protocol, port);
    if (errno === constants.errno.EADDRINUSE || errno === constants.errno.EACCES) {
      const name = protocol === tcpProtocol ? "tcp" : "udp";
      const why = errno === constants.errno.EACCES ? "is refused by the kernel" : "is taken in the kernel";
      throw new ApoError("EADDRINUSE", `${name} port ${port} ${why}, whose address this link shares`);
    }
    if (errno !== 0) throw new ApoError("EIO", `the link could not open port ${port} (errno ${errno})`);
    Atomics.or(this.words, firstWord + (port >>> 5), 1 << (port & 31));
  }

  private closePort(protocol: number, firstWord: number, port: number): void {
    Atomics.and(this.words, firstWord + (port >>> 5), ~(1 << (port & 31)));
    this.native.closePort(this.link, protocol, port);
  }
}
