/**
 * The methods of a reader: DESCRIBE, SETUP, PLAY, PAUSE; and TEARDOWN, for publishers too.
 *
 * Layer 1, relay.
 */

import type { Core } from "./core.ts";
import { type Exchange, Refusal } from "./exchange.ts";
import { type RequestTarget, requestTarget } from "./protocol/rtsp-url.ts";
import { buildTransport, parseTransport, type TransportSpec } from "./protocol/transport-header.ts";
import { PublishSession } from "./publisher.ts";
import { type PlayedTrack, type ReaderTransport, ReadSession } from "./reader.ts";
import type { Session } from "./session.ts";
import { SESSIONS_PER_CONNECTION_MAX, WAITING_MAX } from "./settings.ts";
import type { Stream, Track } from "./stream.ts";

/** The target of a request that needs one. */
export function targetOf(exchange: Exchange): RequestTarget {
  const target = requestTarget(exchange.request.url);
  if (target === undefined) throw new Refusal(400, "Bad Request: the URL is not that of a stream");
  return target;
}

export async function describe(exchange: Exchange): Promise<void> {
  const { core, connection } = exchange;
  const target = targetOf(exchange);
  const accept = exchange.header("Accept");
  if (accept !== undefined && !/application\/sdp|application\/\*|\*\/\*/i.test(accept)) {
    throw new Refusal(406, "Not Acceptable: a stream is described in application/sdp only");
  }
  const stream = await findStream(core, target.path);
  exchange.answer(200, {
    headers: [
      ["Content-Base", `${target.base}/`],
      ["Content-Type", "application/sdp"],
    ],
    body: stream.description(connection.localAddress),
  });
}

/** The path's stream, waited for if its source is on its way. */
async function findStream(core: Core, path: string): Promise<Stream> {
  const there = core.streams.get(path);
  if (there !== undefined) return there;
  const source = core.expected.get(path);
  if (source === undefined) throw notFound(path);
  if (core.streams.waiting >= WAITING_MAX)
    throw new Refusal(503, "Service Unavailable: too many wait for a source");
  const waiting = core.streams.wait(path, core.settings.describeHoldMs, core.now());
  source.wanted?.();
  const stream = await waiting;
  if (stream === undefined) throw new Refusal(503, "Service Unavailable: the source is not connected");
  return stream;
}

function notFound(path: string): Refusal {
  return new Refusal(
    404,
    path === "" ? "Not Found: the URL has no path" : "Not Found: nobody publishes this path",
  );
}

/** SETUP to read; a publisher's goes to `handlers-publish.ts`. */
export function setupReader(exchange: Exchange, given: Session | undefined): void {
  const { core, connection } = exchange;
  const target = targetOf(exchange);
  const stream = core.streams.get(target.path);
  if (stream === undefined) throw notFound(target.path);
  const track = trackOf(stream, target);
  const spec = chooseTransport(exchange);
  const session = sessionFor(exchange, given, stream, spec.lower);
  const transport = transportFor(exchange, session, track, spec);
  session.attach(connection);
  session.setup(connection, track, exchange.request.url, transport);
  const status = core.fanout.trackStatus(track.id);
  const ssrc = status.packets > 0 && track.media.formats.length === 1 ? { ssrc: status.ssrc } : {};
  const answer: TransportSpec =
    transport.lower === "tcp"
      ? { profile: spec.profile, lower: "tcp", delivery: "unicast", interleaved: transport.channels, ...ssrc }
      : {
          profile: spec.profile,
          lower: "udp",
          delivery: "unicast",
          clientPort: transport.ports,
          serverPort: [core.rtpSocket.port, core.rtcpSocket.port],
          ...ssrc,
        };
  exchange.answer(200, {
    headers: [["Transport", buildTransport(answer)], exchange.sessionHeader(session)],
  });
}

function trackOf(stream: Stream, target: RequestTarget): Track {
  if (target.track === undefined && stream.tracks.length > 1) {
    throw new Refusal(459, "Aggregate Operation Not Allowed: SETUP takes one track, such as trackID=0");
  }
  const track = stream.tracks[target.track ?? 0];
  if (track === undefined) throw new Refusal(404, `Not Found: the stream has ${stream.tracks.length} tracks`);
  return track;
}

/**
 * The first alternative that can be served. Multicast, secure profiles and a transport without ports cannot.
 * @throws Refusal 400 without a header, 461 when there is none.
 */
export function chooseTransport(exchange: Exchange): TransportSpec {
  const header = exchange.header("Transport");
  if (header === undefined) throw new Refusal(400, "Bad Request: SETUP without a Transport header");
  const spec = parseTransport(header).find(
    (one) =>
      one.delivery === "unicast" &&
      (one.profile === "RTP/AVP" || one.profile === "RTP/AVPF") &&
      (one.lower === "tcp" || one.clientPort?.every((port) => port > 0) === true),
  );
  if (spec === undefined) {
    throw new Refusal(
      461,
      "Unsupported Transport: RTP/AVP unicast over UDP (client_port) or TCP (interleaved) only",
    );
  }
  return spec;
}

