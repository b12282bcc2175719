#!/usr/bin/env node
/*
 * Makes assets/demo.rtpclip, the short clip that `npm start` publishes in a loop.
 *
 * Run by hand, with ffmpeg (libx264, drawtext) installed; nothing at run time needs ffmpeg. The pictures and
 * the sound are ffmpeg's own test sources. The result is a file of ready RTP packets; its format is described
 * in docs/demo-clip.md, and src/layer1-app/relay/demo-clip.ts reads it.
 *
 * Eight seconds are chosen so that both tracks end together: 200 frames of 40 ms, 375 AAC frames of 1,024
 * samples at 48 kHz. Played in a loop, neither track ever drifts from the other or from the clock.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";

const seconds = 8;
const framesPerSecond = 25;
const sampleRate = 48_000;
const samplesPerFrame = 1024;
const longestPacket = 1200; // RTP header and payload: fits one datagram through any tunnel
const rtpHeaderLength = 12;

const target = process.argv[2] ?? fileURLToPath(new URL("../assets/demo.rtpclip", import.meta.url));

function ffmpeg(args) {
  return execFileSync("ffmpeg", ["-hide_banner", "-loglevel", "error", ...args, "-"], {
    maxBuffer: 64 << 20,
    stdio: ["ignore", "pipe", "inherit"],
  });
}

function encodeVideo() {
  const flash = "drawbox=x=0:y=0:w=iw:h=12:color=white:t=fill:enable='lt(mod(t,1),0.08)'";
  const clock =
    "drawtext=text='apo demo  %{pts\\:hms}':fontsize=28:fontcolor=white:box=1:boxcolor=black@0.6" +
    ":boxborderw=8:x=w-tw-24:y=h-th-24";
  const source = `testsrc2=size=640x360:rate=${framesPerSecond}:duration=${seconds}`;
  return ffmpeg(
    ["-f", "lavfi", "-i", source, "-vf", `${flash},${clock}`, "-c:v", "libx264", "-profile:v", "main"]
      .concat(["-preset", "veryslow", "-bf", "0", "-g", `${framesPerSecond}`, "-sc_threshold", "0"])
      .concat(["-refs", "3", "-threads", "1", "-crf", "30", "-pix_fmt", "yuv420p"])
      .concat(["-x264-params", "slices=1:open-gop=0:aud=0", "-f", "h264"]),
  );
}

// Three turns of the loop are encoded and the middle one is kept, so that its first frame continues its last.
function encodeAudio() {
  const source = `sine=frequency=440:beep_factor=2:sample_rate=${sampleRate}:duration=${3 * seconds}`;
  return ffmpeg(
    ["-f", "lavfi", "-i", source, "-af", "volume=-12dB", "-ac", "1", "-c:a", "aac"] //
      .concat(["-b:a", "48k", "-f", "adts"]),
  );
}

/** NAL units of an Annex B stream, without start codes. */
function splitNals(stream) {
  const nals = [];
  let start = -1;
  for (let at = 0; at + 3 <= stream.length; at += 1) {
    if (stream[at] !== 0 || stream[at + 1] !== 0 || stream[at + 2] !== 1) continue;
    if (start >= 0) nals.push(trimZeros(stream.subarray(start, at)));
    start = at + 3;
  }
  nals.push(trimZeros(stream.subarray(start)));
  return nals;
}

function trimZeros(nal) {
  let end = nal.length;
  while (end > 0 && nal[end - 1] === 0) end -= 1;
  return nal.subarray(0, end);
}

/** Access units: the NAL units of one picture each (one slice a picture; parameter sets before it). */
function splitPictures(nals) {
  const pictures = [];
  let picture = [];
  for (const nal of nals) {
    const type = nal[0] & 31;
    if (type === 6 || type === 9) continue; // SEI (the encoder's settings) and delimiters: nobody needs them
    picture.push(nal);
    if (type === 1 || type === 5) {
      pictures.push(picture);
      picture = [];
    }
  }
  return pictures;
}

function rtpPacket({ payloadType, marker, sequence, timestamp, payload }) {
  const packet = Buffer.alloc(rtpHeaderLength + payload.length);
  packet[0] = 0x80;
  packet[1] = (marker ? 0x80 : 0) | payloadType;
  packet.writeUInt16BE(sequence, 2);
  packet.writeUInt32BE(timestamp, 4);
  payload.copy(packet, rtpHeaderLength);
  return packet;
}

/** RFC 6184 5.6 and 5.8: single NAL unit packets, and FU-A of equal parts where one does not fit. */
function h264Payloads(nal) {
  const room = longestPacket - rtpHeaderLength;
  if (nal.length <= room) return [Buffer.from(nal)];
  const body = nal.subarray(1);
  const payloads = [];
  for (let at = 0; at < body.length; at += room - 2) {
    const part = body.subarray(at, at + room - 2);
    const first = at === 0 ? 0x80 : 0;
    const last = at + part.length === body.length ? 0x40 : 0;
    payloads.push(Buffer.concat([Buffer.from([(nal[0] & 0xe0) | 28, first | last | (nal[0] & 31)]), part]));
  }
  return payloads;
}

