/**
 * A pair of UDP sockets in the media engine for one track of a pull: RTP on an even port, RTCP on the next.
 *
 * Layer 1, relay/client. The relay's own pair serves its readers; a pull has its own, since a camera that
 * sends all tracks from one port could not be told apart there.
 */

import type { DatagramEvent, Fanout, FanoutSocket } from "../../../layer3-ip/fanout-types.ts";
import { ApoError } from "../../errors.ts";

/** How often a pair is tried for: the port after a free even one may be taken. */
const PAIR_TRIES = 64;

export interface UdpPair {
  readonly rtp: FanoutSocket;
  readonly rtcp: FanoutSocket;
  /** Gives both ports back. Idempotent. */
  close(): void;
}

type DatagramHandler = (event: DatagramEvent) => void;

/**
 * Who listens on which socket of an engine; the first pair on an engine puts it in front of the relay's
 * handler.
 */
const handlers = new WeakMap<Fanout, Map<number, DatagramHandler>>();

function handlersOf(fanout: Fanout): Map<number, DatagramHandler> {
  const known = handlers.get(fanout);
  if (known !== undefined) return known;
  const map = new Map<number, DatagramHandler>();
  handlers.set(fanout, map);
  const before = fanout.events;
  fanout.events = {
    ...before,
    datagram(event) {
      const handler = map.get(event.socket);
      if (handler === undefined) before.datagram?.(event);
      else handler(event);
    },
  };
  return map;
}

/**
 * Opens a pair on the address that `like` is bound to.
 * @throws ApoError EADDRINUSE when no pair is free.
 */
export async function openUdpPair(
  fanout: Fanout,
  like: FanoutSocket,
  heard: (lane: "rtp" | "rtcp", event: DatagramEvent) => void,
): Promise<UdpPair> {
  const { address } = like;
  for (let i = 0; i < PAIR_TRIES; i++) {
    const rtp = await fanout.openSocket({ address, port: 0 });
    const rtcp = rtp.port % 2 === 0 ? await openNext(fanout, address, rtp.port + 1) : undefined;
    if (rtcp === undefined) {
      fanout.closeSocket(rtp.id);
      continue;
    }
    const map = handlersOf(fanout);
    map.set(rtp.id, (event) => heard("rtp", event));
    map.set(rtcp.id, (event) => heard("rtcp", event));
    return {
      rtp,
      rtcp,
      close() {
        for (const socket of [rtp, rtcp]) if (map.delete(socket.id)) fanout.closeSocket(socket.id);
      },
    };
  }
  throw new ApoError("EADDRINUSE", `pull: no free pair of UDP ports was found in ${PAIR_TRIES} tries`);
}

async function openNext(fanout: Fanout, address: string, port: number): Promise<FanoutSocket | undefined> {
  try {
    return await fanout.openSocket({ address, port });
  } catch (error) {
    if (error instanceof ApoError && error.code === "EADDRINUSE") return undefined;
    throw error;
  }
}
