/**
 * The clip file: a few seconds of ready RTP packets with their SDP, to be published in a loop.
 *
 * Layer 1, relay. It knows the file's layout (docs/demo-clip.md) and no sockets; scripts/make-demo-clip.js
 * writes such files. Everything in a file is checked, so that a damaged one is refused and never sent.
 */

import { readFile } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { FRAME_PREFIX_BYTES, writePrefix } from "./protocol/interleaved.ts";
import { RTP_HEADER_BYTES, readUint16, readUint32 } from "./protocol/rtp-packet.ts";
import { parseSdp } from "./protocol/sdp.ts";

const MAGIC = "APOCLIP1";
const HEAD_BYTES = 24;
const TRACK_BYTES = 12;
const ENTRY_BYTES = 8;
/** Most tracks of a clip: their channels must fit the interleaved pairs. */
const TRACKS_MAX = 16;
/** Longest packet that a clip may hold. */
const PACKET_BYTES_MAX = 1460;

/** One track of a clip. */
export interface ClipTrack {
  readonly payloadType: number;
  /** RTP clock, Hz. */
  readonly clockRate: number;
  /** By how much RTP time grows a turn of the loop. */
  readonly loopTicks: number;
  /** Packets a turn. */
  readonly packets: number;
}

/** A clip, its packets laid out as `$` frames that only want their header's numbers patched. */
export interface DemoClip {
  readonly sdp: string;
  readonly loopMicros: number;
  readonly tracks: readonly ClipTrack[];
  /** Packets in all. */
  readonly count: number;
  /** When packet i is due, microseconds from the start of the turn; never falling. */
  readonly dueMicros: Uint32Array;
  /** Its track. */
  readonly track: Uint8Array;
  /** Its sequence number and RTP time, counted from the start of the turn. */
  readonly sequence: Uint16Array;
  readonly rtpTime: Uint32Array;
  /** Where its `$` frame starts in `frames`; one more entry than packets. */
  readonly start: Uint32Array;
  /** The frames, one behind the other, channel 2 * track written. */
  readonly frames: Uint8Array;
}

/** The clip file is not one, or is damaged. */
export class ClipError extends Error {
  override readonly name = "ClipError";
  readonly code = "ECLIP";
}

/** The clip that comes with the package. */
export const DEMO_CLIP_URL = new URL("../../../assets/demo.rtpclip", import.meta.url);

/**
 * Reads a clip file.
 * @throws ClipError for a damaged one; the file system's error if it cannot be read.
 */
export async function readClip(file: string | URL = DEMO_CLIP_URL): Promise<DemoClip> {
  const bytes = await readFile(file);
  try {
    return parseClip(bytes);
  } catch (error) {
    if (!(error instanceof ClipError)) throw error;
    throw new ClipError(`${file instanceof URL ? file.pathname : file}: ${error.message}`);
  }
}

/**
 * Parses a clip file's bytes.
 * @throws ClipError with what is wrong and where.
 */
export function parseClip(bytes: Uint8Array): DemoClip {
  if (bytes.length < HEAD_BYTES) throw new ClipError(`not a clip: ${bytes.length} bytes are too few`);
  if (Buffer.from(bytes.subarray(0, 8)).toString("latin1") !== MAGIC) {
    throw new ClipError(`not a clip: it does not start with ${MAGIC}`);
  }
  if (crc32(bytes.subarray(12)) !== readUint32(bytes, 8)) {
    throw new ClipError("damaged: its checksum does not match (fetch the file again)");
  }
  const loopMicros = readUint32(bytes, 12);
  const count = readUint32(bytes, 16);
  const trackCount = readUint16(bytes, 20);
  const sdpStart = HEAD_BYTES + TRACK_BYTES * trackCount;
  const entriesStart = sdpStart + readUint16(bytes, 22);
  if (trackCount === 0 || trackCount > TRACKS_MAX) throw new ClipError(`it has ${trackCount} tracks`);
  if (loopMicros === 0) throw new ClipError("its loop has no length");
  // A packet takes at least its entry and an RTP header: more of them than bytes cannot be.
  if (count === 0 || entriesStart + count * (ENTRY_BYTES + RTP_HEADER_BYTES) > bytes.length) {
    throw new ClipError(`it says ${count} packets, which ${bytes.length} bytes do not hold`);
  }
  const sdp = new TextDecoder().decode(bytes.subarray(sdpStart, entriesStart));
  checkSdp(sdp, trackCount);
  const packets = layOut(bytes, entriesStart, { count, trackCount, loopMicros });
  return { sdp, loopMicros, count, tracks: readTracks(bytes, trackCount, loopMicros, packets), ...packets };
}

