/**
 * A client: sends what you type, line by line, and prints what comes back.
 *
 *   node examples/client.ts [host:port]        for example to examples/echo.ts
 *
 * `opens` with `to` connects; the first message goes along as `news`.
 */
import { createInterface } from "node:readline";
import { createRuntime, framing } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const to = process.argv[2] ?? "localhost:7007";
const apo = await createRuntime();

try {
  const sockfd = await apo.opens({
    protocol: "tcp",
    to,
    news: "hello from the client",
    framing: framing.line(),
    request: (_sockfd, message) => console.log(message.text()),
    async closed(_sockfd, reason) {
      console.error(`client: the connection has ended (${reason.error?.message ?? reason.code})`);
      await apo.close();
      process.stdin.destroy();
    },
  });
  for await (const line of createInterface({ input: process.stdin })) await apo.sendto(sockfd, line);
  await apo.close(sockfd);
} catch (error) {
  console.error(`client: ${(error as Error).message}`);
  process.exitCode = 1;
  await apo.close();
}
