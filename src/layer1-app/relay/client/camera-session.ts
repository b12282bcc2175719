/**
 * Setting up a session with a camera: OPTIONS, DESCRIBE, SETUP of each track, PLAY.
 *
 * Layer 1, relay/client: the asking part only. What the packets are for, keepalives and the end are the
 * business of `PullSession`. The oddities of cameras that it lives with are listed in docs/pull.md and tested
 * by name.
 */

import type { Apo } from "../../types.ts";
import { parseSessionHeader } from "../protocol/rtsp-message.ts";
import type { Sdp } from "../protocol/sdp.ts";
import { buildTransport, parseTransport, type TransportSpec } from "../protocol/transport-header.ts";
import { readCameraSdp } from "./camera-sdp.ts";
import { type CameraUrl, followRedirect, mendBase, resolveControl } from "./camera-url.ts";
import { type FailureCode, RtspFailure } from "./failure.ts";
import { type ClientAnswer, RtspClient, type RtspClientOptions } from "./rtsp-client.ts";

/** Redirects that are followed in one go. */
const REDIRECTS_MAX = 5;
/** RFC 2326 12.37: what a server means that names no timeout. */
const DEFAULT_TIMEOUT_SECONDS = 60;

/** What DESCRIBE told. */
export interface Described {
  readonly client: RtspClient;
  readonly sdp: Sdp;
  /** What was left out of the description, for the log. */
  readonly leftOut: readonly string[];
  /** The URL that PLAY, keepalives and TEARDOWN go to. */
  readonly aggregate: string;
  /** The URL of each medium's SETUP. */
  readonly controls: readonly string[];
  /** Methods that the server said it has; empty if it did not say. */
  readonly methods: ReadonlySet<string>;
}

/**
 * Connects and asks, following redirects. Closes the connection on failure.
 * @throws RtspFailure
 */
export async function describe(apo: Apo, url: CameraUrl, options: RtspClientOptions): Promise<Described> {
  let target = url;
  for (let i = 0; i <= REDIRECTS_MAX; i++) {
    const client = await RtspClient.connect(apo, target, options);
    try {
      const methods = await askMethods(client);
      const headers = [["Accept", "application/sdp"]] as const;
      const answer = await client.request({ method: "DESCRIBE", url: target.request, headers });
      if (answer.status >= 300 && answer.status < 400) {
        target = followRedirect(target, answer.headers.get("Location"));
        client.close();
        continue;
      }
      checkStatus(answer, "DESCRIBE");
      return understand(client, answer, methods);
    } catch (error) {
      client.close();
      throw error;
    }
  }
  throw new RtspFailure("redirect", `the server redirects more than ${REDIRECTS_MAX} times`);
}

/** What the server can do. A server that does not know OPTIONS is asked no more. */
async function askMethods(client: RtspClient): Promise<ReadonlySet<string>> {
  const answer = await client.request({ method: "OPTIONS", url: client.url.request });
  const methods = (answer.headers.get("Public") ?? "").split(",").map((one) => one.trim().toUpperCase());
  return new Set(methods.filter((one) => one !== ""));
}

function understand(client: RtspClient, answer: ClientAnswer, methods: ReadonlySet<string>): Described {
  const { sdp, leftOut } = readCameraSdp(answer.body);
  const contentBase = answer.headers.get("Content-Base") ?? answer.headers.get("Content-Location");
  const base = mendBase(contentBase, client.url.request);
  return {
    client,
    sdp,
    leftOut,
    aggregate: resolveControl(base, sdp.control),
    controls: sdp.media.map((media) => resolveControl(base, media.control)),
    methods,
  };
}

/** How a track was agreed to travel. */
export type AgreedTransport =
  | { readonly lower: "tcp"; readonly channels: readonly [number, number] }
  /** Port 0: the server did not say. */
  | { readonly lower: "udp"; readonly source: string | undefined; readonly ports: readonly [number, number] };

/** What SETUP asks for. */
export type AskedTransport =
  | { readonly lower: "tcp"; readonly channels: readonly [number, number] }
  | { readonly lower: "udp"; readonly ports: readonly [number, number] };

/**
 * Sets one track up. `timeoutSeconds` is what the answer's Session said.
 * @throws RtspFailure "transport" on 461 and on an answer with another transport, else as `checkStatus`.
 */
export async function setUp(
  described: Described,
  index: number,
  asked: AskedTransport,
): Promise<{ transport: AgreedTransport; timeoutSeconds: number }> {
  const { client, sdp, controls } = described;
  const profile = sdp.media[index]?.protocol.startsWith("RTP/AVPF") === true ? "RTP/AVPF" : "RTP/AVP";
  const spec: TransportSpec = {
    profile,
    lower: asked.lower,
    delivery: "unicast",
    ...(asked.lower === "tcp" ? { interleaved: asked.channels } : { clientPort: asked.ports }),
  };
  const answer = await client.request({
    method: "SETUP",
    url: controls[index] ?? described.aggregate,
    headers: [["Transport", buildTransport(spec)]],
  });
  checkStatus(answer, "SETUP");
  const session = parseSessionHeader(answer.headers.get("Session") ?? "");
  if (session.id !== "") client.session = session.id;
  const transport = agreed(answer.headers.get("Transport"), asked);
  return { transport, timeoutSeconds: session.timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS };
}

/** What the server made of what was asked; what it leaves out is as asked. */
function agreed(header: string | undefined, asked: AskedTransport): AgreedTransport {
  const spec = header === undefined ? undefined : parseTransport(header)[0];
  if (spec?.delivery === "multicast") {
    throw new RtspFailure("transport", "the server wants to send by multicast, which was not asked for");
  }
  if (asked.lower === "tcp") {
    // Some say RTP/AVP and mean TCP, since they name channels. Without either they would send over UDP.
    if (
      spec !== undefined &&
      spec.lower === "udp" &&
      spec.interleaved === undefined &&
      spec.serverPort !== undefined
    ) {
      throw new RtspFailure("transport", "the server answers a SETUP over TCP with one over UDP");
    }
    return { lower: "tcp", channels: spec?.interleaved ?? asked.channels };
  }
  if (spec?.lower === "tcp" || spec?.interleaved !== undefined) {
    throw new RtspFailure("transport", "the server answers a SETUP over UDP with one over TCP");
  }
  return { lower: "udp", source: spec?.source, ports: spec?.serverPort ?? [0, 0] };
}

/** Starts the packets. */
export async function play(described: Described): Promise<void> {
  const { client, aggregate } = described;
  const headers = [["Range", "npt=0.000-"]] as const; // Some cameras do not play without one.
  checkStatus(await client.request({ method: "PLAY", url: aggregate, headers }), "PLAY");
}

/** @throws RtspFailure unless the answer is a success. */
export function checkStatus(answer: ClientAnswer, method: string): void {
  const { status } = answer;
  if (status >= 200 && status < 300) return;
  const phrase = answer.reason.trim().slice(0, 100);
  const codes: Readonly<Record<number, FailureCode>> = {
    401: "unauthorized",
    403: "unauthorized",
    404: "not-found",
    461: "transport",
  };
  throw new RtspFailure(
    codes[status] ?? "refused",
    `the server answers ${method} with ${status} ${phrase}`,
    status,
  );
}
