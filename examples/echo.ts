/**
 * Echo: every line comes back.
 *
 *   node examples/echo.ts [port]        then: nc localhost 7007
 *
 * `request` is called with one message at a time for each connection. Returning the promise of `sendto` makes a
 * client that sends faster than it reads wait for itself, and for nobody else.
 */
import { createRuntime, framing } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const port = Number(process.argv[2] ?? process.env.PORT ?? 7007);
const apo = await createRuntime();

try {
  const listener = await apo.opens({
    protocol: "tcp",
    port,
    framing: framing.line(),
    request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
  });
  console.log(`echo: listening on port ${listener.port}`);
} catch (error) {
  console.error(`echo: ${(error as Error).message}`);
  process.exitCode = 1;
  await apo.close();
}
