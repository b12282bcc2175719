/**
 * The paths of packets on tun, packet and xdp: our link with a worker, beside a C loop on the same device.
 *
 * One round starts the C loop, then the station, and puts both through the same measurements.
 */
import { type Row, row } from "../lib/bench.ts";
import type { Child } from "../lib/children.ts";
import { runToEnd } from "../lib/children.ts";
import { median } from "../lib/stats.ts";
import { type Ground, ip, macOf, pings, start, startStation } from "./ground.ts";
import { CannotRun, type Effort, type Part } from "./part.ts";
import { measurePath, type PathFigures, type PathMode } from "./path.ts";

export type Runner = "ours" | "C loop";

/** How one kind of link is set up. */
export interface DeviceKind {
  readonly name: "tun" | "packet" | "xdp";
  readonly sizes: readonly number[];
  /** Where the generator and the meter are, and what the meter looks at. */
  readonly feedFrom: "server" | "sink";
  readonly meter: readonly [device: string, linkHeaderBytes: string];
  readonly feeder: string;
  readonly address: Readonly<Record<Runner, string>>;
  prepare(ground: Ground): Promise<void>;
  startLoop(ground: Ground): Promise<Child>;
  startOurs(ground: Ground): Promise<Child>;
}

const ratioMark = { op: ">=", target: 0.8 } as const;
const pingMark = { op: "<=", target: 100 } as const;
const modes: readonly PathMode[] = ["in", "out", "through"];
const small = 64;
const full = 1500;
const superPacket = 65_536;

const tun: DeviceKind = {
  name: "tun",
  sizes: [small, superPacket],
  feedFrom: "server",
  meter: ["bench0", "0"],
  feeder: "10.78.0.1",
  address: { ours: "10.78.0.2", "C loop": "10.78.0.2" },
  prepare: async () => {},
  async startLoop(ground) {
    const loop = await start(ground, "server", [
      ground.programs.tun_loop,
      "bench0",
      "10.78.0.2",
      "10.78.0.1",
    ]);
    await ip(ground, "server", "addr", "add", "10.78.0.1/24", "dev", "bench0");
    await ip(ground, "server", "link", "set", "bench0", "up");
    return loop;
  },
  startOurs: (ground) =>
    startStation(ground, {
      kind: "tun",
      options: { device: "bench0", address: "10.78.0.2/24", hostAddress: "10.78.0.1" },
      own: "10.78.0.2",
      peer: "10.78.0.1",
    }),
};

const loopMac = "02:00:00:00:00:07";

const packet: DeviceKind = {
  name: "packet",
  sizes: [small, superPacket],
  feedFrom: "sink",
  meter: ["sink0", "14"],
  feeder: "10.77.0.2",
  address: { ours: "10.77.0.8", "C loop": "10.77.0.7" },
  async prepare(ground) {
    await ip(ground, "sink", "neigh", "replace", "10.77.0.7", "lladdr", loopMac, "dev", "sink0");
  },
  async startLoop(ground) {
    const peerMac = await macOf(ground, "sink", "sink0");
    const { packet_loop } = ground.programs;
    return start(ground, "server", [packet_loop, "server0", "10.77.0.7", loopMac, "10.77.0.2", peerMac]);
  },
  startOurs: (ground) =>
    startStation(ground, {
      kind: "packet",
      options: { interface: "server0", address: "10.77.0.8/24" },
      own: "10.77.0.8",
      peer: "10.77.0.2",
    }),
};

const xdp: DeviceKind = {
  name: "xdp",
  sizes: [small, full],
  feedFrom: "sink",
  meter: ["sink0", "14"],
  feeder: "10.77.0.2",
  address: { ours: "10.77.0.1", "C loop": "10.77.0.1" },
  async prepare(ground) {
    // AF_XDP has no word for a checksum that is left to the device: the sender must complete it.
    const command = ground.network.inSink(["ethtool", "-K", "sink0", "tx", "off"]);
    await runToEnd(command).catch((error: Error) => {
      throw new CannotRun(`checksum offload of the peer cannot be turned off: ${error.message}`);
    });
  },
  async startLoop(ground) {
    const ownMac = await macOf(ground, "server", "server0");
    const peerMac = await macOf(ground, "sink", "sink0");
    const ends = ["10.77.0.1", ownMac, "10.77.0.2", peerMac];
    return start(ground, "server", [ground.programs.xdp_loop, "server0", ...ends, "copy"]);
  },
  startOurs: (ground) =>
    startStation(ground, {
      kind: "xdp",
      options: { interface: "server0" },
      own: "10.77.0.1",
      peer: "10.77.0.2",
    }),
};

export interface Cell {
  readonly mode: PathMode;
  readonly bytes: number;
  readonly rounds: Record<Runner, PathFigures[]>;
}

export const deviceKinds: readonly DeviceKind[] = [tun, packet, xdp];

