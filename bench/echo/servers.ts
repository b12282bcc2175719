/**
 * The echo servers that are compared, each as a process in a room and an address that its clients call.
 */

import { type EchoServerOptions, echoPort } from "../lib/apo/echo-server.ts";
import type { Placement } from "../lib/apo/placement.ts";
import { Child } from "../lib/children.ts";
import { Room } from "../lib/room.ts";

export type LinkName = "tun" | "xdp";
export type ServerName = "worker" | "app" | "node:net";

/** A server that runs. */
export interface EchoServer {
  readonly child: Child;
  readonly address: string;
  /** Where its clients are. */
  readonly callers: Room;
}

/** Two machines: the server's and its clients', joined by a veth pair. */
export class EchoGround {
  readonly server: Room;
  readonly callers: Room;

  private constructor(server: Room, callers: Room) {
    this.server = server;
    this.callers = callers;
  }

  static async open(): Promise<EchoGround> {
    const server = await Room.open("the server's room");
    const callers = await Room.open("the clients' room");
    await server.ip(
      "link",
      "add",
      "server0",
      "type",
      "veth",
      "peer",
      "name",
      "client0",
      "netns",
      String(callers.pid),
    );
    await server.ip("addr", "add", "10.77.0.1/24", "dev", "server0");
    await callers.ip("addr", "add", "10.77.0.2/24", "dev", "client0");
    await server.ip("link", "set", "server0", "up");
    await callers.ip("link", "set", "client0", "up");
    return new EchoGround(server, callers);
  }

  /** node:net is called over the veth pair; we are over our own device, or over the pair by XDP. */
  async start(link: LinkName, name: ServerName): Promise<EchoServer> {
    const { server, callers } = this;
    if (name === "node:net") {
      const program = `${import.meta.dirname}/reference/net-echo.ts`;
      const child = new Child(server.command([process.execPath, program, String(echoPort)]), { name });
      await child.answer<{ ready: boolean }>();
      return { child, address: "10.77.0.1", callers };
    }
    const tun = { link: "tun", device: "echo0", address: "10.78.0.2/24", hostAddress: "10.78.0.1" } as const;
    const xdp = { link: "xdp", interface: "server0" } as const;
    const child = await this.ours({ runtime: link === "tun" ? tun : xdp, placement: name });
    return {
      child,
      address: link === "tun" ? "10.78.0.2" : "10.77.0.1",
      callers: link === "tun" ? server : callers,
    };
  }

  async close(): Promise<void> {
    await this.callers.close();
    await this.server.close();
  }

  private async ours(options: EchoServerOptions & { placement: Placement }): Promise<Child> {
    const program = `${import.meta.dirname}/../lib/apo/echo-server.ts`;
    const command = this.server.command([process.execPath, program, JSON.stringify(options)]);
    const child = new Child(command, { name: `apo, ${options.placement}` });
    await child.answer<{ ready: boolean }>();
    return child;
  }
}
