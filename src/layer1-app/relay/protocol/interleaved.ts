/**
 * `$` frames: RTP and RTCP inside an RTSP connection (RFC 2326 10.12): `$`, channel, length (16 bit), packet.
 *
 * Layer 1, relay/protocol: pure. Nothing here allocates a frame at a time on the reading side.
 */

/** Bytes before each packet. */
export const FRAME_PREFIX_BYTES = 4;
/** The longest packet that a frame holds. */
export const FRAME_PAYLOAD_MAX = 65_535;

/** One `$` frame around `payload`. */
export function buildFrame(channel: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_PREFIX_BYTES + payload.length);
  writePrefix(frame, 0, channel, payload.length);
  frame.set(payload, FRAME_PREFIX_BYTES);
  return frame;
}

/** Writes `$`, channel and length at `at`. */
export function writePrefix(bytes: Uint8Array, at: number, channel: number, length: number): void {
  if (length > FRAME_PAYLOAD_MAX) throw new RangeError(`a $ frame holds 65,535 bytes, not ${length}`);
  bytes[at] = 0x24;
  bytes[at + 1] = channel;
  bytes[at + 2] = length >> 8;
  bytes[at + 3] = length & 0xff;
}

/**
 * Walks the whole frames of a run: `visit(channel, start, length)` for each packet, `start` its first byte in `bytes`.
 * Returns how many bytes were walked; a cut frame at the end is left.
 */
export function walkFrames(
  bytes: Uint8Array,
  visit: (channel: number, start: number, length: number) => void,
): number {
  let at = 0;
  while (at + FRAME_PREFIX_BYTES <= bytes.length && bytes[at] === 0x24) {
    const length = ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0);
    const start = at + FRAME_PREFIX_BYTES;
    if (start + length > bytes.length) break;
    visit(bytes[at + 1] ?? 0, start, length);
    at = start + length;
  }
  return at;
}
