/**
 * The typed mirror of the native addon, and the only file that loads it.
 *
 * Layer 3. A class or function here has exactly the shape that `native/rawsock/napi/*_napi.cc` exports; words for
 * people (options, errors) belong to the files that use it. Loading is lazy: the `host` link alone needs no addon.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { ApoError } from "../layer1-app/errors.ts";

/** `[id, seq (-1: none yet), rtpTime, ssrc]` */
export type NativeStartPosition = [number, number, number, number];

/** The fan-out engine; see `napi/fanout_napi.cc`. Arguments are checked; a wrong one throws a TypeError. */
export declare class NativeFanout {
  constructor(
    holdNs: number,
    receiveBuffer: number,
    sendBuffer: number,
    gso: boolean,
    helpers: number,
    onEvents: () => void,
    /** Of an engine on a raw link: see `RawEngine.arguments`. */
    ...raw: readonly (Uint32Array | Uint8Array | number)[]
  );
  /** What a raw link's threads ring; -1: the engine has been closed. */
  readonly wakeFd: number;
  /** `""` binds every address of both families. `[id, port]`, or an errno. */
  openSocket(address: string, port: number): [number, number] | number;
  closeSocket(socket: number): void;
  /** 0: the table is full. */
  openTrack(
    payloadType: number,
    keyFrames: number,
    clockRate: number,
    cacheBytes: number,
    leader: number,
  ): number;
  closeTrack(track: number): void;
  addSource(track: number, socket: number, address: string, port: number): boolean;
  removeSource(track: number, socket: number, address: string, port: number): boolean;
  push(track: number, bytes: Uint8Array, offsets: Uint32Array, count: number): boolean;
  /** An errno when it could not be made. */
  addReceiver(
    track: number,
    socket: number,
    reportSocket: number,
    address: string,
    port: number,
    reportPort: number,
    fromKey: boolean,
  ): NativeStartPosition | number;
  startReceiver(receiver: number): void;
  moveReceiver(receiver: number, address: string, port: number, reportPort: number): boolean;
  removeReceiver(receiver: number): void;
  tap(track: number, on: boolean): void;
  cached(track: number): NativeStartPosition | undefined;
  send(socket: number, address: string, port: number, bytes: Uint8Array): boolean;
  sendReport(
    track: number,
    ntpSeconds: number,
    ntpFraction: number,
    rtpTime: number,
    cname: string,
    bye: boolean,
    receiver: number,
  ): void;
  /** Fills 15 numbers; false: no such track. */
  trackStatus(track: number, out: Float64Array): boolean;
  /** `[packets, octets, dropped, state]` */
  receiverStatus(receiver: number): [number, number, number, number] | undefined;
  counters(): Record<string, number>;
  takeEvents(words: Uint32Array, bytes: Uint8Array, offsets: Uint32Array): number;
  close(): void;
}

/** The wire of the `mem` link; see `native/rawsock/napi/wire_napi.cc`. */
export declare class NativeWire {
  /** `(mtu, inboxBytes, impairment)` makes a wire, `(id)` finds one of this process. Throws when there is none. */
  constructor(mtuOrId: number, inboxBytes?: number, impairment?: Float64Array);
  readonly id: number;
  readonly mtu: number;
  readonly endpoints: number;
  /** As `settingsToNumbers` has them. */
  readonly impairment: Float64Array;
  impair(impairment: Float64Array): void;
  /** Address records. The mirror's number, or -errno. */
  addMirror(addresses: Uint8Array): number;
  removeMirror(number: number): void;
  /** `to`: an address record. The name of the counter that says what became of the packet. */
  inject(to: Uint8Array, packet: Uint8Array): string;
}

/** What a `NativeLink` throws: the step that failed and the kernel's word for it. */
export interface NativeLinkFailure extends Error {
  readonly errno: number;
  readonly step: string;
}

/** An open link: a queue or several, each for one native thread. See `native/rawsock/napi/native_link_napi.cc`. */
export declare class NativeLink {
  /** Addresses and routes: packed records, see `ip-prefix.ts`. Throws a `NativeLinkFailure`. */
  constructor(
    kind: string,
    settings: Readonly<Record<string, number | boolean | string>>,
    addresses: Uint8Array,
    routes: Uint8Array,
  );
  /** Names it to `openPort` and `closePort`, in every thread of the process. */
  readonly id: number;
  readonly queues: number;
  readonly mtu: number;
  /** The interface's name; "" where there is none. */
  readonly device: string;
  /** The records of the addresses that are its own. */
  readonly addresses: Uint8Array;
  /** Its threads are to be closed first. */
  close(): void;
}

