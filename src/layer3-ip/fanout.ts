/**
 * The fan-out engine's typed face: validates, names errors, and turns the native thread's event words into calls.
 *
 * Layer 3. The words are in `fanout-types.ts`; packets are the native thread's business (`native/rawsock/fanout`).
 */

import { availableParallelism } from "node:os";
import { getSystemErrorName } from "node:util";
import { ApoError, type ErrorCode, errorCodes } from "../layer1-app/errors.ts";
import type {
  Fanout,
  FanoutEvents,
  FanoutOptions,
  FanoutSocket,
  KeyFrames,
  ReceiverOptions,
  ReceiverStatus,
  StartPosition,
  TrackOptions,
  TrackStatus,
} from "./fanout-types.ts";
import { loadNative, type NativeFanout, type NativeStartPosition } from "./native.ts";
import type { RawEngine } from "./raw-engine.ts";

const keyFrameCodes: Record<KeyFrames, number> = {
  none: 0,
  any: 1,
  h264: 2,
  h265: 3,
  vp8: 4,
  vp9: 5,
  av1: 6,
};

// Mirrors take_events in fanout_napi.cc: words of an event, and how many a call may return.
const eventWords = 12;
const eventsATake = 256;
const eventBytes = 1 << 20;
const kindDatagram = 1;
const kindFrames = 2;

const receiverStates = { prepared: 0, waiting: 1, catchingUp: 2, live: 3 } as const;

/** Starts an engine with a native thread of its own; `raw`: on a raw link. Errors: `ENATIVE`, `EINVAL`. */
export async function createFanout(options: FanoutOptions = {}, raw?: RawEngine): Promise<Fanout> {
  return new FanoutEngine(options, raw);
}

function positiveInteger(value: number, name: string, most: number): number {
  if (Number.isInteger(value) && value > 0 && value <= most) return value;
  throw new ApoError("EINVAL", `fanout: ${name} must be a whole number from 1 to ${most}, not ${value}`);
}

function portNumber(value: number, name: string): number {
  if (Number.isInteger(value) && value >= 0 && value <= 65_535) return value;
  throw new ApoError("EINVAL", `fanout: ${name} must be a port (0 to 65535), not ${value}`);
}

function errorOf(errno: number, text: string): ApoError {
  const name = getSystemErrorName(-errno);
  const code: ErrorCode = name in errorCodes ? (name as ErrorCode) : "EIO";
  return new ApoError(code, `${text}: ${name}`);
}

class FanoutEngine implements Fanout {
  events: FanoutEvents = {};
  readonly #native: NativeFanout;
  readonly #words = new Uint32Array(eventWords * eventsATake);
  readonly #bytes = Buffer.alloc(eventBytes + 64 * eventsATake);
  readonly #offsets = new Uint32Array(eventBytes / 16);
  readonly #status = new Float64Array(15);
  readonly #raw: RawEngine | undefined;
  /** On a raw link: the ports of the sockets. */
  readonly #rawPorts = new Map<number, number>();
  #closed = false;

  constructor(options: FanoutOptions, raw: RawEngine | undefined) {
    this.#raw = raw;
    const { NativeFanout } = loadNative();
    const holdMs = options.holdMs ?? 5;
    if (!(holdMs >= 0 && holdMs <= 1000)) {
      throw new ApoError("EINVAL", `fanout: holdMs must be from 0 to 1000 milliseconds, not ${holdMs}`);
    }
    const most = 1 << 30;
    const receiveBuffer = positiveInteger(options.receiveBuffer ?? 8 << 20, "receiveBuffer", most);
    const sendBuffer = positiveInteger(options.sendBuffer ?? 8 << 20, "sendBuffer", most);
    const gso = options.gso ?? true;
    const helpers = options.helpers ?? Math.min(3, availableParallelism() - 1);
    if (!Number.isInteger(helpers) || helpers < 0 || helpers > 16) {
      throw new ApoError("EINVAL", `fanout: helpers must be a whole number from 0 to 16, not ${helpers}`);
    }
    this.#native = new NativeFanout(
      holdMs * 1e6,
      receiveBuffer,
      sendBuffer,
      gso,
      helpers,
      () => this.#takeEvents(),
      ...(raw?.arguments ?? []),
    );
    raw?.attach(this.#native.wakeFd);
  }

