/**
 * The methods of a publisher: ANNOUNCE, SETUP to record, RECORD.
 *
 * Layer 1, relay.
 */

import { ApoError } from "../errors.ts";
import { type Exchange, Refusal } from "./exchange.ts";
import { channelsFor, chooseTransport, needSession, targetOf } from "./handlers-read.ts";
import { parseRtspUrl } from "./protocol/rtsp-url.ts";
import { parseSdp, type Sdp, SdpError } from "./protocol/sdp.ts";
import { buildTransport, type TransportSpec } from "./protocol/transport-header.ts";
import { type PublisherTransport, PublishSession } from "./publisher.ts";
import type { Session } from "./session.ts";
import { SESSIONS_PER_CONNECTION_MAX } from "./settings.ts";

export function announce(exchange: Exchange): void {
  const { core, connection } = exchange;
  const target = targetOf(exchange);
  if (target.path === "") throw new Refusal(400, "Bad Request: the URL names no path to publish");
  const type = exchange.header("Content-Type");
  if (type !== undefined && !/^application\/sdp\b/i.test(type)) {
    throw new Refusal(415, "Unsupported Media Type: a stream is announced in application/sdp");
  }
  if (core.expected.has(target.path)) {
    throw new Refusal(403, "Forbidden: this path has a source of its own");
  }
  const sdp = readSdp(exchange);
  if (core.sessions.size >= core.settings.sessionsMax) {
    throw new Refusal(503, "Service Unavailable: too many sessions");
  }
  // Announcing again in the same connection starts over.
  for (const session of [...connection.sessions]) {
    if (session instanceof PublishSession && session.path === target.path) session.end("announced again");
  }
  if (connection.sessions.size >= SESSIONS_PER_CONNECTION_MAX) {
    throw new Refusal(503, "Service Unavailable: too many sessions in this connection");
  }
  core.sessions.add(new PublishSession(core, connection, target.path, target.base, sdp));
  exchange.answer(200);
}

function readSdp(exchange: Exchange): Sdp {
  let sdp: Sdp;
  try {
    sdp = parseSdp(new TextDecoder().decode(exchange.request.body));
  } catch (error) {
    if (error instanceof SdpError) throw new Refusal(400, `Bad Request: ${error.message}`);
    throw error;
  }
  const foreign = sdp.media.find((media) => !/^RTP\/AVPF?(\/(UDP|TCP))?$/.test(media.protocol));
  if (foreign !== undefined) {
    throw new Refusal(415, `Unsupported Media Type: m=${foreign.type} is ${foreign.protocol}, not RTP/AVP`);
  }
  return sdp;
}

export function setupPublisher(exchange: Exchange, session: PublishSession): void {
  const { core, connection } = exchange;
  if (session.state === "active") throw new Refusal(455, "Method Not Valid in This State: it is recording");
  const track = trackOf(exchange.request.url, session);
  if (track < 0) throw new Refusal(404, "Not Found: the announced SDP has no such track");
  const spec = chooseTransport(exchange);
  if (session.lower !== undefined && session.lower !== spec.lower) {
    throw new Refusal(461, "Unsupported Transport: the session's other tracks use another one");
  }
  let transport: PublisherTransport;
  let answer: TransportSpec;
  const common = { profile: spec.profile, delivery: "unicast", mode: "record" } as const;
  if (spec.lower === "tcp") {
    session.unclaim(track);
    transport = { lower: "tcp", channels: channelsFor(exchange, spec) };
    answer = { ...common, lower: "tcp", interleaved: transport.channels };
  } else {
    const [rtp, rtcp] = spec.clientPort ?? [0, 0];
    transport = { lower: "udp", ports: [rtp, rtcp] };
    const serverPort = [core.rtpSocket.port, core.rtcpSocket.port] as const;
    answer = { ...common, lower: "udp", clientPort: transport.ports, serverPort };
  }
  session.attach(connection);
  session.setup(track, transport);
  exchange.answer(200, { headers: [["Transport", buildTransport(answer)], exchange.sessionHeader(session)] });
}

/**
 * Which track a SETUP means: its control may be absolute, or stand behind the base before or after a query, or be
 * one of the usual `trackID=N`.
 */
function trackOf(url: string, session: PublishSession): number {
  const wanted = withoutSlash(url);
  const { media } = session.sdp;
  const exact = media.findIndex(
    (one) => one.control !== undefined && matches(wanted, one.control, session.base),
  );
  if (exact >= 0) return exact;
  const numbered = /(?:trackid|streamid|stream|track)=?(\d{1,3})$/i.exec(wanted.replace(/\?.*$/, ""));
  if (numbered !== null && Number(numbered[1]) < media.length) return Number(numbered[1]);
  return media.length === 1 && wanted === withoutSlash(session.base) ? 0 : -1;
}

function matches(wanted: string, control: string, base: string): boolean {
  if (/^rtsps?:\/\//i.test(control)) {
    // The host may be written otherwise (a name, an address, with credentials): the path decides.
    const left = parseRtspUrl(wanted);
    const right = parseRtspUrl(control);
    return (
      left !== undefined && right !== undefined && left.path === right.path && left.query === right.query
    );
  }
  const mark = base.indexOf("?");
  const forms = [`${base}/${control}`];
  if (mark >= 0) forms.push(`${base.slice(0, mark)}/${control}${base.slice(mark)}`);
  const path = (text: string): string => text.replace(/^[a-z]+:\/\/[^/]*/i, "");
  return forms.some((form) => path(form) === path(wanted));
}

function withoutSlash(url: string): string {
  return url.replace(/\/+$/, "");
}

export function record(exchange: Exchange, given: Session | undefined): void {
  const session = needSession(given);
  if (!(session instanceof PublishSession)) {
    throw new Refusal(455, "Method Not Valid in This State: ANNOUNCE comes first");
  }
  if (session.trackCount === 0) throw new Refusal(455, "Method Not Valid in This State: no track is set up");
  try {
    session.record();
  } catch (error) {
    if (error instanceof ApoError) throw new Refusal(503, `Service Unavailable: ${error.message}`);
    throw error;
  }
  exchange.answer(200, { headers: [exchange.sessionHeader(session)] });
  session.punch();
}
