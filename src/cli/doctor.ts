/**
 * `apo doctor`: which links this machine and user can run, what each lacks, and what grants it.
 *
 * The command line's own: it prints what layer 1's diagnosis says.
 */

import { styleText } from "node:util";
import { diagnose, grantAll, type LinkDiagnosis } from "../layer1-app/doctor/diagnosis.ts";
import { readSystemFacts, type SystemFacts } from "../layer1-app/doctor/facts.ts";
import type { Command } from "./apo.ts";
import { readArguments, suggest, UsageError } from "./usage.ts";

const help = `Usage: apo doctor [LINK...] [OPTIONS]

Says for each link (or those named: host, mem, fd, tun, packet, xdp) whether this machine and this user can run it,
what it lacks, and the command that grants it. It tries what can be tried without a trace: nothing is changed.

Options:
  --json      everything that was found, as JSON
  --help      this text

Examples:
  apo doctor
  apo doctor tun && apo run udp-echo.ts --link tun --address 10.64.0.1/24

Exit codes: 0 every link named runs (none named: at least one does), 1 not so, 2 a wrong option.
`;

const options = { json: { type: "boolean" } } as const;

/** Reads `apo doctor`'s arguments. Throws UsageError. */
export function readDoctorArguments(args: readonly string[]): { links: string[]; json: boolean } {
  const { values, positionals } = readArguments("doctor", options, args);
  const known = diagnose(nothingKnown).map(({ link }) => link as string);
  for (const link of positionals) {
    if (known.includes(link)) continue;
    throw new UsageError(`there is no link "${link}"${suggest(link, known)}`, "doctor");
  }
  return { links: positionals, json: values.json ?? false };
}

/** Facts of no machine: for the names of the links alone. */
const nothingKnown: SystemFacts = {
  node: "",
  nodePath: "",
  kernel: "",
  user: "",
  capabilities: [],
  obtainable: [],
  noNewPrivileges: false,
  memlockBytes: 0,
  probe: undefined,
  addonError: "",
};

async function run(args: readonly string[]): Promise<number> {
  const { links, json } = readDoctorArguments(args);
  const facts = readSystemFacts();
  const named = (one: LinkDiagnosis) => links.length === 0 || links.includes(one.link);
  const found = diagnose(facts).filter(named);
  process.stdout.write(json ? asJson(facts, found) : asText(facts, found));
  const good = links.length === 0 ? found.some(({ runs }) => runs) : found.every(({ runs }) => runs);
  return good ? 0 : 1;
}

function asJson(facts: SystemFacts, links: readonly LinkDiagnosis[]): string {
  const { memlockBytes, ...rest } = facts;
  const memlock = Number.isFinite(memlockBytes) ? memlockBytes : null;
  return `${JSON.stringify({ ...rest, memlockBytes: memlock, links }, null, 2)}\n`;
}

/** The table for people; in colours on a terminal. */
export function asText(facts: SystemFacts, links: readonly LinkDiagnosis[]): string {
  const { node, nodePath, kernel, user, capabilities, addonError } = facts;
  const lines = [
    `Node     ${node} (${nodePath})`,
    `Kernel   ${kernel}`,
    `User     ${user}, ${capabilities.length === 0 ? "no capabilities" : capabilities.join(", ")}`,
    `Addon    ${addonError === undefined ? "built" : "not there"}`,
    "",
  ];
  for (const link of links) lines.push(...linkLines(link));
  const all = grantAll(facts);
  if (all !== undefined && links.filter(({ runs }) => !runs).length > 1) {
    lines.push("", "For all links at once:", `  ${all}`);
  }
  return `${lines.join("\n")}\n`;
}

function linkLines({ link, runs, needs, notes }: LinkDiagnosis): string[] {
  const name = link.padEnd(8);
  if (runs) return [`${name} ${style("green", "runs")}   ${notes.join("; ")}`];
  const lines = [`${name} ${style("red", "cannot run")}`];
  const lacking = needs.filter(({ met }) => !met);
  for (const { what, found } of lacking) lines.push(`         lacks ${what}: ${found}`);
  const fixes = new Set(lacking.map(({ fix }) => fix).filter((fix) => fix !== undefined));
  for (const fix of fixes) lines.push(`           ${style("bold", fix)}`);
  return lines;
}

function style(format: "green" | "red" | "bold", text: string): string {
  return styleText(format, text, { stream: process.stdout });
}

export const doctorCommand: Command = {
  name: "doctor",
  summary: "which links this machine and user can run, and what the others lack",
  help,
  run,
};