function checkSdp(sdp: string, trackCount: number): void {
  try {
    const media = parseSdp(sdp).media.length;
    if (media !== trackCount) throw new ClipError(`its SDP has ${media} media for ${trackCount} tracks`);
  } catch (error) {
    throw error instanceof ClipError ? error : new ClipError(`its SDP: ${(error as Error).message}`);
  }
}

function readTracks(
  bytes: Uint8Array,
  trackCount: number,
  loopMicros: number,
  packets: ReturnType<typeof layOut>,
): ClipTrack[] {
  const tracks: ClipTrack[] = [];
  for (let index = 0; index < trackCount; index++) {
    const at = HEAD_BYTES + TRACK_BYTES * index;
    const payloadType = readUint32(bytes, at);
    const clockRate = readUint32(bytes, at + 4);
    const loopTicks = readUint32(bytes, at + 8);
    if (payloadType > 127 || clockRate === 0) throw new ClipError(`track ${index} makes no sense`);
    // Anything but equal would let the tracks drift apart, a little more each turn.
    if (loopTicks * 1e6 !== clockRate * loopMicros) {
      throw new ClipError(`track ${index} is not as long as the loop`);
    }
    if (packets.track.some((one, i) => one === index && (packets.rtpTime[i] ?? 0) >= loopTicks)) {
      throw new ClipError(`track ${index} has a packet that is later than the loop`);
    }
    tracks.push({ payloadType, clockRate, loopTicks, packets: packets.perTrack[index] ?? 0 });
  }
  return tracks;
}

interface Extent {
  readonly count: number;
  readonly trackCount: number;
  readonly loopMicros: number;
}

function layOut(bytes: Uint8Array, entriesStart: number, extent: Extent) {
  const { count, trackCount, loopMicros } = extent;
  const dueMicros = new Uint32Array(count);
  const track = new Uint8Array(count);
  const sequence = new Uint16Array(count);
  const rtpTime = new Uint32Array(count);
  const start = new Uint32Array(count + 1);
  // A prefix is shorter than an entry: it is enough.
  const frames = new Uint8Array(bytes.length - entriesStart);
  const perTrack = new Uint32Array(trackCount);
  let from = entriesStart;
  let to = 0;
  for (let i = 0; i < count; i++) {
    const due = readUint32(bytes, from);
    const index = readUint16(bytes, from + 4);
    const length = readUint16(bytes, from + 6);
    from += ENTRY_BYTES;
    if (index >= trackCount) throw new ClipError(`packet ${i} is of track ${index}, which there is not`);
    if (due >= loopMicros || due < (dueMicros[i - 1] ?? 0))
      throw new ClipError(`packet ${i} is out of order`);
    if (length < RTP_HEADER_BYTES || length > PACKET_BYTES_MAX || from + length > bytes.length) {
      throw new ClipError(`packet ${i} cannot have ${length} bytes`);
    }
    if ((bytes[from] ?? 0) !== 0x80) throw new ClipError(`packet ${i} is no plain RTP packet`);
    const number = perTrack[index] ?? 0;
    if (readUint16(bytes, from + 2) !== (number & 0xffff)) {
      throw new ClipError(`packet ${i} has not the sequence number that follows`);
    }
    perTrack[index] = number + 1;
    dueMicros[i] = due;
    track[i] = index;
    sequence[i] = readUint16(bytes, from + 2);
    rtpTime[i] = readUint32(bytes, from + 4);
    start[i] = to;
    writePrefix(frames, to, 2 * index, length);
    frames.set(bytes.subarray(from, from + length), to + FRAME_PREFIX_BYTES);
    to += FRAME_PREFIX_BYTES + length;
    from += length;
  }
  if (from !== bytes.length) throw new ClipError(`${bytes.length - from} bytes are left over at its end`);
  start[count] = to;
  return { dueMicros, track, sequence, rtpTime, start, frames: frames.subarray(0, to), perTrack };
}
