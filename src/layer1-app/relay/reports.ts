/**
 * RTCP that the relay sends: sender reports and BYE to readers, receiver reports to publishers.
 *
 * Layer 1, relay. The engine builds the reports of UDP readers, since it counts their packets; those of TCP
 * readers are built here.
 */

import type { TrackStatus } from "../../layer3-ip/fanout-types.ts";
import type { Audience, Member } from "./audience.ts";
import type { ClockReading } from "./clock.ts";
import type { Core } from "./core.ts";
import { buildFrame } from "./protocol/interleaved.ts";
import {
  buildGoodbye,
  buildReceiverReport,
  buildSenderReport,
  buildSourceDescription,
  compound,
  ntpFromMs,
  type ReportBlock,
} from "./protocol/rtcp.ts";
import { RECEIVER_REPORT_MS, SERVER_NAME } from "./settings.ts";
import type { Stream, Track } from "./stream.ts";

/** The mapping to report now; undefined before the first packet. */
export function readClock(
  core: Core,
  track: Track,
  status = core.fanout.trackStatus(track.id),
): ClockReading | undefined {
  track.clock.onStatus(status);
  return track.clock.read(core.now());
}

/** A report to one UDP reader, at once. */
export function reportToReceiver(core: Core, track: Track, receiver: number, bye = false): void {
  const reading = readClock(core, track) ?? (bye ? nothingSent(core) : undefined);
  if (reading !== undefined) {
    core.fanout.sendReport(track.id, { ...reading, cname: SERVER_NAME, bye }, receiver);
  }
}

/** A report to one TCP reader, at once. */
export function reportToMember(core: Core, track: Track, member: Member, bye = false): void {
  const status = core.fanout.trackStatus(track.id);
  const reading = readClock(core, track, status) ?? (bye ? nothingSent(core) : undefined);
  if (reading === undefined) return;
  core.send(
    member.sockfd,
    buildFrame(member.channel + 1, memberReport(track.audience, member, status, reading, bye)),
  );
}

function memberReport(
  audience: Audience,
  member: Member,
  status: TrackStatus,
  reading: ClockReading,
  bye: boolean,
): Uint8Array {
  const parts = [
    buildSenderReport(status.ssrc, { ...reading, ...audience.sent(member) }),
    buildSourceDescription(status.ssrc, SERVER_NAME),
  ];
  if (bye) parts.push(buildGoodbye(status.ssrc));
  return compound(...parts);
}

/** For a BYE on a track that never carried a packet. */
function nothingSent(core: Core): ClockReading {
  return { ...ntpFromMs(core.now()), rtpTime: 0 };
}

/** Sends what is due of a stream's reports, to readers and to its publisher. Called every second. */
export function sweepReports(core: Core, stream: Stream, nowMs: number): void {
  const reportDue = nowMs >= stream.nextReportMs;
  let reported = false;
  for (const track of stream.tracks) {
    const status = core.fanout.trackStatus(track.id);
    const reading = readClock(core, track, status);
    if (!reportDue || reading === undefined) continue;
    reported = true;
    if (track.udpReaders > 0) {
      core.fanout.sendReport(track.id, { ...reading, cname: SERVER_NAME });
      core.count("rtcp.reports");
    }
    for (const member of track.audience.members) {
      // A slow reader's queue is not made longer.
      if (member.state === "waiting" && member.heldPackets >= 0) continue;
      const report = memberReport(track.audience, member, status, reading, false);
      core.send(member.sockfd, buildFrame(member.channel + 1, report));
      core.count("rtcp.reports");
    }
  }
  // Before the first packet there is nothing to report: it is tried again a second later.
  if (reported) stream.nextReportMs = nowMs + core.settings.reportMs;
  if (stream.source === undefined || nowMs < stream.nextReceiverReportMs) return;
  stream.nextReceiverReportMs = nowMs + RECEIVER_REPORT_MS;
  for (const track of stream.tracks) stream.source.report(track, receiverReport(core, track));
}

/** A compound receiver report on a track, for its publisher. Empty of blocks before the first packet. */
function receiverReport(core: Core, track: Track): Uint8Array {
  const status = core.fanout.trackStatus(track.id);
  const blocks = status.packets === 0 ? [] : [reportBlock(core, track, status)];
  return compound(buildReceiverReport(core.ssrc, blocks), buildSourceDescription(core.ssrc, SERVER_NAME));
}

/** RFC 3550 A.3: what was lost since the last report, in 256ths. */
function reportBlock(core: Core, track: Track, status: TrackStatus): ReportBlock {
  const expected = status.extendedSeq - status.baseSeq + 1;
  const expectedNow = expected - track.lastExpected;
  const lostNow = status.lost - track.lastLost;
  track.lastExpected = expected;
  track.lastLost = status.lost;
  const fraction = expectedNow <= 0 || lostNow <= 0 ? 0 : Math.floor((lostNow * 256) / expectedNow);
  return {
    ssrc: status.ssrc,
    fractionLost: Math.min(fraction, 255),
    lost: status.lost,
    extendedSeq: status.extendedSeq >>> 0,
    jitter: Math.round(status.jitter) >>> 0,
    ...track.clock.lastReport(core.now()),
  };
}
