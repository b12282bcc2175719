/**
 * One line that says what machine a figure comes from.
 */
import { cpus, release, totalmem } from "node:os";

/** Such as "AMD EPYC, 2 CPUs, 8 GiB, Linux 6.18.44, Node v24.1.0". No host name. */
export function describeMachine(): string {
  const all = cpus();
  const model = (all[0]?.model ?? "unknown CPU").trim();
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  return `${model}, ${all.length} CPUs, ${memory}, Linux ${release()}, Node ${process.version}`;
}
