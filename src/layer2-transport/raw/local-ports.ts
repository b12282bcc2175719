/**
 * The local UDP ports of a worker: which listeners have them, who still uses them, and choosing one for a client.
 *
 * Layer 2, raw links. A port is open at the native thread while a listener or any connection of this worker uses it.
 * A client's port is chosen so that what comes back is steered to this worker; an echo client's identifier likewise.
 */

import { randomInt } from "node:crypto";
import { ApoError } from "../../layer1-app/errors.ts";
import { addressWords, type IpPrefix, prefixContains } from "../../layer3-ip/ip-prefix.ts";
import type { PacketPort } from "../../layer3-ip/packet-port.ts";
import type { ListenerRecord, LocalAddress } from "../transport.ts";
import { type FlowKey, type FlowTable, isGroup } from "./flow.ts";
import { JoinedGroup } from "./joined-group.ts";
import { protocolNumber } from "./packets.ts";

/** The ports that clients get (RFC 6335 6: the dynamic ports). */
const firstClientPort = 49_152;
const lastPort = 65_535;

export interface UdpListener {
  readonly record: ListenerRecord;
  readonly port: number;
  /** Undefined: every address of the link. */
  readonly words: Int32Array | undefined;
  readonly wordCount: 1 | 4;
  readonly joined: readonly JoinedGroup[];
}

/** The address to send from: the one that shares its prefix with the destination, or the first of its version. */
export function sourceFor(
  prefixes: readonly IpPrefix[],
  version6: boolean,
  far: Int32Array,
): IpPrefix | undefined {
  const usable = prefixes.filter((prefix) => prefix.version6 === version6);
  return usable.find((prefix) => prefixContains(prefix, far)) ?? usable[0];
}

function sameAddress(listener: UdpListener, key: FlowKey): boolean {
  if (isGroup(key.words, 4, key.wordCount)) return listener.joined.some((group) => group.takes(key));
  if (!listener.words) return true;
  if (listener.wordCount !== key.wordCount) return false;
  for (let i = 0; i < key.wordCount; i += 1) if (listener.words[i] !== key.words[4 + i]) return false;
  return true;
}

export class LocalPorts {
  private readonly port: PacketPort;
  private readonly flows: FlowTable;
  private readonly prefixes: readonly IpPrefix[];
  private readonly listeners = new Map<number, UdpListener[]>();
  private readonly users = new Map<number, number>();
  private readonly echoUsers = new Map<number, number>();

  constructor(port: PacketPort, flows: FlowTable, prefixes: readonly IpPrefix[]) {
    this.port = port;
    this.flows = flows;
    this.prefixes = prefixes;
  }

  /** Opens a listener's port. Throws `EADDRNOTAVAIL`, `EADDRINUSE`. */
  listen(record: ListenerRecord): LocalAddress {
    const own = record.address === undefined ? undefined : this.ownAddress(record.address);
    const port = record.port === 0 ? this.useFreePort() : record.port;
    const listener: UdpListener = {
      record,
      port,
      words: own?.words,
      wordCount: own?.version6 ? 4 : 1,
      joined: record.udp.join.map((join) => new JoinedGroup(join)),
    };
    const others = this.listeners.get(port) ?? [];
    if (others.some((other) => overlap(other, listener))) {
      throw new ApoError(
        "EADDRINUSE",
        `udp port ${port} of ${record.address ?? "this link"} has a listener already`,
      );
    }
    if (record.port !== 0) this.use(port);
    this.joinAll(listener);
    this.listeners.set(port, [...others, listener]);
    const any = this.prefixes.some((prefix) => prefix.version6) ? "::" : "0.0.0.0";
    return { address: record.address ?? any, port };
  }

  unlisten(listenerId: number): void {
    for (const [port, listeners] of this.listeners) {
      const left = listeners.filter((listener) => listener.record.id !== listenerId);
      if (left.length === listeners.length) continue;
      for (const listener of listeners) {
        if (listener.record.id !== listenerId) continue;
        for (const group of listener.joined) this.port.leaveGroup(group.records);
      }
      if (left.length > 0) this.listeners.set(port, left);
      else this.listeners.delete(port);
      this.leave(port);
    }
  }