/** The native thread of one queue of a link. All arrays over shared memory. */
export declare class NativeLinkThread {
  constructor(
    link: NativeLink,
    queue: number,
    keyLow: number,
    keyHigh: number,
    pool: Uint32Array,
    partition: number,
    control: Uint32Array,
    owners: Uint32Array,
    counters: BigUint64Array,
    guard?: NativeGuard,
    capture?: NativeCapture,
  );
  /** After `start`: the eventfd that wakes the thread; -1 when it sleeps on its control's doorbell word. */
  readonly wakeFd: number;
  /** 0, or an errno. */
  start(): number;
  attachWorker(
    index: number,
    receive: Uint32Array,
    transmit: Uint32Array,
    port: Uint32Array,
    /** What wakes it; without one its doorbell. */
    eventFd?: number,
  ): boolean;
  detachWorker(index: number): boolean;
  close(): void;
}

/** One offender, as the native side tells it; `firstMs` and `lastMs` are milliseconds ago. */
export interface NativeOffender {
  readonly version: 4 | 6;
  readonly address: Uint8Array;
  readonly distance: number;
  /** A counter's name: "rx.dropped.tcpNull". */
  readonly reason: string;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
  readonly bytes: Uint8Array;
}

/** The guard of a runtime's native threads; see `native/rawsock/napi/guard_napi.cc`. Lists: 1 blocked, 2 allowed. */
export declare class NativeGuard {
  /** At most 65,536 address records. `[gone through, changed, why it ended]`: 0 at the end, 2 full, 3 no memory. */
  change(add: boolean, list: number, records: Uint8Array): [number, number, number];
  /** The bits of the lists that decide on an address; 0: on none. */
  listing(record: Uint8Array): number;
  /** `[blocked, allowed, bytes]` */
  entries(): [number, number, number];
  /** 0 packets/s: no limit. False: out of range. */
  setLimit(packetsPerSecond: number, burst: number, prefixBits4: number, prefixBits6: number): boolean;
  /** The latest first. */
  offenders(): NativeOffender[];
}

/** A capture file; see `native/rawsock/napi/capture_napi.cc`. Throws an Error with `errno` when it cannot be made. */
export declare class NativeCapture {
  constructor(path: string, snapBytes: number);
  /** `[packets, bytes, missed, errno]` */
  status(): [number, number, number, number];
  /** Writes what is left. 0, or the errno that had ended the capture before. Idempotent. */
  close(): number;
}

/** The impairment of the `mem` wire, for its comparison with `impairment.ts`. Settings: `settingsToNumbers`. */
export declare class NativeImpairment {
  constructor(settings: Float64Array, from: number, to: number);
  /** Five numbers a packet: fate, bit to flip (-1: none), at, copy at (-1: never), reordered (0, 1). */
  decide(timesUs: Float64Array, lengths: Uint32Array, answers: Float64Array): void;
  change(settings: Float64Array): void;
}

/** For `npm run bench -- l3` alone; see `native/rawsock/napi/bench_napi.cc`. */
export declare class NativeBenchThread {
  /** `bells`: word 0 is the native thread's, word 16 the worker's; 32 words. All over shared memory. */
  constructor(ring: Uint32Array, bells: Uint32Array, pool: Uint32Array, partition: number);
  /** `job`: 0 fills the ring, 1 empties it, 2 answers each ring of its bell. 0, or an errno. */
  start(job: number, count: number, batch: number): number;
  /** Waits until the job is done; how many it did. */
  join(): number;
  close(): void;
}

/** 0, or the errno of each thing tried (`native/rawsock/util/link_probe.h`); `tunFlags` are TUNGETFEATURES'. */
export interface NativeLinkProbe {
  readonly tunOpen: number;
  readonly tunFeatures: number;
  readonly packetSocket: number;
  readonly xdpSocket: number;
  readonly bpfMap: number;
  readonly xdpProgram: number;
  readonly tunFlags: number;
}

