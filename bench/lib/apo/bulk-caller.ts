/** Handlers of a bulk transfer's client: says what it will do, and does it. */
import type { AppVerbs, CloseReason, Message, Peer, Sockfd } from "../../../src/layer1-app/types.ts";
import { cell, count, endless, sharedCounts } from "./bulk-counts.ts";

const memory = sharedCounts("caller");

export function connected(sockfd: Sockfd, _peer: Peer, apo: AppVerbs): void {
  count(memory, cell.streams, 1);
  const sends = memory[cell.sends] === 1;
  void apo.sendto(sockfd, sends ? "u" : "d");
  if (sends) apo.sendto(sockfd, endless())?.catch(() => {});
}

export function request(_sockfd: Sockfd, message: Message): void {
  count(memory, cell.bytes, message.bytes.length);
}

export function closed(_sockfd: Sockfd, _reason: CloseReason): void {
  count(memory, cell.streams, -1);
}