/** The session that a SETUP belongs to, or a new one. */
function sessionFor(
  exchange: Exchange,
  given: Session | undefined,
  stream: Stream,
  lower: "udp" | "tcp",
): ReadSession {
  const { core, connection } = exchange;
  const named = exchange.header("Session") !== undefined;
  if (given instanceof ReadSession && given.stream === stream) {
    if (given.lower === lower) {
      if (lower === "udp" || given.connection === connection) return given;
      if (named)
        throw new Refusal(461, "Unsupported Transport: the session is interleaved in another connection");
    } else if (named) {
      throw new Refusal(461, "Unsupported Transport: the session's other tracks use another one");
    }
    // A client that lost patience with UDP comes again over TCP, in the same connection and without a word about
    // its session: that one is over, this is a new one.
    given.end("set up anew over another transport");
  } else if (given !== undefined) {
    if (named) throw new Refusal(459, "Aggregate Operation Not Allowed: the session is for another stream");
    if (given.connection === connection && given.state !== "active") given.end("another stream was set up");
  }
  if (core.sessions.size >= core.settings.sessionsMax || stream.readers.size >= core.settings.readersMax) {
    throw new Refusal(503, "Service Unavailable: too many readers");
  }
  if (connection.sessions.size >= SESSIONS_PER_CONNECTION_MAX) {
    throw new Refusal(503, "Service Unavailable: too many sessions in this connection");
  }
  const session = new ReadSession(core, connection, stream);
  core.sessions.add(session);
  return session;
}

function transportFor(
  exchange: Exchange,
  session: ReadSession,
  track: Track,
  spec: TransportSpec,
): ReaderTransport {
  if (spec.lower === "udp") {
    const [rtp, rtcp] = spec.clientPort ?? [0, 0];
    return { lower: "udp", ports: [rtp, rtcp] };
  }
  // The track's own channels count as free: it is being set up anew.
  session.teardownTrack(track);
  return { lower: "tcp", channels: channelsFor(exchange, spec) };
}

/** The pair asked for, or a free one where none was. */
export function channelsFor(exchange: Exchange, spec: TransportSpec): readonly [number, number] {
  const { connection } = exchange;
  if (spec.interleaved !== undefined && !connection.free(spec.interleaved)) {
    throw new Refusal(461, `Unsupported Transport: interleaved=${spec.interleaved.join("-")} is in use`);
  }
  const channels = spec.interleaved ?? connection.freePair();
  if (channels === undefined) throw new Refusal(461, "Unsupported Transport: every channel is in use");
  return channels;
}

/** The session that PLAY, PAUSE and RECORD need. */
export function needSession(session: Session | undefined): Session {
  if (session === undefined) throw new Refusal(454, "Session Not Found: SETUP comes first");
  return session;
}

export async function play(exchange: Exchange, given: Session | undefined): Promise<void> {
  const { core, connection } = exchange;
  const session = needSession(given);
  if (!(session instanceof ReadSession)) {
    throw new Refusal(455, "Method Not Valid in This State: this session publishes");
  }
  if (session.list.length === 0) throw new Refusal(455, "Method Not Valid in This State: no track is set up");
  checkPath(exchange, session);
  if (session.lower === "udp") session.attach(connection);
  const played = session.prepare();
  const headers: (readonly [string, string])[] = [exchange.sessionHeader(session), ["Range", "npt=now-"]];
  // The speed that is really played: a client that asks for another must hear about it.
  if (exchange.header("Scale") !== undefined) headers.push(["Scale", "1.000"]);
  const info = rtpInfo(played);
  if (info !== "") headers.push(["RTP-Info", info]);
  exchange.answer(200, { headers });
  // Over TCP the answer is ahead in the same queue; over UDP the first packet could overtake it.
  if (session.lower === "udp") await core.apo.flushed(connection.sockfd);
  session.start();
}

function rtpInfo(played: readonly PlayedTrack[]): string {
  return played
    .filter(({ start }) => start.seq >= 0)
    .map(({ url, start }) => `url=${url};seq=${start.seq};rtptime=${start.rtpTime >>> 0}`)
    .join(",");
}

/** The URL of an aggregate request, if it is one of a stream at all, must be the session's. */
function checkPath(exchange: Exchange, session: Session): void {
  const target = requestTarget(exchange.request.url);
  if (target !== undefined && target.path !== "" && target.path !== session.path) {
    throw new Refusal(404, "Not Found: the session is for another stream");
  }
}

export function pause(exchange: Exchange, given: Session | undefined): void {
  const session = needSession(given);
  checkPath(exchange, session);
  if (session instanceof ReadSession) session.pause();
  else if (session.state !== "active")
    throw new Refusal(455, "Method Not Valid in This State: not recording");
  exchange.answer(200, { headers: [exchange.sessionHeader(session)] });
}

/** Ends the session, or takes one track out of it. The answer has no Session header: there is none any more. */
export function teardown(exchange: Exchange, given: Session | undefined): void {
  const session = needSession(given);
  const track = requestTarget(exchange.request.url)?.track;
  if (session instanceof ReadSession && track !== undefined && session.list.length > 1) {
    const entry = session.stream.tracks[track];
    if (entry === undefined || !session.teardownTrack(entry)) {
      throw new Refusal(404, "Not Found: that track is not set up");
    }
    exchange.answer(200, { headers: [exchange.sessionHeader(session)] });
    return;
  }
  exchange.answer(200);
  session.end(session instanceof PublishSession ? "it is done" : "it left");
}
