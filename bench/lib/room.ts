/**
 * Network namespaces of a bench's own ("rooms"), and what joins two of them: a veth pair, or a bad wire.
 *
 * A room is held open by a `cat` whose stdin is ours: when the bench ends, however it ends, `cat` ends, and the kernel
 * takes the namespace and its interfaces away. It knows nothing of apo.
 */
import { Child, type Command, runToEnd } from "./children.ts";

/** Anything that commands can be run in: a `Room`, or a test's namespace. */
export interface Place {
  /** A process that is in it: `ip link … netns PID`, /proc/PID/ns/net. */
  readonly pid: number;
  /** The same command, to be run there. */
  command(command: Command): Command;
  /** `ip ARGS…` there. */
  ip(...args: string[]): Promise<string>;
}

export class Room implements Place {
  private readonly holder: Child;

  private constructor(holder: Child) {
    this.holder = holder;
  }

  /** A fresh namespace, its loopback up. Throws when this is not allowed. */
  static async open(name: string): Promise<Room> {
    const holder = new Child(["unshare", "--net", "--", "cat"], { name });
    await holder.ask<{ held: boolean }>('{"held":true}'); // `cat` answers only once it is inside
    const room = new Room(holder);
    await room.ip("link", "set", "lo", "up");
    return room;
  }

  get pid(): number {
    return this.holder.pid;
  }

  command(command: Command): Command {
    return ["nsenter", `--net=/proc/${this.holder.pid}/ns/net`, "--", ...command];
  }

  run(...command: Command): Promise<string> {
    return runToEnd(this.command(command));
  }

  ip(...args: string[]): Promise<string> {
    return this.run("ip", ...args);
  }

  /** A net sysctl of this namespace, such as "ipv4/ip_forward". */
  async sysctl(name: string, value: string | number): Promise<void> {
    await this.run("sh", "-c", 'printf %s "$2" >"/proc/sys/net/$1"', "sh", name, String(value));
  }

  close(): Promise<void> {
    return this.holder.stop();
  }
}

/** One end of what joins two places. Addresses have their prefix: "10.0.0.1/24", "fd00::1/64". */
export interface End {
  readonly place: Place;
  readonly device: string;
  readonly addresses: readonly string[];
}

/** Joins two places by a veth pair, up when it returns. */
export async function joinByVethPair(left: End, right: End): Promise<void> {
  const peer = ["peer", "name", right.device, "netns", String(right.place.pid)];
  await left.place.ip("link", "add", left.device, "type", "veth", ...peer);
  await setUp(left, 1500);
  await setUp(right, 1500);
}

/** What a wire does with packets: see `tools/wire.c`. Probabilities 0 to 1; what is left out stays as it was. */
export interface WireRules {
  readonly delayMs?: number;
  readonly loss?: number;
  readonly duplicate?: number;
  /** Flips one bit of the packet. */
  readonly corrupt?: number;
  /** Holds a packet back for `reorderMs`, so that others overtake it. */
  readonly reorder?: number;
  readonly reorderMs?: number;
  /** Marks packets of ECN-capable flows. */
  readonly mark?: number;
  readonly rateBitsPerSecond?: number;
  /** What may wait for the rate, each way. */
  readonly queueBytes?: number;
  /** 1: a super-packet is one packet, as on the `mem` link; 0: as many as it has segments. */
  readonly whole?: number;
}

export interface WireCounts {
  readonly packets: number;
  readonly bytes: number;
  readonly lost: number;
  readonly queueFull: number;
  readonly duplicated: number;
  readonly corrupted: number;
  readonly reordered: number;
  readonly marked: number;
  readonly refused: number;
}

export interface WireOptions {
  /** 1500 */
  readonly mtu?: number;
  /** Of all that is drawn (1). */
  readonly seed?: number;
}

/** A wire between two places, like a cable between two machines: good until `set` says otherwise. */
export class BadWire {
  private readonly child: Child;

  private constructor(child: Child) {
    this.child = child;
  }

  /** `program`: wire.c, compiled. Both devices are up when it resolves. */
  static async join(program: string, left: End, right: End, options: WireOptions = {}): Promise<BadWire> {
    const { mtu = 1500, seed = 1 } = options;
    const ends = [left, right].flatMap(({ place, device }) => [`/proc/${place.pid}/ns/net`, device]);
    const child = new Child([program, ...ends, String(seed)], { name: "the wire" });
    await child.answer<{ ready: boolean }>();
    for (const end of [left, right]) await setUp(end, mtu);
    return new BadWire(child);
  }

  /** From now on; what is on its way arrives. */
  set(rules: WireRules): Promise<WireCounts> {
    return this.child.ask<WireCounts>(`set ${Object.entries(rules).flat().join(" ")}`);
  }

  counts(): Promise<WireCounts> {
    return this.child.ask<WireCounts>("read");
  }

  stop(): Promise<void> {
    return this.child.stop();
  }
}

/** Packets of 64 KiB that may wait for whoever reads the device; the kernel drops what comes beyond. */
const queueLength = "5000";

async function setUp({ place, device, addresses }: End, mtu: number): Promise<void> {
  await place.ip("link", "set", device, "mtu", String(mtu), "txqueuelen", queueLength, "up");
  for (const address of addresses) {
    const extra = address.includes(":") ? ["nodad"] : [];
    await place.ip("addr", "add", address, "dev", device, ...extra);
  }
}
