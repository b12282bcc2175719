/**
 * An echo server on the kernel's TCP, as one writes it in Node: the measure of ours. Ends when stdin does.
 *
 *   net-echo.ts PORT
 */
import { createServer } from "node:net";

const server = createServer({ noDelay: true }, (socket) => {
  socket.on("data", (bytes) => socket.write(bytes));
  socket.on("error", () => socket.destroy());
});
server.listen({ host: "0.0.0.0", port: Number(process.argv[2]), backlog: 4096 }, () => {
  process.stdout.write('{"ready":true}\n');
});
process.stdin.resume();
process.stdin.on("end", () => process.exit());
