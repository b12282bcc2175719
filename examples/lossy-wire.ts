/**
 * Two runtimes on a bad wire in memory: what one sends comes late to the other, in another order, twice, or not at all.
 *
 *   node examples/lossy-wire.ts [loss]          for instance: node examples/lossy-wire.ts 0.5
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Apo, createRuntime, createWire } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const loss = Number(process.argv[2] ?? 0.1);
const datagrams = 100;
const count = (apo: Apo, name: string): number => apo.counters()[`layer3.${name}`] ?? 0;

try {
  const wire = createWire({ seed: 7, delayMs: 20, jitterMs: 10, loss, duplicate: 0.05, corrupt: 0.05 });
  const server = await createRuntime({ link: "mem", wire, address: "10.0.0.1/24" });
  const client = await createRuntime({ link: "mem", wire, address: "10.0.0.2/24" });
  const arrived: string[] = [];
  const request = (_: number, message: { text(): string }): void => void arrived.push(message.text());
  await server.opens({ protocol: "udp", port: 7, waiting: 2 * datagrams, request });
  const sockfd = await client.opens({ protocol: "udp", to: "10.0.0.1:7" });
  for (let i = 0; i < datagrams; i += 1) await client.sendto(sockfd, String(i));
  // Until none is on its way: it has come, or the wire is known to have lost it.
  const onWire = (): number => datagrams + count(client, "wire.duplicated") - count(client, "wire.lost");
  while (count(server, "rx.packets") < onWire()) await sleep(10);
  while (arrived.length < count(server, "rx.delivered")) await sleep(10);

  console.log(`lossy-wire: ${arrived.length} came of ${datagrams}: ${arrived.join(" ")}`);
  for (const name of ["lost", "duplicated", "corrupted"]) {
    console.log(`lossy-wire: ${count(client, `wire.${name}`)} ${name} by the wire`);
  }
  console.log(`lossy-wire: ${count(server, "rx.packets") - arrived.length} dropped for their damage`);
  await Promise.all([client.close(), server.close()]);
} catch (error) {
  console.error(`lossy-wire: ${(error as Error).message}`);
  process.exitCode = 1;
}
