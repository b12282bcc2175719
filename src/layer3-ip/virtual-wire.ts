/**
 * A network in virtual time: plugs, packets between them over bad lines, and timers, all in one thread and without a
 * clock. The same seed and the same calls give the same trace, byte for byte.
 *
 * Layer 3. For tests and simulations; `createWire` in `links/mem.ts` is the same wire in real time, and both ask
 * `impairment.ts` (or its twin in C++) what becomes of a packet. It knows packets as bytes with a destination address.
 *
 *     const wire = createVirtualWire({ seed: 7, delayMs: 10, loss: 0.01 });
 *     const a = wire.plug("10.0.0.1", (packet, nowUs) => {});
 *     const b = wire.plug("10.0.0.2", (packet, nowUs) => {});
 *     wire.send(a, packet);
 *     wire.advance(1_000_000);
 */

import { ApoError } from "../layer1-app/errors.ts";
import { AddressBook, parsePrefixes } from "./address-book.ts";
import { EventQueue } from "./event-queue.ts";
import { Impairment, type ImpairmentSettings, packetFate } from "./impairment.ts";
import {
  checkOptionNames,
  type Impairments,
  impair,
  impairmentNames,
  seedWords,
  unimpaired,
} from "./impairment-options.ts";
import {
  type TraceEntry,
  tracePcapng,
  type VirtualFate,
  VirtualTrace,
  virtualFates,
} from "./virtual-trace.ts";

export interface VirtualWireOptions extends Impairments {
  /** Of all that is drawn (1); 0 to 2^53 - 1. */
  readonly seed?: number;
  /** The longest IP packet, in bytes (1,500); 68 to 65,535. */
  readonly mtu?: number;
  /** Bytes that may be on their way to one plug (4 MiB); more are dropped. */
  readonly inboxBytes?: number;
  /** Bytes that the trace may take (64 MiB); what comes then is not kept. 0: no trace. */
  readonly traceBytesMax?: number;
}

/** What has become of all packets. `sent + duplicated` = `inFlight` + `delivered` + every kind of loss. */
export type VirtualCounts = { readonly [fate in VirtualFate]: number } & {
  readonly sent: number;
  /** Second copies that were made. */
  readonly duplicated: number;
  /** Packets and copies with a flipped bit that were put on their way. */
  readonly corrupted: number;
  /** Packets that were held back, or their copies. */
  readonly reordered: number;
  readonly inFlight: number;
};

/** Called with a packet that has come. The bytes are the receiver's. */
export type VirtualReceiver = (packet: Uint8Array, nowUs: number) => void;

export interface VirtualWire {
  /** Virtual time, from 0. */
  readonly nowUs: number;
  /** When something will happen next; undefined when nothing is under way. */
  readonly nextAtUs: number | undefined;
  /** What has happened so far. */
  readonly trace: readonly TraceEntry[];
  /** Trace entries that were not kept, because there was no room. */
  readonly traceMissed: number;
  /**
   * Joins the wire with addresses ("10.0.0.1, fd00::1") and whole prefixes ("10.1.0.0/16"). The plug's number: 1, 2
   * and so on. Throws `EINVAL`, `EADDRINUSE`, `ENFILE` (1,024 plugs).
   */
  plug(address: string, receive: VirtualReceiver, prefixes?: string): number;
  /** Takes a plug out; what is on its way to it is lost. Throws `EINVAL` when there is none. */
  unplug(plug: number): void;
  /** Sends an IP packet (copied). What becomes of it is in the trace. Throws `EINVAL` for a plug that there is not. */
  send(plug: number, packet: Uint8Array): void;
  /** Calls back at a time of virtual time, not before now. The function returned takes that back. */
  at(atUs: number, call: (nowUs: number) => void): () => void;
  /** Other impairments for the packets to come; what is not named stays. Throws `EINVAL`. */
  set(impairments: Impairments): void;
  /** Lets the next thing happen; false: there was none. What a callback throws comes out here. */
  step(): boolean;
  /** Lets everything happen up to and at that time, which then is now. How much it was. */
  advance(toUs: number): number;
  counts(): VirtualCounts;
  /** The trace as a pcapng file. */
  traceBytes(): Uint8Array;
}

const plugsMax = 1024;
/** What happens this often without time going on goes round in a circle. */
const eventsAtOnceMax = 1_000_000;
const options = ["seed", "mtu", "inboxBytes", "traceBytesMax", ...impairmentNames];

