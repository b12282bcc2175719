/**
 * Which connection a segment belongs to, cheapest way first: what the packet carries, then the tables.
 *
 * Layer 2, TCP. An id that a packet carries (IPv6 flow label, echoed timestamp) is a hint from outside and nothing
 * more: the v-node that it leads to must have the packet's addresses and ports. What was found how is counted.
 */

import * as descriptor from "../../layer3-ip/descriptor.ts";
import { smallFrameBytes } from "../link.ts";
import type { ClientIndex } from "../nodes/client-index.ts";
import { matches } from "../nodes/flow-match.ts";
import type { StackCore } from "./core.ts";
import { flag } from "./wire/segment.ts";

/** Labels are not tried any more while hits are rarer than one in so many tries; now and then one is. */
const labelTries = 64;

export class Finder {
  /** The packet's far end (words 0-3) and ours (4-7), in network order; IPv4: 0 and 4. */
  readonly ends = new Int32Array(8);
  wordCount: 1 | 4 = 1;
  /** Far port << 16 | ours. */
  ports = 0;
  /** The flow's steering hash, and the packet's flow label. */
  hash = 0;
  label = 0;
  private readonly core: StackCore;
  private readonly clients: ClientIndex;
  private labelMisses = 0;
  private readonly labelPlace: number;
  private readonly timestampPlace: number;
  private readonly clientPlace: number;
  private readonly hashPlace: number;
  private readonly mismatchPlace: number;

  constructor(core: StackCore, clients: ClientIndex) {
    this.core = core;
    this.clients = clients;
    const { counters } = core.context;
    this.labelPlace = counters.placeOf("layer2.find.label");
    this.timestampPlace = counters.placeOf("layer2.find.timestamp");
    this.clientPlace = counters.placeOf("layer2.find.client");
    this.hashPlace = counters.placeOf("layer2.find.hash");
    this.mismatchPlace = counters.placeOf("layer2.find.mismatch");
  }

  /** Reads the packet's ends. */
  read(words: Int32Array, at: number): void {
    const { bytes } = this.core.context.pool;
    const { ends } = this;
    const version6 = descriptor.isVersion6(words, at);
    const count = version6 ? 4 : 1;
    const from =
      descriptor.frameOf(words, at) * smallFrameBytes +
      descriptor.packetOffsetOf(words, at) +
      (version6 ? 8 : 12);
    for (let i = 0; i < count; i += 1) {
      ends[i] = wordAt(bytes, from + 4 * i);
      ends[4 + i] = wordAt(bytes, from + 4 * (count + i));
    }
    this.wordCount = count;
    const { segment } = this.core;
    this.ports = (segment.sourcePort << 16) | segment.destinationPort;
    this.hash = descriptor.hashOf(words, at);
    this.label = version6 ? descriptor.labelOf(words, at) : 0;
  }

  /** The sockfd24 of the connection whose packet has been read; -1: there is none. */
  find(): number {
    const { core } = this;
    const { carrier, counters, index } = core.context;
    if (this.label !== 0 && this.labelMisses < labelTries) {
      const slot = carrier.slotOfLabel(this.label);
      const sockfd24 = slot < 0 ? -1 : ((this.hash >>> 28) << 20) | slot;
      if (sockfd24 >= 0 && this.isHere(sockfd24)) {
        this.labelMisses = 0;
        counters.addAt(this.labelPlace, 1);
        return sockfd24;
      }
      this.labelMisses += 1;
      counters.addAt(this.mismatchPlace, 1);
    } else if (this.label !== 0) {
      // A peer that reflects may come at any time.
      this.labelMisses = (this.labelMisses + 1) & 1023;
    }
    const { segment } = core;
    if (segment.hasTimestamp && (segment.flags & flag.ack) !== 0) {
      const sockfd24 = carrier.sockfdOfWireId(segment.tsEcho & 0xffffff);
      if (sockfd24 >= 0 && this.isHere(sockfd24)) {
        counters.addAt(this.timestampPlace, 1);
        return sockfd24;
      }
      counters.addAt(this.mismatchPlace, 1);
    }
    const client = this.clients.find(this.ends, 4, this.wordCount, this.ports & 0xffff);
    if (client >= 0 && this.isHere(client)) {
      counters.addAt(this.clientPlace, 1);
      return client;
    }
    const found = index.find(this.hash, this.ends, 0, this.wordCount, this.ports);
    if (found >= 0) counters.addAt(this.hashPlace, 1);
    return found;
  }

  /**
   * Reads the ends of a packet of ours that an ICMP error quotes, from its IP header at `at` on. Layer 3 has checked
   * that addresses, ports and sequence number are there. Returns the quoted sequence number.
   */
  readQuoted(bytes: Uint8Array, at: number, version6: boolean): number {
    const { ends } = this;
    const count = version6 ? 4 : 1;
    const from = at + (version6 ? 8 : 12);
    for (let i = 0; i < count; i += 1) {
      ends[4 + i] = wordAt(bytes, from + 4 * i);
      ends[i] = wordAt(bytes, from + 4 * (count + i));
    }
    const tcp = at + (version6 ? 40 : 4 * ((bytes[at] as number) & 15));
    const ports = wordAt(bytes, tcp);
    this.wordCount = count;
    this.ports = ((ports & 0xffff) << 16) | (ports >>> 16);
    return wordAt(bytes, tcp + 4);
  }

  /** The connection that a quoted packet belongs to; -1: none of ours. Its hash is not in the descriptor. */
  findQuoted(): number {
    const { ends, wordCount, ports } = this;
    const { steer, index } = this.core.context;
    const client = this.clients.find(ends, 4, wordCount, ports & 0xffff);
    if (client >= 0 && this.isHere(client)) return client;
    this.hash = steer.hash(ends, 0, ports >>> 16, ends, 4, ports & 0xffff, wordCount, 6);
    return index.find(this.hash, ends, 0, wordCount, ports);
  }

  /** Whether the v-node has the packet's addresses and ports, and is one of this worker's. */
  isHere(sockfd24: number): boolean {
    const { words, context } = this.core;
    if (!context.nodes.isOurs(sockfd24)) return false;
    const base = context.nodes.baseOf(sockfd24);
    return matches(words, base, this.ends, 0, this.wordCount, this.ports) && !this.core.isOver(base);
  }
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] as number) << 24) |
    ((bytes[at + 1] as number) << 16) |
    ((bytes[at + 2] as number) << 8) |
    (bytes[at + 3] as number)
  );
}
