/**
 * Reference: RTP over TCP as one writes it first in Node. One packet in, one `write` a reader out, with the four
 * bytes of RFC 2326 10.12 before it. A connection is a reader at once: no RTSP.
 *
 * Arguments: UDP_PORT TCP_PORT.
 */
import { createSocket } from "node:dgram";
import { createServer, type Socket } from "node:net";

const [udpPort, tcpPort] = process.argv.slice(2);
const readers = new Set<Socket>();
const source = createSocket({ type: "udp4", recvBufferSize: 4 << 20 });
const server = createServer({ noDelay: true }, (reader) => {
  readers.add(reader);
  reader.on("close", () => readers.delete(reader));
  reader.on("error", () => reader.destroy());
});

source.on("message", (packet) => {
  const framed = Buffer.allocUnsafe(packet.length + 4);
  framed[0] = 0x24;
  framed[1] = 0;
  framed.writeUInt16BE(packet.length, 2);
  packet.copy(framed, 4);
  for (const reader of readers) reader.write(framed);
});
source.bind(Number(udpPort), () => {
  server.listen({ port: Number(tcpPort), backlog: 1024 }, () => {
    process.stdout.write('{"ready":"net"}\n');
  });
});
