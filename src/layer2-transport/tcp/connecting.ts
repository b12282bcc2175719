/**
 * Connections that begin here: an address and a port of our own, a number, the first SYN.
 *
 * Layer 2, TCP (RFC 9293 3.10.1, RFC 6056). A client's connection is found by its own address and port, which lead
 * straight to its number; only where two share them does it stand in the flow index. Ports are counted for layer 3.
 */

import type { ApoError } from "../../layer1-app/errors.ts";
import { type IpPrefix, prefixContains } from "../../layer3-ip/ip-prefix.ts";
import type { Container } from "../container.ts";
import type { ClientIndex } from "../nodes/client-index.ts";
import { node, nodeState, sixFlag } from "../nodes/v-node.ts";
import type { StackCore } from "./core.ts";
import type { Handshake } from "./handshake.ts";
import type { TcpOptions } from "./options.ts";
import { termBit } from "./rest.ts";
import type { InitialSequence } from "./security/initial-sequence.ts";
import { allPorts, PortChoice } from "./security/port-choice.ts";
import { never, tcpState } from "./tcb.ts";

const protocolTcp = 6;
/** Places looked at for one connection. */
const triesMax = 4096;
/** Of a whole prefix so many addresses are used at most, as a power of two. */
const addressBitsMax = 16;

export interface ConnectTarget {
  /** The far address in network order. */
  readonly words: Int32Array;
  readonly wordCount: 1 | 4;
  readonly port: number;
  readonly options: TcpOptions;
  /** The `opens` that it belongs to. */
  readonly openId: number;
  /** It is one of very many: every port from 1,024 on is taken. */
  readonly many: boolean;
  /** How long the handshake may take; 0: as long as SYNs are repeated. */
  readonly timeoutMs: number;
  /** The first message, for the SYN itself where the server allows it (RFC 7413). */
  readonly early?: Container | undefined;
  /** Given back in `connected` and `connectFailed`. */
  readonly owner: unknown;
}

export class Connecting {
  private readonly core: StackCore;
  private readonly clients: ClientIndex;
  private readonly handshake: Handshake;
  private readonly sequence: InitialSequence;
  private readonly few: PortChoice;
  private readonly many: PortChoice;
  private readonly local = new Int32Array(4);

  /** A group's connections have one target: where from is found once. */
  private lastTarget: ConnectTarget | undefined;
  private lastSources: readonly IpPrefix[] = [];

  constructor(
    core: StackCore,
    clients: ClientIndex,
    handshake: Handshake,
    sequence: InitialSequence,
    key: Uint32Array,
  ) {
    this.core = core;
    this.clients = clients;
    this.handshake = handshake;
    this.sequence = sequence;
    this.few = new PortChoice(key, core.context.random);
    this.many = new PortChoice(key, core.context.random, allPorts);
  }

  connect(target: ConnectTarget): number {
    const { core, local } = this;
    const { nodes, steer, admission } = core.context;
    if (!admission.memory(128)) return -1;
    const port = this.place(target);
    if (port < 0) return -1;
    const { words, wordCount } = target;
    const hash = steer.hash(words, 0, target.port, local, 0, port, wordCount, protocolTcp);
    const sockfd24 = nodes.allocate(hash >>> 28);
    if (sockfd24 < 0) {
      core.portsInUse.leave(port);
      return -1;
    }
    const base = nodes.baseOf(sockfd24);
    core.words[base + node.ports] = (target.port << 16) | port;
    for (let i = 0; i < wordCount; i += 1) {
      core.words[base + node.peerAddress + i] = words[i] as number;
      core.words[base + node.localAddress + i] = local[i] as number;
    }
    core.words[base + node.open] = target.openId;
    if (wordCount === 4) (core.words[base + node.flags] as number) |= sixFlag;
    core.words[base + node.terms] = termBit.client;
    Atomics.store(core.words, base + node.state, nodeState.transport);
    this.clients.add(local, 0, wordCount, port, sockfd24);
    this.begin(target, sockfd24, base);
    return sockfd24;
  }

  private begin(target: ConnectTarget, sockfd24: number, base: number): void {
    const { core, handshake } = this;
    const tcb = core.activate(sockfd24, base);
    tcb.isClient = true;
    tcb.connecting = true;
    tcb.version6 = target.wordCount === 4;
    tcb.openId = target.openId;
    tcb.options = target.options;
    tcb.owner = target.owner;
    const terms = core.terms.get(target.openId);
    if (terms !== undefined) terms.users += 1;
    tcb.state = tcpState.synSent;
    tcb.iss = this.sequence.isn(core.words, base, core.nowUs);
    // What we begin carries our number in its label until the server gives us its own (a reflecting Linux keeps ours).
    tcb.label = core.labelOf(tcb);
    if (target.early !== undefined) {
      core.context.admission.account.queued += target.early.length;
      tcb.queue.push(target.early);
    }
    handshake.begin(tcb);
    tcb.handshakeAtUs = 0;
    tcb.connectUntilUs = target.timeoutMs > 0 ? core.nowUs + 1000 * target.timeoutMs : never;
    core.markDirty(tcb);
  }