  listenerFor(key: FlowKey): UdpListener | undefined {
    if (key.protocol !== protocolNumber.udp) return undefined;
    return this.listeners.get(key.localPort)?.find((listener) => sameAddress(listener, key));
  }

  /** One more uses the port: the native thread lets its packets through. Throws `EADDRINUSE`: the kernel has it. */
  use(port: number): void {
    const users = this.users.get(port) ?? 0;
    if (users === 0) this.port.openUdpPort(port);
    this.users.set(port, users + 1);
  }

  leave(port: number): void {
    const users = this.users.get(port) ?? 0;
    if (users > 1) {
      this.users.set(port, users - 1);
      return;
    }
    this.users.delete(port);
    this.port.closeUdpPort(port);
  }

  /** Likewise an echo identifier, for the replies to it. */
  useEcho(identifier: number): void {
    const users = this.echoUsers.get(identifier) ?? 0;
    if (users === 0) this.port.openEcho(identifier);
    this.echoUsers.set(identifier, users + 1);
  }

  leaveEcho(identifier: number): void {
    const users = this.echoUsers.get(identifier) ?? 0;
    if (users > 1) {
      this.echoUsers.set(identifier, users - 1);
      return;
    }
    this.echoUsers.delete(identifier);
    this.port.closeEcho(identifier);
  }

  /** Sets a client's local port, and uses it, or its echo identifier. False: none is free. */
  choose(key: FlowKey): boolean {
    const isUdp = key.protocol === protocolNumber.udp;
    const low = isUdp ? firstClientPort : 1;
    const count = lastPort - low + 1;
    const start = randomInt(count);
    for (let tries = 0; tries < count; tries += 1) {
      key.localPort = low + ((start + tries) % count);
      if (!isUdp) key.remotePort = key.localPort;
      if (isUdp && this.listeners.has(key.localPort)) continue;
      if (!this.port.owns(key.hash(this.port.steer)) || this.flows.find(key) !== undefined) continue;
      if (!isUdp || this.tryUse(key.localPort)) return true;
    }
    return false;
  }

  /** All of a listener's groups, or none of them. */
  private joinAll({ joined, port }: UdpListener): void {
    const done: JoinedGroup[] = [];
    try {
      for (const group of joined) {
        this.port.joinGroup(group.records);
        done.push(group);
      }
    } catch (error) {
      for (const group of done) this.port.leaveGroup(group.records);
      this.leave(port);
      throw error;
    }
  }

  private ownAddress(text: string): IpPrefix | undefined {
    const wanted = addressWords(text);
    if (text === "0.0.0.0" || text === "::") return undefined;
    const found = this.prefixes.find(
      (prefix) =>
        prefix.version6 === wanted?.version6 && prefix.words.every((word, i) => word === wanted.words[i]),
    );
    if (found) return found;
    const own = this.prefixes.map((prefix) => prefix.text).join(", ");
    throw new ApoError("EADDRNOTAVAIL", `${text} is not an address of this link (it has ${own})`);
  }

  private useFreePort(): number {
    const count = lastPort - firstClientPort + 1;
    const start = randomInt(count);
    for (let tries = 0; tries < count; tries += 1) {
      const port = firstClientPort + ((start + tries) % count);
      if (!this.users.has(port) && this.tryUse(port)) return port;
    }
    throw new ApoError("EADDRNOTAVAIL", "no udp port is free on this link");
  }

  /** False: the kernel has given the port to somebody else. */
  private tryUse(port: number): boolean {
    try {
      this.use(port);
      return true;
    } catch (error) {
      if ((error as ApoError).code === "EADDRINUSE") return false;
      throw error;
    }
  }
}

/** Whether two listeners on one port would both want the same packet. */
function overlap(a: UdpListener, b: UdpListener): boolean {
  if (!a.words || !b.words) return true;
  return a.wordCount === b.wordCount && a.words.every((word, i) => word === b.words?.[i]);
}