interface Plug {
  readonly number: number;
  readonly name: string;
  readonly receive: VirtualReceiver;
  /** The lines to it, by the sender's number. */
  readonly lines: Map<number, Impairment>;
  bytesInFlight: number;
  plugged: boolean;
}

/** A packet on its way. */
interface Flight {
  readonly from: number;
  readonly to: Plug;
  readonly packet: Uint8Array;
  readonly copy: boolean;
  readonly corruptBit: number;
}

interface Timer {
  readonly call: (nowUs: number) => void;
  cancelled: boolean;
}

const fateNames: Readonly<Record<number, VirtualFate>> = {
  [packetFate.tooBig]: "tooBig",
  [packetFate.queueFull]: "queueFull",
  [packetFate.lost]: "lost",
  [packetFate.lostInBurst]: "lostInBurst",
};

class SimulatedWire implements VirtualWire {
  nowUs = 0;
  private settings: ImpairmentSettings;
  private readonly inboxBytes: number;
  private readonly events = new EventQueue<Flight | Timer>();
  private readonly kept: VirtualTrace;
  private readonly plugs: Plug[] = [];
  private readonly book = new AddressBook<Plug>();
  private readonly tally: Record<VirtualFate | "sent" | "duplicated" | "corrupted" | "reordered", number>;
  private inFlight = 0;
  private atOnce = 0;

  constructor(given: VirtualWireOptions) {
    checkOptionNames("createVirtualWire", given, options);
    const { seed = 1, mtu = 1500, inboxBytes = 4 * 2 ** 20, traceBytesMax = 64 * 2 ** 20 } = given;
    checkWhole("mtu", mtu, 68, 65_535);
    checkWhole("inboxBytes", inboxBytes, 1, 2 ** 40);
    checkWhole("traceBytesMax", traceBytesMax, 0, 2 ** 40);
    const words = seedWords("createVirtualWire", seed);
    this.settings = impair("createVirtualWire", given, { ...unimpaired, ...words, mtu });
    this.inboxBytes = inboxBytes;
    this.kept = new VirtualTrace(traceBytesMax);
    const fates = Object.fromEntries(virtualFates.map((fate) => [fate, 0])) as Record<VirtualFate, number>;
    this.tally = { ...fates, sent: 0, duplicated: 0, corrupted: 0, reordered: 0 };
  }

  get nextAtUs(): number | undefined {
    return this.events.nextAtUs;
  }
  get trace(): readonly TraceEntry[] {
    return this.kept.entries;
  }
  get traceMissed(): number {
    return this.kept.missed;
  }

  plug(address: string, receive: VirtualReceiver, prefixes = ""): number {
    const own = parsePrefixes(address);
    const whole = parsePrefixes(prefixes);
    if (own.length + whole.length === 0)
      throw new ApoError("EINVAL", "plug: an address or a prefix is needed");
    const taken = this.book.taken(own, whole);
    if (taken) throw new ApoError("EADDRINUSE", `another plug of this wire has ${taken.text} already`);
    if (this.plugs.length === plugsMax) throw new ApoError("ENFILE", `the wire is full: ${plugsMax} plugs`);
    const name = [address, prefixes].filter((text) => text !== "").join(", ");
    const number = this.plugs.length + 1;
    const plug = { number, name, receive, lines: new Map(), bytesInFlight: 0, plugged: true };
    this.plugs.push(plug);
    this.book.add(own, whole, plug);
    return number;
  }

  unplug(number: number): void {
    const plug = this.plugOf("unplug", number);
    plug.plugged = false;
    plug.lines.clear();
    for (const other of this.plugs) other.lines.delete(number);
    this.book.remove(plug);
  }

  send(number: number, bytes: Uint8Array): void {
    const from = this.plugOf("send", number);
    const packet = Uint8Array.from(bytes);
    this.tally.sent += 1;
    const to = this.book.destinationOf(packet);
    if (!to) {
      this.end("noRoute", from.number, 0, packet, false, -1);
      return;
    }
    const line = this.lineTo(to, from.number);
    const fate = line.decide(this.nowUs, packet.length);
    if (fate !== packetFate.delivered) {
      this.end(fateNames[fate] as VirtualFate, from.number, to.number, packet, false, -1);
      return;
    }
    const { atUs, copyAtUs, corruptBit } = line;
    if (line.reordered) this.tally.reordered += 1;
    if (corruptBit >= 0) {
      const at = corruptBit >> 3;
      packet[at] = (packet[at] as number) ^ (1 << (corruptBit & 7));
    }
    this.depart(atUs, { from: from.number, to, packet, copy: false, corruptBit });
    if (copyAtUs < 0) return;
    this.tally.duplicated += 1;
    this.depart(copyAtUs, { from: from.number, to, packet, copy: true, corruptBit });
  }

