/**
 * Somebody on the wire who means harm and does not know the numbers: old packets again, resets, SYNs, acknowledgements
 * and data with sequence numbers that are not quite right. None of it may change what connections carry, or end one.
 *
 * Layer 2, simulation only. It spoofs addresses, keeps ports, options and checksums right, takes care not to hit the
 * one number that RFC 5961 lets a reset through for.
 */

import type { RandomStream } from "../../layer3-ip/random-stream.ts";
import type { VirtualWire } from "../../layer3-ip/virtual-wire.ts";
import {
  ipHeaderBytes,
  load16,
  load32,
  store32,
  tcpField,
  tcpFlag,
  tcpHeaderLength,
  writeIpHeader,
  writeTcpChecksum,
} from "./packet-bytes.ts";

const keptMax = 128;
const attackerAddress = "10.255.255.254";
/** Beyond any window, before and behind it. */
const farBytes = 2 ** 30;
const firstClientPort = 1024;
/** Within most windows. */
const nearBytes = 20_000;

export class Attacker {
  private readonly wire: VirtualWire;
  private readonly random: RandomStream;
  private readonly plug: number;
  private readonly onSend: (packet: Uint8Array) => void;
  private readonly kept: Uint8Array[] = [];
  private left = 0;

  /** `onSend` sees each packet before the wire does. */
  constructor(wire: VirtualWire, random: RandomStream, onSend: (packet: Uint8Array) => void) {
    this.wire = wire;
    this.onSend = onSend;
    this.random = random;
    this.plug = wire.plug(attackerAddress, () => {});
  }

  /** It has overheard a packet; it remembers some, and answers some with one of its own. */
  overhear(packet: Uint8Array): void {
    if (this.left > 0 && this.random.below(4) === 0) this.send(packet);
    if (this.kept.length < keptMax) this.kept.push(packet);
    else if (this.random.below(4) === 0) this.kept[this.random.below(keptMax)] = packet;
  }

  /** Sends `count` packets: after others that it overhears, and at times of its own. */
  attack(count: number): void {
    this.left = count;
    this.wait();
  }

  private wait(): void {
    const waitUs = Math.floor(2 ** (this.random.below(24_000) / 1000));
    this.wire.at(this.wire.nowUs + waitUs, () => {
      if (this.left <= 0) return;
      const model = this.kept[this.random.below(Math.max(1, this.kept.length))];
      if (model) this.send(model);
      this.left -= 1;
      this.wait();
    });
  }

  private send(model: Uint8Array): void {
    this.left -= 1;
    const packet = this.forged(model);
    this.onSend(packet);
    this.wire.send(this.plug, packet);
  }

  private forged(model: Uint8Array): Uint8Array {
    const kind = this.random.below(6);
    if (kind === 0) return model;
    const six = (model[0] as number) >>> 4 === 6;
    const upper = ipHeaderBytes(six);
    const headers = upper + tcpHeaderLength(model, upper, model.length - upper);
    const packet = new Uint8Array(kind === 4 ? model : model.subarray(0, headers));
    const flagsAt = upper + tcpField.flags;
    const shift = (field: number, by: number) =>
      store32(packet, upper + field, (load32(packet, upper + field) + by) | 0);
    const { ack, syn, rst, psh } = tcpFlag;
    // Whoever waits for an answer to his SYN goes by the acknowledgement alone.
    if (kind === 1 || kind === 2) shift(tcpField.ack, this.far());
    if (kind === 1) {
      packet[flagsAt] = rst | ack;
      // In the window, but far from what comes next.
      shift(tcpField.seq, model.length - headers + nearBytes + this.random.below(nearBytes));
    } else if (kind === 2) {
      // A bare SYN to one that calls is taken for a simultaneous open, which no rule forbids: to servers alone.
      const isToServer = load16(packet, upper + 2) < firstClientPort;
      packet[flagsAt] = isToServer && this.random.below(2) === 0 ? syn : syn | ack;
      shift(tcpField.seq, this.far());
    } else if (kind === 3) {
      packet[flagsAt] = ack;
      shift(tcpField.ack, this.far());
    } else if (kind === 4) {
      packet[flagsAt] = ack | psh;
      shift(tcpField.seq, this.far());
    } else {
      packet[flagsAt] = rst;
      shift(tcpField.seq, this.far());
    }
    const fields = { version6: six, protocol: 6, hopLimit: 61, trafficClass: 0, label: 0 };
    writeIpHeader(packet, 0, fields, packet.length - upper);
    writeTcpChecksum(packet, 0, six, packet.length);
    return packet;
  }

  private far(): number {
    return (this.random.below(2) === 0 ? 1 : -1) * (farBytes + this.random.below(2 ** 26));
  }
}
