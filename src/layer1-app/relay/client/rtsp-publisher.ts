/**
 * Publishing to an RTSP server over TCP: ANNOUNCE, SETUP of each track, RECORD, and TEARDOWN at the end.
 *
 * Layer 1, relay/client. It knows no clock and no codec: `$` frames are handed in ready, on channels 2 *
 * track for RTP and 2 * track + 1 for RTCP.
 */

import type { Apo } from "../../types.ts";
import { parseSessionHeader } from "../protocol/rtsp-message.ts";
import type { Sdp } from "../protocol/sdp.ts";
import { buildTransport, parseTransport, type TransportSpec } from "../protocol/transport-header.ts";
import { checkStatus } from "./camera-session.ts";
import { type CameraUrl, resolveControl } from "./camera-url.ts";
import { asFailure, RtspFailure } from "./failure.ts";
import { RtspClient } from "./rtsp-client.ts";

export interface PublisherOptions {
  readonly url: CameraUrl;
  /** The description, as parsed and as it is sent. Its `a=control` attributes must be relative. */
  readonly sdp: Sdp;
  readonly description: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** How long TEARDOWN is waited for. */
const TEARDOWN_MS = 1_000;

export class RtspPublisher {
  readonly #client: RtspClient;
  readonly #url: string;
  /** Resolves, never rejects, when the session is over: with why. */
  readonly ended: Promise<RtspFailure>;

  private constructor(client: RtspClient, url: string, ended: Promise<RtspFailure>) {
    this.#client = client;
    this.#url = url;
    this.ended = ended;
  }

  /**
   * Makes a session that records.
   * @throws RtspFailure
   */
  static async open(apo: Apo, options: PublisherOptions): Promise<RtspPublisher> {
    const { url, signal } = options;
    const { promise, resolve } = Promise.withResolvers<RtspFailure>();
    const client = await RtspClient.connect(apo, url, {
      closed: resolve,
      ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
      ...(signal === undefined ? {} : { signal }),
    });
    try {
      await announce(client, options);
      return new RtspPublisher(client, url.request, promise);
    } catch (error) {
      client.close();
      throw asFailure(error);
    }
  }

  /** Sends `$` frames. False when the connection takes no more of them: what was not sent is lost. */
  send(frames: Uint8Array): boolean {
    return this.#client.send(frames);
  }

  /** Bytes that the connection has not taken yet. */
  get queued(): number {
    return this.#client.queued;
  }

  /** Says TEARDOWN and closes the connection. Idempotent; `ended` does not resolve. */
  async stop(): Promise<void> {
    if (this.#client.open) {
      await this.#client.request({ method: "TEARDOWN", url: this.#url }, TEARDOWN_MS).catch(() => {});
    }
    this.#client.close();
  }
}

async function announce(client: RtspClient, options: PublisherOptions): Promise<void> {
  const { url, sdp, description } = options;
  const headers = [["Content-Type", "application/sdp"]] as const;
  checkStatus(
    await client.request({ method: "ANNOUNCE", url: url.request, headers, body: description }),
    "ANNOUNCE",
  );
  for (const [track, media] of sdp.media.entries()) {
    const channels = [2 * track, 2 * track + 1] as const;
    await setUpTrack(client, resolveControl(url.request, media.control), channels);
  }
  const range = [["Range", "npt=0.000-"]] as const;
  checkStatus(await client.request({ method: "RECORD", url: url.request, headers: range }), "RECORD");
}

async function setUpTrack(
  client: RtspClient,
  url: string,
  channels: readonly [number, number],
): Promise<void> {
  const spec: TransportSpec = {
    profile: "RTP/AVP",
    lower: "tcp",
    delivery: "unicast",
    interleaved: channels,
    mode: "record",
  };
  const transport = buildTransport(spec);
  const answer = await client.request({ method: "SETUP", url, headers: [["Transport", transport]] });
  checkStatus(answer, "SETUP");
  const session = parseSessionHeader(answer.headers.get("Session") ?? "");
  if (session.id !== "") client.session = session.id;
  const given = parseTransport(answer.headers.get("Transport") ?? "")[0]?.interleaved ?? channels;
  if (given[0] !== channels[0] || given[1] !== channels[1]) {
    throw new RtspFailure(
      "transport",
      `the server wants channels ${given.join("-")} and not ${channels.join("-")}`,
    );
  }
}
