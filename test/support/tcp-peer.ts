/**
 * The kernel's end of a TCP test: node:net, told what to do by the lines of `tcp-words.ts`. Knows nothing of apo.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import type { Namespace } from "./netns.ts";
import { answerMs, Endings, obeyLines, parts, type TcpAnswer, type TcpCommand, TcpEnd } from "./tcp-words.ts";

export async function startTcpPeer(namespace: Namespace): Promise<TcpEnd> {
  const program = fileURLToPath(import.meta.url);
  return new TcpEnd(namespace.start([process.execPath, program], "the kernel's end", answerMs)).ready();
}

const endings = new Endings();

/** Counts and hashes what comes; tells how it ended. */
function reading(socket: Socket): Promise<Partial<TcpAnswer>> {
  const hash = createHash("sha256");
  let bytes = 0;
  let how = "end";
  socket.on("data", (data: Buffer) => {
    hash.update(data);
    bytes += data.length;
  });
  socket.on("error", (error: NodeJS.ErrnoException) => {
    how = error.code === "ECONNRESET" ? "reset" : (error.code ?? "EIO");
  });
  return new Promise((resolve) => {
    socket.on("close", () => resolve({ bytes, sha256: hash.digest("hex"), how }));
  });
}

function serve(command: TcpCommand & { do: "serve" }): Promise<Partial<TcpAnswer>> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    void reading(socket).then((ending) => endings.add(ending));
    socket.on("end", () => {
      if (command.what !== "file") socket.end();
    });
    if (command.what === "echo") socket.on("data", (data) => socket.write(data));
    if (command.what === "file") {
      socket.once("data", () => createReadStream(command.file ?? "").pipe(socket));
    }
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(command.port ?? 0, "::", () => resolve({ port: (server.address() as AddressInfo).port }));
  });
}

async function connected(to: string): Promise<Socket> {
  const { host, port } = parts(to);
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return socket;
}

async function exchange(command: TcpCommand & { do: "exchange" }): Promise<Partial<TcpAnswer>> {
  const socket = await connected(command.to);
  const read = reading(socket);
  let received = 0;
  socket.on("data", (data: Buffer) => {
    received += data.length;
    if (command.expect !== undefined && received >= command.expect) socket.end();
  });
  socket.on("end", () => socket.end());
  if (command.file) await pipeline(createReadStream(command.file), socket, { end: command.half ?? false });
  else if (command.half) socket.end(command.text ?? "");
  else socket.write(command.text ?? "");
  return read;
}

async function reset(command: TcpCommand & { do: "reset" }): Promise<Partial<TcpAnswer>> {
  const socket = await connected(command.to);
  let received = 0;
  await new Promise<void>((resolve, reject) => {
    socket.on("error", reject);
    socket.on("data", (data: Buffer) => {
      received += data.length;
      if (received >= command.text.length) resolve();
    });
    socket.write(command.text);
  });
  socket.resetAndDestroy();
  return {};
}

if (process.argv[1] === import.meta.filename) {
  await obeyLines(async (command) => {
    if (command.do === "serve") return serve(command);
    if (command.do === "ended") return endings.wait(command.count);
    if (command.do === "exchange") return exchange(command);
    if (command.do === "reset") return reset(command);
    return { counters: {} };
  });
  process.exit();
}
