/**
 * A game over UDP: players send moves, everybody gets the whole field twenty times a second.
 *
 *   node examples/udp-tick.ts [port]        then: nc -u localhost 7007, and type: move 1 0
 *
 * A UDP connection is a peer's address and port; it ends when it has been silent for `idleMs`.
 */
import { createRuntime, type Sockfd } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const port = Number(process.argv[2] ?? process.env.PORT ?? 7007);
const tickMs = 50;
const apo = await createRuntime();
const players = new Map<Sockfd, { id: number; x: number; y: number }>();
let lastId = 0;

try {
  const listener = await apo.opens({
    protocol: "udp",
    port,
    idleMs: 10_000,
    connected: (sockfd) => void players.set(sockfd, { id: ++lastId, x: 0, y: 0 }),
    request(sockfd, message) {
      const [, x = "0", y = "0"] = /^move (-?\d) (-?\d)\s*$/.exec(message.text()) ?? [];
      const player = players.get(sockfd);
      if (player) Object.assign(player, { x: player.x + Number(x), y: player.y + Number(y) });
    },
    closed: (sockfd) => void players.delete(sockfd),
  });
  setInterval(() => void apo.sendto([...players.keys()], JSON.stringify([...players.values()])), tickMs);
  console.log(`udp-tick: listening on port ${listener.port}`);
} catch (error) {
  console.error(`udp-tick: ${(error as Error).message}`);
  process.exitCode = 1;
  await apo.close();
}
