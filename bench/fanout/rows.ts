/**
 * From measurements to the rows of the report, with the marks to reach.
 */
import { type Mark, type Row, row } from "../lib/bench.ts";
import { median } from "../lib/stats.ts";
import type { Measured, Scenario } from "./measure.ts";
import { kept } from "./plan.ts";
import { type ServerName, titles } from "./servers.ts";

/** All rounds of one scenario, in their order. */
export interface Series {
  readonly scenario: Scenario;
  readonly rounds: readonly Measured[];
}

/** The marks, each from the project's aims: see docs/benchmarks.md. */
const marks = {
  shareOfSendto: { op: "<=", target: 0.25 },
  shareOfGso: { op: "<=", target: 1.3 },
  loss: { op: "<=", target: 0 },
  core: { op: "<=", target: 25 },
  delay: { op: "<=", target: 8 },
  tcpCost: { op: "<=", target: 1500 },
} as const satisfies Record<string, Mark>;

/** Such as "relay, udp x 100" with what is unlike the common case. */
export function scenarioName({ server, transport, readers, publish, segmentation }: Scenario): string {
  const notes = [
    publish === "tcp" ? "published over TCP" : "",
    segmentation ? "" : "segmentation in software",
  ];
  const note = notes.filter(Boolean).join(", ");
  return `${titles[server]}, ${transport} x ${readers}${note ? `, ${note}` : ""}`;
}

export function makeRows(series: readonly Series[]): Row[] {
  return [...series.flatMap(scenarioRows), ...ratioRows(series)];
}

function scenarioRows({ scenario, rounds }: Series): Row[] {
  const name = scenarioName(scenario);
  const of = (pick: (measured: Measured) => number) => median(kept(rounds).map(pick));
  const common = scenario.segmentation && scenario.publish === "udp";
  const relay = scenario.server === "relay";
  const marked = (when: boolean, mark: Mark) => (relay && common && when ? mark : undefined);
  const { transport, readers } = scenario;
  const large = transport === "udp" && readers === 1000;
  const rows = [
    row(
      `${name}: CPU`,
      of((m) => m.nsPerPacket),
      "ns/packet",
      marked(transport === "tcp", marks.tcpCost),
    ),
    row(
      `${name}: core`,
      of((m) => m.corePercent),
      "%",
      marked(large, marks.core),
    ),
    row(
      `${name}: delivered`,
      of((m) => m.packetsPerSecond),
      "packets/s",
    ),
    row(
      `${name}: loss`,
      worst(rounds, (m) => m.lossPercent),
      "%",
      marked(large, marks.loss),
    ),
    row(
      `${name}: delay p50`,
      of((m) => m.p50Ms),
      "ms",
    ),
    row(
      `${name}: delay p99`,
      of((m) => m.p99Ms),
      "ms",
      marked(readers === 100 || readers === 1000, marks.delay),
    ),
  ];
  const perSend = of((m) => m.packetsPerSend);
  if (!Number.isNaN(perSend)) rows.push(row(`${name}: packets a send`, perSend, "packets"));
  if (relay || scenario.server === "net") {
    rows.push(row(`${name}: memory a reader`, of((m) => m.bytesPerReader) / 1024, "KiB"));
  }
  return rows;
}

/** Loss is judged by the worst round that counts: a median would forgive it. */
function worst(rounds: readonly Measured[], pick: (measured: Measured) => number): number {
  return Math.max(...kept(rounds).map(pick));
}

function ratioRows(series: readonly Series[]): Row[] {
  const rows: Row[] = [];
  for (const own of series) {
    if (own.scenario.server !== "relay" || own.scenario.publish === "tcp") continue;
    for (const other of series) {
      if (other.scenario.server === "relay" || !comparable(own.scenario, other.scenario)) continue;
      const name = `${scenarioName(own.scenario)}: CPU / ${titles[other.scenario.server]}'s`;
      rows.push(row(name, pairedRatio(own, other), "x", ratioMark(own.scenario, other.scenario.server)));
    }
  }
  return rows;
}

function comparable(own: Scenario, other: Scenario): boolean {
  const same = own.transport === other.transport && own.readers === other.readers;
  return same && own.segmentation === other.segmentation;
}

function ratioMark(own: Scenario, other: ServerName): Mark | undefined {
  if (own.readers !== 100 || own.transport !== "udp" || !own.segmentation) return undefined;
  if (other === "sendto") return marks.shareOfSendto;
  return other === "gso" ? marks.shareOfGso : undefined;
}

/** The median of the rounds' own ratios: both were measured within seconds of each other. */
export function pairedRatio(own: Series, other: Series): number {
  const mine = kept(own.rounds);
  const theirs = kept(other.rounds);
  const pairs = Math.min(mine.length, theirs.length);
  const ratios: number[] = [];
  for (let i = 0; i < pairs; i++) ratios.push(mine[i]!.nsPerPacket / theirs[i]!.nsPerPacket);
  return median(ratios);
}
