/**
 * A chat room: the first line is your name, every other goes to all who are there.
 *
 *   node examples/chat.ts [port]        then, several times: nc localhost 7007
 *
 * `sendto` with an array makes one copy of the line, however many read it; it goes as it is, with our own line's end.
 */
import { createRuntime, framing, type Sockfd } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const port = Number(process.argv[2] ?? process.env.PORT ?? 7007);
const apo = await createRuntime();
const names = new Map<Sockfd, string>();
const tellAll = (text: string) => apo.sendto([...names.keys()], `${text}\n`);

try {
  const listener = await apo.opens({
    protocol: "tcp",
    port,
    recvlen: 1000,
    framing: framing.line(),
    connected: (sockfd) => apo.sendto(sockfd, "your name?"),
    request(sockfd, message) {
      const name = names.get(sockfd);
      if (name) return tellAll(`${name}: ${message.text()}`);
      names.set(sockfd, message.text());
      return tellAll(`* ${message.text()} is here (${names.size})`);
    },
    closed(sockfd) {
      const name = names.get(sockfd);
      names.delete(sockfd);
      if (name) return tellAll(`* ${name} has left`);
    },
  });
  console.log(`chat: listening on port ${listener.port}`);
} catch (error) {
  console.error(`chat: ${(error as Error).message}`);
  process.exitCode = 1;
  await apo.close();
}
