/**
 * A file server: the client sends a name, gets the file and then the end. Any size, in constant memory.
 *
 *   node examples/file-server.ts [folder] [port]        then: echo name | nc -N localhost 7007 > copy
 *
 * `sendto` of `{ file }` is read by the connection's worker as fast as the client takes it, and no faster.
 */
import { basename, join } from "node:path";
import { createRuntime, framing } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const folder = process.argv[2] ?? ".";
const port = Number(process.argv[3] ?? process.env.PORT ?? 7007);
const apo = await createRuntime();

try {
  const listener = await apo.opens({
    protocol: "tcp",
    port,
    recvlen: 255,
    framing: framing.line(),
    async request(sockfd, message) {
      try {
        // Only what lies in the folder itself: a name has no slashes.
        await apo.sendto(sockfd, { file: join(folder, basename(message.text())) });
      } catch (error) {
        console.error(`file-server: ${(error as Error).message}`);
      }
      void apo.close(sockfd);
    },
  });
  console.log(`file-server: listening on port ${listener.port}`);
} catch (error) {
  console.error(`file-server: ${(error as Error).message}`);
  process.exitCode = 1;
  await apo.close();
}
