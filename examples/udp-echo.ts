/**
 * Echo over UDP: every datagram goes back to whoever sent it. It runs unchanged on every link.
 *
 *   node examples/udp-echo.ts [port]                                          then: nc -u localhost 7007
 *   apo run examples/udp-echo.ts --link tun --address 10.64.0.1/24            then: nc -u 10.64.0.1 7007
 *
 * On a raw link the packets do not pass the kernel's UDP, and `ping 10.64.0.1` is answered by apo's native thread.
 */
import { createRuntime } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const port = Number(process.argv[2] ?? process.env.PORT ?? 7007);
const apo = await createRuntime();

try {
  const listener = await apo.opens({
    protocol: "udp",
    port,
    request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
  });
  console.log(`udp-echo: listening on port ${listener.port}`);
} catch (error) {
  console.error(`udp-echo: ${(error as Error).message}`);
  process.exitCode = 1;
  await apo.close();
}