function packVideo(pictures) {
  const packets = [];
  pictures.forEach((picture, index) => {
    const payloads = picture.flatMap(h264Payloads);
    payloads.forEach((payload, part) => {
      const bytes = rtpPacket({
        payloadType: 96,
        marker: part === payloads.length - 1,
        sequence: packets.length,
        timestamp: (index * 90_000) / framesPerSecond,
        payload,
      });
      packets.push({ track: 0, dueMicros: Math.round((index * 1e6) / framesPerSecond), bytes });
    });
  });
  return packets;
}

function splitAdts(stream) {
  const frames = [];
  for (let at = 0; at + 7 <= stream.length; ) {
    const headerLength = stream[at + 1] & 1 ? 7 : 9;
    const length = ((stream[at + 3] & 3) << 11) | (stream[at + 4] << 3) | (stream[at + 5] >> 5);
    frames.push(stream.subarray(at + headerLength, at + length));
    at += length;
  }
  return frames;
}

/** AudioSpecificConfig (ISO 14496-3 1.6.2.1) of AAC-LC from an ADTS header. */
function audioConfig(stream) {
  const objectType = (stream[2] >> 6) + 1;
  const frequencyIndex = (stream[2] >> 2) & 15;
  const channels = ((stream[2] & 1) << 2) | (stream[3] >> 6);
  const word = (objectType << 11) | (frequencyIndex << 7) | (channels << 3);
  return word.toString(16).padStart(4, "0");
}

/** RFC 3640 3.3.6, AAC-hbr: one access unit a packet. */
function packAudio(frames) {
  return frames.map((frame, index) => {
    const payload = Buffer.alloc(4 + frame.length);
    payload.writeUInt16BE(16, 0);
    payload.writeUInt16BE(frame.length << 3, 2);
    Buffer.from(frame).copy(payload, 4);
    const timestamp = index * samplesPerFrame;
    const bytes = rtpPacket({ payloadType: 97, marker: true, sequence: index, timestamp, payload });
    return { track: 1, dueMicros: Math.round((timestamp * 1e6) / sampleRate), bytes };
  });
}

function describe(parameterSets, config) {
  const sets = parameterSets.map((nal) => Buffer.from(nal).toString("base64")).join(",");
  const profile = Buffer.from(parameterSets[0].subarray(1, 4)).toString("hex").toUpperCase();
  return [
    "v=0",
    "o=- 0 0 IN IP4 127.0.0.1",
    "s=apo demo",
    "c=IN IP4 0.0.0.0",
    "t=0 0",
    "m=video 0 RTP/AVP 96",
    "a=rtpmap:96 H264/90000",
    `a=fmtp:96 packetization-mode=1;profile-level-id=${profile};sprop-parameter-sets=${sets}`,
    `a=framerate:${framesPerSecond}`,
    "a=control:trackID=0",
    "m=audio 0 RTP/AVP 97",
    `a=rtpmap:97 mpeg4-generic/${sampleRate}/1`,
    "a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;" +
      `indexdeltalength=3;config=${config}`,
    "a=control:trackID=1",
    "",
  ].join("\r\n");
}

function writeClip(sdp, tracks, packets) {
  const sdpBytes = Buffer.from(sdp);
  const head = Buffer.alloc(24);
  head.write("APOCLIP1", 0, "latin1");
  head.writeUInt32BE(seconds * 1e6, 12);
  head.writeUInt32BE(packets.length, 16);
  head.writeUInt16BE(tracks.length, 20);
  head.writeUInt16BE(sdpBytes.length, 22);
  const parts = [head];
  for (const track of tracks) {
    const entry = Buffer.alloc(12);
    entry.writeUInt32BE(track.payloadType, 0);
    entry.writeUInt32BE(track.clockRate, 4);
    entry.writeUInt32BE(track.clockRate * seconds, 8);
    parts.push(entry);
  }
  parts.push(sdpBytes);
  for (const packet of packets) {
    const entry = Buffer.alloc(8);
    entry.writeUInt32BE(packet.dueMicros, 0);
    entry.writeUInt16BE(packet.track, 4);
    entry.writeUInt16BE(packet.bytes.length, 6);
    parts.push(entry, packet.bytes);
  }
  const file = Buffer.concat(parts);
  file.writeUInt32BE(crc32(file.subarray(12)), 8);
  writeFileSync(target, file);
  return file.length;
}

const nals = splitNals(encodeVideo());
const pictures = splitPictures(nals);
const adts = encodeAudio();
const turn = (seconds * sampleRate) / samplesPerFrame;
const audioFrames = splitAdts(adts).slice(turn + 1, 2 * turn + 1); // + 1: the encoder's priming frame
if (pictures.length !== seconds * framesPerSecond || audioFrames.length !== turn) {
  throw new Error(
    `expected ${seconds * framesPerSecond} pictures and ${turn} AAC frames, got ` +
      `${pictures.length} and ${audioFrames.length}`,
  );
}
const parameterSets = [7, 8].map((type) => nals.find((nal) => (nal[0] & 31) === type));
const packets = [...packVideo(pictures), ...packAudio(audioFrames)];
packets.sort((left, right) => left.dueMicros - right.dueMicros || left.track - right.track);
const tracks = [
  { payloadType: 96, clockRate: 90_000 },
  { payloadType: 97, clockRate: sampleRate },
];
const length = writeClip(describe(parameterSets, audioConfig(adts)), tracks, packets);
console.log(`${target}: ${packets.length} packets, ${length} bytes, ${seconds} s`);
