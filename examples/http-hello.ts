/**
 * HTTP by hand, on raw framing: keep-alive, pipelined and split requests.
 *
 *   node examples/http-hello.ts [port]        then: curl -v localhost:7007
 *
 * With `raw` a message is whatever has arrived, so what is not a whole request yet is kept until more comes.
 */
import { createRuntime, framing, type Sockfd } from "../src/index.ts"; // in a project of yours: from "apo-runtime"

const port = Number(process.argv[2] ?? process.env.PORT ?? 7007);
const apo = await createRuntime();
const unread = new Map<Sockfd, string>();

const answer = (status: string, body: string, extra = "") =>
  `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\n${extra}\r\n${body}`;

try {
  const listener = await apo.opens({
    protocol: "tcp",
    port,
    framing: framing.raw(),
    async request(sockfd, message) {
      const requests = ((unread.get(sockfd) ?? "") + message.text()).split("\r\n\r\n");
      const rest = requests.pop() ?? "";
      unread.set(sockfd, rest);
      const bad = requests.some((head) => !/^GET \S+ HTTP\/1\.[01](\r\n|$)/.test(head)) || rest.length > 8192;
      if (bad)
        await apo.sendto(sockfd, answer("400 Bad Request", "only GET here\n", "Connection: close\r\n"));
      else await apo.sendto(sockfd, requests.map(() => answer("200 OK", "hello\n")).join(""));
      if (bad || requests.some((head) => /\r\nconnection: *close/i.test(head))) void apo.close(sockfd);
    },
    closed: (sockfd) => void unread.delete(sockfd),
  });
  console.log(`http-hello: listening on port ${listener.port}`);
} catch (error) {
  console.error(`http-hello: ${(error as Error).message}`);
  process.exitCode = 1;
  await apo.close();
}
