/**
 * The `host` link: the kernel's TCP and UDP as a transport.
 *
 * Layer 2. It needs no privileges and no native code. The kernel does what layer 3 does on the other links.
 */

import { ApoError } from "../../layer1-app/errors.ts";
import type { Connection } from "../connection.ts";
import type { Container } from "../container.ts";
import type { Counters, WorkerCounter } from "../counters.ts";
import type { FramePool } from "../link.ts";
import type {
  ConnectRequest,
  ListenerRecord,
  LocalAddress,
  Transport,
  TransportEvents,
} from "../transport.ts";
import { connectTcp, TcpListener, TcpSocket } from "./tcp.ts";
import { UdpClient, type UdpContext, UdpListener, type UdpPeer } from "./udp.ts";

const noIcmp = "the host link carries tcp and udp; icmp needs the mem link";

class HostTransport implements Transport {
  private readonly udp: UdpContext;
  private readonly listeners = new Map<number, TcpListener | UdpListener>();

  constructor(udp: UdpContext) {
    this.udp = udp;
  }

  async listen(record: ListenerRecord, first: boolean): Promise<LocalAddress> {
    if (record.protocol === "icmp") throw new ApoError("ENOTSUP", noIcmp);
    const listener =
      record.protocol === "tcp"
        ? new TcpListener(record, this.udp.events)
        : new UdpListener(record, this.udp);
    const bound = await listener.listen(first);
    this.listeners.set(record.id, listener);
    return bound;
  }

  async unlisten(listenerId: number): Promise<void> {
    this.listeners.get(listenerId)?.close();
    this.listeners.delete(listenerId);
  }

  connect(request: ConnectRequest): void {
    if (request.protocol === "tcp") connectTcp(request, this.udp.events);
    else if (request.protocol === "udp") new UdpClient(request, this.udp).connect();
    else this.udp.events.connectFailed(request, "ENOTSUP", noIcmp);
  }

  send(connection: Connection, container: Container): void {
    const handle = connection.handle;
    if (handle instanceof TcpSocket) handle.send(container);
    else (handle as UdpPeer).transmit(container);
  }

  pause(connection: Connection): void {
    if (connection.handle instanceof TcpSocket) connection.handle.pause();
  }

  resume(connection: Connection): void {
    if (connection.handle instanceof TcpSocket) connection.handle.resume();
  }

  shutdown(connection: Connection): void {
    if (connection.handle instanceof TcpSocket) connection.handle.shutdown();
  }

  tune(connection: Connection, place: number, word: number): void {
    if (connection.handle instanceof TcpSocket) connection.handle.tune(place, word);
  }

  end(connection: Connection): void {
    if (connection.handle instanceof TcpSocket) connection.handle.end();
    else (connection.handle as UdpPeer).finish();
  }

  destroy(connection: Connection, reset: boolean): void {
    if (connection.handle instanceof TcpSocket) connection.handle.destroy(reset);
    else (connection.handle as UdpPeer).finish();
  }

  async close(): Promise<void> {
    for (const listener of this.listeners.values()) listener.close();
    this.listeners.clear();
  }
}

export function createHostTransport(
  events: TransportEvents,
  pool: FramePool,
  counters: Counters<WorkerCounter>,
): Transport {
  return new HostTransport({ events, pool, counters });
}
