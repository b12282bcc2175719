/**
 * Two machines and a wire between them that can be made bad, with a TUN device of ours beside the kernel on the first.
 *
 *   room a: ours (TUN bulk0) ── kernel ── wire ── kernel of room b
 *
 * Between kernels the wire is all there is; between us and a kernel there is the first kernel's forwarding besides.
 */
import type { BulkPeerOptions, BulkReading } from "../lib/apo/bulk-peer.ts";
import { Child, type Command } from "../lib/children.ts";
import { BadWire, Room } from "../lib/room.ts";

const port = 5001;
const own = "10.80.0.2";
const device = { link: "tun", device: "bulk0", address: `${own}/24`, hostAddress: "10.80.0.1" } as const;

/** Where the two ends of a transfer are, and whose they are. */
export type BulkPath =
  | "kernel, over the wire"
  | "ours to the kernel, over the wire"
  | "the kernel to ours, over the wire"
  | "ours to the kernel, on the device"
  | "the kernel to ours, on the device";

/** A transfer that runs. `reader` counts what arrives. */
export interface Transfer {
  readonly reader: Child;
  stop(): Promise<void>;
}

export class BulkGround {
  readonly wire: BadWire;
  private readonly a: Room;
  private readonly b: Room;
  private readonly program: string;

  private constructor(parts: { wire: BadWire; a: Room; b: Room; program: string }) {
    this.wire = parts.wire;
    this.a = parts.a;
    this.b = parts.b;
    this.program = parts.program;
  }

  static async open(wireProgram: string, program: string): Promise<BulkGround> {
    const a = await Room.open("room a");
    const b = await Room.open("room b");
    const wire = await BadWire.join(
      wireProgram,
      { place: a, device: "wire0", addresses: ["10.79.0.1/24"] },
      { place: b, device: "wire1", addresses: ["10.79.0.2/24"] },
    );
    await a.sysctl("ipv4/ip_forward", 1);
    await b.ip("route", "add", "10.80.0.0/24", "via", "10.79.0.1");
    return new BulkGround({ wire, a, b, program });
  }

  /** Starts a transfer of so many streams. Ours always calls, and the kernel always listens. */
  async start(path: BulkPath, streams: number): Promise<Transfer> {
    const { a, b } = this;
    const direct = path.endsWith("on the device");
    const toOurs = path.startsWith("the kernel to ours");
    const listening = direct ? a : b;
    const address = direct ? "10.80.0.1" : "10.79.0.2";
    const children: Child[] = [];
    const stop = async () => {
      for (const child of children.reverse()) await child.stop();
    };
    const started = async (place: Room, command: Command, name: string): Promise<Child> => {
      const child = new Child(place.command(command), { name });
      children.push(child);
      await child.answer<{ ready: boolean }>();
      return child;
    };
    try {
      const ours = path.startsWith("kernel")
        ? undefined
        : await started(a, this.ours(`${address}:${port}`), "apo");
      const listener = await started(
        listening,
        [this.program, "listen", address, String(port)],
        "the listener",
      );
      const caller =
        ours ?? (await started(a, [this.program, "connect", address, String(port)], "the caller"));
      await caller.ask<BulkReading>(`${toOurs ? "down" : "up"} ${streams}`);
      return { reader: toOurs ? caller : listener, stop };
    } catch (error) {
      await stop();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.wire.stop();
    await this.a.close();
    await this.b.close();
  }

  private ours(to: string): Command {
    const options: BulkPeerOptions = { runtime: device, placement: "worker", to };
    return oursCommand(options);
  }
}

export function oursCommand(options: BulkPeerOptions): Command {
  return [process.execPath, `${import.meta.dirname}/../lib/apo/bulk-peer.ts`, JSON.stringify(options)];
}

/** Both ends ours, on `mem`. */
export async function startMem(
  wire: NonNullable<BulkPeerOptions["wire"]>,
  streams: number,
  sends: boolean,
): Promise<Transfer> {
  const child = new Child(oursCommand({ wire, placement: "worker", port }), { name: "mem" });
  try {
    await child.answer<{ ready: boolean }>();
    await child.ask<BulkReading>(`${sends ? "up" : "down"} ${streams}`);
  } catch (error) {
    await child.stop();
    throw error;
  }
  return { reader: child, stop: () => child.stop() };
}
