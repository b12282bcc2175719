/** A child process of lifecycle.test.ts: it uses a runtime, closes it, and must then end by itself. */
import { createRuntime, framing } from "../../src/index.ts";

const apo = await createRuntime({ workers: 2 });
const listener = await apo.opens({
  protocol: "tcp",
  port: 0,
  address: "127.0.0.1",
  framing: framing.line(),
  request: (sockfd, message) => apo.sendto(sockfd, message.bytes),
});
const answered = Promise.withResolvers<void>();
await apo.opens({
  protocol: "tcp",
  to: `127.0.0.1:${listener.port}`,
  news: "hello",
  framing: framing.line(),
  request: () => answered.resolve(),
});
await apo.opens({ protocol: "udp", to: "127.0.0.1:9" });
await answered.promise;
await apo.close();
console.log("closed");
