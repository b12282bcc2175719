/**
 * Multicast: a clock that tells the time to a group, and everybody who wants to hear it.
 *
 *   node examples/multicast.ts           on a wire in memory: one clock, two listeners
 *   apo run examples/multicast.ts --link packet --interface eth0 --address 192.0.2.10/24      listens alone
 *
 * A listener joins with `join`; IGMP and MLD tell the network. Who sends needs no membership, only a client.
 */
import { type Apo, createRuntime, createWire } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const group = "239.7.0.7";
const port = 7007;
const wire = process.env.APO_LINK ? undefined : createWire();
const start = (n: number): Promise<Apo> =>
  createRuntime(wire ? { link: "mem", wire, address: `10.0.0.${n}/24`, workers: 1 } : {});
let heard = 0;

async function listen(apo: Apo): Promise<void> {
  await apo.opens({
    protocol: "udp",
    port,
    join: [group], // of one sender alone: { group, source: "10.0.0.1" }
    request(sockfd, message) {
      const { address, localAddress } = apo.peer(sockfd);
      console.log(`multicast: ${address} to ${localAddress}: ${message.text()}`);
      heard += 1;
      if (wire && heard === 4) process.exit(); // On the wire two ticks for each are enough.
    },
  });
  console.log(`multicast: joined ${group}, listening on port ${port}`);
}

try {
  await listen(await start(2));
  if (wire) {
    await listen(await start(3));
    const clock = await start(1);
    const sockfd = await clock.opens({ protocol: "udp", to: `${group}:${port}`, ttl: 4 });
    setInterval(() => void clock.sendto(sockfd, new Date().toISOString()), 100);
  }
} catch (error) {
  console.error(`multicast: ${(error as Error).message}`);
  process.exit(1);
}