/** The parts for all three links. */
export function deviceParts(ground: Ground): Part[] {
  return deviceKinds.map((kind) => ({
    name: kind.name,
    measure: (effort) => measureKind(ground, kind, effort),
  }));
}

async function measureKind(ground: Ground, kind: DeviceKind, effort: Effort): Promise<Row[]> {
  if (ground.network.kind !== "netns") throw new CannotRun("it takes network namespaces, and so root");
  await kind.prepare(ground);
  const cells: Cell[] = kind.sizes.flatMap((bytes) =>
    modes.map((mode) => ({ mode, bytes, rounds: { ours: [], "C loop": [] } })),
  );
  const roundTripsUs: number[] = [];
  const rounds = effort.rounds > 1 ? effort.rounds + 1 : 1; // the first of several warms up
  for (let round = 0; round < rounds; round += 1) {
    for (const runner of ["C loop", "ours"] as const) {
      await oneRunner(ground, kind, runner, { effort, cells, roundTripsUs });
    }
  }
  if (rounds > 1)
    for (const { rounds: all } of cells) for (const figures of Object.values(all)) figures.shift();
  return [...cells.flatMap((cell) => cellRows(kind.name, cell)), pingRow(kind.name, roundTripsUs)];
}

interface Records {
  readonly effort: Effort;
  readonly cells: readonly Cell[];
  readonly roundTripsUs: number[];
}

async function oneRunner(ground: Ground, kind: DeviceKind, runner: Runner, records: Records): Promise<void> {
  const children: Child[] = [];
  const keep = async (starting: Promise<Child>): Promise<Child> => {
    const child = await starting;
    children.push(child);
    return child;
  };
  try {
    const run = await keep(runner === "ours" ? kind.startOurs(ground) : kind.startLoop(ground));
    const { meter, generator } = ground.programs;
    const under = {
      runner: run,
      meter: await keep(start(ground, kind.feedFrom, [meter, ...kind.meter])),
      generator: await keep(start(ground, kind.feedFrom, [generator, kind.feeder, kind.address[runner]])),
    };
    if (runner === "ours")
      records.roundTripsUs.push(...(await pings(ground, kind.feedFrom, kind.address.ours)));
    const dropped = new Map<string, number>();
    for (const { mode, bytes, rounds } of records.cells) {
      const figures = await measurePath(under, mode, bytes, records.effort.windowMs);
      rounds[runner].push(figures);
      const drops = runner === "ours" ? await newDrops(run, dropped) : "";
      records.effort.say(`${kind.name}, ${mode}, ${sizeName(bytes)}, ${runner}: ${shown(figures)}${drops}`);
    }
  } finally {
    for (const child of children.reverse()) await child.stop();
  }
}

/** What a station has dropped since it was asked last, for the line of progress. */
async function newDrops(station: Child, before: Map<string, number>): Promise<string> {
  const counters = await station.ask<Record<string, number>>("counters");
  const found: string[] = [];
  for (const [name, count] of Object.entries(counters)) {
    if (!name.includes(".dropped.")) continue;
    const more = count - (before.get(name) ?? 0);
    if (more > 0) found.push(`${name.replace("layer3.", "")} ${more}`);
    before.set(name, count);
  }
  return found.length > 0 ? `; ${found.join(", ")}` : "";
}

function sizeName(bytes: number): string {
  return bytes > full ? "64 KB super-packets" : `${bytes} bytes`;
}

function shown({ packetsPerSecond, bytesPerSecond, cpuNsPerPacket, threads }: PathFigures): string {
  const rates = `${Math.round(packetsPerSecond)} packets/s, ${(bytesPerSecond / 1e9).toFixed(3)} GB/s`;
  return `${rates}, ${Math.round(cpuNsPerPacket)} ns/packet (${threads})`;
}

/** The ratio first: the median of the rounds' own ratios, each from two measurements seconds apart. */
export function cellRows(link: string, { mode, bytes, rounds }: Cell): Row[] {
  const large = bytes > full;
  const name = `${link}, ${mode}, ${sizeName(bytes)}`;
  const rate = (figures: PathFigures) =>
    large ? figures.bytesPerSecond / 1e9 : figures.packetsPerSecond / 1e6;
  const unit = large ? "GB/s" : "M packets/s";
  const ratios = rounds.ours.map((own, i) => rate(own) / rate(rounds["C loop"][i] as PathFigures));
  return [
    row(`${name}: ours / C loop`, median(ratios), "x", ratioMark),
    ...(["ours", "C loop"] as const).flatMap((runner) => [
      row(`${name}: ${runner}`, median(rounds[runner].map(rate)), unit),
      row(
        `${name}: ${runner}, CPU`,
        median(rounds[runner].map((figures) => figures.cpuNsPerPacket)),
        "ns/packet",
      ),
    ]),
  ];
}

function pingRow(link: string, roundTripsUs: readonly number[]): Row {
  return row(`${link}: ping from the kernel p50`, median(roundTripsUs), "us", pingMark);
}