  async openSocket(options: { address?: string; port: number }): Promise<FanoutSocket> {
    this.#open();
    const address = options.address ?? "";
    const port = portNumber(options.port, "port");
    if (this.#raw) return this.#openRaw(this.#raw, address, port);
    const every = address === "" || address === "::" || address === "0.0.0.0";
    const opened = this.#native.openSocket(every ? "" : address, port);
    if (typeof opened === "number") {
      const where = `${every ? "every address" : address}, UDP port ${port}`;
      const hint =
        getSystemErrorName(-opened) === "EADDRINUSE" ? " (another program has it; choose another port)" : "";
      throw errorOf(opened, `fanout: cannot open ${where}${hint}`);
    }
    return { id: opened[0], address, port: opened[1] };
  }

  closeSocket(socket: number): void {
    if (this.#closed) return;
    this.#native.closeSocket(socket);
    const port = this.#rawPorts.get(socket);
    if (port === undefined) return;
    this.#rawPorts.delete(socket);
    this.#raw?.closePort(port);
  }

  /** All addresses of the link have the port. */
  #openRaw(raw: RawEngine, address: string, wanted: number): FanoutSocket {
    const port = raw.openPort(wanted);
    const opened = this.#native.openSocket("", port);
    if (typeof opened === "number") {
      raw.closePort(port);
      throw errorOf(opened, `fanout: cannot open UDP port ${port} of the link`);
    }
    this.#rawPorts.set(opened[0], port);
    return { id: opened[0], address, port };
  }

  openTrack(options: TrackOptions): number {
    this.#open();
    const keyFrames = keyFrameCodes[options.keyFrames];
    if (keyFrames === undefined) {
      const known = Object.keys(keyFrameCodes).join(", ");
      throw new ApoError("EINVAL", `fanout: keyFrames must be one of ${known}, not ${options.keyFrames}`);
    }
    if (!Number.isInteger(options.payloadType) || options.payloadType < 0 || options.payloadType > 127) {
      throw new ApoError("EINVAL", `fanout: payloadType must be from 0 to 127, not ${options.payloadType}`);
    }
    const clockRate = positiveInteger(options.clockRate, "clockRate", 2 ** 31);
    const cacheBytes = positiveInteger(options.cacheBytes ?? 16 << 20, "cacheBytes", 1 << 30);
    const leader = options.leader ?? 0;
    const track = this.#native.openTrack(options.payloadType, keyFrames, clockRate, cacheBytes, leader);
    if (track === 0) throw new ApoError("ENFILE", "fanout: no more tracks (4,096 are open)");
    return track;
  }

  closeTrack(track: number): void {
    if (!this.#closed) this.#native.closeTrack(track);
  }

  addSource(track: number, socket: number, address: string, port: number): void {
    this.#open();
    if (!this.#native.addSource(track, socket, address, portNumber(port, "port")))
      throw notAnAddress(address);
  }

  removeSource(track: number, socket: number, address: string, port: number): void {
    if (!this.#closed) this.#native.removeSource(track, socket, address, port);
  }

  push(track: number, bytes: Uint8Array, offsets: Uint32Array, count: number): void {
    this.#open();
    if (this.#native.push(track, bytes, offsets, count)) return;
    throw new ApoError("EINVAL", "fanout: a packet's offset and length lie outside the bytes");
  }

  addReceiver(track: number, options: ReceiverOptions): StartPosition {
    this.#open();
    const made = this.#native.addReceiver(
      track,
      options.socket,
      options.reportSocket,
      options.address,
      portNumber(options.port, "port"),
      portNumber(options.reportPort, "reportPort"),
      options.start === "key",
    );
    if (typeof made !== "number") return startPosition(made);
    if (getSystemErrorName(-made) === "EINVAL") throw notAnAddress(options.address);
    throw new ApoError("ENFILE", `fanout: track ${track} is closed, or the table of receivers is full`);
  }

  startReceiver(receiver: number): void {
    if (!this.#closed) this.#native.startReceiver(receiver);
  }

  moveReceiver(receiver: number, address: string, port: number, reportPort: number): void {
    this.#open();
    if (
      !this.#native.moveReceiver(
        receiver,
        address,
        portNumber(port, "port"),
        portNumber(reportPort, "reportPort"),
      )
    ) {
      throw notAnAddress(address);
    }
  }

  removeReceiver(receiver: number): void {
    if (!this.#closed) this.#native.removeReceiver(receiver);
  }

  tap(track: number, on: boolean): void {
    if (!this.#closed) this.#native.tap(track, on);
  }

  cached(track: number): StartPosition & { readonly ticket: number } {
    this.#open();
    const position = this.#native.cached(track);
    if (!position) throw new ApoError("ECLOSED", `fanout: track ${track} is closed`);
    return { ...startPosition(position), receiver: 0, ticket: position[0] };
  }

  send(socket: number, address: string, port: number, bytes: Uint8Array): void {
    this.#open();
    if (!this.#native.send(socket, address, portNumber(port, "port"), bytes)) throw notAnAddress(address);
  }

  sendReport(
    track: number,
    report: { ntpSeconds: number; ntpFraction: number; rtpTime: number; cname: string; bye?: boolean },
    receiver = 0,
  ): void {
    if (this.#closed) return;
    const { ntpSeconds, ntpFraction, rtpTime, cname, bye = false } = report;
    this.#native.sendReport(track, ntpSeconds >>> 0, ntpFraction >>> 0, rtpTime >>> 0, cname, bye, receiver);
  }

  trackStatus(track: number): TrackStatus {
    this.#open();
    const s = this.#status;
    if (!this.#native.trackStatus(track, s))
      throw new ApoError("ECLOSED", `fanout: track ${track} is closed`);
    return {
      packets: s[0] as number,
      bytes: s[1] as number,
      ssrc: s[2] as number,
      lastSeq: s[3] as number,
      lastRtpTime: s[4] as number,
      lastArrivalMs: s[5] as number,
      lost: s[6] as number,
      jitter: s[7] as number,
      receivers: s[8] as number,
      cachedPackets: s[9] as number,
      cachedBytes: s[10] as number,
      extendedSeq: s[11] as number,
      baseSeq: s[12] as number,
    };
  }

  receiverStatus(receiver: number): ReceiverStatus | undefined {
    if (this.#closed) return undefined;
    const status = this.#native.receiverStatus(receiver);
    if (!status) return undefined;
    const [packets, octets, dropped, state] = status;
    const started = state !== receiverStates.prepared;
    return { packets, octets, dropped, started, caughtUp: state === receiverStates.live };
  }

  counters(): Record<string, number> {
    return this.#closed ? {} : this.#native.counters();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close();
    for (const port of this.#rawPorts.values()) this.#raw?.closePort(port);
    this.#rawPorts.clear();
    this.#raw?.detach();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #open(): void {
    if (this.#closed) throw new ApoError("ECLOSED", "fanout: the engine has been closed");
  }

  #takeEvents(): void {
    while (!this.#closed) {
      const count = this.#native.takeEvents(this.#words, this.#bytes, this.#offsets);
      if (count === 0) return;
      for (let i = 0; i < count && !this.#closed; i++) this.#dispatch(i * eventWords);
    }
  }

  #dispatch(at: number): void {
    const words = this.#words;
    const word = (index: number): number => words[at + index] as number;
    const start = word(3);
    const bytes = this.#bytes.subarray(start, start + word(4));
    if (word(0) === kindDatagram) {
      const address = this.#bytes.toString("latin1", word(5), word(5) + word(6));
      this.events.datagram?.({ socket: word(1), address, port: word(2), bytes: new Uint8Array(bytes) });
    } else if (word(0) === kindFrames) {
      this.events.frames?.({
        track: word(1),
        ticket: word(2),
        key: (word(7) & 1) !== 0,
        last: (word(7) & 2) !== 0,
        packets: word(8),
        rtpTime: word(9),
        seq: word(10),
        bytes,
        offsets: this.#offsets.subarray(word(11), word(11) + word(8)),
      });
    } else {
      this.events.failed?.(errorOf(word(2), "fanout: a socket failed"));
    }
  }
}

function startPosition(native: NativeStartPosition): StartPosition {
  return { receiver: native[0], seq: native[1], rtpTime: native[2], ssrc: native[3] };
}

function notAnAddress(address: string): ApoError {
  return new ApoError("EINVAL", `fanout: "${address}" is not an IP address (names are not looked up here)`);
}
