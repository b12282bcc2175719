/**
 * A raw link's side of a fan-out engine: the rings and words that it stands at the link with, like a worker.
 *
 * Layer 3. Made by the link, given to the engine when it starts. Which ports are free on the link is known here: those
 * of workers are not to be had.
 */

import { constants } from "node:os";
import { ApoError } from "../layer1-app/errors.ts";
import { loadNative, type NativeLinkThread } from "./native.ts";
import { createPacketPort, isUdpPortOpen, markUdpPort, packetRingCapacity } from "./packet-port.ts";
import { createRing } from "./ring.ts";

const udpProtocol = 17;
/** RFC 6335 6: the dynamic ports. */
const firstFreePort = 49_152;
const lastPort = 65_535;

export interface RawEngineParts {
  /** Its place among those that a native thread serves; beyond the workers'. */
  readonly place: number;
  /** The link's number in this process. */
  readonly link: number;
  readonly threads: readonly NativeLinkThread[];
  /** The first queue's control words, and what wakes its thread. */
  readonly control: SharedArrayBuffer;
  readonly wakeFd: number;
  readonly pool: SharedArrayBuffer;
  readonly partition: number;
  /** Our own, packed. */
  readonly addresses: Uint8Array;
  /** The port words of the workers, as they are now. */
  readonly workers: () => readonly Uint32Array[];
  /** Called when the engine has left. */
  readonly left: () => void;
}

export class RawEngine {
  private readonly parts: RawEngineParts;
  private readonly port = new Uint32Array(createPacketPort());
  private readonly transmit = new Uint32Array(createRing(packetRingCapacity));
  private readonly receive: readonly Uint32Array[];
  private attached = 0;

  constructor(parts: RawEngineParts) {
    this.parts = parts;
    this.receive = parts.threads.map(() => new Uint32Array(createRing(packetRingCapacity)));
  }

  /** The last arguments of `NativeFanout`: mirrored in native/rawsock/napi/fanout_napi.cc. */
  get arguments(): readonly (Uint32Array | Uint8Array | number)[] {
    const { pool, partition, control, wakeFd, addresses } = this.parts;
    const words = [new Uint32Array(pool), partition, this.port, new Uint32Array(control), wakeFd, addresses];
    return [this.transmit, ...words, ...this.receive];
  }

  /** The engine's thread runs and sleeps on this eventfd: from here on the link serves it. */
  attach(eventFd: number): void {
    for (const [queue, thread] of this.parts.threads.entries()) {
      // Only the first queue's thread sends for it; the others have a ring that stays empty.
      const out = queue === 0 ? this.transmit : new Uint32Array(createRing(2));
      const receive = this.receive[queue] as Uint32Array;
      if (!thread.attachWorker(this.parts.place, receive, out, this.port, eventFd)) {
        throw new ApoError("ECLOSED", "the fan-out engine cannot join: the native thread has ended");
      }
      this.attached += 1;
    }
  }

  /** Takes a port for the engine: the one asked for, or a free one for 0. Throws `EADDRINUSE`, `EADDRNOTAVAIL`. */
  openPort(wanted: number): number {
    if (wanted !== 0) {
      if (this.tryOpen(wanted)) return wanted;
      throw new ApoError(
        "EADDRINUSE",
        `fanout: UDP port ${wanted} of this link is taken (choose another port)`,
      );
    }
    for (let port = firstFreePort; port <= lastPort; port += 1) if (this.tryOpen(port)) return port;
    throw new ApoError("EADDRNOTAVAIL", "fanout: no UDP port is free on this link");
  }

  closePort(port: number): void {
    loadNative().closePort(this.parts.link, udpProtocol, port);
  }

  /** The engine's thread has ended: what it had sent goes out, what it had not read comes back. Idempotent. */
  detach(): void {
    for (; this.attached > 0; this.attached -= 1) {
      this.parts.threads[this.attached - 1]?.detachWorker(this.parts.place);
    }
    this.parts.left();
  }

  private tryOpen(port: number): boolean {
    if ([this.port, ...this.parts.workers()].some((words) => isUdpPortOpen(words, port))) return false;
    const errno = loadNative().openPort(this.parts.link, udpProtocol, port);
    if (errno === constants.errno.EADDRINUSE || errno === constants.errno.EACCES) return false;
    if (errno !== 0) throw new ApoError("EIO", `the link could not open port ${port} (errno ${errno})`);
    // The engine does so in its own time; until then nobody else is to have it.
    markUdpPort(this.port, port);
    return true;
  }
}