  /** A free port of one of our addresses whose packets come to this worker; the address is left in `local`. */
  private place(target: ConnectTarget): number {
    const { core, local, clients } = this;
    const choice = target.many ? this.many : this.few;
    const { nodes, steer } = core.context;
    const { words, wordCount, port: farPort } = target;
    if (target !== this.lastTarget) {
      this.lastSources = this.sources(target);
      this.lastTarget = target;
    }
    const sources = this.lastSources;
    const addresses = addressCount(sources);
    if (addresses === 0) return -1;
    choice.begin(words, 0, wordCount, farPort, addresses);
    for (let tries = 0; tries < triesMax && choice.next(); tries += 1) {
      const { port } = choice;
      setAddress(sources, choice.addressIndex, local);
      if (core.portsInUse.isListening(port) || clients.find(local, 0, wordCount, port) >= 0) continue;
      const hash = steer.hash(words, 0, farPort, local, 0, port, wordCount, protocolTcp);
      if (nodes.owns(hash >>> 28) && this.tryUse(port)) return port;
    }
    return -1;
  }

  /** Opens the port at layer 3. False: the kernel has given it to somebody else. */
  private tryUse(port: number): boolean {
    try {
      this.core.portsInUse.use(port);
      return true;
    } catch (error) {
      if ((error as ApoError).code === "EADDRINUSE") return false;
      throw error;
    }
  }

  /**
   * The addresses to send from: those that share a prefix with the destination, else all of its version; a link-local
   * one only for a link-local destination (RFC 6724 5, rule 2).
   */
  private sources(target: ConnectTarget): readonly IpPrefix[] {
    const { addresses, prefixes } = this.core.context;
    const version6 = target.wordCount === 4;
    // Whole prefixes of our own first: they have the room for many connections.
    const whole = prefixes.filter((prefix) => prefix.version6 === version6);
    if (whole.length > 0) return whole;
    const isLocal = version6 && isLinkLocal(target.words);
    const usable = addresses.filter(
      (prefix) => prefix.version6 === version6 && (!version6 || isLinkLocal(prefix.words) === isLocal),
    );
    const near = usable.filter((prefix) => prefixContains(prefix, target.words));
    return near.length > 0 ? near : usable;
  }

  /** Takes a flow out of the index that it is in, and lets go of its port. */
  unindex(sockfd24: number, base: number): void {
    const { core, clients } = this;
    const { words } = core;
    const isClient = ((words[base + node.terms] as number) & termBit.client) !== 0;
    const port = (words[base + node.ports] as number) & 0xffff;
    core.portsInUse.leave(port);
    const active = core.activeAt(base);
    if (active === undefined ? isClient : active.isClient) {
      const wordCount = ((words[base + node.flags] as number) & sixFlag) !== 0 ? 4 : 1;
      clients.remove(words, base + node.localAddress, wordCount, port, sockfd24);
    } else {
      core.context.index.remove(sockfd24, words[base + node.hash] as number);
    }
  }
}

/** fe80::/10 */
function isLinkLocal(words: Int32Array): boolean {
  return (words[0] as number) >>> 22 === 0x3fa;
}

/** Addresses of a prefix that may be used: its own one, or all of a whole prefix but the first and last. */
function usable(prefix: IpPrefix): number {
  if (!prefix.whole) return 1;
  const bits = (prefix.version6 ? 128 : 32) - prefix.prefixBits;
  return bits === 0 ? 1 : 2 ** Math.min(bits, addressBitsMax) - 2;
}

function addressCount(sources: readonly IpPrefix[]): number {
  let sum = 0;
  for (let i = 0; i < sources.length; i += 1) sum += usable(sources[i] as IpPrefix);
  return sum;
}

/** Writes the address with this index among all of the sources'. */
function setAddress(sources: readonly IpPrefix[], index: number, into: Int32Array): void {
  let left = index;
  for (let i = 0; i < sources.length; i += 1) {
    const source = sources[i] as IpPrefix;
    const count = usable(source);
    if (left >= count) {
      left -= count;
      continue;
    }
    const last = source.version6 ? 3 : 0;
    for (let word = 0; word <= last; word += 1) into[word] = source.words[word] as number;
    if (count > 1) into[last] = ((into[last] as number) + 1 + left) | 0;
    return;
  }
}
