/** A handler module of modules.test.ts: it keeps a count a connection, and does as it is told. */
import { threadId } from "node:worker_threads";
import type { Alarm, AppVerbs, CloseReason, Message, Peer, Sockfd } from "../../../src/index.ts";

const counts = new Map<Sockfd, number>();
const ends: string[] = [];
const alarms: string[] = [];

export function connected(sockfd: Sockfd, peer: Peer): void {
  counts.set(sockfd, peer.protocol === "tcp" ? 0 : -1);
}

export async function request(sockfd: Sockfd, message: Message, apo: AppVerbs): Promise<void> {
  const count = (counts.get(sockfd) ?? -100) + 1;
  counts.set(sockfd, count);
  const text = message.text();
  if (text === "throw") throw new Error("as told");
  // Ends the whole thread, not only the handler.
  if (text === "die") setImmediate(() => process.exit(3));
  if (text === "ends") await apo.sendto(sockfd, ends.join(","));
  else if (text === "alarms") await apo.sendto(sockfd, alarms.join(","));
  else await apo.sendto(sockfd, `${threadId} ${count} ${text}`);
}

export function closed(sockfd: Sockfd, reason: CloseReason): void {
  counts.delete(sockfd);
  ends.push(reason.code);
}

export function alarm(told: Alarm): void {
  alarms.push(told.code);
}
