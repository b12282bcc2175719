/**
 * Handlers beside their connections: they run in the layer-2 workers, so no thread stands between a packet and them.
 *
 *   node examples/worker-placement.ts [port] [clients]        then: nc localhost 7007
 *
 * This file is its own handler module: each worker imports it, and what it keeps in variables is that worker's. The
 * clients are one `opens` as well: a group, of which nothing is kept for each connection.
 */
import { isMainThread, threadId } from "node:worker_threads";
import { type AppVerbs, createRuntime, framing, type Message, type Sockfd } from "../src/index.ts"; // "apo-runtime"

let asked = 0;

export function request(sockfd: Sockfd, message: Message, apo: AppVerbs): Promise<void> | undefined {
  asked += 1;
  return apo.sendto(sockfd, `${message.text()}: question ${asked} of worker thread ${threadId}`);
}

if (isMainThread) {
  const port = Number(process.argv[2] ?? process.env.PORT ?? 7007);
  const connections = Number(process.argv[3] ?? 100);
  const apo = await createRuntime();
  try {
    const lines = { protocol: "tcp", framing: framing.line() } as const;
    const module = new URL(import.meta.url);
    const listener = await apo.opens({ ...lines, port, module, placement: "worker" });
    const to = `localhost:${listener.port}`;
    const group = await apo.opens({ ...lines, to, connections, news: "hello" });
    await group.ready;
    console.log(`worker-placement: ${group.opened} of ${group.connections} clients stand`);
    console.log(`worker-placement: listening on port ${listener.port}`);
  } catch (error) {
    console.error(`worker-placement: ${(error as Error).message}`);
    process.exitCode = 1;
    await apo.close();
  }
}
