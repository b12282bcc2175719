/**
 * A siege: a TCP server on a wire, somebody who wants all its connections, and what the guard says of it.
 *
 *   node examples/siege.ts           on a wire in memory: 10.0.0.66 goes beyond its limit and is blocked for a time
 *   apo run examples/siege.ts --link tun --address 10.64.0.1/24        then besiege it: port 7007
 */
import { type Apo, createRuntime, createWire } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const wire = process.env.APO_LINK ? undefined : createWire();
const tcp = { sourceConnections: 100, alarmConnections: 200, blockMs: 30_000 };
const start = (address: string): Promise<Apo> =>
  createRuntime({
    ...(wire && { link: "mem", wire, address, workers: 1 }),
    guard: { tcp },
    memoryBytes: 256 * 2 ** 20,
  });

try {
  const apo = await start("10.0.0.1/24");
  await apo.opens({
    protocol: "tcp",
    port: 7007,
    backlog: 64,
    request: (sockfd, { bytes }) => apo.sendto(sockfd, bytes),
    alarm: ({ text }) => console.log(`siege: ${text}`),
  });
  console.log("siege: listening on port 7007");
  setInterval(() => {
    const [block] = apo.guard.blocks();
    if (!wire || !block) return;
    console.log(`siege: ${block.prefix} is blocked until ${block.until.toISOString()}: ${block.reason}`);
    process.exit();
  }, 100);
  if (wire) {
    const besieger = await start("10.0.0.66/24");
    for (let n = 0; n < 500; n += 1) {
      besieger.opens({ protocol: "tcp", to: "10.0.0.1:7007", connectMs: 2000 }).catch(() => {});
    }
  }
} catch (error) {
  console.error(`siege: ${(error as Error).message}`);
  process.exit(1);
}
