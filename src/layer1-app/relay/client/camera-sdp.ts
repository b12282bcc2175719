/**
 * A camera's description, read as far as it makes sense: which of its media are there to be pulled.
 *
 * Layer 1, relay/client: pure. The relay's own server may refuse a publisher's wrong SDP; a camera cannot be
 * told, so here a medium that makes no sense is left out and named, and the others are played.
 */

import { MEDIA_MAX, parseSdp, type Sdp, SdpError, type SdpMedia } from "../protocol/sdp.ts";
import { RtspFailure } from "./failure.ts";

/** What can be pulled, and what was left out, in sentences without a full stop. */
export interface CameraDescription {
  readonly sdp: Sdp;
  readonly leftOut: readonly string[];
}

/**
 * Reads a DESCRIBE answer's body.
 * @throws RtspFailure "description" when nothing of it can be played.
 */
export function readCameraSdp(text: string): CameraDescription {
  const { session, sections } = cut(text);
  const leftOut: string[] = [];
  const media: SdpMedia[] = [];
  let last: Sdp | undefined;
  for (const section of sections) {
    try {
      const parsed = parseSdp([...session, ...section].join("\n"));
      last = parsed;
      media.push(...parsed.media);
    } catch (error) {
      if (!(error instanceof SdpError)) throw error;
      leftOut.push(`${section[0] ?? "m="} (it makes no sense)`);
    }
  }
  if (last === undefined) {
    const why = sections.length === 0 ? "it has no m= line" : "none of its m= lines makes sense";
    throw new RtspFailure("description", `the server's description cannot be used: ${why}`);
  }
  const playable = media.filter((one) => {
    const why = unplayable(one, media);
    if (why !== undefined) leftOut.push(`${one.type} ${one.encoding || one.formats.join(" ")} (${why})`);
    return why === undefined;
  });
  if (playable.length === 0) {
    throw new RtspFailure(
      "description",
      `the server's description has nothing to play: ${leftOut.join(", ")}`,
    );
  }
  return { sdp: { ...last, media: playable }, leftOut };
}

/** Session lines and the lines of each medium; what is no SDP line at all is dropped. */
function cut(text: string): { session: string[]; sections: string[][] } {
  const session: string[] = [];
  const sections: string[][] = [];
  for (const raw of text.split("\n")) {
    const line = raw.replace(/[\r\0]+$/, "").trimStart();
    if (!/^[a-zA-Z]=/.test(line)) continue;
    if (!line.startsWith("m=")) (sections.at(-1) ?? session).push(line);
    else if (sections.length < MEDIA_MAX) sections.push([line]);
    else break;
  }
  return { session, sections };
}

function unplayable(media: SdpMedia, all: readonly SdpMedia[]): string | undefined {
  if (/SAVP/.test(media.protocol)) return "encrypted media (SRTP) are not supported yet";
  if (!/^RTP\/AVPF?(\/UDP|\/TCP)?$/.test(media.protocol)) return `${media.protocol} is not RTP`;
  // From a server, "sendonly" is what the client may send: a back channel. Some cameras write it on
  // everything.
  const backChannel = media.direction === "sendonly";
  if (backChannel && all.some((one) => one.type === media.type && one.direction !== "sendonly")) {
    return "a back channel to the camera";
  }
  return undefined;
}
