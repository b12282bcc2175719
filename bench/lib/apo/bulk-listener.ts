/** Handlers of a bulk transfer's listener: a connection that begins with "u" is read, one with "d" is sent to. */
import type { AppVerbs, CloseReason, Message, Peer, Sockfd } from "../../../src/layer1-app/types.ts";
import { cell, count, endless, sharedCounts } from "./bulk-counts.ts";

const memory = sharedCounts("listener");
const reading = new Set<Sockfd>();
const wantsBytes = "d".charCodeAt(0);

export function connected(_sockfd: Sockfd, _peer: Peer): void {
  count(memory, cell.streams, 1);
}

export function request(sockfd: Sockfd, message: Message, apo: AppVerbs): void {
  if (reading.has(sockfd)) {
    count(memory, cell.bytes, message.bytes.length);
    return;
  }
  reading.add(sockfd);
  if (message.bytes[0] === wantsBytes) apo.sendto(sockfd, endless())?.catch(() => {});
  else count(memory, cell.bytes, message.bytes.length - 1);
}

export function closed(sockfd: Sockfd, _reason: CloseReason): void {
  reading.delete(sockfd);
  count(memory, cell.streams, -1);
}