/** Fragments put together, for the comparison with a slow twin; see `native/rawsock/napi/ip_napi.cc`. */
export declare class NativeReassembler {
  constructor(
    keyLow: number,
    keyHigh: number,
    datagrams: number,
    datagramsPerSource: number,
    fragmentsPerDatagram: number,
  );
  /** The datagram; or "waiting", "not a fragment", or the counter under which fragments were dropped. */
  add(packet: Uint8Array, nowUs: number): Buffer | string;
  /** The first fragment (maybe empty) of a datagram whose time is over; undefined: there is none. */
  expire(nowUs: number): Buffer | undefined;
  /** `[fragments, datagrams, bytes, deadlineUs (Infinity: none)]` */
  waiting(): [number, number, number, number];
  counters(): Record<string, number>;
}

/** The pure parts of the IP layer, for tests alone. */
export interface NativeIp {
  /** The checksum of `bytes`, summed in two parts: before and after the even offset `cut`. */
  readonly checksum: (bytes: Uint8Array, cut: number) => number;
  readonly updateChecksum: (field: number, from: number, to: number) => number;
  /** In place; false: not a packet that has one. */
  readonly completeChecksum: (packet: Uint8Array) => boolean;
  readonly fragment: (packet: Uint8Array, mtu: number, identification: number) => Buffer[] | undefined;
  /** `gsoKind`: 1 UDP, 2 TCP over IPv4, 3 TCP over IPv6. */
  readonly segment: (packet: Uint8Array, gsoKind: number, gsoBytes: number) => Buffer[] | undefined;
  readonly Reassembler: typeof NativeReassembler;
}

/** Everything the addon exports. */
export interface NativeModule {
  readonly NativeBenchThread: typeof NativeBenchThread;
  /** For the same bench: the checksum of `times` passes over the bytes. */
  readonly benchChecksum: (bytes: Uint8Array, times: number) => number;
  readonly NativeCapture: typeof NativeCapture;
  readonly NativeFanout: typeof NativeFanout;
  readonly NativeGuard: typeof NativeGuard;
  readonly NativeImpairment: typeof NativeImpairment;
  readonly NativeWire: typeof NativeWire;
  readonly NativeLink: typeof NativeLink;
  readonly NativeLinkThread: typeof NativeLinkThread;
  readonly ip: NativeIp;
  /** Packets to the port (protocol 6 or 17) are ours from here on: 0, or an errno. From any thread. */
  readonly openPort: (linkId: number, protocol: number, port: number) => number;
  readonly closePort: (linkId: number, protocol: number, port: number) => void;
  /** Address records: a multicast group, and its one source or none. 0, or an errno; wake the native thread. */
  readonly joinGroup: (linkId: number, records: Uint8Array) => number;
  readonly leaveGroup: (linkId: number, records: Uint8Array) => void;
  /** Wakes the native thread that has this `wakeFd`. */
  readonly ringEvent: (wakeFd: number) => void;
  /** Sleeps while `words[index] === expected`: 0 woken, 1 it had another value, 2 timed out. At most 10 s. */
  readonly futexWait: (
    words: Uint32Array,
    index: number,
    expected: number,
    timeoutMicroseconds: number,
  ) => number;
  /** How many sleepers were woken. */
  readonly futexWake: (words: Uint32Array, index: number, count: number) => number;
  /** Advises the kernel of huge pages for `count` words from `first` on: 0, or an errno. */
  readonly preferHugePages: (words: Uint32Array, first: number, count: number) => number;
  readonly linkCounterNames: () => string[];
  /** What this process may do of what the links need. */
  readonly probeLinks: () => NativeLinkProbe;
  /** Bytes that the socket took at once (0: its buffer is full), or -errno. */
  readonly writeNow: (fd: number, bytes: Uint8Array) => number;
}

let loaded: NativeModule | undefined;

/** Loads the addon, once a thread. Throws `ENATIVE` with what to do when it has not been built. */
export function loadNative(): NativeModule {
  if (loaded) return loaded;
  const root = new URL("../../", import.meta.url);
  const variant = process.env.APO_NATIVE_BUILD ?? "Release";
  const path = fileURLToPath(new URL(`native/rawsock/build/${variant}/rawsock.node`, root));
  if (!existsSync(path)) {
    throw new ApoError(
      "ENATIVE",
      `the native addon is not built (${path} is missing): run \`npm run build:native\`; it needs a C++ compiler ` +
        "(Debian, Ubuntu: apt install g++ make python3)",
    );
  }
  try {
    loaded = createRequire(import.meta.url)(path) as NativeModule;
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new ApoError(
      "ENATIVE",
      `the native addon could not be loaded: ${text}; \`npm run build:native\` makes it anew`,
      {
        cause,
      },
    );
  }
  return loaded;
}
