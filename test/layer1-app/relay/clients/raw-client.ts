/** An RTSP client of a few lines on a kernel socket: it can be as slow, rude or exact as a test needs. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { walkFrames } from "../../../../src/layer1-app/relay/protocol/interleaved.ts";
import { classify, rtspFraming } from "../../../../src/layer1-app/relay/protocol/rtsp-framing.ts";
import {
  parseRtspMessage,
  type RtspResponse,
} from "../../../../src/layer1-app/relay/protocol/rtsp-message.ts";

export class RawClient {
  readonly socket: Socket;
  /** `$` frames since the start. */
  readonly frames: { readonly channel: number; readonly packet: Uint8Array }[] = [];
  ended = false;
  #rest: Buffer = Buffer.alloc(0);
  #answers: RtspResponse[] = [];
  #wake: (() => void)[] = [];
  #cseq = 0;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.ended = true;
      this.#notify();
    });
  }

  static async connect(port: number): Promise<RawClient> {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    return new RawClient(socket);
  }

  async ask(
    method: string,
    url: string,
    headers: Record<string, string> = {},
    body = "",
  ): Promise<RtspResponse> {
    this.#cseq += 1;
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const length = body === "" ? "" : `Content-Length: ${body.length}\r\n`;
    this.socket.write(
      `${method} ${url} RTSP/1.0\r\nCSeq: ${this.#cseq}\r\n${lines.join("")}${length}\r\n${body}`,
    );
    return this.answer();
  }

  async answer(): Promise<RtspResponse> {
    await this.until(() => this.#answers.length > 0);
    const answer = this.#answers.shift();
    if (answer === undefined) throw new Error("the connection ended without an answer");
    return answer;
  }

  /** Resolves when `done` holds, or the connection has ended. */
  async until(done: () => boolean): Promise<void> {
    while (!done() && !this.ended) {
      await new Promise<void>((resolve) => {
        this.#wake.push(resolve);
      });
    }
  }

  /** SETUP over TCP on channels 0-1 and PLAY. */
  async play(url: string): Promise<RtspResponse> {
    await this.ask("SETUP", `${url}/trackID=0`, { Transport: "RTP/AVP/TCP;unicast;interleaved=0-1" });
    return this.ask("PLAY", `${url}/`);
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    for (;;) {
      const length = rtspFraming(this.#rest);
      if (length === 0) break;
      const piece = this.#rest.subarray(0, length);
      this.#rest = this.#rest.subarray(length);
      // A client that spoke HTTP is answered in HTTP: nothing that is framed as RTSP.
      if (classify(piece) === "garbage") continue;
      if (piece[0] === 0x24) {
        walkFrames(piece, (channel, start, size) => {
          this.frames.push({ channel, packet: piece.subarray(start, start + size) });
        });
        continue;
      }
      const message = parseRtspMessage(piece);
      if (message.kind === "response") this.#answers.push(message);
    }
    this.#notify();
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
