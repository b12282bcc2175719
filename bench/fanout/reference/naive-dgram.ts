/**
 * Reference: the fan-out that one writes first in Node. One packet in, one `send` a receiver out.
 *
 * Arguments: PORT ADDRESS FIRST_PORT RECEIVERS (every second port). Knows nothing of RTP.
 */
import { createSocket } from "node:dgram";

const [port, address, firstPort, receivers] = process.argv.slice(2);
const count = Number(receivers);
const first = Number(firstPort);
const socket = createSocket({ type: "udp4", recvBufferSize: 4 << 20, sendBufferSize: 4 << 20 });

socket.on("message", (packet) => {
  for (let i = 0; i < count; i++) socket.send(packet, first + 2 * i, address);
});
socket.bind(Number(port), () => {
  process.stdout.write('{"ready":"dgram"}\n');
});
