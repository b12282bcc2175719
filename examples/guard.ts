/**
 * The guard: UDP echo that never hears blocked sources, and tells who they were.
 *
 *   node examples/guard.ts           on a wire in memory: 10.0.0.66 is blocked, 10.0.0.2 is not
 *   apo run examples/guard.ts --link tun --address 10.64.0.1/24 -- 10.64.0.0/25        then: nc -u 10.64.0.1 7007
 */
import { type Apo, createRuntime, createWire } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const blocked = process.argv.length > 2 ? process.argv.slice(2) : ["10.0.0.66"];
const wire = process.env.APO_LINK ? undefined : createWire();
const start = (address: string, block: string[] = []): Promise<Apo> => {
  const guard = { block, packetsPerSecond: 10_000 };
  return createRuntime(wire ? { link: "mem", wire, address, workers: 1, guard } : { guard });
};
const told = new Set<string>();
const tell = (address: string, text: string): void => {
  if (!told.has(address)) console.log(`${address}: ${text}`);
  told.add(address);
};

try {
  const apo = await start("10.0.0.1/24", blocked);
  await apo.opens({ protocol: "udp", port: 7007, request: (sockfd, { bytes }) => apo.sendto(sockfd, bytes) });
  console.log(`guard: ${apo.guard.entries().blocked} blocked; listening on port 7007`);
  setInterval(() => {
    for (const { address, reason, distance } of apo.guard.offenders())
      tell(address, `${reason}, ${distance} hops away`);
    if (wire && told.size === 2) process.exit(); // On the wire nobody else comes.
  }, 100);
  for (const from of wire ? ["10.0.0.2", "10.0.0.66"] : []) {
    const client = await start(`${from}/24`);
    const request = (): void => tell(from, "answered");
    await client.opens({ protocol: "udp", to: "10.0.0.1:7007", news: "hello", request });
  }
} catch (error) {
  console.error(`guard: ${(error as Error).message}`);
  process.exit(1);
}