  at(atUs: number, call: (nowUs: number) => void): () => void {
    if (!Number.isSafeInteger(atUs) || atUs < this.nowUs) {
      throw new ApoError(
        "EINVAL",
        `at: the time must be a whole number from ${this.nowUs} (now), not ${atUs}`,
      );
    }
    const timer = { call, cancelled: false };
    this.events.add(atUs, timer);
    return () => {
      timer.cancelled = true;
    };
  }

  set(impairments: Impairments): void {
    checkOptionNames("set", impairments, impairmentNames);
    this.settings = impair("set", impairments, this.settings);
    for (const { lines } of this.plugs) for (const line of lines.values()) line.change(this.settings);
  }

  step(): boolean {
    const atUs = this.events.nextAtUs;
    if (atUs === undefined) return false;
    if (atUs > this.nowUs) this.atOnce = 0;
    else if (this.atOnce === eventsAtOnceMax) {
      throw new ApoError("EINVAL", `virtual time stands at ${atUs} us: a delay of 0 goes round in a circle`);
    }
    this.atOnce += 1;
    this.nowUs = atUs;
    const event = this.events.take() as Flight | Timer;
    if ("packet" in event) this.arrive(event);
    else if (!event.cancelled) event.call(atUs);
    return true;
  }

  advance(toUs: number): number {
    if (!Number.isSafeInteger(toUs) || toUs < this.nowUs) {
      throw new ApoError(
        "EINVAL",
        `advance: the time must be a whole number from ${this.nowUs} (now), not ${toUs}`,
      );
    }
    let count = 0;
    while ((this.events.nextAtUs ?? Number.POSITIVE_INFINITY) <= toUs && this.step()) count += 1;
    this.nowUs = toUs;
    return count;
  }

  counts(): VirtualCounts {
    return { ...this.tally, inFlight: this.inFlight };
  }

  traceBytes(): Uint8Array {
    return tracePcapng(this.plugs, this.kept.entries, this.kept.missed);
  }

  private plugOf(verb: string, number: number): Plug {
    const plug = this.plugs[number - 1];
    if (!plug?.plugged) throw new ApoError("EINVAL", `${verb}: this wire has no plug ${number}`);
    return plug;
  }

  private lineTo(to: Plug, from: number): Impairment {
    let line = to.lines.get(from);
    if (!line) {
      line = new Impairment(this.settings, from, to.number);
      to.lines.set(from, line);
    }
    return line;
  }

  private depart(atUs: number, flight: Flight): void {
    const { from, to, packet, copy, corruptBit } = flight;
    if (corruptBit >= 0) this.tally.corrupted += 1;
    if (to.bytesInFlight + packet.length > this.inboxBytes) {
      this.end("inboxFull", from, to.number, packet, copy, corruptBit);
      return;
    }
    to.bytesInFlight += packet.length;
    this.inFlight += 1;
    this.events.add(atUs, flight);
  }

  private arrive({ from, to, packet, copy, corruptBit }: Flight): void {
    to.bytesInFlight -= packet.length;
    this.inFlight -= 1;
    this.end(to.plugged ? "delivered" : "unplugged", from, to.number, packet, copy, corruptBit);
    if (to.plugged) to.receive(Uint8Array.from(packet), this.nowUs);
  }

  private end(
    what: VirtualFate,
    from: number,
    to: number,
    packet: Uint8Array,
    copy: boolean,
    corruptBit: number,
  ): void {
    this.tally[what] += 1;
    const { length: bytes } = packet;
    this.kept.add({ atUs: this.nowUs, from, to, what, bytes, copy, corruptBit, packet });
  }
}

function checkWhole(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new ApoError(
    "EINVAL",
    `createVirtualWire: ${name} must be a whole number from ${least} to ${most}, not ${value}`,
  );
}

/** Makes a network in virtual time. Throws `EINVAL`. */
export function createVirtualWire(given: VirtualWireOptions = {}): VirtualWire {
  return new SimulatedWire(given);
}
